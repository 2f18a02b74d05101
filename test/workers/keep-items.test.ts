import { describe, expect } from "vitest";
import type { ItemStep } from "../../src/core/item.ts";
import { UNTOUCHED_MS } from "../../src/core/keeping.ts";
import { type AttemptRef, errandId } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { MINUTE } from "../../src/core/time.ts";
import { type KeepDeps, keepItems } from "../../workers/keep-items.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, NOON, test } from "../support/stages.ts";

/** What the keeper revived, in place of the wiring that adds the jobs. */
type Revived = { readonly id: string; readonly errand: string };

function depsOf(line: Line, revived: Revived[], feeds: string[] = []): KeepDeps {
  const { ledger, queues, clock } = line;
  return {
    accounts: [ACCOUNT],
    untouched: ledger.untouched,
    readItem: ledger.readItem,
    touch: ledger.touch,
    close: ledger.close,
    revive: async (ref, errand) => {
      revived.push({ id: errandId(ref), errand });
    },
    reviveErrands: async (account) => {
      feeds.push(account);
    },
    unfinishedBatches: ledger.unfinishedBatches,
    standing: ledger.standing,
    enqueueFinish: queues.finish,
    warn: () => undefined,
    clock,
  };
}

const signal = new AbortController().signal;

const WAYS: readonly (readonly [errand: string | null, steps: readonly ItemStep[]])[] = [
  ["create", []],
  ["create", ["claim"]],
  ["follow", ["claim", "bind"]],
  ["copy", ["claim", "bind", "succeed"]],
  ["record", ["claim", "bind", "succeed", "finishCopy"]],
  [null, ["claim", "refuse", "fail"]],
  [null, ["claim", "doubt"]],
];

/** A batch with an item in every state that an item can stand still in. */
async function openWorld(line: Line): Promise<readonly AttemptRef[]> {
  await line.clear();
  const batch = await line.submit(WAYS.map((_, n) => ({ prompt: `input ${n}` })));
  const refs = WAYS.map((_, index): AttemptRef => ({ account: ACCOUNT, batch, index, attempt: 1 }));
  await line.ledger.advance(ACCOUNT, batch, { before: 0, after: refs.length }, refs, NOON);
  for (const [n, [, steps]] of WAYS.entries()) {
    const ref = refs[n] as AttemptRef;
    for (const step of steps) {
      await line.ledger.move(ref, step, {
        nowMs: NOON,
        ...(step === "claim" && { nonce: "n" }),
        ...(step === "bind" && { predictionId: predictionId(`p${n}`) }),
      });
    }
  }
  return refs;
}

describe("an open item", () => {
  test("that nobody touched for ten minutes gets the errand that its state implies", async ({ line }) => {
    const refs = await openWorld(line);
    line.clock.forward(UNTOUCHED_MS - 1);
    const revived: Revived[] = [];
    await keepItems(depsOf(line, revived), signal);
    expect(revived, "a moment too early").toEqual([]);

    line.clock.forward(1);
    await keepItems(depsOf(line, revived), signal);
    const expected = WAYS.flatMap(([errand], n) =>
      errand === null ? [] : [{ id: errandId(refs[n] as AttemptRef), errand }],
    );
    expect(revived.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(expected);

    line.clock.forward(MINUTE);
    await keepItems(depsOf(line, revived), signal);
    expect(revived, "it was touched: its turn comes in ten minutes").toHaveLength(expected.length);
  });

  test("that isn't open after all is taken out of the open ones", async ({ line }) => {
    const refs = await openWorld(line);
    const ended = refs[5] as AttemptRef;
    await line.redis.zadd(
      `outlast:{${ACCOUNT}}:open`,
      NOON,
      errandId(ended),
      NOON,
      errandId({ ...ended, index: 0, attempt: 2 }),
    );
    line.clock.forward(UNTOUCHED_MS);
    const revived: Revived[] = [];
    await keepItems(depsOf(line, revived), signal);
    expect(revived.map(({ id }) => id)).not.toContain(errandId(ended));
    const open = await line.ledger.untouched(ACCOUNT, line.clock(), 100);
    expect(open).toHaveLength(5);
    expect(open.every(({ attempt }) => attempt === 1)).toBe(true);
  });
});

test("the feed of every account is kept running, and a batch whose end nobody noticed is finished", async ({
  line,
}) => {
  await line.clear();
  const batch = await line.submit([{ prompt: "only" }]);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  const feeds: string[] = [];
  await keepItems(depsOf(line, [], feeds), signal);
  expect(feeds).toEqual([ACCOUNT]);
  expect(await line.jobs("outlast-finish")).toEqual([]);
  for (const step of ["claim", "refuse", "fail"] as const)
    await line.ledger.move(ref, step, { nowMs: NOON, nonce: "n" });
  await keepItems(depsOf(line, []), signal);
  expect((await line.jobs("outlast-finish")).map(({ id }) => id)).toEqual([batch]);
});

test("one item that can't be helped doesn't keep the others waiting", async ({ line }) => {
  await openWorld(line);
  line.clock.forward(UNTOUCHED_MS);
  const revived: Revived[] = [];
  const told: string[] = [];
  const deps = depsOf(line, revived);
  await keepItems(
    {
      ...deps,
      warn: (_fields, message) => told.push(message),
      revive: async (...of) => {
        if (told.length === 0) throw new Error("its input is missing");
        await deps.revive(...of);
      },
    },
    signal,
  );
  expect(told).toHaveLength(1);
  expect(revived.length).toBeGreaterThan(0);
});

test("a keeper that is told to stop leaves the rest to the next", async ({ line }) => {
  await openWorld(line);
  line.clock.forward(UNTOUCHED_MS);
  const revived: Revived[] = [];
  await keepItems(depsOf(line, revived), AbortSignal.abort());
  expect(revived).toEqual([]);
  await keepItems(depsOf(line, revived), signal);
  expect(revived).toHaveLength(5);
});

test("killed after any effect and run again twice, the keeper leaves nobody out", async ({ line }) => {
  type World = { readonly revived: Revived[] };
  const { undisturbed, crashes } = await everyCrash<World, unknown>({
    open: async () => {
      await openWorld(line);
      line.clock.forward(UNTOUCHED_MS);
      return { revived: [] };
    },
    run: ({ revived }, wrap) => keepItems(wrap(depsOf(line, revived)), signal),
    look: async ({ revived }) => ({
      ids: [...new Set(revived.map(({ id }) => id))].toSorted(),
      seen: await line.look(),
    }),
  });
  expect(crashes.length).toBeGreaterThan(15);
  for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
});
