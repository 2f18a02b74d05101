/**
 * `POST /v1/webhooks/<account>/<errand>/<nonce>`: where providers report that a prediction has ended. The address names
 * the attempt and its intent, so a call finds its item also where nobody knows the prediction yet. What it then does is
 * `batches/take-webhook.ts`; a lost call costs time, never correctness.
 *
 * No key: the signature is the proof, over the body as it came, by the secret that the account's provider gives out.
 *
 * Providers repeat a call that isn't answered 2xx, for about a minute. So 2xx goes to all that is proven to be the
 * provider's, also where it is of no use: it would come again just as useless. What isn't proven is refused (401): a
 * repetition may meet a secret that was rotated, or a clock that was set. So may it meet a Redis that is back, or one that
 * is rebuilt and knows the item again (503). A body that is too large (413) is refused too, since whoever looks at the
 * provider's side should see why.
 */

import type { FastifyPluginAsync, FastifyRequest } from "fastify";
import { type TakeDeps, takeWebhook, type WebhookOutcome } from "../batches/take-webhook.ts";
import { type AccountName, type AttemptRef, errandId, parseErrandId } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";
import { openSecretCache, type SecretCache } from "../webhooks/secret-cache.ts";
import { SELF_CALL_PATH, selfCallAnswer } from "../webhooks/self-call.ts";
import { type SignatureFault, signatureFault } from "../webhooks/verify.ts";
import { HttpProblem, sendOutage, sendProblem } from "./problems.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Which account's webhook it is, and what came of it. */
    webhook: {
      readonly account: AccountName;
      outcome: WebhookOutcome | "unreadable" | `refused:${string}` | null;
    } | null;
  }
}

export type WebhookDeps = {
  readonly accounts: readonly { readonly name: AccountName }[];
  /** Of the accounts that have a token here. */
  readonly providers: ReadonlyMap<AccountName, Pick<Provider, "cancel" | "webhookSecret" | "readWebhook">>;
  readonly taking: Omit<TakeDeps, "provider" | "inASecond">;
  /** What the fleet alone knows. */
  readonly selfSecret: () => Promise<Buffer>;
  readonly count: (account: AccountName, outcome: string) => Promise<void>;
  /** How often a provider's secret may be asked for. */
  readonly secretPauseMs?: number;
};

/** A row's input has at most 1 MiB and comes back with output and logs; what is larger than this is a poll's. */
const MAX_WEBHOOK_BYTES = 4 * 1024 * 1024;
const MAX_CHALLENGE_BYTES = 200;
const SECRET_PAUSE_MS = 30 * SECOND;
/** The caller waits for it, and gives us a few seconds. */
const SECRET_DEADLINE_MS = 4 * SECOND;
/** Wakes to be repeated; one more is left out, and its item polled in its time. */
const MAX_REPEATS = 10_000;

const REFUSED: Readonly<Record<number, string>> = {
  400: "malformed",
  408: "slow",
  413: "size",
  415: "type",
  503: "outage",
};

const FAULTS: Readonly<Record<SignatureFault, string>> = {
  unsigned: "this takes calls that are signed: webhook-id, webhook-timestamp, webhook-signature",
  timestamp: "this was signed too long ago, or in the future",
  signature: "the signature doesn't hold",
};

type Speaker = {
  readonly read: NonNullable<Provider["readWebhook"]>;
  readonly secrets: SecretCache;
  readonly provider: Pick<Provider, "cancel">;
};

type Address = { readonly account: string; readonly errand: string; readonly nonce: string };

export function webhookRoutes(deps: WebhookDeps): FastifyPluginAsync {
  return async (app) => {
    const repeats = new Set<NodeJS.Timeout>();
    const speakers = new Map<AccountName, Speaker>();
    for (const [name, provider] of deps.providers) {
      const speaker = speakerOf(name, provider, deps);
      if (speaker !== null) speakers.set(name, speaker);
    }

    function inASecond(what: () => Promise<unknown>): void {
      if (repeats.size >= MAX_REPEATS) return;
      const timer = setTimeout(() => {
        repeats.delete(timer);
        what().catch(() => undefined); // only a wake: the poll comes by itself
      }, SECOND);
      repeats.add(timer);
    }

    app.decorateRequest("webhook", null);
    app.addHook("onClose", async () => {
      for (const timer of repeats) clearTimeout(timer);
    });
    app.addHook("onResponse", async ({ webhook }, { statusCode }) => {
      if (webhook === null) return;
      const refused = REFUSED[statusCode];
      const outcome = webhook.outcome ?? (refused === undefined ? null : `refused:${refused}`);
      if (outcome !== null) await deps.count(webhook.account, outcome).catch(() => undefined);
    });

    app.post(
      SELF_CALL_PATH,
      { config: { anyHost: true, textBytes: MAX_CHALLENGE_BYTES }, schema: { hide: true } },
      async (request) => selfCallAnswer(await deps.selfSecret(), String(request.body)),
    );

    app.post<{ Params: Address }>(
      "/v1/webhooks/:account/:errand/:nonce",
      {
        config: { anyHost: true, textBytes: MAX_WEBHOOK_BYTES },
        schema: { hide: true },
        // Before its body is read.
        async onRequest(request, reply) {
          const { account: name, errand } = request.params;
          const account = deps.accounts.find((one) => one.name === name)?.name;
          if (account === undefined) return sendProblem(reply, 404, "there is no such account here");
          request.webhook = { account, outcome: null };
          if (!deps.providers.has(account)) {
            return sendOutage(reply, "this server has no token of the account, and can't tell whose call this is");
          }
          if (!speakers.has(account)) return sendProblem(reply, 404, "the account's provider has no webhooks");
          if (parseErrandId(errand) === null) return refuse(request, 404, "address", "this is no address of ours");
        },
      },
      async (request, reply) => {
        const { webhook, params, body, headers } = request;
        const errand = parseErrandId(params.errand);
        const speaker = webhook === null ? undefined : speakers.get(webhook.account);
        if (webhook === null || errand === null || speaker === undefined) throw new Error("refused before");

        const text = typeof body === "string" ? body : "";
        const fault = await faultOf({ headers, body: text }, speaker.secrets);
        if (fault !== null) refuse(request, 401, fault, FAULTS[fault]);
        const read = speaker.read(parsed(text));
        const ref = { account: webhook.account, ...errand };
        webhook.outcome = read === null ? "unreadable" : await take(ref, params.nonce, read, speaker);
        if (read === null) {
          deps.taking.warn({ item: errandId(ref) }, "a webhook of the provider's tells of no prediction");
        }
        if (webhook.outcome === "unknown") return sendOutage(reply, "nothing is known here of the item, at the moment");
        return { status: webhook.outcome };
      },
    );

    function take(
      ref: AttemptRef,
      nonce: string,
      { prediction, input }: NonNullable<ReturnType<Speaker["read"]>>,
      { provider }: Speaker,
    ): Promise<WebhookOutcome> {
      return takeWebhook({ ref, nonce, prediction, input }, { ...deps.taking, provider, inASecond });
    }
  };
}

/** Null: the provider has no webhooks. */
function speakerOf(
  account: AccountName,
  provider: Pick<Provider, "cancel" | "webhookSecret" | "readWebhook">,
  { taking, secretPauseMs = SECRET_PAUSE_MS }: WebhookDeps,
): Speaker | null {
  const { readWebhook, webhookSecret } = provider;
  if (webhookSecret === undefined || readWebhook === undefined) return null;
  const readSecret = async () => {
    try {
      return await webhookSecret(AbortSignal.timeout(SECRET_DEADLINE_MS));
    } catch (error) {
      taking.warn({ account, err: error }, "webhooks can't be told from forgeries now: their secret can't be had");
      throw error;
    }
  };
  const secrets = openSecretCache(readSecret, { pauseMs: secretPauseMs, clock: taking.clock });
  return { read: (body) => readWebhook(body), secrets, provider };
}

async function faultOf(
  call: Parameters<typeof signatureFault>[0],
  secrets: SecretCache,
): Promise<SignatureFault | null> {
  const secret = await secrets.current().catch((error: unknown) => {
    if (!(error instanceof ProviderError || error instanceof ProviderAnswerError)) throw error;
    throw new HttpProblem(503, "the secret that this should be signed with can't be had now", {
      retryAfterSeconds: 5,
    });
  });
  const fault = signatureFault(call, secret);
  if (fault !== "signature") return fault;
  const now = await secrets.renewed().catch(() => secret);
  return now === secret ? fault : signatureFault(call, now);
}

function refuse(request: FastifyRequest, status: number, why: string, detail: string): never {
  if (request.webhook !== null) request.webhook.outcome = `refused:${why}`;
  throw new HttpProblem(status, detail);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
