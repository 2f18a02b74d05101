/** What is kept beside the bytes, and stays bounded: failures in groups, the latest files, lists of batches, secrets. */

import fc from "fast-check";
import { describe, expect, onTestFinished } from "vitest";
import type { Batch } from "../../src/core/batch.ts";
import { REDIS_KEYS } from "../../src/core/naming.ts";
import { type Ledger, type MoveOptions, openLedger } from "../../src/ledger/ledger.ts";
import { ACCOUNT, NOON, newBatch, refOf, test } from "../support/stages.ts";

async function opened(ledger: Pick<Ledger, "openBatch">, fields: Partial<Batch> = {}): Promise<Batch> {
  const batch = newBatch(fields);
  await ledger.openBatch(batch);
  return batch;
}

/** Ends an item, as record does: twice, since a script may be sent again. */
async function end(
  ledger: Pick<Ledger, "move">,
  batch: Batch,
  index: number,
  step: "save" | "fail",
  options: Pick<MoveOptions, "failure" | "hasFiles">,
): Promise<void> {
  const ref = refOf(batch, index);
  await ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  await ledger.move(ref, "refuse", { nowMs: NOON });
  for (let sends = 0; sends < 2; sends++) await ledger.move(ref, step, { nowMs: NOON, ...options });
}

describe("failures", () => {
  test("are counted by group, the most frequent first, each with its first item", async ({ line: { ledger } }) => {
    const batch = await opened(ledger, { items: 6 });
    expect(await ledger.failuresOf(ACCOUNT, batch.id)).toEqual([]);
    for (const [index, failure] of ["count:a", "b: 你好", "", "b: 你好", "example:count:a", "b: 你好"].entries()) {
      await end(ledger, batch, index, "fail", { failure });
    }
    const [first, ...rest] = await ledger.failuresOf(ACCOUNT, batch.id);
    expect(first).toEqual({ error: "b: 你好", count: 3, example: 1 });
    expect(new Map(rest.map(({ error, ...group }) => [error, group]))).toEqual(
      new Map([
        ["count:a", { count: 1, example: 0 }],
        ["example:count:a", { count: 1, example: 4 }],
        ["", { count: 1, example: 2 }],
      ]),
    );
  });

  test("make a hundred groups at most: whatever comes later stands with the others", async ({ line: { ledger } }) => {
    const batch = await opened(ledger, { items: 300 });
    for (let index = 0; index < 150; index++) await end(ledger, batch, index, "fail", { failure: `error ${index}` });
    // A group that is there still counts.
    for (let index = 150; index < 160; index++) await end(ledger, batch, index, "fail", { failure: "error 7" });
    const groups = await ledger.failuresOf(ACCOUNT, batch.id);
    expect(groups).toHaveLength(100);
    expect(groups.slice(0, 2)).toEqual([
      { error: "other errors", count: 51, example: 99 },
      { error: "error 7", count: 11, example: 7 },
    ]);
    expect(groups.reduce((sum, { count }) => sum + count, 0)).toBe(160);
  });

  test("add up to the failed items, whatever their groups are called", async ({ line: { ledger } }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.string({ unit: "grapheme", maxLength: 20 }), fc.constant("other errors")), {
          maxLength: 20,
        }),
        async (failures) => {
          const batch = await opened(ledger, { items: failures.length });
          for (const [index, failure] of failures.entries()) await end(ledger, batch, index, "fail", { failure });
          const groups = await ledger.failuresOf(ACCOUNT, batch.id);
          expect(new Set(groups.map(({ error }) => error))).toEqual(new Set(failures));
          for (const { error, count, example } of groups) {
            expect(count).toBe(failures.filter((one) => one === error).length);
            expect(example).toBe(failures.indexOf(error));
          }
        },
      ),
      { numRuns: 30 },
    );
  });
});

test("the latest saved are the last 24 that have files, the newest first", async ({ line: { ledger } }) => {
  const batch = await opened(ledger, { items: 60 });
  expect(await ledger.latestSaved(ACCOUNT, batch.id)).toEqual([]);
  await end(ledger, batch, 50, "save", { hasFiles: true });
  await end(ledger, batch, 51, "save", {});
  await end(ledger, batch, 52, "fail", { failure: "no" });
  expect(await ledger.latestSaved(ACCOUNT, batch.id)).toEqual([50]);
  for (let index = 0; index < 30; index++) await end(ledger, batch, index, "save", { hasFiles: true });
  expect(await ledger.latestSaved(ACCOUNT, batch.id)).toEqual(Array.from({ length: 24 }, (_, at) => 29 - at));
});

describe("a tenant's batches", () => {
  test("are listed newest first, nobody else's among them, singles apart if they are wanted alone", async ({
    line,
  }) => {
    await line.clear();
    const { ledger } = line;
    const [old, young] = [
      await opened(ledger, { tenant: "acme", openedAtMs: NOON }),
      await opened(ledger, { tenant: "acme", openedAtMs: NOON + 2 }),
    ];
    const singles = await opened(ledger, { tenant: "acme", openedAtMs: NOON + 1, kind: "singles", items: 0 });
    const other = await opened(ledger, { tenant: "other", openedAtMs: NOON + 3 });
    expect(await ledger.listTenantBatches("acme", 10)).toEqual([young.id, singles.id, old.id]);
    expect(await ledger.listTenantBatches("acme", 10, { only: "singles" })).toEqual([singles.id]);
    expect(await ledger.listTenantBatches("other", 10)).toEqual([other.id]);
    expect(await ledger.listTenantBatches("nobody", 10)).toEqual([]);
    expect(await ledger.listBatches(10)).toEqual([other.id, young.id, singles.id, old.id]);
    await ledger.openBatch({ ...old, tenant: "acme" });
    expect(await ledger.listTenantBatches("acme", 10), "opened again").toHaveLength(3);
  });

  test("come in pages, each behind the one before; behind a batch that isn't theirs comes nothing", async ({
    line,
  }) => {
    await line.clear();
    const { ledger } = line;
    const ids = [];
    // Two of a moment: their order is Redis's, and the same each time.
    for (let n = 0; n < 7; n++) {
      ids.push((await opened(ledger, { tenant: "acme", openedAtMs: NOON + Math.floor(n / 2) })).id);
    }
    const whole = await ledger.listTenantBatches("acme", 100);
    expect(new Set(whole)).toEqual(new Set(ids));
    for (const limit of [1, 2, 3, 7]) {
      const pages = [];
      let page = await ledger.listTenantBatches("acme", limit);
      while (page.length > 0) {
        expect(page.length).toBeLessThanOrEqual(limit);
        pages.push(...page);
        const [after] = page.slice(-1);
        if (after === undefined) break;
        page = await ledger.listTenantBatches("acme", limit, { after });
      }
      expect(pages).toEqual(whole);
    }
    const other = await opened(ledger, { tenant: "other" });
    expect(await ledger.listTenantBatches("acme", 10, { after: other.id })).toEqual([]);
    expect(await ledger.listTenantBatches("acme", 10, { only: "singles", after: ids[0] ?? other.id })).toEqual([]);
  });
});

test("a secret is the same for whoever asks, however many at once, and another for another use", async ({ line }) => {
  await line.clear();
  const { ledger, redis } = line;
  const other = redis.duplicate();
  onTestFinished(() => other.disconnect());
  const elsewhere = openLedger(other);
  const asked = await Promise.all(
    [ledger, elsewhere, ledger, elsewhere].map(({ secretFor }) => secretFor("webhooks:acme")),
  );
  expect(new Set(asked.map((secret) => secret.toString("hex"))).size).toBe(1);
  expect(asked[0]).toHaveLength(32);
  expect(await ledger.secretFor("webhooks:acme")).toEqual(asked[0]);
  expect(await ledger.secretFor("webhooks:other")).not.toEqual(asked[0]);
  expect(await redis.hkeys(REDIS_KEYS.secrets)).toEqual(expect.arrayContaining(["webhooks:acme", "webhooks:other"]));
});
