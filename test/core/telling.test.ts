import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ITEM_STATES, isEnd } from "../../src/core/item.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { isCallable, meaningOf } from "../../src/core/telling.ts";

const OWN = predictionId("own");
const told = { attempt: 2, nonce: "n", prediction: OWN };

describe("what a webhook means", () => {
  test("by where the attempt stands, as a table", () => {
    const words = (prediction: string | null, nonce: string | null) =>
      ITEM_STATES.map((state) => {
        const meaning = meaningOf(told, { attempt: 2, state, prediction, nonce });
        return meaning.kind === "bind" ? meaning.step : meaning.kind;
      });
    const columns = [words("own", "n"), words("other", "n"), words(null, "n"), words(null, "another's")];
    const table = ITEM_STATES.map((state, at) =>
      [state.padEnd(10), ...columns.map((column) => column[at]?.padEnd(8))].join(" ").trimEnd(),
    );
    expect(`\n           own      other    none     none, another's nonce\n${table.join("\n")}\n`).toBe(`
           own      other    none     none, another's nonce
waiting    late     another  adopt    adopt
claimed    late     another  bind     adopt
running    wake     another  ended    ended
copying    late     another  ended    ended
recording  late     another  ended    ended
saved      ended    ended    ended    ended
failed     ended    ended    ended    ended
canceled   ended    ended    ended    ended
unclear    late     another  bind     adopt
`);
  });

  const anyItem = fc.record({
    attempt: fc.integer({ min: 1, max: 4 }),
    state: fc.constantFrom(...ITEM_STATES),
    prediction: fc.constantFrom("own", "other", null),
    nonce: fc.constantFrom("n", "m", null),
  });

  test("an attempt that is over, or that another has followed, gets nothing", () => {
    fc.assert(
      fc.property(anyItem, (item) => {
        const { kind } = meaningOf(told, item);
        if (item.attempt < told.attempt) expect(kind).toBe("unknown");
        else if (item.attempt > told.attempt || isEnd(item.state)) expect(kind).toBe("ended");
      }),
    );
  });

  test("it binds only where there is no prediction, and wakes only the attempt's own", () => {
    fc.assert(
      fc.property(anyItem, (item) => {
        const { kind } = meaningOf(told, item);
        if (kind === "bind") expect(item).toMatchObject({ attempt: 2, prediction: null });
        if (kind === "wake") expect(item).toMatchObject({ attempt: 2, state: "running", prediction: "own" });
        if (kind === "another") expect(item.prediction).toBe("other");
      }),
    );
  });
});

test("where a provider can be told to call", () => {
  const replicate = "https://api.replicate.com/v1";
  const emulator = "http://127.0.0.1:7800/v1";
  const cases: readonly (readonly [publicUrl: string, provider: string, isCallable: boolean])[] = [
    ["https://predictions.example", replicate, true],
    ["https://predictions.example/outlast", replicate, true],
    ["http://predictions.example", replicate, false],
    ["http://127.0.0.1:7700", replicate, false],
    ["https://localhost:7700", replicate, false],
    ["http://127.0.0.1:7700", emulator, true],
    ["http://localhost:7700", emulator, true],
    ["http://[::1]:7700", "http://localhost:7800/v1", true],
    ["http://10.0.0.1:7700", emulator, false],
    ["http://127.0.0.1.example", emulator, false],
    ["nonsense", emulator, false],
  ];
  expect(cases.map(([here, there]) => [here, there, isCallable(here, there)])).toEqual(cases);
});
