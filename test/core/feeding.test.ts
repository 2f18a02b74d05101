import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createQueueDepth, type Hungry, rateWindow, shareRoom, windowRows } from "../../src/core/feeding.ts";

const anyHungry: fc.Arbitrary<readonly Hungry<number>[]> = fc
  .array(fc.record({ kind: fc.constantFrom("file", "singles" as const), rows: fc.nat(40) }), { maxLength: 12 })
  .map((list) => list.map((batch, id) => ({ id, ...batch })));
const room = fc.nat(100);
const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

type Shared = Hungry<number> & { readonly share: number };
function shared(places: number, hungry: readonly Hungry<number>[], feed = 0): readonly Shared[] {
  const shares = shareRoom(places, hungry, feed);
  return hungry.map((batch) => ({ ...batch, share: shares.get(batch.id) ?? 0 }));
}
const of = (list: readonly Shared[], kind: Hungry<number>["kind"]) => list.filter((batch) => batch.kind === kind);
const shareOf = (list: readonly Shared[]) => sum(list.map(({ share }) => share));
const rowsOf = (list: readonly Shared[]) => sum(list.map(({ rows }) => rows));

test("how ten places are shared, as a table", () => {
  const table: readonly (readonly [
    hungry: readonly (readonly [Hungry<number>["kind"], rows: number])[],
    shares: readonly number[],
  ])[] = [
    [[["file", 100]], [10]],
    [[["file", 3]], [3]],
    [
      [
        ["file", 100],
        ["file", 100],
      ],
      [5, 5],
    ],
    [
      [
        ["file", 100],
        ["file", 2],
      ],
      [8, 2],
    ],
    [
      [
        ["file", 100],
        ["file", 100],
        ["file", 100],
      ],
      [4, 3, 3],
    ],
    [[["singles", 100]], [10]],
    [
      [
        ["file", 100],
        ["singles", 100],
      ],
      [5, 5],
    ],
    [
      [
        ["file", 100],
        ["singles", 1],
      ],
      [9, 1],
    ],
    [
      [
        ["file", 1],
        ["singles", 100],
      ],
      [1, 9],
    ],
    [
      [
        ["singles", 100],
        ["singles", 100],
        ["file", 100],
      ],
      [3, 2, 5],
    ],
    [
      [
        ["file", 0],
        ["singles", 0],
      ],
      [0, 0],
    ],
    [[], []],
  ];
  for (const [hungry, shares] of table) {
    const list = hungry.map(([kind, rows], id) => ({ id, kind, rows }));
    expect([hungry, shared(10, list).map(({ share }) => share)]).toEqual([hungry, shares]);
  }
});

describe("shares", () => {
  test("never exceed the room, nor what a batch has", () => {
    fc.assert(
      fc.property(room, anyHungry, (places, hungry) => {
        const list = shared(places, hungry);
        expect(shareOf(list)).toBeLessThanOrEqual(places);
        for (const { share, rows } of list) {
          expect(share).toBeGreaterThanOrEqual(0);
          expect(share).toBeLessThanOrEqual(rows);
        }
      }),
    );
  });

  test("use the whole room when there are rows enough", () => {
    fc.assert(
      fc.property(room, anyHungry, (places, hungry) => {
        const list = shared(places, hungry);
        expect(shareOf(list)).toBe(Math.min(places, rowsOf(list)));
      }),
    );
  });

  test("are fair within one: who wants more and has less has at most one less", () => {
    fc.assert(
      fc.property(room, anyHungry, (places, hungry) => {
        for (const kind of ["file", "singles"] as const) {
          const list = of(shared(places, hungry), kind);
          for (const one of list) {
            for (const other of list) {
              if (one.share < one.rows) expect(other.share).toBeLessThanOrEqual(one.share + 1);
            }
          }
        }
      }),
    );
  });

  test("give singles at most half while files wait for the other half, and never less than they want of it", () => {
    fc.assert(
      fc.property(room, anyHungry, fc.nat(9), (places, hungry, feed) => {
        const list = shared(places, hungry, feed);
        const [singles, files] = [of(list, "singles"), of(list, "file")];
        const half = feed % 2 === 0 ? Math.ceil(places / 2) : Math.floor(places / 2);
        if (shareOf(files) < rowsOf(files)) expect(shareOf(singles)).toBeLessThanOrEqual(half);
        expect(shareOf(singles)).toBeGreaterThanOrEqual(Math.min(half, rowsOf(singles)));
      }),
    );
  });
});

test("singles and files that both wait get about half each over time, however little room there is at once", () => {
  for (const places of [1, 2, 3, 10]) {
    const given = { file: 0, singles: 0 };
    const batches: readonly Hungry<number>[] = [
      { id: 0, kind: "file", rows: 1_000 },
      { id: 1, kind: "singles", rows: 1_000 },
    ];
    for (let feed = 0; feed < 100; feed++) {
      for (const { kind, share } of shared(places, batches, feed)) given[kind] += share;
    }
    expect(given.singles, `room ${places}`).toBe(given.file);
  }
});

test("a window is five minutes of the limit, and half a minute where the provider has no list", () => {
  const rates = [0.5, 6, 60, 300, 600, 6_000];
  expect(rates.map((rate) => windowRows(rate, true))).toEqual([20, 30, 300, 1_500, 2_000, 2_000]);
  expect(rates.map((rate) => windowRows(rate, false))).toEqual([1, 3, 30, 150, 300, 2_000]);
});

describe("the create queue", () => {
  test("is about three seconds of the limit deep, and never empty by design", () => {
    expect([6, 60, 600, 3_000, 60_000].map(createQueueDepth)).toEqual([10, 10, 30, 150, 3_000]);
  });

  test("is limited by the interval up to twenty a second, above that by a tenth of a second", () => {
    const windows = [6, 60, 600, 1_200, 1_500, 6_000].map((perMinute) => rateWindow(perMinute, true));
    expect(windows.map(({ max, durationMs }) => `${max} per ${durationMs} ms`)).toEqual([
      "1 per 10000 ms",
      "1 per 1000 ms",
      "1 per 100 ms",
      "1 per 50 ms",
      "2 per 100 ms",
      "10 per 100 ms",
    ]);
    expect(rateWindow(600, false)).toEqual({ max: 1, durationMs: expect.closeTo(110, -1) });
  });

  test("never lets through more than the limit, and not much less", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.1, max: 60_000, noNaN: true }), fc.boolean(), (perMinute, toleratesBurst) => {
        const { max, durationMs } = rateWindow(perMinute, toleratesBurst);
        const allowed = (max / durationMs) * 60_000;
        expect(allowed).toBeLessThanOrEqual(perMinute * 1.000_001);
        expect(allowed).toBeGreaterThan(perMinute * 0.6);
        expect(Number.isInteger(max) && max >= 1 && Number.isInteger(durationMs)).toBe(true);
        if (!toleratesBurst) expect(allowed).toBeLessThanOrEqual(perMinute / 1.09);
      }),
    );
  });
});
