/**
 * Which rows of a batch may have been bought: windows of rows, each noted before the first of its rows is given out. Who
 * finds no note for a row knows that it wasn't.
 */

import { z } from "zod";
import { type BatchId, OBJECT_KEYS } from "../core/naming.ts";
import type { Bucket } from "./bucket.ts";
import { JSON_TYPE, readJson } from "./records.ts";

/** Rows `first` to `last`, both in it; of a batch of singles, also rows that come later. */
export type Window = { readonly first: number; readonly last: number; readonly notedAtMs: number };

const record = z.object({ first: z.number(), last: z.number(), noted_at: z.iso.datetime() });

/** Answers the window that stands in the bucket: this one, or the one that began there. */
export async function noteWindow(bucket: Bucket, batch: BatchId, window: Window): Promise<Window> {
  const { first, last, notedAtMs } = window;
  const note: z.input<typeof record> = { first, last, noted_at: new Date(notedAtMs).toISOString() };
  const key = OBJECT_KEYS.window(batch, first);
  if (await bucket.putOnce(key, JSON.stringify(note), JSON_TYPE)) return window;
  return (await readWindow(bucket, batch, first)) ?? window;
}

/** A million rows have five hundred of them. */
const READS_AT_ONCE = 32;

/** In the order of their rows. */
export async function readWindows(bucket: Bucket, batch: BatchId): Promise<readonly Window[]> {
  const firsts: number[] = [];
  for await (const { key } of bucket.list(OBJECT_KEYS.windows(batch))) {
    firsts.push(Number(/(\d+)\.json$/.exec(key)?.[1] ?? Number.NaN));
  }
  const windows: Window[] = [];
  for (let at = 0; at < firsts.length; at += READS_AT_ONCE) {
    const read = firsts.slice(at, at + READS_AT_ONCE).map((first) => readWindow(bucket, batch, first));
    windows.push(...(await Promise.all(read)).filter((window) => window !== null));
  }
  return windows.toSorted((a, b) => a.first - b.first);
}

/** The window that a row was given out by. Looked for from the end: that is where rows without a receipt are. */
export function windowAt(windows: readonly Window[], index: number): Window | undefined {
  return windows.findLast(({ first }) => first <= index);
}

/** The window that begins at this row; null: it wasn't noted. */
export async function readWindow(bucket: Bucket, batch: BatchId, first: number): Promise<Window | null> {
  const read = await readJson(bucket, OBJECT_KEYS.window(batch, first), record);
  return read === null ? null : { first: read.first, last: read.last, notedAtMs: Date.parse(read.noted_at) };
}
