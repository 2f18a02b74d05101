/**
 * Connections to places whose URLs come from outside: a provider's files, a client's webhook. Every one is judged as
 * it is made: its host against a list, and each address that its name resolved to, in the very lookup whose answer is
 * connected to - so a name that changes its answer between a check and its use gains nothing, and no caller can
 * forget the check.
 */

import dns from "node:dns";
import { isIPv6, type LookupFunction } from "node:net";
import { Agent, buildConnector, type Dispatcher } from "undici";
import { addressFault, type HostRule, judgeUrl, type UrlVerdict } from "./addresses.ts";

export type GuardedAgent = {
  readonly dispatcher: Dispatcher;
  /** Whether a URL may be asked, as far as its text tells: for a refusal in words before anything is sent. */
  readonly judge: (url: URL) => UrlVerdict;
  close(): Promise<void>;
};

export type GuardedAgentOptions = {
  readonly hosts: readonly HostRule[];
  /** The setting that names more hosts, for whoever is refused. */
  readonly setting: string;
  readonly timeouts: {
    readonly connectMs: number;
    /** From the request to the answer's headers. */
    readonly headersMs: number;
    /** Between two chunks of a body. */
    readonly idleMs: number;
  };
  /** Who resolves names; Node's own unless told otherwise. */
  readonly resolve?: (hostname: string) => Promise<readonly { readonly address: string; readonly family: number }[]>;
  /** Certificates to trust instead of the usual ones. */
  readonly ca?: string;
};

/** Connections kept to one host; more requests at once wait for them. */
const CONNECTIONS = 64;

/** Of an answer that nobody reads, so much is taken in, to keep its connection usable. */
const DISCARDED_BYTES = 16_384;

/** Thrown inside a connection attempt; the caller says what was attempted. */
export class RefusedAddress extends Error {
  override readonly name = "RefusedAddress";
}

export function openGuardedAgent({ hosts, setting, timeouts, resolve, ca }: GuardedAgentOptions): GuardedAgent {
  const judge = (url: URL) => judgeUrl(url, hosts, setting);
  const connector = (privateToo: boolean): buildConnector.connector =>
    buildConnector({
      allowH2: false,
      timeout: timeouts.connectMs,
      autoSelectFamily: true,
      lookup: guardedLookup(resolve ?? resolveByNode, privateToo),
      ...(ca === undefined ? {} : { ca }),
    });
  const toPublic = connector(false);
  const toPrivateToo = connector(true);

  const connect: buildConnector.connector = (target, callback) => {
    const host = isIPv6(target.hostname) ? `[${target.hostname}]` : target.hostname;
    const url = URL.parse(`${target.protocol}//${host}${target.port === "" ? "" : `:${target.port}`}/`);
    const verdict = url === null ? null : judge(url);
    if (verdict?.kind !== "allowed") {
      callback(new RefusedAddress(verdict?.reason ?? `${target.hostname} isn't a host`), null);
      return;
    }
    (verdict.privateToo ? toPrivateToo : toPublic)(target, callback);
  };

  const dispatcher = new Agent({
    connect,
    allowH2: false,
    pipelining: 1,
    connections: CONNECTIONS,
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.idleMs,
  });
  return { dispatcher, judge, close: async () => dispatcher.destroy() };
}

/** Lets go of an answer that nobody will read; a short one leaves its connection usable. */
export function discard(answer: Dispatcher.ResponseData): void {
  answer.body.dump({ limit: DISCARDED_BYTES }).catch(() => undefined);
}

/** Node calls it for names; for an address written in the URL it doesn't, and `judgeUrl` has seen that. */
function guardedLookup(resolve: NonNullable<GuardedAgentOptions["resolve"]>, privateToo: boolean): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname).then(
      (addresses) => {
        // One bad address refuses the name: which of them would be connected to is chance.
        for (const { address } of addresses) {
          const fault = addressFault(address, privateToo);
          if (fault !== null)
            return callback(new RefusedAddress(`${hostname} leads to a place that isn't allowed: ${fault}`), []);
        }
        const [first] = addresses;
        if (first === undefined)
          return callback(Object.assign(new Error(`${hostname} has no address`), { code: "ENOTFOUND" }), []);
        return options.all ? callback(null, [...addresses]) : callback(null, first.address, first.family);
      },
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), []),
    );
  };
}

async function resolveByNode(hostname: string): Promise<readonly dns.LookupAddress[]> {
  return dns.promises.lookup(hostname, { all: true });
}
