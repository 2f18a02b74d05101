/** What the others keep of an item: its files beside one JSON file, which is written last. */

import { rename, writeFile } from "node:fs/promises";
import path from "node:path";

export type KeptItem = { readonly output: unknown };

export function keptPath(folder: string, id: string): string {
  return path.join(folder, `${id}.json`);
}

/** Fetches every file of an output; in the JSON their names stand in their places. */
export async function keep(folder: string, id: string, output: unknown): Promise<void> {
  let files = 0;
  const fetched = async (value: unknown): Promise<unknown> => {
    if (typeof value === "string" && /^(?:https?|data):/.test(value)) {
      const response = await fetch(value);
      if (!response.ok) throw new Error(`${value} answers ${response.status}`);
      const name = `${id}-${files++}`;
      await writeFile(path.join(folder, name), Buffer.from(await response.arrayBuffer()));
      return name;
    }
    if (Array.isArray(value)) return Promise.all(value.map(fetched));
    if (typeof value !== "object" || value === null) return value;
    const members = Object.entries(value).map(async ([name, member]) => [name, await fetched(member)] as const);
    return Object.fromEntries(await Promise.all(members));
  };
  const kept: KeptItem = { output: await fetched(output) };
  const partial = path.join(folder, `${id}.partial`);
  await writeFile(partial, JSON.stringify(kept));
  await rename(partial, keptPath(folder, id));
}
