/**
 * The demo's prompts: 20 subjects, each in 10 styles. Most become a picture; every fifth becomes something else, so
 * that all kinds of output are met: text, a set of pictures, sound, and files nested in other values.
 *
 * Neighbours differ in both subject and style, so that any first few of them are varied, too.
 */

import type { Row } from "../core/rows.ts";

const SUBJECTS = [
  "a lighthouse in a storm",
  "an old bicycle by a canal",
  "a night train crossing the steppe",
  "two foxes in fresh snow",
  "a bakery before dawn",
  "a greenhouse on the moon",
  "a chess game in the park",
  "a whale under the northern lights",
  "a violin maker's workshop",
  "a tram in the rain",
  "an orchard in late September",
  "a library with no ceiling",
  "a desert observatory",
  "a harbour market at noon",
  "a paper boat on a wide river",
  "a mountain hut and its smoke",
  "a clock tower full of swallows",
  "a tea house in the fog",
  "a field of sunflowers at dusk",
  "a small robot watering ferns",
] as const;

const STYLES = [
  "woodcut",
  "watercolour",
  "ink on rice paper",
  "art deco poster",
  "pencil study",
  "stained glass",
  "linocut in two colours",
  "faded photograph",
  "gouache",
  "mosaic",
] as const;

export const GRID_SIZE = SUBJECTS.length * STYLES.length;

/** Every fifth item, in turn. */
const OTHER_KINDS = ["text", "pictures", "speech", "nested"] as const;
const EVERY = 5;

type DemoRow = Required<Row>;

/** The first `count` of the grid. */
export function demoGrid(count: number): readonly DemoRow[] {
  return Array.from({ length: Math.min(count, GRID_SIZE) }, (_, at) => demoRow(at));
}

function demoRow(at: number): DemoRow {
  const round = Math.floor(at / SUBJECTS.length);
  const subject = SUBJECTS[at % SUBJECTS.length] ?? "";
  const style = STYLES[(at + round) % STYLES.length] ?? "";
  const kind = at % EVERY === 2 ? OTHER_KINDS[Math.floor(at / EVERY) % OTHER_KINDS.length] : undefined;
  const prompt = `${subject}, ${style}`;
  return {
    id: prompt.replaceAll(/[^a-z]+/g, "-"),
    target: { kind: "model", owner: "outlast", name: kind ?? "picture" },
    input: kind === "speech" ? { text: prompt } : { prompt },
  };
}
