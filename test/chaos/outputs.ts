/**
 * What is kept of an item, beside what its model makes of its input: the output's JSON, and each file in it byte for byte.
 * Both come from the emulator's models, of which nothing was stored anywhere.
 */

import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Bucket } from "../../src/bucket/bucket.ts";
import type { OutputFile } from "../../src/emulator/model.ts";
import { MODELS } from "../../src/emulator/models.ts";
import type { ResultLine } from "../../src/index.ts";
import { digestIn, type Item } from "./items.ts";

export type Compared = {
  /** What is wrong, or null. */
  readonly mistake: string | null;
  /** What there ought to be. */
  readonly files: number;
  readonly bytes: number;
};

export type Wanted = {
  /** With a name of `files` in the place of each file. */
  readonly output: unknown;
  readonly files: ReadonlyMap<string, Buffer>;
};

const PLACE = "file of the output, number ";
const LARGEST_BYTES = 10_000_000;

/** What a model makes of an input. */
export function wantedOf(item: Omit<Item, "id">): Wanted {
  const { model: name, input } = item;
  const digest = digestIn(item);
  const model = MODELS.get(name);
  if (model === undefined) throw new Error(`the emulator has no ${name}`);
  const made = model.files(input, digest);
  const files = new Map(made.map((file, at) => [`${PLACE}${at}`, bytesOf(file)]));
  const output = mapTexts(model.output(input, [...files.keys()], digest), (text) => {
    const [, inline] = /^data:[^,]*;base64,(.*)$/s.exec(text) ?? [];
    if (inline === undefined) return text;
    const place = `${PLACE}${files.size}`;
    files.set(place, Buffer.from(inline, "base64"));
    return place;
  });
  return { output, files };
}

export async function compareOutput(item: Item, { output, outputs }: ResultLine, bucket: Bucket): Promise<Compared> {
  const wanted = wantedOf(item);
  const places = new Map([...wanted.files].map(([place, bytes]) => [sha256(bytes), place]));
  const named = new Map<string, string>();
  for (const { key, bytes, sha256: noted } of outputs) {
    const kept = await bucket.get(key, { maxBytes: LARGEST_BYTES });
    const found = kept === null ? undefined : places.get(sha256(kept));
    if (kept !== null && found !== undefined && sha256(kept) === noted && kept.length === bytes) named.set(key, found);
  }
  const shown = mapTexts(output, (text) => named.get(text) ?? text);
  const isRight = outputs.length === wanted.files.size && isDeepStrictEqual(shown, wanted.output);
  return {
    mistake: isRight ? null : `its output isn't what the model makes: ${JSON.stringify(shown).slice(0, 300)}`,
    files: wanted.files.size,
    bytes: [...wanted.files.values()].reduce((sum, { length }) => sum + length, 0),
  };
}

export function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function bytesOf({ content }: OutputFile): Buffer {
  return content.kind === "whole" ? content.make() : Buffer.concat([...content.read(0, content.sizeBytes)]);
}

/** Not the project's own, which is on trial. */
export function mapTexts(value: unknown, replace: (text: string) => string): unknown {
  if (typeof value === "string") return replace(value);
  if (Array.isArray(value)) return value.map((member) => mapTexts(member, replace));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, mapTexts(member, replace)]));
}
