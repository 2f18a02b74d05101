/**
 * Learns from the provider's list which predictions have ended, a hundred a request, and wakes them: their next poll
 * comes now, and decides. The polls of what the list shows running are put off, since the next sweep tells more.
 *
 * It reads of the list what may have ended lately, newest first, until all that is in flight was seen, its share of the
 * account's reads is used up, or those beside polls are spent by others. What is older is left to single polls. How far it
 * came, and until when that may be relied on, is noted for those who decide when to poll. Providers without a list are
 * polled singly.
 *
 * If this process dies, nothing is lost: the next sweep reads again, and what nobody sweeps any more is polled singly.
 */

import type { Deferral } from "../src/batches/defer-polls.ts";
import { UNTOUCHED_MS } from "../src/core/keeping.ts";
import { type AccountName, type AttemptRef, errandId, parseErrandId } from "../src/core/naming.ts";
import type { Prediction, PredictionId } from "../src/core/prediction.ts";
import type { LearnedRuns } from "../src/core/run-times.ts";
import { MINUTE, SECOND } from "../src/core/time.ts";
import { pageGapMs, pagesAtMost, type SweptAges, sweepPauseMs, sweptAges } from "../src/core/waking.ts";
import { NoReadLeft } from "../src/gates/gated-provider.ts";
import type { RunningItem, SweepNote } from "../src/ledger/ledger.ts";
import { type ListPage, type Provider, ProviderAnswerError, ProviderError } from "../src/providers/provider.ts";

export type WakeDeps = {
  readonly account: AccountName;
  /** Throws `NoReadLeft` where the account may not read, and won't in a while. */
  readonly provider: Pick<Provider, "list">;
  readonly known: () => Promise<{ readonly learned: LearnedRuns; readonly toldAtMs: number }>;
  /** What the account may read now, for all purposes. */
  readonly readsPerMinute: () => Promise<number>;
  /** How many of the account's predictions may be running that were bought between two moments. */
  readonly inFlight: (account: AccountName, fromMs: number, toMs: number) => Promise<number>;
  readonly holdersAmong: (
    account: AccountName,
    predictions: readonly PredictionId[],
    nowMs: number,
  ) => Promise<ReadonlyMap<PredictionId, string>>;
  readonly runningAmong: (refs: readonly AttemptRef[]) => Promise<readonly RunningItem[]>;
  readonly markItem: (ref: AttemptRef, mark: "wake" | "status" | "started_at", value: string) => Promise<unknown>;
  readonly wakeFollow: (ref: AttemptRef) => Promise<boolean>;
  /** Gives it the errand, if it runs and nobody has it: whoever bound it may have died before. */
  readonly giveFollow: (ref: AttemptRef) => Promise<void>;
  /** Puts the polls off that would come before the sweep after the next. */
  readonly deferPolls: (account: AccountName, refs: readonly AttemptRef[], by: Deferral) => Promise<void>;
  readonly noteSwept: (account: AccountName, note: SweepNote, woken: number) => Promise<void>;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly pause: (ms: number) => Promise<unknown>;
  readonly clock: () => number;
};

/** What a process remembers from sweep to sweep; the next one begins anew. */
export type WakeMemory = {
  /** To be added to a moment on our clock to get the provider's; null: not known yet. */
  offsetMs: number | null;
  pauseMs: number;
  failing: boolean;
};

export const NOTHING_SEEN: WakeMemory = { offsetMs: null, pauseMs: SECOND, failing: false };

/** So often is it looked whether something is in flight. Nothing is asked of the provider. */
const IDLE_MS = 2 * SECOND;
const FAILED_MS = 15 * SECOND;
/** Pages that wait for their turn as long as this are too late: what they would tell is polled for. */
const LONGEST_SWEEP_MS = 15 * SECOND;
/** Clocks are read in whole seconds, and requests take their time. */
const CLOCK_GRAIN_MS = 3 * SECOND;
const RUNNING: ReadonlySet<string> = new Set(["starting", "processing", "unknown"]);
/** So long after the last create that asked for one, webhooks are still expected. */
const TOLD_LATELY_MS = 5 * MINUTE;

/** Answers when the next one is to begin: so long after this one did. */
export async function wakeByList(deps: WakeDeps, memory: WakeMemory, signal: AbortSignal): Promise<number> {
  const { account } = deps;
  const startedAtMs = deps.clock();
  const { learned, toldAtMs } = await deps.known();
  const ages = sweptAges(learned);
  // Rather some too many: else it stops before it has seen the oldest, which are the next to end.
  const youngestMs = startedAtMs - Math.max(ages.fromMs - 2 * CLOCK_GRAIN_MS, 0);
  const oldestMs = startedAtMs - ages.toMs - CLOCK_GRAIN_MS;
  const inFlight = await deps.inFlight(account, oldestMs, youngestMs);
  // What stands for long is touched by the keeper, and doesn't show its age any more: then nothing is too young to count.
  const sought = ages.toMs > UNTOUCHED_MS ? await deps.inFlight(account, oldestMs, startedAtMs) : inFlight;
  if (sought === 0) {
    // Whatever is bought next will be swept.
    if (!memory.failing) await note(deps, { pauseMs: IDLE_MS, pages: 0, toAgeMs: ages.toMs }, 0);
    return IDLE_MS;
  }

  const readsPerMinute = await deps.readsPerMinute();
  let swept: Swept;
  try {
    swept = await sweep({ startedAtMs, ages, sought, readsPerMinute }, deps, memory, signal);
  } catch (error) {
    return pauseAfter(error, deps, memory);
  }
  memory.failing = false;
  const { pages, woken, toAgeMs } = swept;
  const besideWebhooks = startedAtMs - toldAtMs < TOLD_LATELY_MS;
  memory.pauseMs = sweepPauseMs({ inFlight: Math.max(inFlight, 1), pages, learned, besideWebhooks, readsPerMinute });
  await note(deps, { pauseMs: memory.pauseMs, pages, toAgeMs }, woken);
  return memory.pauseMs;
}

type Sweep = {
  readonly startedAtMs: number;
  readonly ages: SweptAges;
  /** How many that run there are to be seen, at most. */
  readonly sought: number;
  readonly readsPerMinute: number;
};

/** `toAgeMs`: up to which age it shows all. */
type Swept = { readonly pages: number; readonly woken: number; readonly toAgeMs: number };

async function sweep(
  { startedAtMs, ages, sought, readsPerMinute }: Sweep,
  deps: WakeDeps,
  memory: WakeMemory,
  signal: AbortSignal,
): Promise<Swept> {
  const maxPages = pagesAtMost(readsPerMinute);
  let pages = 0;
  let found = 0;
  let woken = 0;
  let oldestMs = startedAtMs;
  let next: string | undefined;
  const soFar = () => ({ pages, woken, toAgeMs: Math.min(startedAtMs - oldestMs, ages.toMs) });
  while (pages < maxPages && deps.clock() - startedAtMs < LONGEST_SWEEP_MS) {
    let page: ListPage;
    try {
      page = await readPage(next, { ages, startedAtMs }, deps, memory, signal);
    } catch (error) {
      if (error instanceof NoReadLeft && pages > 0) return soFar();
      throw error;
    }
    pages++;
    const acted = await actOn(page, ages.toMs, deps, memory);
    found += acted.found;
    woken += acted.woken;
    const lastMs = Date.parse(page.predictions.at(-1)?.createdAt ?? "") - (memory.offsetMs ?? 0);
    if (!Number.isNaN(lastMs)) oldestMs = Math.min(oldestMs, lastMs);
    next = page.next;
    if (next === undefined || found >= sought) return { pages, woken, toAgeMs: ages.toMs };
    const gapMs = pageGapMs(acted.woken, readsPerMinute);
    if (gapMs > 0) await deps.pause(gapMs);
  }
  return soFar();
}

/** Nothing was read, or what was can't be relied on: the last sweep's note runs out. */
function pauseAfter(error: unknown, { account, warn }: WakeDeps, memory: WakeMemory): number {
  if (error instanceof NoReadLeft) return error.waitMs;
  if (!(error instanceof ProviderError || error instanceof ProviderAnswerError)) throw error;
  if (!memory.failing) warn({ account, err: error }, "the provider's list can't be read now; ends are polled for");
  memory.failing = true;
  return Math.max(FAILED_MS, error instanceof ProviderError ? (error.retryAfterMs ?? 0) : 0);
}

async function readPage(
  next: string | undefined,
  { ages, startedAtMs }: Pick<Sweep, "ages" | "startedAtMs">,
  { provider }: WakeDeps,
  memory: WakeMemory,
  signal: AbortSignal,
): Promise<ListPage> {
  const onItsClock = startedAtMs + (memory.offsetMs ?? 0);
  const query = {
    // Without its word on the time, nothing is left out.
    ...(memory.offsetMs !== null && {
      after: iso(onItsClock - ages.toMs - CLOCK_GRAIN_MS),
      ...(ages.fromMs > CLOCK_GRAIN_MS && { before: iso(onItsClock - ages.fromMs + CLOCK_GRAIN_MS) }),
    }),
  };
  const page = await provider.list?.(next === undefined ? query : { next }, signal);
  if (page === undefined) throw new Error("a provider without a list isn't swept");
  if (page.serverDate !== undefined && next === undefined) memory.offsetMs = page.serverDate.getTime() - startedAtMs;
  return page;
}

/** `found`: how many of ours that hadn't ended, as far as we knew, it shows. */
type Acted = { readonly found: number; readonly woken: number };

async function actOn(page: ListPage, reachMs: number, deps: WakeDeps, memory: WakeMemory): Promise<Acted> {
  const { account } = deps;
  const holders = await deps.holdersAmong(
    account,
    page.predictions.map(({ id }) => id),
    deps.clock(),
  );
  const shown = new Map<string, Prediction>();
  for (const prediction of page.predictions) {
    const holder = holders.get(prediction.id);
    if (holder !== undefined) shown.set(holder, prediction);
  }
  const refs = [...shown.keys()].flatMap((text) => {
    const ref = parseErrandId(text);
    return ref === null ? [] : [{ account, ...ref }];
  });
  const running = await deps.runningAmong(refs);
  const ended = (ref: AttemptRef): boolean => !RUNNING.has(shown.get(errandId(ref))?.status ?? "unknown");
  // A success whose output isn't whole is polled soon anyway.
  // A wake that is refused, since a poll runs at this moment, is repeated by the next sweep, if that poll saw no end.
  // Or there is no errand to be brought forward.
  const over = running.filter(({ ref, incomplete }) => ended(ref) && !incomplete);
  await Promise.all(
    over.map(async ({ ref }) => {
      await deps.markItem(ref, "wake", "sweep");
      if (!(await deps.wakeFollow(ref))) await deps.giveFollow(ref);
    }),
  );
  // For whoever asks how it stands; once, since it stays so until it ends.
  await Promise.all(
    running.map(async ({ ref, ...seen }) => {
      const { status, startedAt = null } = shown.get(errandId(ref)) ?? {};
      if (status !== "processing") return;
      if (startedAt !== null && seen.startedAt === null) await deps.markItem(ref, "started_at", startedAt);
      if (seen.status !== status) await deps.markItem(ref, "status", status);
    }),
  );
  // Who was asked something of is polled when that was meant.
  const patient = running.filter(({ ref, marked }) => !marked && !ended(ref)).map(({ ref }) => ref);
  const { pauseMs } = memory;
  if (patient.length > 0) {
    await deps.deferPolls(account, patient, { dueWithinMs: 1.5 * pauseMs, quietMs: 3 * pauseMs, reachMs });
  }
  return { found: running.length, woken: over.length };
}

async function note(
  { account, clock, noteSwept }: WakeDeps,
  { pauseMs, pages, toAgeMs }: { readonly pauseMs: number; readonly pages: number; readonly toAgeMs: number },
  woken: number,
): Promise<void> {
  // Good for two more sweeps, and some seconds in which a busy machine comes late.
  const untilMs = clock() + 3 * pauseMs + 5 * SECOND;
  await noteSwept(account, { pauseMs, pages, toAgeMs, untilMs }, woken);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
