import { describe, expect } from "vitest";
import { createQueueDepth, type SavingFacts } from "../../src/core/feeding.ts";
import { type AttemptRef, type BatchId, parseErrandId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { HOUR, SECOND } from "../../src/core/time.ts";
import { createQueue } from "../../src/queues/queues.ts";
import { type FeedDeps, feedBatches } from "../../workers/feed-batches.ts";
import { everyCrash } from "../support/crash.ts";
import { feedEffects } from "../support/effects.ts";
import { ACCOUNT, type Line, NOON, test } from "../support/stages.ts";

const CREATES = QUEUE_NAMES.create(ACCOUNT);
const RATE = 60;
const DEPTH = createQueueDepth(RATE);

const depsOf = (line: Line, createsPerMinute = RATE): FeedDeps => feedEffects(line, createsPerMinute);

/** More outputs wait than can be saved in their hour. */
const behind: SavingFacts = { copies: 5_000, records: 0, perMinute: 60, filesKeptMs: HOUR, bucketDown: null };

const run = (line: Line, deps = depsOf(line)) => feedBatches({ account: ACCOUNT }, deps);
const inputs = (count: number) => Array.from({ length: count }, (_, n) => ({ prompt: `input ${n}` }));

/** Indexes in the create queue, by batch. */
async function fed(line: Line): Promise<ReadonlyMap<BatchId, readonly number[]>> {
  const found = new Map<BatchId, number[]>();
  for (const { id } of await line.jobs(CREATES)) {
    const ref = parseErrandId(id);
    if (ref === null) throw new Error(`not an errand: ${id}`);
    found.set(
      ref.batch,
      [...(found.get(ref.batch) ?? []), ref.index].toSorted((a, b) => a - b),
    );
  }
  return found;
}

/** What the create stage would do with every job that stands there; answers which items it bought. */
async function buyAll(line: Line): Promise<readonly string[]> {
  const bought: string[] = [];
  for (const { id } of await line.jobs(CREATES)) {
    const parsed = parseErrandId(id);
    if (parsed === null) throw new Error(`not an errand: ${id}`);
    const ref = { account: ACCOUNT, ...parsed };
    const claim = await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: `nonce of ${id}, ${bought.length}` });
    if (claim.answer === "moved") {
      bought.push(id);
      await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: predictionId("p") });
    }
    await removeJob(line, id);
  }
  return bought;
}

async function removeJob(line: Line, id: string): Promise<void> {
  const { Queue } = await import("bullmq");
  const queue = new Queue(createQueue(ACCOUNT).name, { connection: line.redis });
  await (await queue.getJob(id))?.remove();
  await queue.close();
}

test("the create queue is kept about three seconds deep, in input order, and no deeper", async ({ line }) => {
  await line.clear();
  const batch = await line.submit(inputs(25));
  expect(await run(line)).toEqual({ kind: "snooze", untilMs: NOON + SECOND });
  expect((await fed(line)).get(batch)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await run(line);
  expect((await fed(line)).get(batch)).toHaveLength(DEPTH);
  expect((await line.ledger.standing(ACCOUNT, batch))?.cursor).toBe(DEPTH);
  expect(await line.ledger.untouched(ACCOUNT, NOON, 100)).toHaveLength(DEPTH);

  expect(await buyAll(line)).toHaveLength(DEPTH);
  await run(line);
  expect((await fed(line)).get(batch)).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
  expect(await buyAll(line)).toHaveLength(DEPTH);
  await run(line);
  expect((await fed(line)).get(batch)).toEqual([20, 21, 22, 23, 24]);
  expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([]);
  await buyAll(line);
  await run(line);
  expect((await fed(line)).size).toBe(0);
});

test("errands tell where their rows stand, so that the create stage reads them with one get", async ({ line }) => {
  await line.clear();
  const batch = await line.submit([{ prompt: "ä" }, { prompt: "second" }]);
  await run(line);
  for (const { id, data } of await line.jobs(CREATES)) {
    const index = parseErrandId(id)?.index ?? -1;
    const { place } = await line.createErrand(batch, index);
    expect(data).toEqual([ACCOUNT, place.part, place.offset, place.length]);
  }
});

test("batches take fair turns, so that a small one isn't stuck behind a large one", async ({ line }) => {
  await line.clear();
  const large = await line.submit(inputs(500), "large");
  const small = await line.submit(inputs(4), "small");
  await run(line);
  const queue = await fed(line);
  expect(queue.get(small)).toEqual([0, 1, 2, 3]);
  expect(queue.get(large)).toHaveLength(DEPTH - 4);
});

test("a batch that can't be fed keeps no other waiting", async ({ line }) => {
  await line.clear();
  const broken = await line.submit(inputs(9), "broken");
  const whole = await line.submit(inputs(9), "whole");
  const deps = depsOf(line);
  const told: unknown[] = [];
  const placeRows: FeedDeps["placeRows"] = async (account, batch, ...rows) => {
    if (batch === broken) throw new Error("its input is gone");
    return deps.placeRows(account, batch, ...rows);
  };
  const warnOfBatch = (batch: BatchId, error: unknown) => told.push([batch, String(error)]);
  for (let times = 0; times < 2; times++) {
    expect(await run(line, { ...deps, placeRows, warnOfBatch })).toMatchObject({ kind: "snooze" });
    line.clock.forward(SECOND);
  }
  expect(await fed(line)).toEqual(new Map([[whole, [0, 1, 2, 3, 4, 5, 6, 7, 8]]]));
  expect(told).toContainEqual([broken, "Error: its input is gone"]);
});

test("nothing is fed while the account is paused, or while saving lags behind", async ({ line }) => {
  await line.clear();
  await line.submit(inputs(3));
  await line.ledger.pauseAccount(ACCOUNT, "credit");
  expect(await run(line)).toEqual({ kind: "snooze", untilMs: NOON + SECOND });
  expect((await fed(line)).size).toBe(0);
  await line.ledger.resumeAccount(ACCOUNT);
  await run(line, { ...depsOf(line), savingFacts: async () => behind });
  expect((await fed(line)).size).toBe(0);
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toMatch(/saving is behind: 5,000 outputs wait/);
  await run(line);
  expect((await fed(line)).size).toBe(1);
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toBeNull();
});

test("feeding slows where saving falls behind, and stops while the bucket is down", async ({ line }) => {
  await line.clear();
  const batch = await line.submit(inputs(50));
  const facts = (changed: Partial<SavingFacts>): FeedDeps => ({
    ...depsOf(line, 1_200),
    savingFacts: async () => ({ ...behind, copies: 0, ...changed }),
  });
  await run(line, facts({ bucketDown: "it is away" }));
  expect((await fed(line)).size).toBe(0);
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toBe("the bucket takes no files: it is away");
  // At 60 saves a minute and an hour to do it in 900 may wait; at three quarters of that half a second's worth is fed.
  await run(line, facts({ copies: 675 }));
  expect((await fed(line)).get(batch)).toHaveLength(10);
  await run(line, facts({ records: 1_000 }));
  expect((await fed(line)).get(batch)).toHaveLength(10);
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toMatch(/1,000 receipts wait/);
  await run(line, facts({}));
  expect((await fed(line)).get(batch)).toHaveLength(50);
});

test("a batch whose last rows went another way takes no turn any more", async ({ line }) => {
  await line.clear();
  const batch = await line.submit(inputs(1));
  await run(line);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  for (const step of ["refuse", "fail"] as const) await line.ledger.move(ref, step, { nowMs: NOON });
  const carry = { prediction: predictionId("p"), set: {} };
  await line.ledger.redrive({ id: batch, account: ACCOUNT }, [{ index: 0, ended: 1, carry }], NOON);
  await run(line);
  expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([]);
});

test("rows that were handed back are given out again, before fresh ones", async ({ line }) => {
  await line.clear();
  const batch = await line.submit(inputs(30));
  await run(line);
  await line.ledger.pauseAccount(ACCOUNT, "credit");
  expect(await buyAll(line)).toEqual([]);
  await line.ledger.resumeAccount(ACCOUNT);
  await run(line);
  expect((await fed(line)).get(batch)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect((await line.ledger.standing(ACCOUNT, batch))?.cursor).toBe(DEPTH);
  expect(await line.ledger.returnedRows(ACCOUNT, batch, 100)).toEqual([]);
});

test("a row that is handed back before its feed has noted it is given out again, not forgotten", async ({ line }) => {
  await line.clear();
  const batch = await line.submit(inputs(3));
  const deps = depsOf(line);
  let turnedAway = false;
  const enqueueCreates: FeedDeps["enqueueCreates"] = async (errands, kind) => {
    await deps.enqueueCreates(errands, kind);
    if (turnedAway) return;
    turnedAway = true;
    await line.ledger.pauseAccount(ACCOUNT, "a wrong token");
    expect(await buyAll(line)).toEqual([]);
    await line.ledger.resumeAccount(ACCOUNT);
  };
  await run(line, { ...deps, enqueueCreates });
  await run(line);
  expect((await fed(line)).get(batch)).toEqual([0, 1, 2]);
});

test("a row that was handed back, is given out and handed back again before that is noted, isn't forgotten", async ({
  line,
}) => {
  await line.clear();
  const batch = await line.submit(inputs(3));
  await run(line);
  await line.ledger.pauseAccount(ACCOUNT, "a wrong token");
  expect(await buyAll(line)).toEqual([]);
  await line.ledger.resumeAccount(ACCOUNT);
  const deps = depsOf(line);
  const enqueueCreates: FeedDeps["enqueueCreates"] = async (errands, kind) => {
    await deps.enqueueCreates(errands, kind);
    await line.ledger.pauseAccount(ACCOUNT, "again");
    expect(await buyAll(line)).toEqual([]);
  };
  await run(line, { ...deps, enqueueCreates });
  expect((await line.ledger.returnedRows(ACCOUNT, batch, 10)).length).toBe(3);
  await line.ledger.resumeAccount(ACCOUNT);
  await run(line);
  expect((await fed(line)).get(batch)).toEqual([0, 1, 2]);
  expect(await buyAll(line)).toHaveLength(3);
  await run(line);
  expect(await line.ledger.returnedRows(ACCOUNT, batch, 10)).toEqual([]);
  expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([]);
});

test("two feeds at once buy no row twice and leave none out", async ({ line }) => {
  await line.clear();
  await line.submit(inputs(25));
  const bought: string[] = [];
  for (let round = 0; round < 6; round++) {
    await Promise.all([run(line), run(line)]);
    bought.push(...(await buyAll(line)));
  }
  expect(new Set(bought).size).toBe(25);
  expect(bought).toHaveLength(25);
});

describe("a paused batch", () => {
  test("isn't fed, takes no room from the others, and goes on where it stood", async ({ line }) => {
    await line.clear();
    const [paused, other] = [await line.submit(inputs(500), "paused"), await line.submit(inputs(500), "other")];
    await run(line);
    expect((await fed(line)).get(paused)).toHaveLength(DEPTH / 2);
    await line.ledger.pauseBatch({ account: ACCOUNT, id: paused }, "a person said so");
    expect(
      (await buyAll(line)).every((id) => id.startsWith(other)),
      "what was fed already is turned away",
    ).toBe(true);
    await run(line);
    const during = await fed(line);
    expect([...during.keys()]).toEqual([other]);
    expect(during.get(other)).toHaveLength(DEPTH);
    await buyAll(line);

    await line.ledger.resumeBatch({ account: ACCOUNT, id: paused });
    await run(line);
    expect((await fed(line)).get(paused), "the rows that were turned away come first").toEqual([0, 1, 2, 3, 4]);
  });

  test("whose rows were all fed, and turned away, is fed again when it is resumed", async ({ line }) => {
    await line.clear();
    const batch = await line.submit(inputs(4));
    await run(line);
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([]);
    await line.ledger.pauseBatch({ account: ACCOUNT, id: batch }, "a person said so");
    expect(await buyAll(line)).toEqual([]);
    await run(line);
    expect((await fed(line)).size).toBe(0);
    await line.ledger.resumeBatch({ account: ACCOUNT, id: batch });
    await run(line);
    expect((await fed(line)).get(batch)).toEqual([0, 1, 2, 3]);
  });
});

describe("a canceled batch", () => {
  const refOf = (batch: BatchId, index: number): AttemptRef => ({ account: ACCOUNT, batch, index, attempt: 1 });
  const cancel = (line: Line, id: BatchId) => line.ledger.cancelBatch({ account: ACCOUNT, id }, line.clock());
  const countsOf = async (line: Line, batch: BatchId) => (await line.ledger.standing(ACCOUNT, batch))?.counts;
  const finishes = async (line: Line) => (await line.jobs(QUEUE_NAMES.finish)).map(({ id }) => id);
  /** Delays of the polls to come, by index. */
  const polls = async (line: Line) =>
    new Map((await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).map(({ id, delay }) => [parseErrandId(id)?.index, delay]));

  /** Bought, and to be polled in an hour. */
  async function buy(line: Line, ref: AttemptRef): Promise<void> {
    const prediction = { id: predictionId(`p${ref.index}`), startedAtMs: NOON, deadlineAtMs: null };
    await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
    await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: prediction.id });
    await line.queues.follow(ref, prediction, HOUR);
  }

  test("ends what waits, fed or not, wakes what runs, and is never fed again", async ({ line }) => {
    await line.clear();
    const batch = await line.submit(inputs(25));
    await run(line);
    for (const index of [0, 4]) await buy(line, refOf(batch, index));
    await line.ledger.move(refOf(batch, 1), "claim", { nowMs: NOON, nonce: "n" });
    await cancel(line, batch);
    expect(await run(line)).toEqual({ kind: "snooze", untilMs: NOON + SECOND });
    expect(await countsOf(line, batch)).toMatchObject({ waiting: 0, claimed: 1, running: 2, canceled: 22 });
    expect(await polls(line)).toEqual(
      new Map([
        [0, 0],
        [4, 0],
      ]),
    );
    expect(await finishes(line), "three are left").toEqual([]);
    expect(await line.ledger.untouched(ACCOUNT, NOON, 100)).toHaveLength(3);
    expect(await line.ledger.cancelingBatches(ACCOUNT, 10)).toEqual([]);
    await buyAll(line);
    await run(line);
    expect((await fed(line)).size).toBe(0);
    expect((await line.ledger.standing(ACCOUNT, batch))?.cursor).toBe(25);
  });

  test("of which nothing was bought is finished at once, also while its account is paused and saving lags", async ({
    line,
  }) => {
    await line.clear();
    const batch = await line.submit(inputs(5));
    const other = await line.submit(inputs(3), "other");
    await line.ledger.pauseAccount(ACCOUNT, "credit");
    await cancel(line, batch);
    await run(line, { ...depsOf(line), savingFacts: async () => behind });
    expect(await countsOf(line, batch)).toMatchObject({ waiting: 0, canceled: 5 });
    expect(await finishes(line)).toEqual([batch]);
    expect(await countsOf(line, other), "the other one waits").toMatchObject({ waiting: 3 });
  });

  test("is walked a stretch at a time, and the next one after it", async ({ line }) => {
    await line.clear();
    const large = await line.submit(inputs(4_100), "large");
    const small = await line.submit(inputs(2), "small");
    await buy(line, refOf(large, 4_050));
    await cancel(line, large);
    line.clock.forward(1);
    await cancel(line, small);
    const deps = depsOf(line);
    const asked: (readonly [BatchId, number | null])[] = [];
    await run(line, {
      ...deps,
      walkCancel: (account, batch, from, limit) => {
        expect(limit).toBe(2_000);
        asked.push([batch, from]);
        return deps.walkCancel(account, batch, from, limit);
      },
    });
    expect(asked).toEqual([
      [large, null],
      [large, 2_000],
      [large, 4_000],
      [large, 4_100],
      [small, null],
      [small, 2],
    ]);
    expect(await countsOf(line, large)).toMatchObject({ waiting: 0, running: 1, canceled: 4_099 });
    expect(await finishes(line)).toEqual([small]);
    expect(await polls(line)).toEqual(new Map([[4_050, 0]]));
  });

  test("wakes once more, a second later, what was being polled when it was to be woken", async ({ line }) => {
    await line.clear();
    const batch = await line.submit(inputs(3));
    for (const index of [0, 1]) await buy(line, refOf(batch, index));
    await cancel(line, batch);
    const woken: string[] = [];
    await run(line, {
      ...depsOf(line),
      wakeFollow: async ({ index }) => {
        woken.push(`item ${index}`);
        return index === 1 || woken.includes("a second");
      },
      pause: async (ms) => woken.push(ms === SECOND ? "a second" : `${ms} ms`),
    });
    expect(woken).toEqual(["item 0", "item 1", "a second", "item 0"]);
  });

  test("that is too large for one feed is walked on in the next, and feeding goes on meanwhile", async ({ line }) => {
    await line.clear();
    const batch = await line.submit(inputs(150));
    const other = await line.submit(inputs(3), "other");
    await cancel(line, batch);
    const deps = depsOf(line);
    // A hundred stretches are all that one feed walks; so small ones leave the last rows to the next.
    const walkCancel: FeedDeps["walkCancel"] = (account, id, from) => deps.walkCancel(account, id, from, 1);
    await run(line, { ...deps, walkCancel });
    expect(await countsOf(line, batch)).toMatchObject({ waiting: 50, canceled: 100 });
    expect([...(await fed(line)).keys()]).toEqual([other]);
    await run(line, { ...deps, walkCancel });
    expect(await countsOf(line, batch)).toMatchObject({ waiting: 0, canceled: 150 });
    expect(await finishes(line)).toEqual([batch]);
  });

  test.for([
    ["all of whose items waited", [0]],
    ["of which some run", [0, 1, 2]],
  ] as const)("%s is ended as if nothing had happened, whenever its feed dies", async ([, ran], { line }) => {
    const { undisturbed, crashes } = await everyCrash<BatchId, unknown>({
      open: async () => {
        await line.clear();
        const batch = await line.submit(inputs(6));
        for (const index of ran.slice(1)) await buy(line, refOf(batch, index));
        await cancel(line, batch);
        return batch;
      },
      run: (_batch, wrap) => run(line, wrap(depsOf(line))),
      look: () => line.look(),
    });
    expect(crashes.map(({ diedAfter }) => diedAfter).filter((name) => /walk|wake|Finish/.test(name))).toEqual(
      ran.length === 1
        ? ["walkCancel", "enqueueFinish", "walkCancel"]
        : ["walkCancel", "wakeFollow", "wakeFollow", "walkCancel"],
    );
    for (const { diedAfter, n, seen } of crashes) expect(seen, `died after ${diedAfter} (${n})`).toEqual(undisturbed);
  });
});

describe("killed after any effect and run again,", () => {
  test("a feed leaves no row out, and none is bought twice", async ({ line }) => {
    type World = { readonly bought: string[] };
    const feedOn = async (world: World, wrap: <T extends object>(effects: T) => T) => {
      world.bought.push(...(await buyAll(line)));
      await run(line, wrap(depsOf(line)));
    };
    const { undisturbed, crashes } = await everyCrash<World, unknown>({
      open: async () => {
        await line.clear();
        await line.submit(inputs(25), "one");
        await line.submit(inputs(3), "two");
        return { bought: [] };
      },
      run: feedOn,
      look: async (world) => {
        for (let round = 0; round < 5; round++) await feedOn(world, (effects) => effects);
        world.bought.push(...(await buyAll(line)));
        return { bought: world.bought.toSorted(), ...(await line.look()) };
      },
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("enqueueCreates");
    expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("advance");
    expect(crashes.length).toBeGreaterThan(8);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
    expect(undisturbed).toMatchObject({ bought: { length: 28 } });
  });
});
