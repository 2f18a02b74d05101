/**
 * The connections downloads go over. Every one is judged as it is made: its host against the list, and each address
 * that its name resolved to, in the very lookup whose answer is connected to - so a name that changes its answer
 * between a check and its use gains nothing, and no caller can forget the check.
 */

import dns from "node:dns";
import { isIPv6, type LookupFunction } from "node:net";
import { Agent, buildConnector, type Dispatcher } from "undici";
import { MINUTE, SECOND } from "../core/time.ts";
import { addressFault, type HostRule, judgeUrl } from "./addresses.ts";

export type DownloadAgent = {
  readonly hosts: readonly HostRule[];
  readonly dispatcher: Dispatcher;
  readonly timeouts: DownloadTimeouts;
  close(): Promise<void>;
};

export type DownloadTimeouts = {
  readonly connectMs: number;
  /** From the request to the answer's headers. */
  readonly headersMs: number;
  /** Between two chunks of a body. */
  readonly idleMs: number;
  /** A whole download, its resumptions included: a body that drips for ever ends too. */
  readonly totalMs: number;
};

export type DownloadAgentOptions = {
  readonly hosts: readonly HostRule[];
  readonly timeouts?: Partial<DownloadTimeouts>;
  /** Who resolves names; Node's own unless told otherwise. */
  readonly resolve?: (hostname: string) => Promise<readonly { readonly address: string; readonly family: number }[]>;
  /** Certificates to trust instead of the usual ones. */
  readonly ca?: string;
};

/** Connections kept to one host; more downloads at once wait for them. */
const CONNECTIONS = 64;

/** Thrown inside a connection attempt; `openDownload` makes it a DownloadError. */
export class RefusedAddress extends Error {
  override readonly name = "RefusedAddress";
}

export function openDownloadAgent(options: DownloadAgentOptions): DownloadAgent {
  const timeouts: DownloadTimeouts = {
    connectMs: 10 * SECOND,
    headersMs: 30 * SECOND,
    idleMs: 30 * SECOND,
    totalMs: 30 * MINUTE,
    ...options.timeouts,
  };
  const connector = (privateToo: boolean): buildConnector.connector =>
    buildConnector({
      allowH2: false,
      timeout: timeouts.connectMs,
      autoSelectFamily: true,
      lookup: guardedLookup(options.resolve ?? resolveByNode, privateToo),
      ...(options.ca === undefined ? {} : { ca: options.ca }),
    });
  const toPublic = connector(false);
  const toPrivateToo = connector(true);

  const connect: buildConnector.connector = (target, callback) => {
    const host = isIPv6(target.hostname) ? `[${target.hostname}]` : target.hostname;
    const url = URL.parse(`${target.protocol}//${host}${target.port === "" ? "" : `:${target.port}`}/`);
    const verdict = url === null ? null : judgeUrl(url, options.hosts);
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
  return { hosts: options.hosts, dispatcher, timeouts, close: async () => dispatcher.destroy() };
}

/** Node calls it for names; for an address written in the URL it doesn't, and `judgeUrl` has seen that. */
function guardedLookup(resolve: NonNullable<DownloadAgentOptions["resolve"]>, privateToo: boolean): LookupFunction {
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
