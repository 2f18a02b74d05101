/** What tells two inputs apart: SHA-256 of what runs and of what it is given, whatever the order of its keys. */

import { createHash } from "node:crypto";
import stringify from "safe-stable-stringify";
import type { Target } from "../core/prediction.ts";

export function inputDigest({
  target,
  input,
}: {
  readonly target: Target;
  readonly input: Readonly<Record<string, unknown>>;
}): string {
  return createHash("sha256")
    .update(stringify([target, input]))
    .digest("hex");
}
