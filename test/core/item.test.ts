import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  END_STEPS,
  ITEM_STATES,
  ITEM_STEPS,
  type ItemByte,
  type ItemStep,
  isEnd,
  MAX_ATTEMPT,
  readItemByte,
  stateNumber,
  stepItem,
  writeItemByte,
} from "../../src/core/item.ts";

const STEPS = Object.keys(ITEM_STEPS) as ItemStep[];
const anyAttempt = fc.integer({ min: 1, max: MAX_ATTEMPT });
const anyItem = fc.record({ attempt: anyAttempt, state: fc.constantFrom(...ITEM_STATES) });
const anyStep = fc.constantFrom(...STEPS);
const anySteps = fc.array(fc.record({ attempt: anyAttempt, step: anyStep }), { maxLength: 40 });

const walk = (item: ItemByte, steps: readonly { readonly attempt: number; readonly step: ItemStep }[]): ItemByte =>
  steps.reduce((now, { attempt, step }) => stepItem(now, attempt, step).item, item);

test("the life of an attempt, as a table", () => {
  const table = STEPS.map((step) => {
    const legal = ITEM_STATES.filter((state) => stepItem({ attempt: 1, state }, 1, step).answer === "moved");
    return `${step.padEnd(10)} ${legal.join(" | ")} → ${ITEM_STEPS[step].to}`;
  });
  expect(`\n${table.join("\n")}\n`).toBe(`
withdraw   waiting → canceled
claim      waiting → claimed
giveBack   claimed | unclear → waiting
doubt      claimed → unclear
bind       claimed | unclear → running
adopt      waiting | claimed | unclear → running
refuse     claimed | unclear → recording
succeed    running → copying
salvage    running → copying
conclude   running → recording
finishCopy copying → recording
recall     waiting | claimed | unclear → recording
save       recording → saved
fail       recording → failed
cancel     recording → canceled
`);
});

test("the stored numbers of the states never change", () => {
  expect(Object.fromEntries(ITEM_STATES.map((state) => [state, stateNumber(state)]))).toEqual({
    waiting: 0,
    claimed: 1,
    running: 2,
    copying: 3,
    recording: 4,
    saved: 5,
    failed: 6,
    canceled: 7,
    unclear: 8,
  });
});

describe("a byte", () => {
  test("holds attempt and state, and gives them back", () => {
    fc.assert(
      fc.property(anyItem, (item) => {
        const byte = writeItemByte(item);
        expect(byte).toBeLessThanOrEqual(0xff);
        expect(readItemByte(byte)).toEqual(item);
      }),
    );
  });

  test("of an item nobody touched is 0", () => {
    expect(readItemByte(0)).toEqual({ attempt: 1, state: "waiting" });
  });

  test("of an unknown state, and an impossible attempt, are refused", () => {
    for (let byte = 0; byte < 256; byte++) {
      if ((byte & 0x0f) >= ITEM_STATES.length) expect(() => readItemByte(byte)).toThrow(RangeError);
      else expect(isEnd(readItemByte(byte).state)).toBe([5, 6, 7].includes(byte & 0x0f));
    }
    for (const attempt of [0, -1, 16, 1.5, Number.NaN]) {
      expect(() => writeItemByte({ attempt, state: "waiting" })).toThrow(RangeError);
    }
  });
});

test("no sequence of steps changes an attempt's end", () => {
  const ended = fc.record({ attempt: anyAttempt, state: fc.constantFrom("saved", "failed", "canceled" as const) });
  fc.assert(
    fc.property(ended, anySteps, (item, steps) => {
      expect(walk(item, steps)).toEqual(item);
    }),
  );
});

test("no step opens another attempt", () => {
  fc.assert(
    fc.property(anyItem, anySteps, (item, steps) => {
      expect(walk(item, steps).attempt).toBe(item.attempt);
    }),
  );
});

test("a step of another attempt is lost and changes nothing", () => {
  fc.assert(
    fc.property(anyItem, anyAttempt, anyStep, (item, attempt, step) => {
      fc.pre(attempt !== item.attempt);
      expect(stepItem(item, attempt, step)).toEqual({ answer: "lost", item });
    }),
  );
});

test("a step made twice is made once: the second time it has happened already", () => {
  fc.assert(
    fc.property(anyItem, anyStep, (item, step) => {
      const once = stepItem(item, item.attempt, step);
      const twice = stepItem(once.item, item.attempt, step);
      expect(twice.item).toEqual(once.item);
      if (once.answer !== "lost") expect(twice.answer).toBe("already");
    }),
  );
});

test("whatever order and however often they come, the observations of a prediction lead to one end", () => {
  // What the stages say about one prediction that succeeded, and about one that failed.
  const stories: readonly (readonly [ends: string, steps: readonly ItemStep[]])[] = [
    ["saved", ["claim", "bind", "succeed", "finishCopy", "save"]],
    ["failed", ["claim", "bind", "conclude", "fail"]],
    ["canceled", ["claim", "doubt", "bind", "conclude", "cancel"]],
    ["failed", ["claim", "refuse", "fail"]],
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...stories),
      fc.array(fc.nat(), { minLength: 50, maxLength: 50 }),
      ([end, steps], noise) => {
        let item: ItemByte = { attempt: 1, state: "waiting" };
        // Anybody may say anything of the story at any time; each step does come once it is possible.
        for (const [round, step] of steps.entries()) {
          for (const n of noise.slice(round * 10, round * 10 + 10)) {
            const said = steps[n % steps.length];
            if (said !== undefined && said !== "doubt" && steps.indexOf(said) < round)
              item = stepItem(item, 1, said).item;
          }
          item = stepItem(item, 1, step).item;
        }
        expect(item.state).toBe(end);
      },
    ),
  );
});

test("every state can be reached, and from every one that isn't an end an end can be", () => {
  const next = (item: ItemByte) => STEPS.map((step) => stepItem(item, 1, step).item);
  const reach = (from: ItemByte): ReadonlySet<string> => {
    const seen = new Set([from.state as string]);
    for (let todo = [from]; todo.length > 0; ) {
      todo = todo.flatMap(next).filter(({ state }) => !seen.has(state));
      for (const { state } of todo) seen.add(state);
    }
    return seen;
  };
  expect(reach({ attempt: 1, state: "waiting" })).toEqual(new Set(ITEM_STATES));
  for (const state of ITEM_STATES) expect([...reach({ attempt: 1, state })]).toContain(isEnd(state) ? state : "saved");
});

test("an end is made by the step of its name, from the record alone", () => {
  for (const [end, step] of Object.entries(END_STEPS)) {
    expect(ITEM_STEPS[step]).toEqual({ from: ["recording"], to: end });
  }
});
