/**
 * The books, sorted by what was asked for: how often our clients bought an input, what that cost, and which bytes were
 * served for it. That is what a batch's own account of its items can be held against, since a digest can be made from an
 * item alone.
 */

import { isTerminal, type Prediction, predictMs } from "./prediction.ts";

export type InputRow = {
  /** SHA-256 of the canonical JSON of `{input, model}`. */
  readonly digest: string;
  readonly model: string;
  /** By creates of the API; each made a prediction. */
  readonly creates: number;
  /** How many of these succeeded. */
  readonly succeeded: number;
  /** How many of these are billed, and what they cost together. */
  readonly billed: number;
  readonly usd: string;
  /** Predictions of this input that somebody else bought. */
  readonly foreign: number;
  /** What was served for this input, whoever bought it: the bytes depend on the input alone. */
  readonly files: readonly ServedFile[];
};

/** What was sent of a file. */
export type ServedFile = {
  readonly name: string;
  readonly bytes: number;
  /** Of the whole file; null until one was sent to its end. */
  readonly sha256: string | null;
  readonly complete: number;
  readonly partial: number;
};

type Entry = { -readonly [Field in keyof Omit<InputRow, "usd" | "files">]: InputRow[Field] } & {
  billedMs: number;
  readonly files: Map<string, ServedFile>;
};

/** `usd` says what run time costs. */
export function* byInput(
  predictions: Iterable<Prediction>,
  files: Iterable<ServedFile & { readonly prediction: string }>,
  usd: (ms: number) => string,
): Generator<InputRow> {
  const entries = new Map<string, Entry>();
  const byPrediction = new Map<string, Entry>();
  for (const prediction of predictions) {
    const entry = entries.get(prediction.digest) ?? newEntry(prediction);
    entries.set(prediction.digest, entry);
    byPrediction.set(prediction.id, entry);
    add(entry, prediction);
  }
  for (const { prediction, ...file } of files) addFile(byPrediction.get(prediction), file);
  for (const { billedMs, files: served, ...entry } of entries.values()) {
    yield { ...entry, usd: usd(billedMs), files: [...served.values()] };
  }
}

function newEntry({ digest, model }: Prediction): Entry {
  return {
    digest,
    model: model.fullName,
    creates: 0,
    succeeded: 0,
    billed: 0,
    billedMs: 0,
    foreign: 0,
    files: new Map(),
  };
}

function add(entry: Entry, prediction: Prediction): void {
  if (prediction.foreign) {
    entry.foreign++;
    return;
  }
  entry.creates++;
  if (prediction.status === "succeeded") entry.succeeded++;
  const runMs = isTerminal(prediction.status) ? predictMs(prediction) : null;
  if (runMs === null) return;
  entry.billed++;
  entry.billedMs += runMs;
}

function addFile(entry: Entry | undefined, file: ServedFile): void {
  const known = entry?.files.get(file.name);
  entry?.files.set(file.name, {
    ...file,
    sha256: file.sha256 ?? known?.sha256 ?? null,
    complete: file.complete + (known?.complete ?? 0),
    partial: file.partial + (known?.partial ?? 0),
  });
}
