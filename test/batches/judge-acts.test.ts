/** What people's acts on a batch come to. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { judgeActs } from "../../src/batches/judge-acts.ts";
import type { Act, DatedAct } from "../../src/bucket/acts.ts";

/** A second apart. */
function dated(...acts: readonly Act[]): readonly DatedAct[] {
  return acts.map((act, at) => ({ ...act, n: at + 1, atMs: (at + 1) * 1_000 }));
}

const NOTHING = {
  acts: 0,
  paused: null,
  canceledAtMs: null,
  walkedAtMs: null,
  canceled: new Set(),
  redriven: new Map(),
  repaired: new Map(),
  redrivenAtMs: null,
};
const PAUSED = "paused by a person at 1970-01-01T00:00:01.000Z";

test.for<readonly [string, readonly Act[], Partial<Record<keyof typeof NOTHING, unknown>>]>([
  ["nothing", [], {}],
  ["a pause", [{ act: "pause" }], { paused: PAUSED }],
  ["a pause and its end", [{ act: "pause" }, { act: "resume" }], {}],
  ["a pause that a cancel ended", [{ act: "pause" }, { act: "cancel" }], { canceledAtMs: 2_000 }],
  [
    "items canceled one by one",
    [
      { act: "cancel", items: [3] },
      { act: "cancel", items: [5, 3] },
    ],
    { canceled: new Set([3, 5]) },
  ],
  [
    "a redrive, which takes back that items were canceled",
    [
      { act: "cancel", items: [3, 4] },
      { act: "redrive", items: [[3, 1]] },
    ],
    { canceled: new Set([4]), redriven: new Map([[3, { ended: 1, atMs: 2_000 }]]), redrivenAtMs: 2_000 },
  ],
  [
    "a redrive, which takes back the batch's cancel, for its items alone",
    [{ act: "cancel" }, { act: "redrive", items: [[3, 1]] }],
    { walkedAtMs: 1_000, redriven: new Map([[3, { ended: 1, atMs: 2_000 }]]), redrivenAtMs: 2_000 },
  ],
  [
    "two redrives of a canceled batch",
    [
      { act: "cancel" },
      { act: "redrive", items: [[3, 1]] },
      {
        act: "redrive",
        items: [
          [3, 2],
          [4, 1],
        ],
      },
    ],
    {
      walkedAtMs: 1_000,
      redriven: new Map([
        [3, { ended: 2, atMs: 3_000 }],
        [4, { ended: 1, atMs: 3_000 }],
      ]),
      redrivenAtMs: 3_000,
    },
  ],
  [
    "a redrive that was canceled in its turn",
    [{ act: "cancel" }, { act: "redrive", items: [[3, 1]] }, { act: "cancel" }],
    {
      walkedAtMs: 1_000,
      canceledAtMs: 3_000,
      redriven: new Map([[3, { ended: 1, atMs: 2_000 }]]),
      redrivenAtMs: 2_000,
    },
  ],
  [
    "a repair, which buys nothing and takes no cancel back",
    [{ act: "cancel" }, { act: "repair", items: [[1, 1, "p1"]] }],
    { canceledAtMs: 1_000, repaired: new Map([[1, { ended: 1, prediction: "p1", atMs: 2_000 }]]), redrivenAtMs: 2_000 },
  ],
  [
    "a second word on an attempt that was opened already",
    [
      { act: "redrive", items: [[1, 1]] },
      { act: "repair", items: [[1, 1, "p1"]] },
      { act: "redrive", items: [[1, 1]] },
    ],
    { redriven: new Map([[1, { ended: 1, atMs: 1_000 }]]), redrivenAtMs: 3_000 },
  ],
  ["a word on unclear items", [{ act: "resolve", as: "fail", items: [1] }], {}],
])("%s", ([, acts, come]) => {
  expect(judgeActs(dated(...acts))).toEqual({ ...NOTHING, ...come, acts: acts.length });
});

test("a batch is never paused and canceled at once, and nothing redriven last is canceled by an earlier word", () => {
  const anyAct: fc.Arbitrary<Act> = fc.oneof(
    fc.constantFrom<Act>({ act: "pause" }, { act: "resume" }, { act: "cancel" }),
    fc.array(fc.nat(3)).map((items): Act => ({ act: "cancel", items })),
    fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 3 }))).map((items): Act => ({ act: "redrive", items })),
  );
  fc.assert(
    fc.property(fc.array(anyAct), (acts) => {
      const acted = judgeActs(dated(...acts));
      const last = acts.at(-1);
      if (last?.act === "cancel" && last.items === undefined) expect(acted.paused).toBeNull();
      if (last?.act !== "redrive") return;
      expect(acted.canceledAtMs).toBeNull();
      // Of two that would open the same attempt only the first one did.
      const earlier = judgeActs(dated(...acts.slice(0, -1))).redriven;
      for (const [index, ended] of last.items) {
        if (ended > (earlier.get(index)?.ended ?? 0)) expect(acted.canceled).not.toContain(index);
      }
    }),
  );
});

test("of a day of singles hundreds of thousands may be canceled one by one", () => {
  const acts = Array.from({ length: 300_000 }, (_, index): Act => ({ act: "cancel", items: [index] }));
  const acted = judgeActs(acts.map((act, at) => ({ ...act, n: at + 1, atMs: at })));
  expect(acted).toMatchObject({ acts: 300_000 });
  expect(acted.canceled.size).toBe(300_000);
});
