/**
 * What stands between this process and an account's provider: whether a request may be sent now, and what it teaches when
 * it was. The states lie in Redis, for all processes; how they change is decided in `core/pacing.ts` and `core/breaking.ts`.
 * This process looks at them at most once a second, and at once when it changes one itself.
 *
 * The rates themselves are the queues' limits, which act on the whole fleet: `retune` sets them to what holds now. The
 * feed does so every second, and whoever is refused does so at once.
 *
 * Dying in between loses at most what one answer taught; a probe that died is given up after a while.
 */

import {
  afterFailure,
  afterSuccess,
  type Breaker,
  enterBreaker,
  holdsCreatesMs,
  isClean,
  leaveBreaker,
} from "../core/breaking.ts";
import { rateWindow } from "../core/feeding.ts";
import type { AccountName } from "../core/naming.ts";
import {
  afterRefusal,
  effectiveRate,
  freshPace,
  type Pace,
  POLLS_SHARE,
  type Rate,
  refusedUntilMs,
  SHARE_BESIDE_POLLS,
  withRate,
} from "../core/pacing.ts";
import { SECOND } from "../core/time.ts";
import type { Budgets, Ledger, Limited } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { createQueue, followQueue } from "../queues/queues.ts";

export type GatedAccount = {
  readonly name: AccountName;
  readonly createsPerMinute: number;
  readonly readsPerMinute: number;
  readonly toleratesBurst: boolean;
};

export type GateDeps = {
  readonly ledger: Pick<
    Ledger,
    "readBudgets" | "changePace" | "changeBreaker" | "takeRead" | "addCounts" | "takeConfiguredRate"
  >;
  readonly queues: Pick<Queues, "setRate">;
  readonly clock: () => number;
  /** Another text each time. */
  readonly mark: () => string;
};

/** `waitMs` 0: go; then `leave` must be called once, when the request was told of or won't be made. */
export type Pass = { readonly waitMs: number; leave(): Promise<void> };

export type AccountGate = {
  /** Whether the stage that creates, or polls, may do so now. */
  enter(of: Limited): Promise<Pass>;
  /** One of the reads that are left beside polls: 0, or in how many milliseconds there is one. */
  takeRead(): Promise<number>;
  /** An answer came, of whatever kind but a 429. */
  answered(of: Limited): Promise<void>;
  /** Nobody answered, or with 5xx. */
  unanswered(of: Limited, reason: string): Promise<void>;
  /** 429. */
  refused(of: Limited, refusal: { readonly forMs: number; readonly said: string }): Promise<void>;
  /** For the statistics; it is written within a second or two. */
  count(name: string): void;
  /** Makes the queues' limits what holds now; answers how many creates a minute that is. */
  retune(): Promise<number>;
  /** How many creates a minute are allowed, as far as this process has looked. */
  createsPerMinute(): number;
  /** How many reads a minute are allowed now, for all that reads. */
  readsPerMinute(): Promise<number>;
  /** The configured rates hold, if they are new since a process last took them; else what a person set since. */
  configure(): Promise<void>;
  /** Writes what is counted. */
  flush(): Promise<void>;
};

/** Beside the requests that are counted, polls are by why they came: `<this> <kind>`. */
export const POLLED = "polled";

const LOOK_MS = SECOND;

export function openGate(account: GatedAccount, deps: GateDeps): AccountGate {
  const { name } = account;
  const { ledger, clock } = deps;
  const configured = configuredRates(account);
  let seen: Budgets | null = null;
  let seenAtMs = Number.NEGATIVE_INFINITY;

  async function look(): Promise<Budgets> {
    if (seen !== null && clock() - seenAtMs < LOOK_MS && clock() >= seenAtMs) return seen;
    const read = await ledger.readBudgets(name);
    seenAtMs = clock();
    seen = read;
    return read;
  }

  function readsPace({ paces }: Pick<Budgets, "paces">): Pace {
    return paces.reads ?? freshPace(configured.reads);
  }

  async function changePace(of: Limited, decide: (before: Pace) => Pace): Promise<Pace> {
    const after = await ledger.changePace(name, of, freshPace(configured[of]), decide);
    if (seen !== null) seen = { ...seen, paces: { ...seen.paces, [of]: after } };
    return after;
  }

  async function changeBreaker(of: Limited, decide: (before: Breaker) => Breaker): Promise<void> {
    const after = await ledger.changeBreaker(name, of, decide);
    if (seen !== null) seen = { ...seen, breakers: { ...seen.breakers, [of]: after } };
  }

  async function setRates(paces: Budgets["paces"]): Promise<number> {
    const nowMs = clock();
    const creates = effectiveRate(paces.creates ?? freshPace(configured.creates), nowMs);
    const reads = effectiveRate(readsPace({ paces }), nowMs);
    for (const [queue, window] of queueWindows(name, creates, reads)) await deps.queues.setRate(queue, window);
    return creates.perMinute;
  }

  const counts = openCounts((counted) => ledger.addCounts(name, counted));

  return {
    async enter(of) {
      const { paces, breakers } = await look();
      const pace = paces[of];
      const nowMs = clock();
      const refusedMs = pace === null ? 0 : Math.max(refusedUntilMs(pace) - nowMs, 0);
      const heldMs = of === "creates" ? holdsCreatesMs(breakers.reads, nowMs) : 0;
      if (refusedMs > 0 || heldMs > 0) return stop(Math.max(refusedMs, heldMs));
      if (breakers[of].state === "closed") return GO;

      const mark = deps.mark();
      let waitMs = 0;
      await changeBreaker(of, (before) => {
        const entered = enterBreaker(before, mark, clock());
        waitMs = entered.waitMs;
        return entered.breaker;
      });
      if (waitMs > 0) return stop(waitMs);
      return { waitMs: 0, leave: () => changeBreaker(of, (before) => leaveBreaker(before, mark, clock())) };
    },

    async takeRead() {
      const pace = readsPace(await look());
      const nowMs = clock();
      const refusedMs = refusedUntilMs(pace) - nowMs;
      if (refusedMs > 0) return refusedMs;
      return ledger.takeRead(name, effectiveRate(pace, nowMs).perMinute * SHARE_BESIDE_POLLS);
    },

    async answered(of) {
      const { breakers } = await look();
      if (!isClean(breakers[of])) await changeBreaker(of, afterSuccess);
    },

    async unanswered(of, reason) {
      await look();
      await changeBreaker(of, (before) => afterFailure(before, reason, clock()));
    },

    async refused(of, refusal) {
      const { paces, breakers } = await look();
      // Who says so is there.
      if (!isClean(breakers[of])) await changeBreaker(of, afterSuccess);
      const after = await changePace(of, (before) => afterRefusal(before, refusal, clock()));
      await setRates({ ...paces, [of]: after });
    },

    count: counts.add,
    flush: counts.flush,

    async retune() {
      return setRates((await look()).paces);
    },

    createsPerMinute: () => effectiveRate(seen?.paces.creates ?? freshPace(configured.creates), clock()).perMinute,

    async readsPerMinute() {
      return effectiveRate(readsPace(await look()), clock()).perMinute;
    },

    async configure() {
      const { paces } = await ledger.readBudgets(name);
      for (const limited of ["creates", "reads"] as const) {
        const rate = configured[limited];
        const isNew = await ledger.takeConfiguredRate(name, limited, settingText(rate));
        const pace = paces[limited];
        // Redis may have lost the pace, and kept that it was taken; or whoever took it died before it was set.
        if (isNew || pace === null || (!pace.byHand && settingText(pace) !== settingText(rate))) {
          await changePace(limited, (before) => (before.byHand && !isNew ? before : withRate(before, rate, false)));
        }
      }
      seen = null;
      await setRates((await look()).paces);
    },
  };
}

export function configuredRates(account: Omit<GatedAccount, "name">): Readonly<Record<Limited, Rate>> {
  const { createsPerMinute, readsPerMinute, toleratesBurst } = account;
  return {
    creates: { perMinute: createsPerMinute, toleratesBurst },
    reads: { perMinute: readsPerMinute, toleratesBurst: true },
  };
}

/** As it is noted that a rate was taken from the settings. */
export function settingText({ perMinute, toleratesBurst }: Rate): string {
  return `${perMinute} ${toleratesBurst}`;
}

type QueueWindow = readonly [queue: string, window: ReturnType<typeof rateWindow>];

export function queueWindows(account: AccountName, creates: Rate, reads: Rate): readonly QueueWindow[] {
  return [
    [createQueue(account).name, rateWindow(creates.perMinute, creates.toleratesBurst)],
    [followQueue(account).name, rateWindow(reads.perMinute * POLLS_SHARE, reads.toleratesBurst)],
  ];
}

const GO: Pass = { waitMs: 0, leave: async () => undefined };

function stop(waitMs: number): Pass {
  return { waitMs: Math.ceil(waitMs), leave: async () => undefined };
}

/** Adds up in this process and writes once a second, so that no request waits for a statistic. */
function openCounts(write: (counts: ReadonlyMap<string, number>) => Promise<void>) {
  let counts = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;

  async function flush(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    if (counts.size === 0) return;
    const counted = counts;
    counts = new Map();
    await write(counted);
  }
  return {
    flush,
    add(name: string): void {
      counts.set(name, (counts.get(name) ?? 0) + 1);
      // Where Redis is out of reach this second isn't counted; the work itself tells of that.
      timer ??= setTimeout(() => void flush().catch(() => undefined), SECOND).unref();
    },
  };
}
