/** What `pause`, `resume` and `cancel` say. What they do in the middle of a run: `e2e/held.test.ts`. */

import { describe, expect } from "vitest";
import { parseBatchId, REDIS_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { lines, outlast } from "./outlast.ts";
import { ACCOUNT, openBatch, type Place, test } from "./place.ts";

const run = ({ env }: Place, ...args: readonly string[]) => outlast(args, { env });

describe("the words of a command", () => {
  test("say what a cancel comes to for an item that is on its way", { timeout: 90_000 }, async ({
    place,
    services,
  }) => {
    const { ledger } = services;
    const input = '{"input":{}}';
    const submitted = await outlast(["submit", "-", "--model", "a/b"], { env: place.env, input });
    const batch = parseBatchId(submitted.stdout.trim()) ?? raise(submitted.stderr);
    const ref = { account: ACCOUNT, batch, index: 0, attempt: 1 };
    const id = `${batch}000000`;
    const say = async () => lines((await run(place, "cancel", id)).stderr);
    const at = { nowMs: 1_000 };
    await ledger.move(ref, "claim", { ...at, nonce: "n" });
    expect(await say()).toEqual([
      expect.stringMatching(/is being bought at this moment, and is canceled .* then; to look/),
    ]);
    await ledger.move(ref, "doubt", at);
    expect(await say()).toEqual([
      expect.stringMatching(/may have been bought, nobody knows; if it was, it is canceled/),
    ]);
    await ledger.move(ref, "bind", { ...at, predictionId: predictionId("p1") });
    await ledger.move(ref, "succeed", at);
    expect(await say()).toEqual([expect.stringMatching(/has succeeded already, and is saved; to look/)]);
    await ledger.move(ref, "finishCopy", at);
    expect(await say()).toEqual([expect.stringMatching(/has ended at the provider already, and is recorded/)]);
    await ledger.move(ref, "save", at);
    expect(await say()).toEqual([`item ${id} has ended already: saved`]);
  });

  test("name the account's pause too, where a batch that is resumed still waits for it", { timeout: 60_000 }, async ({
    place,
    services,
  }) => {
    const batch = await openBatch(services, 1, 3);
    await services.ledger.pauseAccount(ACCOUNT, "no credit");
    await services.ledger.pauseBatch(batch, "paused by a person");
    const still =
      "its account replicate is paused, though: no credit; then: npm run -s outlast -- resume --account replicate";
    expect(lines((await run(place, "resume", batch.id)).stderr)).toEqual([
      `batch ${batch.id} goes on; it was paused by a person`,
      still,
    ]);
    expect(lines((await run(place, "resume", batch.id)).stderr)).toEqual([`batch ${batch.id} wasn't paused`, still]);
    expect((await run(place, "resume", "--account", "replicate")).stderr).toBe(
      "account replicate goes on; it was paused because no credit\n",
    );
    expect(await services.ledger.pausedReason(ACCOUNT)).toBeNull();
  });

  test("refuse what can't be held, with code 1", { timeout: 60_000 }, async ({ place, services }) => {
    const [singles, canceled] = [await openBatch(services, 1, 0), await openBatch(services, 2, 3)];
    await services.redis.hset(REDIS_KEYS.batch(ACCOUNT, singles.id), "kind", "singles");
    await services.ledger.cancelBatch(canceled, 3_000);
    const refusals = [
      [
        "cancel",
        singles.id,
        1,
        `batch ${singles.id} holds single predictions, and more may come: cancel them one by one`,
      ],
      ["cancel", canceled.id, 0, `batch ${canceled.id} was canceled already`],
      ["pause", canceled.id, 1, `batch ${canceled.id} is canceled`],
      ["resume", canceled.id, 1, `batch ${canceled.id} is canceled`],
    ] as const;
    const said = await Promise.all(refusals.map(([act, id]) => run(place, act, id)));
    expect(said).toEqual(refusals.map(([, , code, line]) => ({ code, stdout: "", stderr: `${line}\n` })));
  });
});

function raise(message: string): never {
  throw new Error(message);
}
