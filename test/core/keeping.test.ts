import { expect, test } from "vitest";
import { ITEM_STATES, isEnd } from "../../src/core/item.ts";
import { errandFor, UNTOUCHED_MS } from "../../src/core/keeping.ts";
import { MINUTE } from "../../src/core/time.ts";

test("the errand that each state implies, as a table", () => {
  expect(Object.fromEntries(ITEM_STATES.map((state) => [state, errandFor(state)]))).toEqual({
    waiting: "create",
    claimed: "create",
    running: "follow",
    copying: "copy",
    recording: "record",
    saved: null,
    failed: null,
    canceled: null,
    unclear: null,
  });
});

test("whatever has ended needs nobody; whatever is open but for an unclear item needs somebody", () => {
  for (const state of ITEM_STATES) expect(errandFor(state) === null).toBe(isEnd(state) || state === "unclear");
});

test("ten minutes without a touch is long enough", () => {
  expect(UNTOUCHED_MS).toBe(10 * MINUTE);
});
