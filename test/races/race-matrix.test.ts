/**
 * The race matrix: whoever may act on an item acts at once with any other, in every order that fast-check thinks of, and
 * the provider's books tell afterwards whether all came out as it must. A failure names its seed and the turns in order.
 */

import fc from "fast-check";
import { afterAll, describe, expect } from "vitest";
import { type Line, test } from "../support/stages.ts";
import { CREATE_MODES, FATES } from "./provider.ts";
import { judge } from "./race-judge.ts";
import {
  type Actor,
  closeHands,
  FREEZING_POINTS,
  openRace,
  race,
  type Scenario,
  STARTS,
  settle,
} from "./race-world.ts";

afterAll(closeHands);

const ACTORS: readonly Actor[] = ["buy", "rerun", "poll", "webhook", "list", "cancel item", "cancel batch", "redrive"];
const PAIRS = ACTORS.flatMap((one, at) => ACTORS.slice(at).map((other): readonly Actor[] => [one, other]));
/** Some of the many, chosen for what they share; who buys twice buys what the others gave back. */
const MORE: readonly (readonly Actor[])[] = [
  ["buy", "clock"],
  ["buy", "rerun", "clock"],
  ["buy", "rerun", "webhook"],
  ["buy", "rerun", "cancel item"],
  ["buy", "webhook", "list"],
  ["buy", "webhook", "poll"],
  ["buy", "list", "cancel batch"],
  ["buy", "poll", "redrive"],
  ["buy", "clock", "cancel item"],
  ["rerun", "poll", "cancel item"],
  ["rerun", "webhook", "redrive"],
  ["poll", "webhook", "cancel batch"],
  ["webhook", "list", "cancel item"],
  ["cancel item", "cancel batch", "redrive"],
  ["buy", "rerun", "list", "buy"],
  ["buy", "rerun", "webhook", "list", "buy"],
  ["buy", "poll", "redrive", "webhook", "buy"],
];

/** Failing takes longer: the interleaving is shrunk. */
const TIMEOUT_MS = 240_000;
/** A run takes a tenth of a second; one that stands still fails with its seed, in time to be told. */
const STILL_MS = 30_000;
const SHRINKING_MS = 200_000;

function scenariosFor(actors: readonly Actor[]): fc.Arbitrary<Scenario> {
  return fc
    .record({
      start: fc.constantFrom(...STARTS),
      twins: fc.boolean(),
      retryFailed: fc.constantFrom(0, 1),
      modes: fc.array(fc.constantFrom(...CREATE_MODES), { maxLength: 3 }),
      fates: fc.array(fc.constantFrom(...FATES), { maxLength: 3 }),
      polls: fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 3 }),
      endless: fc.boolean(),
      frozenBefore: fc.option(fc.constantFrom(...FREEZING_POINTS), { freq: 3 }),
    })
    .map((scenario) => {
      // What a person ends, and nobody begins again, needn't end by itself.
      const isEnded = actors.some((actor) => actor.startsWith("cancel")) && !actors.includes("redrive");
      return { ...scenario, endless: scenario.endless && isEnded && !scenario.twins && scenario.start !== "ended" };
    });
}

async function hold(line: Line, actors: readonly Actor[], numRuns: number): Promise<void> {
  const property = fc.asyncProperty(scenariosFor(actors), fc.scheduler(), async (scenario, scheduler) => {
    const world = await openRace(line, scenario);
    await race(world, scheduler, actors);
    await settle(world);
    await judge(world);
  });
  await fc.assert(property, { numRuns, timeout: STILL_MS, interruptAfterTimeLimit: SHRINKING_MS });
}

describe("two at once", () => {
  test.for(PAIRS)("%s and %s", { timeout: TIMEOUT_MS }, async (actors, { line }) => hold(line, actors, 12));
});

describe("more at once", () => {
  test.for(MORE.map((actors) => ({ actors, name: actors.join(", ") })))(
    "$name",
    { timeout: TIMEOUT_MS },
    async ({ actors }, { line }) => hold(line, actors, actors.length > 3 ? 40 : 16),
  );
});

test("a seed repeats its turns", async ({ line }) => {
  const runs: string[][] = [];
  for (let n = 0; n < 2; n++) {
    const turns: string[] = [];
    const actors: readonly Actor[] = ["buy", "rerun", "poll", "webhook", "list", "cancel item"];
    const property = fc.asyncProperty(scenariosFor(actors), fc.scheduler(), async (scenario, scheduler) => {
      await race(await openRace(line, scenario), scheduler, actors);
      turns.push(...scheduler.report().map(({ label }) => label));
    });
    await fc.assert(property, { numRuns: 5, seed: 42 });
    runs.push(turns);
  }
  expect(runs[0]?.length).toBeGreaterThan(100);
  expect(runs[1]).toEqual(runs[0]);
});
