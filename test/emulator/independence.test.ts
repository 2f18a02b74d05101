import { readdir, readFile } from "node:fs/promises";
import { expect, test } from "vitest";

const FOLDER = new URL("../../src/emulator/", import.meta.url);

test("the emulator imports nothing of Outlast: it is held to the providers' words, not to our reading of them", async () => {
  const outside: string[] = [];
  for (const name of await readdir(FOLDER)) {
    for (const [, from] of (await readFile(new URL(name, FOLDER), "utf8")).matchAll(/from "(\.[^"]*)"/g)) {
      if (!from?.startsWith("./")) outside.push(`${name}: ${from}`);
    }
  }
  expect(outside).toEqual([]);
});
