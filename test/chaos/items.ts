/**
 * What a chaos run buys: a mix of the emulator's models, drawn from the seed. Two in a hundred have the input of an
 * earlier one, so that there are identical items that can't be told apart; some pictures have a URL for a prompt, which
 * the provider's list may show as another.
 *
 * Every input has a `seed` that only its twins share. Predictions are told apart by scalars under the same key, so among
 * inputs that have no key in common, as those of different models, nobody can say whose a prediction isn't. In a hostile
 * run one in ten inputs has none.
 */

import { digestOf } from "../../src/emulator/canonical.ts";
import { drawFraction } from "../../src/emulator/chance.ts";

export type Item = {
  /** The row's own; no two are the same, twins neither. */
  readonly id: string;
  readonly model: string;
  readonly input: Readonly<Record<string, unknown>>;
};

export type Mix = {
  readonly seed: string;
  readonly count: number;
  /** Whether some are of models that fail, for good or by chance. */
  readonly failing: boolean;
  readonly hostile: boolean;
};

/** As the emulator's books name its input. */
export function digestIn({ model, input }: Omit<Item, "id">): string {
  return digestOf({ model, input });
}

const TWINS = 0.02;
const URLS = 0.06;
const SEEDLESS = 0.1;

const WORDS = ["a lighthouse", "an old tram", "the last snow", "two herons", "a paper crown", "rain on slate"];

export function drawItems({ seed, count, failing, hostile }: Mix): readonly Item[] {
  const items: Item[] = [];
  for (let at = 0; at < count; at++) {
    const chance = (what: string) => drawFraction(seed, `${what} of item ${at}`);
    const id = `item-${at}`;
    const earlier = items[Math.floor(chance("twin") * at)];
    if (earlier !== undefined && chance("twinned") < TWINS) {
      items.push({ ...earlier, id });
      continue;
    }
    const subject = `${WORDS[Math.floor(chance("word") * WORDS.length)]}, number ${at}`;
    // Only where the prompt isn't part of an output, in which it would be taken for a file.
    const shown = chance("url") < URLS ? `https://pictures.example/${at}.png` : subject;
    const telling = hostile && chance("seedless") < SEEDLESS ? {} : { seed: at + 1 };
    items.push({ id, ...drawOrder(chance("model"), { subject, shown, telling, failing }) });
  }
  return items;
}

/** What somebody else buys on the account: nothing of it is ours. */
export function foreignOrder(at: number): {
  readonly model: string;
  readonly input: Readonly<Record<string, unknown>>;
} {
  return { model: "outlast/text", input: { prompt: `somebody else's, number ${at}`, seed: 1_000_000 + at * 100 } };
}

function drawOrder(
  drawn: number,
  {
    subject: prompt,
    shown,
    telling,
    failing,
  }: {
    readonly subject: string;
    readonly shown: string;
    readonly telling: { readonly seed?: number };
    readonly failing: boolean;
  },
): Omit<Item, "id"> {
  const small = { width: 96, height: 64 };
  const kinds: readonly (readonly [share: number, model: string, input: Readonly<Record<string, unknown>>])[] = [
    [failing ? 0.02 : 0, "moderated", { prompt }],
    [failing ? 0.06 : 0, "flaky", { prompt }],
    [0.25, "picture", { prompt: shown, ...small }],
    [0.06, "pictures", { prompt: shown, ...small, num_outputs: 2 }],
    [0.06, "speech", { text: prompt }],
    [0.04, "nested", { prompt }],
    [0.04, "large", { bytes: 150_000 + (telling.seed ?? 0) }],
    [0.1, "text", { prompt, as: "list" }],
    [1, "text", { prompt }],
  ];
  let left = drawn;
  for (const [share, model, input] of kinds) {
    if (left < share) return { model: `outlast/${model}`, input: { ...input, ...telling } };
    left -= share;
  }
  throw new RangeError(`${drawn} isn't below 1`);
}
