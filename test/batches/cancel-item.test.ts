import { describe, expect } from "vitest";
import { type CancelDeps, cancelItem } from "../../src/batches/cancel-item.ts";
import { findItem } from "../../src/batches/find-item.ts";
import type { Act } from "../../src/bucket/acts.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import type { ItemState, ItemStep } from "../../src/core/item.ts";
import { type AttemptRef, itemId, OBJECT_KEYS, QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { HOUR } from "../../src/core/time.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, NOON, test } from "../support/stages.ts";

const P1 = predictionId("p1");

const WAY_TO = {
  waiting: [],
  claimed: ["claim"],
  running: ["claim", "bind"],
  copying: ["claim", "bind", "succeed"],
  recording: ["claim", "refuse"],
  saved: ["claim", "bind", "succeed", "finishCopy", "save"],
  failed: ["claim", "refuse", "fail"],
  canceled: ["withdraw"],
  unclear: ["claim", "doubt"],
} as const satisfies Record<ItemState, readonly ItemStep[]>;

type World = { readonly line: Line; readonly ref: AttemptRef };

/** The first item of two, brought to a state; a running one is polled in an hour. */
async function openWorld(line: Line, state: ItemState): Promise<World> {
  await line.clear();
  const batch = await line.submit([{ prompt: "a" }, { prompt: "b" }]);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  for (const step of WAY_TO[state]) {
    const more = step === "claim" ? { nonce: "n" } : step === "bind" ? { predictionId: P1 } : {};
    await line.ledger.move(ref, step, { nowMs: NOON, ...more });
  }
  if (state === "running") {
    await line.queues.follow(ref, { id: P1, startedAtMs: NOON, deadlineAtMs: null }, HOUR);
  }
  return { line, ref };
}

const depsOf = ({ line: { bucket, ledger, queues, clock } }: World): CancelDeps => ({ bucket, ledger, queues, clock });

/** As a command does it: look, then act. */
async function cancel({ line, ref }: World, deps = depsOf({ line, ref })): Promise<ItemState> {
  const found = await findItem(line, itemId(ref.batch, ref.index));
  if (found === null) throw new Error("the item isn't there");
  return cancelItem(found, found.row, deps);
}

async function actsOf({ line: { bucket }, ref }: World): Promise<readonly Act[]> {
  const bodies = await Promise.all(
    [1, 2, 3].map((n) => bucket.get(OBJECT_KEYS.batchAct(ref.batch, n), { maxBytes: 10_000 })),
  );
  return bodies.flatMap((body) => (body === null ? [] : (JSON.parse(body.toString("utf8")) as Act)));
}

async function look(world: World) {
  const { line, ref } = world;
  const { state, fields } = await line.ledger.readItem(ref);
  return {
    state,
    marked: "cancel" in fields,
    receipt: await readReceipt(line.bucket, ref),
    polls: (await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).map(({ delay }) => delay),
    counts: (await line.ledger.standing(ACCOUNT, ref.batch))?.counts,
  };
}

const act = { act: "cancel", items: [0], at: "2026-11-20T12:00:00.000Z" };

describe("an item", () => {
  test("that waits ends unbought, with a receipt", async ({ line }) => {
    const world = await openWorld(line, "waiting");
    expect(await cancel(world)).toBe("canceled");
    expect(await look(world)).toMatchObject({
      state: "canceled",
      receipt: { prediction_status: "canceled", error: "canceled before it was bought" },
      counts: { waiting: 1, canceled: 1 },
    });
    expect(await actsOf(world)).toEqual([act]);
  });

  test("that runs is marked, and its next poll is brought forward", async ({ line }) => {
    const world = await openWorld(line, "running");
    expect(await cancel(world)).toBe("running");
    expect(await look(world)).toMatchObject({ state: "running", marked: true, polls: [0], receipt: null });
    expect(await line.ledger.takeMarks(world.ref, "processing")).toMatchObject({ cancel: true });
    expect(await actsOf(world)).toEqual([act]);
  });

  test.for(["claimed", "copying", "recording", "unclear"] as const)(
    "that is %s is marked, for whoever comes to it next",
    async (state, { line }) => {
      const world = await openWorld(line, state);
      expect(await cancel(world)).toBe(state);
      expect(await look(world)).toMatchObject({ state, marked: true, receipt: null, polls: [] });
      expect(await actsOf(world)).toEqual([act]);
    },
  );

  test.for(["saved", "failed", "canceled"] as const)(
    "that is %s stays so, and nothing is recorded",
    async (state, { line }) => {
      const world = await openWorld(line, state);
      const before = await look(world);
      expect(await cancel(world)).toBe(state);
      expect(await look(world)).toEqual(before);
      expect(await actsOf(world)).toEqual([]);
    },
  );

  test("whose poll runs at this moment is woken a second later", async ({ line }) => {
    const world = await openWorld(line, "running");
    const deps = depsOf(world);
    const wakes: number[] = [];
    const wakeFollow: CancelDeps["queues"]["wakeFollow"] = async (ref) => {
      wakes.push(performance.now());
      return wakes.length > 1 && (await deps.queues.wakeFollow(ref));
    };
    await cancel(world, { ...deps, queues: { ...deps.queues, wakeFollow } });
    expect(wakes).toHaveLength(2);
    expect((wakes[1] ?? 0) - (wakes[0] ?? 0)).toBeGreaterThan(900);
    expect((await look(world)).polls).toEqual([0]);
  });
});

describe("while somebody works on it, an item", () => {
  /** Something happens each time the item is about to be marked. */
  const withMeanwhile = (world: World, meanwhile: (times: number) => Promise<unknown>): CancelDeps => {
    const deps = depsOf(world);
    let times = 0;
    const markItem: typeof deps.ledger.markItem = async (...of) => {
      await meanwhile(++times);
      return deps.ledger.markItem(...of);
    };
    return { ...deps, ledger: { ...deps.ledger, markItem } };
  };

  test("that is claimed, and then given back before it is marked, is withdrawn all the same", async ({ line }) => {
    const world = await openWorld(line, "claimed");
    const deps = withMeanwhile(world, () => line.ledger.move(world.ref, "giveBack", { nowMs: NOON, nonce: "n" }));
    expect(await cancel(world, deps)).toBe("canceled");
    expect((await look(world)).state).toBe("canceled");
  });

  test("that ends before it is marked is as it ended", async ({ line }) => {
    const world = await openWorld(line, "recording");
    const deps = withMeanwhile(world, () => line.ledger.move(world.ref, "fail", { nowMs: NOON }));
    expect(await cancel(world, deps)).toBe("failed");
  });

  test("that is bound before it is marked is marked as running", async ({ line }) => {
    const world = await openWorld(line, "claimed");
    const deps = withMeanwhile(world, () => line.ledger.move(world.ref, "bind", { nowMs: NOON, predictionId: P1 }));
    expect(await cancel(world, deps)).toBe("running");
    expect(await look(world)).toMatchObject({ state: "running", marked: true });
  });

  test("that is to be bought again by then isn't: its next attempt is canceled", async ({ line }) => {
    const world = await openWorld(line, "recording");
    await line.redis.hset(REDIS_KEYS.batch(ACCOUNT, world.ref.batch), "retry_failed", 1);
    const deps = withMeanwhile(world, () =>
      line.ledger.move(world.ref, "fail", { nowMs: NOON, retry: { recordedAtMs: NOON } }),
    );
    expect(await cancel(world, deps)).toBe("canceled");
    expect(await line.ledger.readItem(world.ref)).toMatchObject({ attempt: 2, state: "canceled" });
    expect(await readReceipt(line.bucket, { ...world.ref, attempt: 2 })).toMatchObject({ status: "canceled" });
    expect(await actsOf(world)).toEqual([act]);
  });

  test("that is claimed and given back over and over isn't called canceled", async ({ line }) => {
    const world = await openWorld(line, "claimed");
    const deps = withMeanwhile(world, () => line.ledger.move(world.ref, "giveBack", { nowMs: NOON, nonce: "n" }));
    const move: typeof deps.ledger.move = async (ref, step, options) => {
      if (step === "withdraw") await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
      return deps.ledger.move(ref, step, options);
    };
    await expect(cancel(world, { ...deps, ledger: { ...deps.ledger, move } })).rejects.toThrow(
      /was claimed and given back 100 times/,
    );
    expect((await look(world)).state).toBe("waiting");
  });
});

describe("killed after any effect and said again twice,", () => {
  test.for(["waiting", "claimed", "running", "unclear"] as const)(
    "the cancel of a %s item is as if nothing had happened",
    async (state, { line }) => {
      const { undisturbed, crashes } = await everyCrash({
        open: () => openWorld(line, state),
        run: (world, wrap) => cancel(world, wrap(depsOf(world))),
        look,
      });
      expect(crashes.length).toBeGreaterThan(4);
      for (const { diedAfter, seen } of crashes) {
        // Its receipt is lost with whoever died between the byte and the receipt: it has ended, so nobody comes again.
        const receipt = state === "waiting" && diedAfter === "move" ? null : undisturbed.receipt;
        expect(seen, `died after ${diedAfter}`).toEqual({ ...undisturbed, receipt });
      }
    },
  );
});

test("an item that isn't there is found nowhere", async ({ line }) => {
  const { ref } = await openWorld(line, "waiting");
  expect(await findItem(line, itemId(ref.batch, 1))).toMatchObject({ index: 1, state: "waiting" });
  expect(await findItem(line, itemId(ref.batch, 2)), "past the batch's end").toBeNull();
  expect(await findItem(line, "0".repeat(26)), "of a batch that nobody knows").toBeNull();
  expect(await findItem(line, ref.batch), "no item's id").toBeNull();
});
