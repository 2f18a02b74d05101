/** `watch` and `submit --wait` where nobody works: what ends them, what they say, and with which code. */

import { describe, expect } from "vitest";
import { predictionId } from "../../src/core/prediction.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { startTestRedis } from "../support/redis-server.ts";
import { jsonLines, lines, outlast, startOutlast } from "./outlast.ts";
import { ACCOUNT, openBatch, test } from "./place.ts";

type Opened = Awaited<ReturnType<typeof openBatch>>;

async function claim({ ledger }: CommandServices, { id: batch, account }: Opened, index: number) {
  const ref = { account, batch, index, attempt: 1 };
  await ledger.move(ref, "claim", { nowMs: 1_000, nonce: `nonce ${index}` });
  return ref;
}

async function end(services: CommandServices, batch: Opened, index: number, how: "save" | "fail") {
  const ref = await claim(services, batch, index);
  await services.ledger.move(ref, "bind", { nowMs: 2_000, predictionId: predictionId(`p${index}`) });
  await services.ledger.move(ref, "conclude", { nowMs: 3_000 });
  await services.ledger.move(ref, how, { nowMs: 4_000 });
}

describe("watching", () => {
  test("doesn't take a batch that was just opened for one that is done; interrupted, it stops nothing", async ({
    place,
    services,
  }) => {
    const batch = await openBatch(services, 1, 3);
    const watching = startOutlast(["watch", batch.id], { env: place.env });
    await watching.shows(/^0 of 3 ended \(3 waiting\)/m);
    watching.child.kill("SIGINT");
    const { code, stdout, stderr } = await watching.ended;
    expect({ code, stdout }).toEqual({ code: 130, stdout: "" });
    expect(lines(stderr).at(-1)).toBe(
      `the batch goes on without being watched; to look again: npm run -s outlast -- watch ${batch.id}`,
    );
    expect((await services.ledger.standing(ACCOUNT, batch.id))?.counts.waiting).toBe(3);
  });

  test("ends where the account is paused, says why and what to do, with code 3", async ({ place, services }) => {
    const batch = await openBatch(services, 1, 3);
    await end(services, batch, 0, "save");
    const watching = startOutlast(["watch", batch.id, "--json"], { env: place.env });
    await watching.shows(/1 of 3 ended/);
    await services.ledger.pauseAccount(ACCOUNT, "the provider refuses the token");
    const { code, stdout, stderr } = await watching.ended;
    expect(code).toBe(3);
    expect(jsonLines(stdout)).toMatchObject([{ batch: batch.id, state: "paused", saved: 1, waiting: 2 }]);
    expect(lines(stderr).slice(1)).toEqual([
      "1 of 3 ended (1 saved, 2 waiting); account replicate is paused: the provider refuses the token",
      "3 items: 1 saved, 2 waiting",
      "account replicate is paused: the provider refuses the token",
      "to let it go on: npm run -s outlast -- resume --account replicate",
    ]);
  });

  test("ends where the batch is paused, and says how it goes on, with code 3", async ({ place, services }) => {
    const batch = await openBatch(services, 1, 3);
    const watching = startOutlast(["watch", batch.id, "--json"], { env: place.env });
    await watching.shows(/0 of 3 ended/);
    await services.ledger.pauseBatch(batch, "paused by a person");
    const { code, stdout, stderr } = await watching.ended;
    expect(code).toBe(3);
    expect(jsonLines(stdout)).toMatchObject([{ state: "paused", paused: "paused by a person", paused_by: "batch" }]);
    expect(lines(stderr).slice(-2)).toEqual([
      "paused by a person",
      `to let it go on: npm run -s outlast -- resume ${batch.id}`,
    ]);
  });

  test("of a canceled batch lasts until its items have ended, paused account or not, and ends with code 2", async ({
    place,
    services,
  }) => {
    const batch = await openBatch(services, 1, 3);
    const ref = await claim(services, batch, 0);
    await services.ledger.pauseAccount(ACCOUNT, "no credit");
    await services.ledger.cancelBatch(batch, 5_000);
    const watching = startOutlast(["watch", batch.id, "--json"], { env: place.env });
    await watching.shows(/0 of 3 ended/);
    await services.ledger.walkCancel(ACCOUNT, batch.id, null, 10);
    await watching.shows(/2 of 3 ended \(2 canceled, 1 in flight\)/);
    await services.ledger.move(ref, "giveBack", { nowMs: 6_000, nonce: "nonce 0" });
    await watching.shows(/3 of 3 ended .*writing results/);
    await services.ledger.finishBatch(ACCOUNT, batch.id, 7_000, 0);
    const { code, stdout } = await watching.ended;
    expect(code).toBe(2);
    expect(jsonLines(stdout)).toMatchObject([
      { state: "canceled", canceled: 3, paused: null, canceled_at: "1970-01-01T00:00:05.000Z" },
    ]);
  });

  test("waits for what is in flight although the account is paused", async ({ place, services }) => {
    const batch = await openBatch(services, 1, 2);
    const ref = await claim(services, batch, 0);
    await services.ledger.pauseAccount(ACCOUNT, "no credit");
    const watching = startOutlast(["watch", batch.id], { env: place.env });
    await watching.shows(/1 in flight, 1 waiting/);
    await services.ledger.move(ref, "doubt", { nowMs: 5_000 });
    const { code, stderr } = await watching.ended;
    expect(code).toBe(4); // an unclear item outranks a pause
    expect(stderr).toContain(
      "1 unclear: nobody knows whether the provider took them, and none is sent again on a guess",
    );
  });

  test("ends with 2 where items failed, once the results are written", async ({ place, services }) => {
    const batch = await openBatch(services, 1, 2);
    await end(services, batch, 0, "save");
    await end(services, batch, 1, "fail");
    const watching = startOutlast(["watch", batch.id], { env: place.env });
    await watching.shows(/2 of 2 ended .*; all items have ended; writing results\.jsonl/);
    await services.ledger.finishBatch(ACCOUNT, batch.id, 61_000, 0);
    const { code, stderr } = await watching.ended;
    expect(code).toBe(2);
    const results = services.bucket.urlOf(`batches/${batch.id}/results.jsonl`);
    expect(lines(stderr).slice(-4)).toEqual([
      "2 items: 1 saved, 1 failed",
      `a line for each item in ${results}`,
      "took 1 min; 0 s of predictions",
      `why items failed: npm run -s outlast -- results ${batch.id}`,
    ]);
  });

  test("says so in one line when Redis goes away for good", async ({ place }) => {
    await using redis = await startTestRedis();
    const env = { ...place.env, OUTLAST_REDIS_URL: redis.url };
    const watching = startOutlast(["submit", "-", "--model", "a/b", "--wait"], { env, input: '{"input":{}}' });
    await watching.shows(/0 of 1 ended/);
    await redis.kill();
    const { code, stderr } = await watching.ended;
    expect(code).toBe(1);
    expect(lines(stderr).at(-1)).toMatch(/^Redis doesn't answer any more: what was submitted stays submitted/);
  });
});

describe("status and results", () => {
  test("the list shows the newest first, aligned", async ({ place, services }) => {
    await openBatch(services, 1, 1_200, "old");
    await openBatch(services, 2, 3, "a newer one");
    const { code, stdout } = await outlast(["status"], { env: place.env });
    expect(code).toBe(0);
    const [header = "", ...rows] = lines(stdout);
    expect(rows.map((row) => row.replaceAll(/ {2,}/g, "|").split("|").slice(1, 4))).toEqual([
      ["a newer one", "open", "3"],
      ["old", "open", "1,200"],
    ]);
    expect(rows.map((row) => row.indexOf("open"))).toEqual([header.indexOf("state"), header.indexOf("state")]);
    const json = await outlast(["status", "--limit", "1", "--json"], { env: place.env });
    expect(jsonLines(json.stdout)).toMatchObject([
      { name: "a newer one", items: 3, waiting: 3, opened_at: "1970-01-01T00:00:02.000Z" },
    ]);
  });

  test("no batches are no mistake", async ({ place }) => {
    const { code, stdout, stderr } = await outlast(["status"], { env: place.env });
    expect({ code, stdout, stderr }).toMatchObject({
      code: 0,
      stdout: "",
      stderr: expect.stringMatching(/^no batches yet/),
    });
  });

  test("a batch's code says how it stands: 2 for failures, 3 for a pause, 4 for what is unclear", async ({
    place,
    services,
  }) => {
    const batch = await openBatch(services, 1, 3);
    const code = async () => (await outlast(["status", batch.id, "--json"], { env: place.env })).code;
    expect(await code()).toBe(0);
    await end(services, batch, 0, "fail");
    expect(await code()).toBe(2);
    await services.ledger.pauseAccount(ACCOUNT, "no credit");
    expect(await code()).toBe(3);
    await services.ledger.resumeAccount(ACCOUNT);
    await services.ledger.move(await claim(services, batch, 1), "doubt", { nowMs: 5_000 });
    expect(await code()).toBe(4);
  });

  test("results of a batch that nobody works on are lines that wait", async ({ place }) => {
    const input = '{"input":{"prompt":"a fox"},"id":"fox"}\n{"input":{"prompt":"a dog"}}\n';
    const submitted = await outlast(["submit", "-", "--model", "a/b"], { env: place.env, input });
    const [batch = ""] = lines(submitted.stdout);
    const { code, stdout } = await outlast(["results", batch, "--json"], { env: place.env });
    expect(code).toBe(0);
    expect(jsonLines(stdout)).toMatchObject([
      { index: 0, item: `${batch}000000`, id: "fox", status: "waiting", output: null, attempts: [] },
      { index: 1, item: `${batch}000001`, id: null, status: "waiting" },
    ]);
    const item = await outlast(["status", `${batch}000000`], { env: place.env });
    expect(item.code).toBe(0);
    expect(item.stdout).toMatch(/^item .*\nid +fox\nstatus +waiting\n/);
    const past = await outlast(["status", `${batch}000009`], { env: place.env });
    expect(past.code).toBe(1);
  });
});

describe("resume", () => {
  test("is on record before it acts, and says what had paused the account", async ({ place, services }) => {
    await services.ledger.pauseAccount(ACCOUNT, "the provider refuses the token (401)");
    const { code, stderr } = await outlast(["resume", "--account", "replicate"], { env: place.env });
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: "account replicate goes on; it was paused because the provider refuses the token (401)\n",
    });
    expect(await services.ledger.pausedReason(ACCOUNT)).toBeNull();
    const act = await services.bucket.get("accounts/replicate/acts/1.json", { maxBytes: 1_000 });
    expect(JSON.parse(String(act))).toEqual({ act: "resume", at: expect.stringMatching(/^\d{4}-.*Z$/) });
  });

  test("of an account that isn't paused, or isn't there, says so", async ({ place }) => {
    const notPaused = await outlast(["resume", "--account", "replicate"], { env: place.env });
    expect(notPaused).toMatchObject({ code: 0, stderr: "account replicate wasn't paused\n" });
    const unknown = await outlast(["resume", "--account", "Fox!"], { env: place.env });
    expect(unknown).toMatchObject({ code: 1, stderr: 'there is no account "Fox!" (known: replicate)\n' });
  });
});
