import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  createQueueDepth,
  type Hungry,
  judgeSaving,
  rateWindow,
  roomWhileSaving,
  type SavingFacts,
  type SavingMinute,
  savesPerMinute,
  savingBound,
  shareRoom,
  windowRows,
} from "../../src/core/feeding.ts";
import { HOUR, MINUTE } from "../../src/core/time.ts";

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

describe("the rate at which outputs are saved", () => {
  const anyMinute: fc.Arbitrary<SavingMinute> = fc.record({
    saved: fc.nat(5_000),
    busyMs: fc.nat(16 * MINUTE),
    slots: fc.constantFrom(0, 16, 32),
  });

  test("is what was saved, where no slot ever rested", () => {
    const full = { saved: 240, busyMs: 16 * MINUTE, slots: 16 };
    expect(savesPerMinute([full])).toBe(240);
    expect(savesPerMinute([full, { ...full, saved: 360 }])).toBe(300);
  });

  test("is what all slots could save, where little was there to save", () => {
    expect(savesPerMinute([{ saved: 3, busyMs: 3_000, slots: 16 }])).toBe(960);
    expect(savesPerMinute([{ saved: 3, busyMs: 3_000, slots: 32 }])).toBe(1_920);
  });

  test("is unknown where nothing was copied, and nothing where nothing could be saved", () => {
    expect(savesPerMinute([])).toBeNull();
    expect(savesPerMinute([{ saved: 0, busyMs: 0, slots: 0 }])).toBeNull();
    expect(savesPerMinute([{ saved: 0, busyMs: MINUTE, slots: 16 }])).toBe(0);
  });

  test("never lies below what was saved in its minutes on average, as long as slots can't be busier than they are", () => {
    fc.assert(
      fc.property(fc.array(anyMinute, { minLength: 1, maxLength: 5 }), (minutes) => {
        const worked = minutes
          .filter(({ slots }) => slots > 0)
          .map((minute) => ({ ...minute, slots: 16, busyMs: Math.min(minute.busyMs, 16 * MINUTE) }));
        const perMinute = savesPerMinute(worked);
        if (perMinute === null) return;
        const saved = sum(worked.map((minute) => minute.saved)) / worked.length;
        expect(perMinute).toBeGreaterThanOrEqual(saved * 0.999);
      }),
    );
  });
});

describe("feeding while outputs wait to be saved", () => {
  const anyFacts: fc.Arbitrary<SavingFacts> = fc.record({
    copies: fc.nat(100_000),
    records: fc.nat(2_000),
    perMinute: fc.option(fc.double({ min: 0, max: 10_000, noNaN: true })),
    filesKeptMs: fc.integer({ min: MINUTE, max: 24 * HOUR }),
    bucketDown: fc.constantFrom(null, null, "full disk"),
  });
  const facts = (changed: Partial<SavingFacts>): SavingFacts => ({
    copies: 0,
    records: 0,
    perMinute: 60,
    filesKeptMs: HOUR,
    bucketDown: null,
    ...changed,
  });

  test("how much is fed at 60 saves a minute, as a table", () => {
    const table: readonly (readonly [copies: number, share: number])[] = [
      [0, 1],
      [450, 1],
      [675, 0.5],
      [810, 0.2],
      [900, 0],
      [5_000, 0],
    ];
    for (const [copies, share] of table) expect(judgeSaving(facts({ copies })).share, `${copies}`).toBeCloseTo(share);
    expect(judgeSaving(facts({ copies: 675 })).reason).toBe(
      "saving is behind: 675 outputs wait to be saved, at 60 a minute, files are kept for 1 h, and at most 900 may wait",
    );
    expect(judgeSaving(facts({ perMinute: null })), "a cold system buys").toEqual({ share: 1, reason: null });
  });

  test("is never on where the backlog alone would need more than half of the time that files are kept", () => {
    fc.assert(
      fc.property(anyFacts, (given) => {
        const { share } = judgeSaving(given);
        const { copies, perMinute, filesKeptMs } = given;
        if (share === 0 || perMinute === null || copies <= 100) return;
        expect(copies / perMinute).toBeLessThan(filesKeptMs / MINUTE / 2);
      }),
    );
  });

  test("a longer backlog never feeds more, and whoever feeds less says why", () => {
    fc.assert(
      fc.property(anyFacts, fc.nat(10_000), (given, more) => {
        const { share, reason } = judgeSaving(given);
        expect(judgeSaving({ ...given, copies: given.copies + more }).share).toBeLessThanOrEqual(share);
        expect(share).toBeGreaterThanOrEqual(0);
        expect(share).toBeLessThanOrEqual(1);
        expect(reason === null).toBe(share === 1);
      }),
    );
  });

  test("a rate that stands at nothing leaves room to show that it doesn't", () => {
    expect(savingBound(0, HOUR)).toBe(100);
    expect(judgeSaving(facts({ copies: 20, perMinute: 0 })).share).toBe(1);
  });

  test("what is fed is no more than there is room for, and something where the share isn't nothing", () => {
    fc.assert(
      fc.property(
        room,
        fc.integer({ min: 0, max: 100 }).map((percent) => percent / 100),
        fc.integer({ min: 1, max: 6_000 }),
        (free, share, rate) => {
          const fed = roomWhileSaving(free, share, rate);
          expect(fed).toBeLessThanOrEqual(free);
          if (share > 0 && free > 0) expect(fed).toBeGreaterThan(0);
          if (share < 1) expect(fed).toBeLessThanOrEqual(Math.ceil((share * rate) / 60));
        },
      ),
    );
  });
});
