/** What is learned of running predictions when the provider's list is read. Times are today's, since BullMQ's are. */

import { Queue } from "bullmq";
import { describe, expect, onTestFinished } from "vitest";
import { type AttemptRef, errandId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { type PredictionId, predictionId } from "../../src/core/prediction.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { pagesAtMost } from "../../src/core/waking.ts";
import { openGate } from "../../src/gates/account-gate.ts";
import { gatedProvider, NoReadLeft, patiently } from "../../src/gates/gated-provider.ts";
import { type ListPage, type Provider, ProviderError } from "../../src/providers/provider.ts";
import { NOTHING_SEEN, type WakeDeps, type WakeMemory, wakeByList } from "../../workers/wake-by-list.ts";
import { everyCrash } from "../support/crash.ts";
import { wakeEffects } from "../support/effects.ts";
import { ACCOUNT, type Line, predictionOf, test } from "../support/stages.ts";

type Query = { after?: string; before?: string; next?: string };
type Shown = { readonly id: string; readonly status: "processing" | "succeeded"; readonly atMs: number };
type World = {
  readonly line: Line;
  readonly refs: readonly AttemptRef[];
  readonly startedAtMs: number;
  readonly shown: Shown[];
  readonly asked: Query[];
  readonly memory: WakeMemory;
};

const id = (index: number): PredictionId => predictionId(`p${index}`);

/** Items whose predictions were created `ageMs` ago; their polls are due in an hour. */
async function open(line: Line, items: number, ageMs: number, deadlineAtMs: number | null = null): Promise<World> {
  await line.clear();
  const batch = await line.submit(Array.from({ length: items }, (_, n) => ({ prompt: `fox ${n}` })));
  const startedAtMs = Date.now() - ageMs;
  const refs = Array.from(
    { length: items },
    (_, index): AttemptRef => ({ account: ACCOUNT, batch, index, attempt: 1 }),
  );
  for (const ref of refs) {
    await line.ledger.move(ref, "claim", { nowMs: startedAtMs, nonce: "n" });
    await line.ledger.move(ref, "bind", { nowMs: startedAtMs, nonce: "n", predictionId: id(ref.index) });
    await line.queues.follow(ref, { id: id(ref.index), startedAtMs, deadlineAtMs }, HOUR);
  }
  return { line, refs, startedAtMs, shown: [], asked: [], memory: { ...NOTHING_SEEN } };
}

function show(world: World, status: Shown["status"], ...indexes: readonly number[]): void {
  for (const index of indexes) world.shown.push({ id: id(index), status, atMs: world.startedAtMs + index });
}

/** Two a page, newest first, whatever their time. */
function page(world: World, query: Query): ListPage {
  world.asked.push(query);
  const start = Number(query.next ?? 0);
  const all = world.shown.toSorted((a, b) => b.atMs - a.atMs);
  const some = all.slice(start, start + 2);
  return {
    predictions: some.map((one) =>
      predictionOf(one.id, { status: one.status, createdAt: new Date(one.atMs).toISOString() }),
    ),
    inputs: new Map(),
    serverDate: new Date(Date.now() + MINUTE),
    ...(start + 2 < all.length && { next: String(start + 2) }),
  };
}

function depsOf(world: World, fields: Partial<WakeDeps> = {}): WakeDeps {
  return {
    ...wakeEffects({ ...world.line, clock: Date.now }),
    provider: { list: async (query) => page(world, query) },
    ...fields,
  };
}

const signal = new AbortController().signal;
const wake = (world: World, fields: Partial<WakeDeps> = {}) => wakeByList(depsOf(world, fields), world.memory, signal);

/** The items whose poll is on its way. */
async function woken({ line, refs }: World): Promise<readonly number[]> {
  const queue = new Queue(QUEUE_NAMES.follow(ACCOUNT), { connection: line.redis });
  onTestFinished(() => queue.close());
  const waiting = new Set((await queue.getJobs(["wait"])).map((job) => job.id));
  return refs.filter((ref) => waiting.has(errandId(ref))).map(({ index }) => index);
}

const cover = async ({ line }: World) => {
  const { untilMs, toAgeMs, ...counted } = await line.ledger.readFollowing(ACCOUNT);
  return { isGood: untilMs > Date.now(), toAgeMs, ...counted };
};

async function learn(line: Line, runMs: number): Promise<void> {
  for (let runs = 0; runs < 10; runs++) await line.ledger.learnRun(ACCOUNT, "a/b", runMs, Date.now());
}

describe("a sweep", () => {
  test("wakes what the list shows as over, once, and nothing else", async ({ line }) => {
    const world = await open(line, 5, 5 * SECOND);
    show(world, "succeeded", 1, 2, 4);
    show(world, "processing", 0, 3);
    world.shown.push({ id: "foreign", status: "succeeded", atMs: Date.now() });
    // Its end is known already.
    await line.ledger.move(world.refs[4] as AttemptRef, "conclude", { nowMs: Date.now() });
    expect(await wake(world)).toBe(SECOND);
    expect(await woken(world)).toEqual([1, 2]);
    expect(await line.ledger.takeMarks(world.refs[1] as AttemptRef, null)).toMatchObject({ woken: true });
    expect(await line.ledger.takeMarks(world.refs[3] as AttemptRef, null)).toMatchObject({ woken: false });
    expect(world.asked).toHaveLength(3);
    expect(await cover(world)).toEqual({
      isGood: true,
      toAgeMs: 10 * MINUTE,
      pauseMs: SECOND,
      pages: 3,
      woken: 2,
      toldAtMs: 0,
    });
  });

  test("gives who runs without it the errand: whoever bound it may have died before", async ({ line }) => {
    const world = await open(line, 2, 5 * SECOND);
    const queue = new Queue(QUEUE_NAMES.follow(ACCOUNT), { connection: line.redis });
    onTestFinished(() => queue.close());
    await queue.remove(errandId(world.refs[0] as AttemptRef));
    show(world, "succeeded", 0, 1);
    await wake(world);
    expect(await woken(world)).toEqual([0, 1]);
    expect(await line.ledger.takeMarks(world.refs[0] as AttemptRef, null)).toMatchObject({ wokenBy: "sweep" });
  });

  test("leaves alone whose end a poll has seen, and whose output it waits for", async ({ line }) => {
    const world = await open(line, 2, 5 * SECOND);
    show(world, "succeeded", 0, 1);
    await line.ledger.incompleteSince(world.refs[0] as AttemptRef, Date.now());
    await wake(world);
    expect(await woken(world)).toEqual([1]);
    expect(await line.ledger.takeMarks(world.refs[0] as AttemptRef, null)).toMatchObject({ woken: false });
  });

  test("notes once what it shows running, and since when, for whoever asks how it stands", async ({ line }) => {
    const world = await open(line, 3, 5 * SECOND);
    const startedAt = new Date(world.startedAtMs).toISOString();
    let sweeps = 0; // the first shows no time yet
    const list = async (query: Query) => {
      const shown = page(world, query);
      const begun = shown.predictions.map((one) =>
        one.status === "processing" && sweeps > 0 ? { ...one, startedAt } : one,
      );
      return { ...shown, predictions: begun };
    };
    const marks: string[] = [];
    const markItem: WakeDeps["markItem"] = (ref, mark, value) => {
      marks.push(`${ref.index} ${mark}`);
      return line.ledger.markItem(ref, mark, value);
    };
    show(world, "processing", 0);
    show(world, "succeeded", 1);
    for (; sweeps < 3; sweeps++) await wake(world, { provider: { list }, markItem });
    expect(marks.filter((mark) => !mark.endsWith("wake"))).toEqual(["0 status", "0 started_at"]);
    const { fields } = await line.ledger.readItem(world.refs[0] as AttemptRef);
    expect(fields).toMatchObject({ status: "processing", started_at: startedAt });
    for (const index of [1, 2]) {
      expect((await line.ledger.readItem(world.refs[index] as AttemptRef)).fields).not.toHaveProperty("status");
    }
  });

  test("asks nothing where nothing is in flight, and where all is too old for it", async ({ line }) => {
    const idle = await open(line, 1, 11 * MINUTE);
    expect(await wake(idle)).toBe(2 * SECOND);
    expect(idle.asked).toEqual([]);
    expect(await cover(idle), "what is bought next will be swept").toMatchObject({ isGood: true, pages: 0 });
  });

  test("stops where all that is in flight was seen", async ({ line }) => {
    const world = await open(line, 2, 5 * SECOND);
    show(world, "processing", 0, 1);
    for (let n = 0; n < 5; n++)
      world.shown.push({ id: `old${n}`, status: "succeeded", atMs: world.startedAtMs - n - 1 });
    await wake(world);
    expect(world.asked).toEqual([{}]);
  });

  test("sees the oldest of what is in flight, though it shows some that hadn't to be looked for yet", async ({
    line,
  }) => {
    const young = await open(line, 4, 2 * SECOND);
    const old = young.refs[0] as AttemptRef;
    await learn(line, 6 * SECOND);
    await wake({ ...young, shown: [] }); // tells the provider's clock
    await line.ledger.touch(old, Date.now() - 10 * SECOND);
    for (const index of [1, 2, 3]) show(young, "processing", index);
    young.shown.push({ id: id(0), status: "succeeded", atMs: Date.now() - 10 * SECOND });
    await wake(young);
    expect(await woken(young)).toEqual([0]);
  });

  test("sees what runs for so long that the keeper has looked at it since", async ({ line }) => {
    const world = await open(line, 1, 25 * MINUTE);
    await learn(line, 20 * MINUTE);
    await line.ledger.touch(world.refs[0] as AttemptRef, Date.now() - MINUTE);
    show(world, "succeeded", 0);
    await wake(world);
    expect(await woken(world)).toEqual([0]);
  });

  test("reads the next page when those that the last one woke have been polled", async ({ line }) => {
    const world = await open(line, 5, 5 * SECOND);
    show(world, "succeeded", 2, 3, 4);
    show(world, "processing", 0, 1);
    const before: (readonly [pages: number, ms: number])[] = [];
    await wake(world, {
      readsPerMinute: async () => 300,
      pause: async (ms) => before.push([world.asked.length, ms]),
    });
    expect(before, "four polls a second; the last page is followed by nothing").toEqual([
      [1, 500],
      [2, 250],
    ]);
  });

  test("reads no more than its share of the account's reads, and says how far it came", async ({ line }) => {
    const world = await open(line, 5, 30 * SECOND);
    show(world, "processing", 0, 1, 2, 3, 4);
    const readsPerMinute = 40;
    expect(pagesAtMost(readsPerMinute)).toBe(2);
    expect(await wake(world, { readsPerMinute: async () => readsPerMinute }), "two pages of four a minute").toBe(
      30 * SECOND,
    );
    expect(world.asked).toHaveLength(2);
    const { toAgeMs } = await cover(world);
    // Its clock is a minute ahead of ours, and so is what it says of their creation.
    expect(toAgeMs).toBeGreaterThan(89 * SECOND);
    expect(toAgeMs).toBeLessThan(100 * SECOND);
  });

  test("takes its pages from the reads that cancels share, and leaves to polls what it can't read", async ({
    line,
  }) => {
    const world = await open(line, 5, 30 * SECOND);
    show(world, "processing", 0, 1, 2);
    show(world, "succeeded", 3, 4);
    // One read beside polls in 50 seconds.
    const account = { name: ACCOUNT, createsPerMinute: 6, readsPerMinute: 6, toleratesBurst: true };
    const gate = openGate(account, { ...line, clock: Date.now, mark: () => "a probe" });
    const nobody = () => Promise.reject(new Error("isn't asked"));
    const list = async (query: Query) => page(world, query);
    const ungated: Provider = { targets: new Set(), create: nobody, get: nobody, cancel: nobody, list };
    const provider = gatedProvider(ungated, gate);
    const told: string[] = [];
    const warn: WakeDeps["warn"] = (_fields, message) => told.push(message);
    const deps: Partial<WakeDeps> = { provider: patiently(provider, 0), warn };
    expect(await wake(world, deps)).toBe(SECOND);
    expect(world.asked).toHaveLength(1);
    expect(await woken(world)).toEqual([3, 4]);
    const first = await cover(world);
    expect(first).toMatchObject({ isGood: true, pages: 1 });
    expect(first.toAgeMs, "its clock is a minute ahead of ours").toBeLessThan(95 * SECOND);

    await expect(provider.cancel?.(id(0), signal)).rejects.toBeInstanceOf(NoReadLeft);
    const waitMs = await wake(world, deps);
    expect(waitMs).toBeGreaterThan(SECOND);
    expect(waitMs).toBeLessThanOrEqual(50 * SECOND);
    expect(world.asked, "nothing more").toHaveLength(1);
    expect(await cover(world), "what was relied on runs out by itself").toEqual(first);
    expect(told, "a spent budget is no trouble").toEqual([]);
  });

  test("asks for the ages at which runs end, by the provider's clock", async ({ line }) => {
    const world = await open(line, 1, 5 * MINUTE);
    await learn(line, 5 * MINUTE);
    show(world, "processing", 0);
    await wake(world);
    await wake(world);
    const [first, second] = world.asked;
    expect(first, "whose clock isn't known yet").toEqual({});
    const behindMs = (text?: string) => Date.now() + MINUTE - Date.parse(text ?? "");
    expect(behindMs(second?.after)).toBeCloseTo(10 * MINUTE, -5);
    expect(behindMs(second?.before)).toBeCloseTo(2.3 * MINUTE, -5);
  });

  test("that fails is told once, and nobody relies on it; the provider's wait is kept", async ({ line }) => {
    const world = await open(line, 1, 5 * SECOND);
    const told: string[] = [];
    const warn: WakeDeps["warn"] = (_fields, message) => told.push(message);
    const failing = (retryAfterMs: number | null) => ({
      warn,
      provider: { list: () => Promise.reject(new ProviderError("no", { kind: "refused", status: 429, retryAfterMs })) },
    });
    expect(await wake(world, failing(null))).toBe(15 * SECOND);
    expect(await wake(world, failing(40 * SECOND))).toBe(40 * SECOND);
    expect(told).toHaveLength(1);
    expect(await cover(world)).toMatchObject({ isGood: false });
    show(world, "succeeded", 0);
    expect(await wake(world)).toBe(SECOND);
    expect(await cover(world)).toMatchObject({ isGood: true });
    expect(await woken(world)).toEqual([0]);
  });

  test("reads less where webhooks are asked for, too", async ({ line }) => {
    const world = await open(line, 1, 5 * SECOND);
    show(world, "processing", 0);
    await line.ledger.noteTold(ACCOUNT, Date.now());
    expect(await wake(world)).toBe(15 * SECOND);
  });

  test("killed after any effect and run again wakes the same", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash({
      async open() {
        const world = await open(line, 3, 5 * SECOND);
        show(world, "succeeded", 0, 2);
        show(world, "processing", 1);
        return world;
      },
      run: (world, wrap) => wakeByList(wrap(depsOf(world)), { ...NOTHING_SEEN }, signal),
      look: (world) => woken(world),
    });
    expect(undisturbed).toEqual([0, 2]);
    expect(crashes.length).toBeGreaterThan(5);
    for (const { diedAfter, seen } of crashes) expect([diedAfter, seen]).toEqual([diedAfter, undisturbed]);
  });
});

describe("the poll of what the list shows running", () => {
  const dueIn = async ({ line, refs }: World, ms: number) =>
    (await line.queues.pollsDueBefore(ACCOUNT, refs, Date.now() + ms)).map(({ index }) => index);

  /** An item whose poll is due now, as those are that nobody covered when they were bought. */
  async function openDue(line: Line, deadlineAtMs: number | null = null): Promise<World> {
    const world = await open(line, 2, MINUTE, deadlineAtMs);
    show(world, "processing", 0, 1);
    await line.queues.deferFollow(world.refs[0] as AttemptRef, 0, () => SECOND);
    expect(await dueIn(world, 1.4 * SECOND)).toEqual([0]);
    return world;
  }

  test("is put off while sweeps come by", async ({ line }) => {
    const world = await openDue(line);
    await wake(world);
    expect(await dueIn(world, 4 * SECOND)).toEqual([]);
    expect(await dueIn(world, 21 * SECOND), "a third of its age").toEqual([0]);
  });

  test("isn't put off past the prediction's deadline", async ({ line }) => {
    const world = await openDue(line, Date.now() + 2 * SECOND);
    await wake(world);
    expect(await dueIn(world, 2.1 * SECOND)).toEqual([0]);
  });

  test("isn't put off where something was asked of the item", async ({ line }) => {
    for (const mark of ["wake", "cancel"] as const) {
      const world = await openDue(line);
      await line.ledger.markItem(world.refs[0] as AttemptRef, mark);
      await wake(world);
      expect(await dueIn(world, 1.4 * SECOND)).toEqual([0]);
    }
  });
});
