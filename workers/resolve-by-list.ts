/**
 * Resolves unclear items by evidence: reads the provider's list, once for all of an account, and decides by what it shows.
 *
 * What can only be an unclear item's prediction is bound to it, and followed and saved like any other, also where it has
 * ended. What surely isn't there, which only a clean sweep can say, is sent again, held or failed, as the account's policy
 * has it. Everything in doubt is held, until the next sweep or a person knows better.
 * Where a provider has no list, unclear items wait for a person.
 *
 * If this process dies:
 *   before a step         nothing has happened; the next sweep decides again.
 *   after a bind          the item runs; a later sweep that shows its end gives it its errand, if that was lost, or the keeper.
 *   after a give-back     the item waits, and the feed gives it out.
 * Every step names the intent that it was decided for: where another has been written since, it changes nothing.
 */

import { claimFields } from "../src/batches/claim-fields.ts";
import { inputDigest } from "../src/batches/input-digest.ts";
import { CANCELED_BY_A_PERSON, type Withdrawal } from "../src/batches/withdraw-item.ts";
import type { StoredRow } from "../src/bucket/input-parts.ts";
import type { AccountName, AttemptRef } from "../src/core/naming.ts";
import { errandId } from "../src/core/naming.ts";
import type { PredictionId } from "../src/core/prediction.ts";
import type { Ending } from "../src/core/receipt.ts";
import { type Intent, type ListedPrediction, resolveUnclear } from "../src/core/resolving.ts";
import { isClean, latestAfterIntentMs, mayBeClean, type SweepPolicy, sweptSpan } from "../src/core/sweeping.ts";
import { MINUTE } from "../src/core/time.ts";
import { NoReadLeft } from "../src/gates/gated-provider.ts";
import type { MoveAnswer, MoveOptions, OpenIntent, RedisIdentity } from "../src/ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../src/providers/provider.ts";

/** What becomes of an item whose request surely never arrived. */
export type UnclearPolicy = "resend" | "hold" | "fail";

export type ResolveDeps = {
  readonly account: AccountName;
  /** Throws `NoReadLeft` where the account may not read, and won't in a while. */
  readonly provider: Pick<Provider, "list">;
  readonly intents: (
    account: AccountName,
    which: "unclear" | "claimed",
    limit: number,
  ) => Promise<readonly OpenIntent[]>;
  /** The Redis that the account is open on, if this is it: another may have lost which predictions are held. */
  readonly openOn: (account: AccountName) => Promise<RedisIdentity | null>;
  readonly readRow: (ref: AttemptRef) => Promise<StoredRow>;
  readonly holdersAmong: (
    account: AccountName,
    predictions: readonly PredictionId[],
    nowMs: number,
  ) => Promise<ReadonlyMap<PredictionId, string>>;
  readonly move: (ref: AttemptRef, step: "bind" | "giveBack" | "refuse", options: MoveOptions) => Promise<MoveAnswer>;
  /** Does what follows the end of an item that a person had canceled. */
  readonly withdraw: (ref: AttemptRef, row: StoredRow, why: Withdrawal) => Promise<MoveAnswer>;
  readonly keepEnding: (ref: AttemptRef, ending: Ending) => Promise<string>;
  readonly enqueueFollow: (
    ref: AttemptRef,
    prediction: { readonly id: PredictionId; readonly startedAtMs: number; readonly deadlineAtMs: number | null },
    delayMs: number,
  ) => Promise<void>;
  readonly enqueueRecord: (ref: AttemptRef) => Promise<void>;
  readonly wakeFeed: (account: AccountName) => Promise<void>;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly policy: SweepPolicy;
  readonly whenAbsent: UnclearPolicy;
  readonly clock: () => number;
};

/** The feed halts at twenty unclear items; more can come from claims that Redis lost. */
const MAX_INTENTS = 10_000;
/** A hundred predictions each: more than the longest span can hold at ten creates a second. */
const MAX_PAGES = 500;
const READS_AT_ONCE = 32;
/** The provider's clock and ours may be so far apart, before a sweep knows it. */
const CLOCKS_APART_MS = 10 * MINUTE;

type Sent = Intent<OpenIntent>;

export async function resolveByList(deps: ResolveDeps, signal: AbortSignal): Promise<void> {
  // Asked first and last: while an account is being opened, what is bound and what is unclear isn't known yet.
  const openOn = await deps.openOn(deps.account);
  if (openOn === null) return;
  const open = await deps.intents(deps.account, "unclear", MAX_INTENTS);
  if (open.length === 0) return;

  const sweep = await readList(open, deps, signal);
  if (sweep === null) return;
  // Read after the list: a request that was answered meanwhile has its prediction bound by now. And those on their way
  // first: one that becomes unclear in between is seen twice, and never not at all.
  const unanswered = await withRows(await deps.intents(deps.account, "claimed", MAX_INTENTS), sweep.offsetMs, deps);
  const unclear = await withRows(await deps.intents(deps.account, "unclear", MAX_INTENTS), sweep.offsetMs, deps);
  // What the list shows may be its own.
  if (unanswered === null || unclear === null) return;
  const bound = await deps.holdersAmong(
    deps.account,
    sweep.listed.map(({ id }) => id),
    deps.clock(),
  );
  if ((await deps.openOn(deps.account)) !== openOn) return;
  const swept = new Set(open.map(({ ref, nonce }) => `${errandId(ref)} ${nonce}`));
  const resolution = resolveUnclear<OpenIntent>({
    unclear: unclear.filter(({ key }) => swept.has(`${errandId(key.ref)} ${key.nonce}`)),
    // One that became unclear since the list was asked for is in no sweep yet, and may own what the list shows.
    unanswered: [...unanswered, ...unclear.filter(({ key }) => !swept.has(`${errandId(key.ref)} ${key.nonce}`))],
    unbound: sweep.listed.filter(({ id }) => !bound.has(id)),
    isClean: (intent) => sweep.complete && isClean(intent, sweep.readAtMs, deps.policy),
    mayBeClean: (intent) => mayBeClean(intent, sweep.readAtMs, deps.policy),
    earliestMs: deps.policy.skewMs,
    latestMs: latestAfterIntentMs(deps.policy),
  });
  for (const { key, prediction } of resolution.bound) await bind(key, prediction, deps);
  for (const intent of resolution.absent) await settleAbsent(intent, deps);
}

type Sweep = {
  /** But for those that an attempt held when their page was read. */
  readonly listed: readonly ListedPrediction[];
  /** Whether every page of the span was read. */
  readonly complete: boolean;
  /** When reading began, on the provider's clock. */
  readonly readAtMs: number;
  /** To be added to a moment on our clock to get the provider's. */
  readonly offsetMs: number;
};

/** Null: there is nothing that a list can prove any more, or it can't be read now. */
async function readList(open: readonly OpenIntent[], deps: ResolveDeps, signal: AbortSignal): Promise<Sweep | null> {
  const { provider, policy, clock } = deps;
  const startedAtMs = clock();
  const listed: ListedPrediction[] = [];
  const span = sweptSpan(open, startedAtMs, policy);
  if (span === null) return null;
  const query = { after: iso(span.afterMs - CLOCKS_APART_MS), before: iso(span.beforeMs + CLOCKS_APART_MS) };
  let offsetMs = 0;
  let next: string | undefined;
  try {
    for (let page = 0; page < MAX_PAGES; page++) {
      const answer = await provider.list?.(next === undefined ? query : { next }, signal);
      if (answer === undefined) return null;
      if (page === 0) {
        // Without its word on the time, the provider's clock is believed to be ours.
        const serverMs = answer.serverDate?.getTime() ?? startedAtMs;
        if (Math.abs(serverMs - startedAtMs) > CLOCKS_APART_MS) {
          deps.warn(
            { account: deps.account, byMs: serverMs - startedAtMs },
            "the provider's clock is far from ours; unclear items are held",
          );
          return null;
        }
        offsetMs = serverMs - startedAtMs;
      }
      // Nearly all are held, and stay so: what a span shows, inputs and all, may be more than memory holds.
      const ids = answer.predictions.map(({ id }) => id);
      const held = await deps.holdersAmong(deps.account, ids, clock());
      for (const { id, createdAt } of answer.predictions) {
        if (!held.has(id)) listed.push({ id, input: answer.inputs.get(id), createdAtMs: Date.parse(createdAt ?? "") });
      }
      next = answer.next;
      if (next === undefined) return { listed, complete: true, readAtMs: startedAtMs + offsetMs, offsetMs };
    }
  } catch (error) {
    if (!(error instanceof ProviderError || error instanceof ProviderAnswerError)) throw error;
    if (!(error instanceof NoReadLeft)) {
      deps.warn({ account: deps.account, err: error }, "the provider's list can't be read now; unclear items are held");
    }
    return null;
  }
  return { listed, complete: false, readAtMs: startedAtMs + offsetMs, offsetMs };
}

function onProvidersClock({ fromMs, toMs }: OpenIntent, offsetMs: number): { fromMs: number; toMs: number } {
  return { fromMs: fromMs + offsetMs, toMs: toMs + offsetMs };
}

/** Null: a row of theirs can't be read now, which is told. */
async function withRows(
  intents: readonly OpenIntent[],
  offsetMs: number,
  deps: ResolveDeps,
): Promise<readonly Sent[] | null> {
  const sent: Sent[] = [];
  for (let at = 0; at < intents.length; at += READS_AT_ONCE) {
    const some = intents.slice(at, at + READS_AT_ONCE).map(async (intent) => {
      const row = await deps.readRow(intent.ref);
      return { key: intent, digest: inputDigest(row), input: row.input, ...onProvidersClock(intent, offsetMs) };
    });
    try {
      sent.push(...(await Promise.all(some)));
    } catch (err) {
      deps.warn(
        { account: deps.account, err },
        "unclear items wait: an input of theirs, or beside them, can't be read",
      );
      return null;
    }
  }
  return sent;
}

async function bind({ ref, nonce, toMs }: OpenIntent, prediction: PredictionId, deps: ResolveDeps): Promise<void> {
  const row = await deps.readRow(ref);
  const moved = await deps.move(ref, "bind", {
    nowMs: deps.clock(),
    predictionId: prediction,
    // What the claim had written may be lost with it.
    set: { ...claimFields(row), by_list: "1" },
    ...(nonce !== null && { nonce }),
  });
  if (moved.answer !== "moved" && moved.answer !== "already") return;
  deps.warn({ item: errandId(ref), prediction }, "an unclear item's prediction was found on the provider's list");
  const deadlineAtMs = row.deadline === undefined ? null : Date.parse(row.deadline);
  await deps.enqueueFollow(ref, { id: prediction, startedAtMs: toMs, deadlineAtMs }, 0);
}

async function settleAbsent({ ref, nonce }: OpenIntent, deps: ResolveDeps): Promise<void> {
  const named = { nowMs: deps.clock(), ...(nonce !== null && { nonce }) };
  switch (deps.whenAbsent) {
    case "hold":
      return;
    case "resend": {
      const moved = await deps.move(ref, "giveBack", named);
      if (moved.answer === "canceled") {
        await deps.withdraw(ref, await deps.readRow(ref), CANCELED_BY_A_PERSON);
        return;
      }
      if (moved.answer !== "moved") return;
      deps.warn({ item: errandId(ref) }, "an unclear item's request surely never arrived; it is sent again");
      return deps.wakeFeed(deps.account);
    }
    case "fail": {
      const error =
        "its request was never answered, and surely never arrived; the account's policy is not to send it again";
      const ending: Ending = { end: "failed", error, answer: null, copied: [] };
      // What the claim had written may be lost with it.
      const set = { ...claimFields(await deps.readRow(ref)), ending: await deps.keepEnding(ref, ending) };
      const moved = await deps.move(ref, "refuse", { ...named, set });
      if (moved.answer !== "lost") await deps.enqueueRecord(ref);
      return;
    }
    default:
      deps.whenAbsent satisfies never;
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
