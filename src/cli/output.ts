/** Two ways out: messages for people go to stderr, data to stdout. */

import { once } from "node:events";

/** How a command is run from a clone; what a hint tells people to type. */
export const OUTLAST = "npm run -s outlast --";

/** A message for a person. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A line of data; waits where the reader is slow. */
export async function print(line: string): Promise<void> {
  if (!process.stdout.write(`${line}\n`)) await once(process.stdout, "drain");
}

/** One line of JSON. */
export async function printJson(value: unknown): Promise<void> {
  await print(JSON.stringify(value));
}

/** Who reads our data may stop early, as `head` does: then there is nobody left to tell anything. */
export function endWithReader(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? 0 : 1);
  });
}
