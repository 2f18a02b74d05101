/** Whether the bucket holds what a receipt says: what is compared, apart from how it is read. */

import type { ItemByte } from "./item.ts";
import { filesOf } from "./outputs.ts";
import type { KeptOutput, Receipt } from "./receipt.ts";

/**
 * `missing`: the file isn't there. `length`, `bytes`: it has another length, or other bytes, than its receipt says.
 * `output`: the receipt's output and its list of files contradict each other. `receipt`: it isn't there, or can't be
 * read. `unread`: the bucket gave the file's bytes up in the middle, again and again.
 */
export type Fault = {
  readonly kind: "missing" | "length" | "bytes" | "output" | "receipt" | "unread";
  readonly key: string | null;
  readonly what: string;
};

/** `bytes`: what the bucket says of its length; null: it isn't there. */
export function judgeLength({ key, bytes: expected }: KeptOutput, bytes: number | null): Fault | null {
  if (bytes === null) return { kind: "missing", key, what: "it isn't in the bucket" };
  return bytes === expected
    ? null
    : { kind: "length", key, what: `it has ${bytes} bytes, and its receipt says ${expected}` };
}

export function judgeBytes(
  { key, bytes: expected, sha256: expectedSha256 }: KeptOutput,
  read: { readonly bytes: number; readonly sha256: string },
): Fault | null {
  if (read.bytes !== expected) {
    return { kind: "length", key, what: `${read.bytes} bytes could be read, and its receipt says ${expected}` };
  }
  return read.sha256 === expectedSha256
    ? null
    : { kind: "bytes", key, what: `its SHA-256 is ${read.sha256}, and its receipt says ${expectedSha256}` };
}

/** Every file stands in the output by its key, and every file of a saved output is kept. */
export function judgeOutput({ status, output, outputs }: Receipt): readonly Fault[] {
  const faults: Fault[] = [];
  const text = JSON.stringify(output ?? null);
  for (const { key } of outputs) {
    if (!text.includes(JSON.stringify(key)))
      faults.push({ kind: "output", key, what: "it was kept, and the output doesn't name it" });
  }
  const left = status === "saved" ? filesOf(output).length : 0;
  if (left > 0) {
    const files = left === 1 ? "a file that wasn't" : `${left} files that weren't`;
    faults.push({ kind: "output", key: null, what: `the item is called saved, and its output names ${files} kept` });
  }
  return faults;
}

/** Whether Redis says that the attempt ended in a way that leaves a receipt. One that was canceled may have left none. */
export function needsReceipt({ attempt, state }: ItemByte, of: number): boolean {
  return attempt === of && (state === "saved" || state === "failed");
}
