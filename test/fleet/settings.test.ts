import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { VARIABLES } from "../../src/config.ts";

const FILE = new URL("../../docker-compose.yml", import.meta.url);

test("docker-compose.yml hands every setting to the containers, and names none that isn't one", async () => {
  const text = await readFile(FILE, "utf8");
  const handed = [...text.matchAll(/^ {4}((?:OUTLAST_|REPLICATE_|COMETAPI_)[A-Z0-9_]+): /gm)].map((match) => match[1]);
  // Nothing is embedded there, so nothing has a state.
  expect(new Set(handed)).toEqual(
    new Set(VARIABLES.filter((name) => name !== "OUTLAST_STATE_DIR" && name !== "OUTLAST_OWN_REDIS")),
  );
});
