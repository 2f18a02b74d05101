import { describe, expect } from "vitest";
import { CannotHold, type HoldDeps, holdBatch } from "../../src/batches/hold-batch.ts";
import { writeBatchAct } from "../../src/bucket/acts.ts";
import type { Batch } from "../../src/core/batch.ts";
import { OBJECT_KEYS, QUEUE_NAMES } from "../../src/core/naming.ts";
import type { BatchStanding } from "../../src/ledger/ledger.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, NOON, newBatch, refOf, test } from "../support/stages.ts";

type World = { readonly line: Line; readonly batch: Batch };

async function openWorld(line: Line, fields: Partial<Batch> = {}): Promise<World> {
  await line.clear();
  const batch = newBatch(fields);
  await line.ledger.openBatch(batch);
  return { line, batch };
}

const depsOf = ({ line: { bucket, ledger, queues, clock } }: World): HoldDeps => ({ bucket, ledger, queues, clock });

async function standingOf({ line, batch }: World): Promise<BatchStanding> {
  const standing = await line.ledger.standing(ACCOUNT, batch.id);
  if (standing === null) throw new Error(`Redis knows no batch ${batch.id}`);
  return standing;
}

async function hold(world: World, act: "pause" | "resume" | "cancel", deps = depsOf(world)): Promise<boolean> {
  return holdBatch(await standingOf(world), act, deps);
}

/** What people decided, in the order of its numbers, which may have gaps. */
async function actsOf({ line: { bucket }, batch }: World): Promise<readonly unknown[]> {
  const acts: unknown[] = [];
  for (let n = 0; n < 20; n++) {
    const body = await bucket.get(OBJECT_KEYS.batchAct(batch.id, n), { maxBytes: 10_000 });
    if (body !== null) acts.push(JSON.parse(body.toString("utf8")));
  }
  return acts;
}

const at = "2026-11-20T12:00:00.000Z";

describe("a batch", () => {
  test("is paused, resumed and canceled; each is told once, recorded once, and wakes the feed", async ({ line }) => {
    const world = await openWorld(line);
    const acts = ["pause", "resume", "pause", "cancel"] as const;
    for (const act of acts) {
      await line.redis.del(`bull:${QUEUE_NAMES.feed}:feed-${ACCOUNT}`);
      expect(await hold(world, act), act).toBe(true);
      expect(await line.jobs(QUEUE_NAMES.feed), act).toHaveLength(1);
      expect(await hold(world, act), `${act} again`).toBe(false);
    }
    expect(await actsOf(world)).toEqual(acts.map((act) => ({ act, at })));
    expect(await standingOf(world)).toMatchObject({ paused: null, canceledAtMs: NOON });
  });

  test("that is paused says by whom and since when", async ({ line }) => {
    const world = await openWorld(line);
    await hold(world, "pause");
    expect((await standingOf(world)).paused).toBe(`paused by a person at ${at}`);
  });

  test("that isn't paused needs no resuming, and nothing is recorded of it", async ({ line }) => {
    const world = await openWorld(line);
    expect(await hold(world, "resume")).toBe(false);
    expect(await actsOf(world)).toEqual([]);
  });

  test("that has finished, or was canceled, can't be held any more, and nothing is recorded of it", async ({
    line,
  }) => {
    const finished = await openWorld(line);
    await line.ledger.finishBatch(ACCOUNT, finished.batch.id, NOON, 0);
    for (const act of ["pause", "resume", "cancel"] as const) {
      await expect(hold(finished, act)).rejects.toThrow(/has finished/);
    }
    expect(await actsOf(finished)).toEqual([]);

    const canceled = await openWorld(line);
    await hold(canceled, "cancel");
    for (const act of ["pause", "resume"] as const) await expect(hold(canceled, act)).rejects.toThrow(/is canceled/);
    expect(await actsOf(canceled)).toHaveLength(1);
  });

  test("that ends between the look and the act isn't called paused", async ({ line }) => {
    const world = await openWorld(line);
    const standing = await standingOf(world);
    await line.ledger.finishBatch(ACCOUNT, world.batch.id, NOON, 0);
    await expect(holdBatch(standing, "pause", depsOf(world))).rejects.toThrow(CannotHold);
    expect((await standingOf(world)).paused).toBeNull();
  });

  test("of singles is paused like any other, and canceled only one by one", async ({ line }) => {
    const world = await openWorld(line, { kind: "singles", items: 0 });
    await expect(hold(world, "cancel")).rejects.toThrow(/more may come: cancel them one by one/);
    expect(await actsOf(world)).toEqual([]);
    expect(await hold(world, "pause")).toBe(true);
    expect(await hold(world, "resume")).toBe(true);
  });
});

test("the act stands in the bucket before it takes effect", async ({ line }) => {
  const world = await openWorld(line);
  const deps = depsOf(world);
  let recorded: readonly unknown[] = [];
  const cancelBatch: typeof deps.ledger.cancelBatch = async (...of) => {
    recorded = await actsOf(world);
    expect((await standingOf(world)).canceledAtMs).toBeNull();
    return deps.ledger.cancelBatch(...of);
  };
  expect(await hold(world, "cancel", { ...deps, ledger: { ...deps.ledger, cancelBatch } })).toBe(true);
  expect(recorded).toEqual([{ act: "cancel", at }]);
});

test("an act takes the next free number, whoever took the ones before, and changes none of them", async ({ line }) => {
  const world = await openWorld(line);
  const { bucket } = line;
  // As a Redis that was lost would have left them: numbers that it knows nothing of.
  for (const n of [1, 2, 3]) await writeBatchAct(bucket, world.batch.id, n, { act: "pause" }, NOON - 1_000);
  line.clock.forward(1_000);
  await hold(world, "pause");
  expect(await actsOf(world)).toEqual([
    ...Array.from({ length: 3 }, () => ({ act: "pause", at: "2026-11-20T11:59:59.000Z" })),
    { act: "pause", at: "2026-11-20T12:00:01.000Z" },
  ]);
});

test("two people at once are two acts, and one of them did it", async ({ line }) => {
  const world = await openWorld(line);
  const standing = await standingOf(world);
  const did = await Promise.all([1, 2, 3].map(() => holdBatch(standing, "cancel", depsOf(world))));
  expect(did.filter(Boolean)).toHaveLength(1);
  expect(await actsOf(world)).toHaveLength(3);
});

describe("killed after any effect and said again twice,", () => {
  test.for(["pause", "resume", "cancel"] as const)("a %s is as if nothing had happened", async (act, { line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: async () => {
        const world = await openWorld(line);
        await line.ledger.move(refOf(world.batch, 2), "claim", { nowMs: NOON, nonce: "n" });
        if (act === "resume") await line.ledger.pauseBatch(world.batch, "why");
        return world;
      },
      run: (world, wrap) => hold(world, act, wrap(depsOf(world))),
      look: async (world) => ({
        standing: { ...(await standingOf(world)), batch: null },
        unfed: (await line.ledger.unfedBatches(ACCOUNT, 10)).length,
        canceling: (await line.ledger.cancelingBatches(ACCOUNT, 10)).length,
        acts: await actsOf(world),
      }),
    });
    const effect = { pause: "pauseBatch", resume: "resumeBatch", cancel: "cancelBatch" }[act];
    expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual(["nextAct", "head", "putOnce", effect, "wakeFeed"]);
    for (const { diedAfter, seen } of crashes) {
      // Whoever died between the two said it, and it was said again.
      const acts = diedAfter === "putOnce" ? [{ act, at }, ...undisturbed.acts] : undisturbed.acts;
      expect(seen, `died after ${diedAfter}`).toEqual({ ...undisturbed, acts });
    }
  });
});
