/** `redrive`, `resolve` and `rebuild` as a person calls them. What they do to a batch: `batches/`. */

import { describe, expect } from "vitest";
import { type BatchId, OBJECT_KEYS, parseBatchId } from "../../src/core/naming.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { buyAndEnd, claim, FAILED, nonceOf, refOf, savedAs, statesOf } from "../support/life.ts";
import { type Line, openAccount } from "../support/stages.ts";
import { jsonLines, lines, outlast } from "./outlast.ts";
import { type Place, test } from "./place.ts";

const run = ({ env }: Place, ...args: readonly string[]) => outlast(args, { env });

const lineOf = (services: CommandServices): Line => ({ ...services, clock: Date.now }) as unknown as Line;

/** A batch of three, opened for buying: saved, failed, unclear. */
async function open(place: Place, services: CommandServices, name = "three"): Promise<{ line: Line; batch: BatchId }> {
  const input = ["a", "b", "c"].map((prompt) => JSON.stringify({ input: { prompt } })).join("\n");
  const submitted = await outlast(["submit", "-", "--model", "a/b", "--name", name], { env: place.env, input });
  const batch = parseBatchId(submitted.stdout.trim()) ?? raise(submitted.stderr);
  const line = lineOf(services);
  await openAccount(services.ledger);
  await buyAndEnd(line, refOf(batch, 0), savedAs(refOf(batch, 0)));
  await buyAndEnd(line, refOf(batch, 1), FAILED);
  await claim(line, refOf(batch, 2));
  await line.ledger.move(refOf(batch, 2), "doubt", { nowMs: Date.now(), nonce: nonceOf(refOf(batch, 2)) });
  return { line, batch };
}

describe("redrive", () => {
  test("says how many are bought again, to people and to programs, and refuses what it can't read", {
    timeout: 90_000,
  }, async ({ place, services }) => {
    const { line, batch } = await open(place, services);
    const none = await run(place, "redrive", batch, "--error", "nothing like it", "--json");
    expect(none.code).toBe(0);
    expect(none.stderr).toBe(`batch ${batch} has no such items: nothing is bought again\n`);
    expect(jsonLines(none.stdout)).toEqual([{ batch, redriven: 0 }]);

    const one = await run(place, "redrive", batch, "--failed", "--canceled", "--items", "0-5", "--json");
    expect(one.code).toBe(0);
    expect(jsonLines(one.stdout)).toEqual([{ batch, redriven: 1 }]);
    expect(lines(one.stderr)).toEqual([
      "1 item waits to be bought again, as a new attempt",
      expect.stringContaining(`watch ${batch}`),
    ]);
    expect(await statesOf(line, batch)).toEqual(["1 saved", "2 waiting", "1 unclear"]);

    const [unknown, indexes, empty] = await Promise.all([
      run(place, "redrive", "0".repeat(20)),
      run(place, "redrive", batch, "--items", "a-b"),
      run(place, "redrive", batch, "--items", ""),
    ]);
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toMatch(/0{20}.*see .*status/s);
    for (const bad of [indexes, empty]) {
      expect(bad.code).toBe(1);
      expect(bad.stderr).toMatch(/list of indexes, as results shows them: 0,5-9/);
    }
  });
});

describe("resolve", () => {
  test("gives up, or sends again, and wants to hear which of the two", { timeout: 90_000 }, async ({
    place,
    services,
  }) => {
    const { line, batch } = await open(place, services);
    for (const flags of [[], ["--resend", "--fail"]]) {
      const { code, stderr, stdout } = await run(place, "resolve", batch, ...flags);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toBe("say one of --resend (buy them again) and --fail (give them up)\n");
    }
    const unknown = await run(place, "resolve", "0".repeat(20), "--fail");
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringMatching(/see .*status/)]);

    const none = await run(place, "resolve", batch, "--fail", "--items", "0,1", "--json");
    expect(none.stderr).toBe(`batch ${batch} has no such unclear items\n`);
    expect(jsonLines(none.stdout)).toEqual([{ batch, resolved: 0 }]);
    const one = await run(place, "resolve", batch, "--resend", "--json");
    expect([one.code, jsonLines(one.stdout)]).toEqual([0, [{ batch, resolved: 1 }]]);
    expect(one.stderr).toMatch(/^1 unclear item is to be bought again; to watch the batch/);
    expect((await statesOf(line, batch))[2]).toBe("1 waiting");
  });
});

describe("rebuild", () => {
  test("makes again what Redis has lost, says what may have been bought, and then has nothing to do", {
    timeout: 90_000,
  }, async ({ place, services }) => {
    const { line, batch } = await open(place, services, "\x1b[2Jthree");
    const note = { first: 0, last: 2, noted_at: new Date().toISOString() };
    await services.bucket.putOnce(OBJECT_KEYS.window(batch, 0), JSON.stringify(note), {
      contentType: "application/json",
    });
    await services.redis.flushall();
    const made = await run(place, "rebuild", "--json");
    expect([made.code, jsonLines(made.stdout)]).toEqual([
      0,
      [{ account: "replicate", batches: 1, rebuilt: 1, unclear: 1 }],
    ]);
    expect(lines(made.stderr)).toEqual([
      expect.stringMatching(new RegExp(`^batch ${batch} \\(\ufffd\\[2Jthree\\): rebuilt, 1 item unclear$`)),
      expect.stringMatching(/^account replicate: 1 batch looked through, 1 rebuilt; 1 item may have been bought/),
    ]);
    expect(await statesOf(line, batch)).toEqual(["1 saved", "1 failed", "1 unclear"]);
    const again = await run(place, "rebuild", "--json");
    expect(jsonLines(again.stdout)).toEqual([{ account: "replicate", batches: 0, rebuilt: 0, unclear: 0 }]);
    expect(again.stderr).toMatch(/Redis is the one that it was open on; there is nothing to rebuild/);
  });

  test("of one batch leaves the others, and knows which one", { timeout: 90_000 }, async ({ place, services }) => {
    const { line, batch } = await open(place, services, "\x1b[2Jthree");
    const known = await run(place, "rebuild", batch, "--json");
    expect([known.code, jsonLines(known.stdout)]).toEqual([0, [{ batch, rebuilt: false, unclear: 0 }]]);
    expect(known.stderr).toBe(`Redis knows batch ${batch}: there is nothing to rebuild\n`);
    await services.redis.flushall();
    const made = await run(place, "rebuild", batch, "--json");
    expect(made.stderr).toBe(`batch ${batch} (\ufffd[2Jthree) is rebuilt, 0 items unclear\n`);
    expect([made.code, jsonLines(made.stdout)]).toEqual([0, [{ batch, rebuilt: true, unclear: 0 }]]);
    expect(await statesOf(line, batch)).toEqual(["1 saved", "1 failed", "1 waiting"]);
    for (const id of ["0".repeat(20), "nonsense"]) {
      const { code, stderr } = await run(place, "rebuild", id);
      expect([code, stderr]).toEqual([1, expect.stringMatching(new RegExp(`^there is no batch ${id} in file:`))]);
    }
  });
});

function raise(message: string): never {
  throw new Error(message);
}
