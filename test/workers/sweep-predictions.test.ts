/** What becomes of unclear items when the provider's list is read. */

import { describe, expect } from "vitest";
import { placeItems } from "../../src/batches/place-items.ts";
import { withdrawItem } from "../../src/batches/withdraw-item.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import { readRow } from "../../src/bucket/input-parts.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import type { ItemState } from "../../src/core/item.ts";
import { type AttemptRef, type BatchId, errandId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { DEFAULT_SWEEP_POLICY } from "../../src/core/sweeping.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { NoReadLeft } from "../../src/gates/gated-provider.ts";
import { type ListPage, ProviderError } from "../../src/providers/provider.ts";
import { type SweepDeps, sweepMemory, sweepPredictions } from "../../workers/sweep-predictions.ts";
import { everyCrash } from "../support/crash.ts";
import { wakeEffects } from "../support/effects.ts";
import { ACCOUNT, type Line, NOON, predictionOf, test } from "../support/stages.ts";

type Shown = { readonly id: string; readonly input: unknown; readonly atMs: number };

type World = {
  readonly line: Line;
  readonly batch: BatchId;
  readonly shown: Shown[];
  readonly asked: { after?: string; before?: string; next?: string }[];
};

const PROMPTS = ["fox", "crow", "whale", "fox"];

async function open(line: Line): Promise<World> {
  await line.clear();
  const batch = await line.submit(PROMPTS.map((prompt) => ({ prompt })));
  return { line, batch, shown: [], asked: [] };
}

function ref({ batch }: World, index: number): AttemptRef {
  return { account: ACCOUNT, batch, index, attempt: 1 };
}

/** A request that was sent at noon, and never answered. */
async function sendUnanswered(world: World, index: number): Promise<void> {
  const { ledger, clock } = world.line;
  await ledger.move(ref(world, index), "claim", { nowMs: clock(), nonce: `nonce-${index}` });
}

async function makeUnclear(world: World, ...indexes: readonly number[]): Promise<void> {
  for (const index of indexes) {
    await sendUnanswered(world, index);
    await world.line.ledger.move(ref(world, index), "doubt", { nowMs: world.line.clock(), nonce: `nonce-${index}` });
  }
}

function depsOf(world: World, fields: Partial<SweepDeps> = {}): SweepDeps {
  const { bucket, ledger, queues, clock } = world.line;
  return {
    ...wakeEffects(world.line),
    provider: { list: async (query) => page(world, query) },
    noteSweep: ledger.noteSweep,
    intents: ledger.intents,
    openOn: ledger.openOn,
    readRow: async ({ account, batch, index }) => {
      const [place] = await placeItems({ bucket, ledger }, account, batch, index, 1);
      if (place === undefined) throw new Error("the row is gone");
      return readRow(bucket, batch, place);
    },
    move: ledger.move,
    withdraw: (of, row, why) => withdrawItem(of, row, why, { bucket, ledger, queues, clock }),
    keepEnding: (of, ending) => keepEnding(bucket, of, ending),
    enqueueFollow: queues.follow,
    enqueueRecord: queues.record,
    wakeFeed: queues.wakeFeed,
    policy: DEFAULT_SWEEP_POLICY,
    whenAbsent: "resend",
    memory: sweepMemory(),
    ...fields,
  };
}

/** Two a page, newest first, as the provider filters them. */
function page(world: World, query: World["asked"][number]): ListPage {
  world.asked.push(query);
  const [, span = "", from = "0"] = /^(.*)#(\d+)$/.exec(query.next ?? "") ?? [];
  const { after, before } = query.next === undefined ? query : (JSON.parse(span) as World["asked"][number]);
  const all = world.shown
    .filter(({ atMs }) => atMs >= Date.parse(after ?? "") && atMs < Date.parse(before ?? ""))
    .toSorted((a, b) => b.atMs - a.atMs);
  const start = Number(from);
  const some = all.slice(start, start + 2);
  return {
    predictions: some.map(({ id, atMs }) => predictionOf(id, { createdAt: new Date(atMs).toISOString() })),
    inputs: new Map(some.map(({ id, input }) => [predictionId(id), input])),
    serverDate: new Date(world.line.clock()),
    ...(start + 2 < all.length && { next: `${JSON.stringify({ after, before })}#${start + 2}` }),
  };
}

const signal = new AbortController().signal;
const sweep = (world: World, fields: Partial<SweepDeps> = {}) => sweepPredictions(depsOf(world, fields), signal);
const CLEAN_MS = 12 * MINUTE;

async function stateOf(world: World, index: number): Promise<ItemState> {
  return (await world.line.ledger.readItem(ref(world, index))).state;
}

describe("an unclear item", () => {
  test("whose prediction the list shows is bound to it and followed", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    world.shown.push(
      { id: "other", input: { prompt: "a horse" }, atMs: NOON + SECOND },
      { id: "ours", input: { prompt: "crow", steps: 28 }, atMs: NOON + 2 * SECOND },
      { id: "older", input: { prompt: "crow" }, atMs: NOON - 5 * MINUTE },
    );
    expect(await line.ledger.resolvesByItself(ACCOUNT, line.clock()), "nobody looks yet").toBe(false);
    await sweep(world, { provider: { list: async () => ({ predictions: [], inputs: new Map() }) } });
    expect(await line.ledger.resolvesByItself(ACCOUNT, line.clock())).toBe(true);
    expect(await sweep(world)).toMatchObject({ kind: "snooze" });
    expect(await line.ledger.resolvesByItself(ACCOUNT, line.clock()), "it is resolved").toBe(false);
    expect(await line.ledger.readItem(ref(world, 1))).toMatchObject({
      state: "running",
      fields: { prediction_id: "ours", by_list: "1" },
    });
    expect(await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).toMatchObject([
      { id: errandId(ref(world, 1)), data: [ACCOUNT, "ours", NOON, null] },
    ]);
  });

  test("that the list surely doesn't have is sent again, and before that is certain it is held", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    await sweep(world);
    expect(await stateOf(world, 1)).toBe("unclear");
    line.clock.forward(CLEAN_MS);
    await sweep(world);
    expect(await stateOf(world, 1)).toBe("waiting");
    expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10)).toEqual([{ index: 1, attempt: 1 }]);
  });

  test("of a batch that was canceled meanwhile ends canceled, with its receipt", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    await line.ledger.cancelBatch({ id: world.batch, account: ACCOUNT }, line.clock());
    line.clock.forward(CLEAN_MS);
    await sweep(world);
    expect(await stateOf(world, 1)).toBe("canceled");
    expect(await readReceipt(line.bucket, ref(world, 1))).toMatchObject({ status: "canceled", prediction_id: null });
  });

  test("is held or failed, where the account's policy is so", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    line.clock.forward(CLEAN_MS);
    await sweep(world, { whenAbsent: "hold" });
    expect(await stateOf(world, 1)).toBe("unclear");
    await sweep(world, { whenAbsent: "fail" });
    expect(await stateOf(world, 1)).toBe("recording");
    expect(await line.jobs(QUEUE_NAMES.record)).toMatchObject([{ id: errandId(ref(world, 1)) }]);
  });

  test("whose prediction came so late that its request was long given up is bound, and never sent again", async ({
    line,
  }) => {
    for (const lateMs of [90 * SECOND, 10 * MINUTE + 50 * SECOND]) {
      const world = await open(line);
      await makeUnclear(world, 1);
      line.clock.forward(CLEAN_MS);
      world.shown.push({ id: `late-${lateMs}`, input: { prompt: "crow" }, atMs: NOON + lateMs });
      await sweep(world);
      expect(await line.ledger.readItem(ref(world, 1))).toMatchObject({
        state: "running",
        fields: { prediction_id: `late-${lateMs}` },
      });
      expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10)).toEqual([]);
    }
  });

  test("of a span that began too long ago is bound still, and never sent again", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1, 2);
    const intents: SweepDeps["intents"] = async (account, which, limit) =>
      (await line.ledger.intents(account, which, limit)).map((one) => ({ ...one, toMs: one.toMs + 30 * MINUTE }));
    world.shown.push({ id: "ours", input: { prompt: "crow" }, atMs: NOON + 25 * MINUTE });
    line.clock.forward(70 * MINUTE);
    await sweep(world, { intents });
    expect([await stateOf(world, 1), await stateOf(world, 2)]).toEqual(["running", "unclear"]);
    expect(Date.parse(world.asked[0]?.after ?? ""), "what is emptied by now isn't read").toBeGreaterThan(NOON);
  });

  test("is left alone while its account is being opened, though that ends in between", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    line.clock.forward(CLEAN_MS);
    for (const answers of [
      [null, "one"],
      ["one", null],
      ["one", "another"],
    ]) {
      const openOn = answers.values();
      await sweep(world, { openOn: async () => openOn.next().value ?? null });
      expect(await stateOf(world, 1)).toBe("unclear");
    }
    await sweep(world);
    expect(await stateOf(world, 1)).toBe("waiting");
  });

  test("that nobody asked about within the hour is held for a person", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    line.clock.forward(51 * MINUTE);
    await sweep(world);
    expect(await stateOf(world, 1)).toBe("unclear");
    expect(world.asked, "and the list isn't read for it").toEqual([]);
  });

  test("is held while a prediction is there that could be its own", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1, 2);
    world.shown.push({ id: "emptied", input: {}, atMs: NOON + SECOND });
    line.clock.forward(CLEAN_MS);
    await sweep(world);
    expect([await stateOf(world, 1), await stateOf(world, 2)]).toEqual(["unclear", "unclear"]);
  });

  test("doesn't get what another attempt holds", async ({ line }) => {
    const world = await open(line);
    await sendUnanswered(world, 0);
    await line.ledger.move(ref(world, 0), "bind", {
      nowMs: line.clock(),
      nonce: "nonce-0",
      predictionId: predictionId("twin"),
    });
    await makeUnclear(world, 3);
    world.shown.push({ id: "twin", input: { prompt: "fox" }, atMs: NOON + SECOND });
    line.clock.forward(CLEAN_MS);
    await sweep(world);
    expect(await stateOf(world, 3)).toBe("waiting");
  });

  test("waits while its twin's request is on its way", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 0);
    await sendUnanswered(world, 3);
    world.shown.push({ id: "whose", input: { prompt: "fox" }, atMs: NOON + SECOND });
    line.clock.forward(CLEAN_MS);
    await sweep(world);
    expect(await stateOf(world, 0)).toBe("unclear");
  });

  test("waits for its twin's request also where that becomes unclear while intents are read", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 0);
    await sendUnanswered(world, 3);
    world.shown.push({ id: "whose", input: { prompt: "fox" }, atMs: NOON + SECOND });
    line.clock.forward(CLEAN_MS);
    let reads = 0;
    const intents: SweepDeps["intents"] = async (...args) => {
      const found = await line.ledger.intents(...args);
      // Once before the list is read; then between the two that are read after it.
      if (++reads === 2) await line.ledger.move(ref(world, 3), "doubt", { nowMs: line.clock(), nonce: "nonce-3" });
      return found;
    };
    await sweep(world, { intents });
    expect(reads).toBe(3);
    expect([await stateOf(world, 0), await stateOf(world, 3)]).toEqual(["unclear", "unclear"]);
  });

  test("isn't sent again because of a sweep that was read for an earlier intent", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    line.clock.forward(CLEAN_MS);
    const { move } = line.ledger;
    await sweep(world, {
      move: async (of, step, options) => {
        // Between the decision and its step the item was sent once more, and is unclear again.
        await move(of, "giveBack", { nowMs: line.clock(), nonce: "nonce-1" });
        await move(of, "claim", { nowMs: line.clock(), nonce: "later" });
        await move(of, "doubt", { nowMs: line.clock(), nonce: "later" });
        return move(of, step, options);
      },
    });
    expect(await stateOf(world, 1)).toBe("unclear");
  });
});

describe("a sweep", () => {
  test("whose unclear items' rows can't be read decides nothing, says so, and comes again", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 0, 1);
    world.shown.push({ id: "mine", input: { prompt: "fox" }, atMs: NOON + SECOND });
    line.clock.forward(CLEAN_MS);
    const told: string[] = [];
    const { readRow: readIt } = depsOf(world);
    const readRow: SweepDeps["readRow"] = async (of) => {
      if (of.index === 1) throw new Error("the row is gone");
      return readIt(of);
    };
    const outcome = await sweep(world, { readRow, warn: (_fields, message) => told.push(message) });
    expect(outcome.kind).toBe("snooze");
    expect(told).toEqual([expect.stringMatching(/unclear items wait/)]);
    expect([await stateOf(world, 0), await stateOf(world, 1)]).toEqual(["unclear", "unclear"]);
  });

  test("reads all pages of one span for all items, on the provider's clock", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 0, 1, 2, 3);
    for (let n = 0; n < 5; n++) world.shown.push({ id: `p${n}`, input: { prompt: `horse ${n}` }, atMs: NOON + n });
    world.shown.push({ id: "late", input: { prompt: "whale" }, atMs: NOON - 1 });
    line.clock.forward(CLEAN_MS);
    await sweep(world);
    expect(world.asked).toHaveLength(3);
    expect(await stateOf(world, 2)).toBe("running");
    expect(await stateOf(world, 1)).toBe("waiting");
  });

  test("keeps nothing in mind of what attempts hold, however much a span shows", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    for (const [index, id] of ["p0", "p2", "p3"].entries()) {
      const of = { ...ref(world, 0), index: index === 0 ? 0 : index + 1 };
      await line.ledger.move(of, "claim", { nowMs: NOON, nonce: id });
      await line.ledger.move(of, "bind", { nowMs: NOON, nonce: id, predictionId: predictionId(id) });
      world.shown.push({ id, input: { prompt: "x".repeat(1_000) }, atMs: NOON + index });
    }
    world.shown.push({ id: "other", input: { prompt: "a horse" }, atMs: NOON + SECOND });
    line.clock.forward(CLEAN_MS);
    const looked: number[] = [];
    const holdersAmong: SweepDeps["holdersAmong"] = (account, ids, nowMs) => {
      looked.push(ids.length);
      return line.ledger.holdersAmong(account, ids, nowMs);
    };
    await sweep(world, { holdersAmong });
    expect(looked, "two pages, and what was left of them").toEqual([2, 2, 1]);
    expect(await stateOf(world, 1)).toBe("waiting");
  });

  test("that breaks off proves nothing", async ({ line }) => {
    const world = await open(line);
    await makeUnclear(world, 1);
    for (let n = 0; n < 5; n++) world.shown.push({ id: `p${n}`, input: { prompt: `horse ${n}` }, atMs: NOON + n });
    line.clock.forward(CLEAN_MS);
    const list: SweepDeps["provider"]["list"] = async (query) => {
      if (query.next !== undefined) throw new ProviderError("the list broke off", { kind: "unknown" });
      return page(world, query);
    };
    await sweep(world, { provider: { list } });
    expect(await stateOf(world, 1)).toBe("unclear");
  });

  test("that may not read for the moment says all the same that somebody looks, and is no trouble", async ({
    line,
  }) => {
    const world = await open(line);
    await makeUnclear(world, 0);
    const told: string[] = [];
    const outcome = await sweep(world, {
      provider: { list: () => Promise.reject(new NoReadLeft("list", HOUR)) },
      warn: (_fields, message) => told.push(message),
    });
    expect(outcome).toEqual({ kind: "snooze", untilMs: line.clock() + 2 * SECOND });
    expect(await stateOf(world, 0)).toBe("unclear");
    expect(await line.ledger.resolvesByItself(ACCOUNT, line.clock())).toBe(true);
    expect(told).toEqual([]);
  });

  test("comes as often as each of its two ends wants it, and no more often for the other", async ({ line }) => {
    const world = await open(line);
    await line.ledger.move(ref(world, 0), "claim", { nowMs: NOON, nonce: "n" });
    const id = predictionId("runs");
    await line.ledger.move(ref(world, 0), "bind", { nowMs: NOON, nonce: "n", predictionId: id });
    await line.queues.follow(ref(world, 0), { id, startedAtMs: NOON, deadlineAtMs: null }, HOUR);
    for (let runs = 0; runs < 10; runs++) await line.ledger.learnRun(ACCOUNT, "a/b", 20 * SECOND, NOON);
    line.clock.forward(15 * SECOND);
    const memory = sweepMemory();
    const askedAfter = async (ms: number): Promise<number> => {
      line.clock.forward(ms);
      const before = world.asked.length;
      await sweep(world, { memory });
      return world.asked.length - before;
    };
    // Half of the runs take 20 s: what has ended is looked for every ten. Nothing is unclear, so the other asks nothing.
    const seen = [];
    for (let run = 0; run < 5; run++) seen.push(await askedAfter(run === 0 ? 0 : 6 * SECOND));
    expect(seen).toEqual([1, 0, 1, 0, 1]);
  });

  test("isn't made where nothing is unclear, or the provider has no list", async ({ line }) => {
    const world = await open(line);
    await sweep(world);
    await makeUnclear(world, 1);
    await sweep(world, { provider: {} });
    expect(world.asked).toEqual([]);
    expect(await stateOf(world, 1)).toBe("unclear");
  });

  test("killed after any effect and run again decides the same; a lost errand is the keeper's to find", async ({
    line,
  }) => {
    const { undisturbed, crashes } = await everyCrash({
      async open() {
        const world = await open(line);
        await makeUnclear(world, 0, 1);
        world.shown.push({ id: "ours", input: { prompt: "crow" }, atMs: NOON + SECOND });
        line.clock.forward(CLEAN_MS);
        return world;
      },
      run: (world, wrap) => sweepPredictions(wrap(depsOf(world)), signal),
      look: (world) => Promise.all(PROMPTS.map((_, index) => stateOf(world, index))),
    });
    expect(undisturbed).toEqual(["waiting", "running", "waiting", "waiting"]);
    expect(crashes.length).toBeGreaterThan(5);
    for (const { diedAfter, seen } of crashes) expect([diedAfter, seen]).toEqual([diedAfter, undisturbed]);
    expect(await line.ledger.untouched(ACCOUNT, line.clock(), 10)).toContainEqual(
      expect.objectContaining({ index: 1 }),
    );
  });
});
