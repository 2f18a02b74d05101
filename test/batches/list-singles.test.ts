/** The list of singles, held against a plain list: every item once, newest first, whatever the pages' size. */

import fc from "fast-check";
import { describe, expect } from "vitest";
import { type Admission, openAdmission } from "../../src/batches/admit-single.ts";
import { listSingles, type SinglesCursor, type SinglesQuery } from "../../src/batches/list-singles.ts";
import { readInputJob } from "../../src/batches/single-input.ts";
import type { ItemId } from "../../src/core/naming.ts";
import { DAY, HOUR } from "../../src/core/time.ts";
import { ADMITTING, accountName, type Line, NOON, test } from "../support/stages.ts";

type Admitted = { readonly item: ItemId; readonly createdAtMs: number };

const ACCOUNTS = [
  ADMITTING,
  { ...ADMITTING, name: accountName("second") },
  { ...ADMITTING, name: accountName("third") },
];

/** Admits `count` inputs of one moment to an account, by a server whose clock is so much ahead. */
type Wave = { readonly atMs: number; readonly account: number; readonly count: number; readonly aheadMs?: number };

async function admit({ bucket, ledger, queues }: Line, waves: readonly Wave[]): Promise<readonly Admitted[]> {
  let nowMs = 0;
  /** By how far their clocks are ahead. */
  const servers = new Map<number, Admission>();
  const admitted: Admitted[] = [];
  for (const { atMs, account, count, aheadMs = 0 } of waves) {
    nowMs = atMs;
    const clock = () => nowMs + aheadMs;
    const server = servers.get(aheadMs) ?? openAdmission({ bucket, ledger, queues, clock });
    servers.set(aheadMs, server);
    const inputs = Array.from({ length: count }, (_, n) =>
      readInputJob({ jobId: `${admitted.length + n}`, addedAtMs: 1, data: { input: {}, model: "outlast/text" } }, [
        ACCOUNTS[account] ?? ADMITTING,
      ]),
    );
    for (const { item, row } of await Promise.all(inputs.map((input) => server.admit(input)))) {
      admitted.push({ item, createdAtMs: Date.parse(row?.created_at ?? "") });
    }
  }
  return admitted;
}

type Asked = Pick<SinglesQuery, "createdAfterMs" | "createdBeforeMs" | "limit">;

/** All pages, one after the other. */
async function listed({ bucket, ledger }: Line, asked: Asked): Promise<readonly ItemId[]> {
  const items: ItemId[] = [];
  let cursor: SinglesCursor | null = null;
  do {
    const page = await listSingles({ ...asked, tenant: "default", cursor }, { bucket, ledger });
    expect(page.items.length).toBeLessThanOrEqual(asked.limit);
    if (page.next !== null) expect(page.items).toHaveLength(asked.limit);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor !== null && items.length < 1_000);
  return items;
}

/** Newest first; of one moment, by id. */
function sorted(admitted: readonly Admitted[], { createdAfterMs, createdBeforeMs }: Asked): readonly ItemId[] {
  return admitted
    .filter(({ createdAtMs }) => createdAtMs >= (createdAfterMs ?? 0) && createdAtMs < (createdBeforeMs ?? Infinity))
    .toSorted((a, b) => b.createdAtMs - a.createdAtMs || (a.item < b.item ? 1 : -1))
    .map(({ item }) => item);
}

const MIDNIGHT = Math.floor(NOON / DAY) * DAY;

/** Three days and three accounts; often several items of one moment, also at midnight. */
const WAVES: readonly Wave[] = [
  { atMs: MIDNIGHT - DAY, account: 0, count: 1 },
  { atMs: MIDNIGHT - HOUR, account: 0, count: 5 },
  { atMs: MIDNIGHT - HOUR, account: 1, count: 4 },
  { atMs: MIDNIGHT - 1, account: 0, count: 2 },
  { atMs: MIDNIGHT, account: 0, count: 3 },
  { atMs: MIDNIGHT, account: 1, count: 3 },
  { atMs: MIDNIGHT, account: 0, count: 2 },
  { atMs: NOON, account: 2, count: 7 },
  { atMs: NOON, account: 0, count: 1 },
  { atMs: NOON + 1, account: 1, count: 3 },
  { atMs: NOON + 1, account: 2, count: 3 },
  { atMs: NOON + 2, account: 0, count: 6 },
  { atMs: MIDNIGHT + DAY - 1, account: 1, count: 1 },
  { atMs: MIDNIGHT + DAY + HOUR, account: 1, count: 4 },
];

/** Moments at which something changes, and those beside them. */
const moment = fc.option(
  fc
    .tuple(fc.constantFrom(...WAVES.map(({ atMs }) => atMs)), fc.constantFrom(-1, 0, 1))
    .map(([atMs, beside]) => atMs + beside),
);

describe("of servers whose clocks agree", () => {
  test("it is the plain list, whatever the pages' size and the moments it is cut at", async ({ line }) => {
    await line.clear();
    const admitted = await admit(line, WAVES);
    expect(admitted).toHaveLength(45);
    const limits = fc.oneof(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 8, max: 100 }));
    await fc.assert(
      fc.asyncProperty(moment, moment, limits, async (createdAfterMs, createdBeforeMs, limit) => {
        const asked = { createdAfterMs, createdBeforeMs, limit };
        expect(await listed(line, asked)).toEqual(sorted(admitted, asked));
      }),
      { numRuns: 60 },
    );
  });

  test("a tenant without any has an empty one", async ({ line }) => {
    await line.clear();
    const asked = { createdAfterMs: null, createdBeforeMs: null, cursor: null, limit: 10 };
    expect(await listSingles({ ...asked, tenant: "default" }, line)).toEqual({ items: [], next: null });
  });
});

describe("of servers whose clocks differ", () => {
  test("every item is in it once, and each account's in the order of their admission", async ({ line }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            atMs: fc.integer({ min: -20, max: 20 }).map((ms) => MIDNIGHT + ms),
            account: fc.nat(1),
            count: fc.integer({ min: 1, max: 3 }),
            aheadMs: fc.constantFrom(0, 15),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        async (waves) => {
          await line.clear();
          const admitted = await admit(
            line,
            waves.toSorted((a, b) => a.atMs - b.atMs),
          );
          for (const limit of [1, 2, 5]) {
            const items = await listed(line, { createdAfterMs: null, createdBeforeMs: null, limit });
            expect(items.toSorted()).toEqual(admitted.map(({ item }) => item).toSorted());
            const batches = Map.groupBy(items, (item) => item.slice(0, 20));
            for (const own of batches.values()) expect(own).toEqual(own.toSorted().toReversed());
          }
        },
      ),
      { numRuns: 4, endOnFailure: true },
    );
  });
});
