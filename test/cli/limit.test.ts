/** Rates that a person sets, and how accounts are shown. What they do in the middle of a run: `e2e/budget.test.ts`. */

import { describe, expect } from "vitest";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { JSON_TYPE } from "../../src/bucket/records.ts";
import { afterFailure } from "../../src/core/breaking.ts";
import { type AttemptRef, OBJECT_KEYS, QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { openGate } from "../../src/gates/account-gate.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { jsonLines, lines, outlast } from "./outlast.ts";
import { ACCOUNT, openBatch, type Place, test } from "./place.ts";

const run = ({ env }: Place, ...args: readonly string[]) => outlast(args, { env });

/** As a worker's start does. */
function gateOf({ ledger, queues }: CommandServices, createsPerMinute = 600) {
  const account = { name: ACCOUNT, createsPerMinute, readsPerMinute: 3_000, toleratesBurst: true };
  return openGate(account, { ledger, queues, clock: Date.now, mark: () => "a probe" });
}

const limitOf = ({ redis }: CommandServices, queue: string) => redis.hmget(`bull:${queue}:meta`, "max", "duration");

describe("limit", () => {
  test("acts on the queues at once, is recorded, and stands while workers start and settings stay", {
    timeout: 90_000,
  }, async ({ place, services }) => {
    await gateOf(services).configure();
    expect(await limitOf(services, QUEUE_NAMES.create(ACCOUNT))).toEqual(["1", "100"]);
    const set = await run(place, "limit", "replicate", "--creates", "300", "--json");
    expect(set).toMatchObject({ code: 0 });
    expect(lines(set.stderr)).toEqual([
      "account replicate: 300 creates a minute (set by hand), 3,000 reads a minute (from the settings)",
    ]);
    expect(jsonLines(set.stdout)).toEqual([
      {
        account: "replicate",
        creates: { per_minute: 300, effective_per_minute: 300, by_hand: true },
        reads: { per_minute: 3_000, effective_per_minute: 3_000, by_hand: false },
      },
    ]);
    expect(await limitOf(services, QUEUE_NAMES.create(ACCOUNT))).toEqual(["1", "200"]);
    expect(await limitOf(services, QUEUE_NAMES.follow(ACCOUNT))).toEqual(["4", "100"]);
    const act = await services.bucket.get(OBJECT_KEYS.accountAct(ACCOUNT, 1), { maxBytes: 1_000 });
    expect(JSON.parse(String(act))).toMatchObject({ act: "limit", creates: 300 });

    await gateOf(services).configure();
    expect(await limitOf(services, QUEUE_NAMES.create(ACCOUNT)), "a worker that starts leaves it").toEqual([
      "1",
      "200",
    ]);
    await gateOf(services, 1_200).configure();
    expect(await limitOf(services, QUEUE_NAMES.create(ACCOUNT)), "another setting doesn't").toEqual(["1", "50"]);

    await run(place, "limit", "replicate", "--creates", "60", "--reads", "600");
    expect(await limitOf(services, QUEUE_NAMES.follow(ACCOUNT))).toEqual(["1", "125"]);
    expect((await run(place, "limit", "replicate", "--reset")).stderr).toMatch(/1,200 creates a minute \(from the/);
    expect(await limitOf(services, QUEUE_NAMES.create(ACCOUNT))).toEqual(["1", "50"]);
  });

  test("refuses what it can't do, with code 1 and before anything is recorded", { timeout: 60_000 }, async ({
    place,
    services,
  }) => {
    const said = await Promise.all(
      [
        ["limit", "replicate"],
        ["limit", "replicate", "--creates", "0"],
        ["limit", "replicate", "--creates", "60", "--reset"],
        ["limit", "replicate", "--creates", "60"],
      ].map((args) => run(place, ...args)),
    );
    expect(said.map(({ code }) => code)).toEqual([1, 1, 1, 1]);
    expect(said.map(({ stderr }) => stderr)).toEqual([
      expect.stringContaining("say --creates or --reads with a number, or --reset"),
      expect.stringContaining("a number a minute, above 0"),
      expect.stringContaining("say --creates or --reads with a number, or --reset"),
      expect.stringContaining('no worker has worked for an account "replicate" yet'),
    ]);
    expect(await services.bucket.head(OBJECT_KEYS.accountAct(ACCOUNT, 1))).toBeNull();
  });
});

describe("status --accounts", () => {
  test("tells rates, refusals, the breaker, what runs and what requests came to", { timeout: 90_000 }, async ({
    place,
    services,
  }) => {
    const { ledger } = services;
    const gate = gateOf(services);
    await gate.configure();
    await openBatch(services, 1, 3);
    await gate.refused("creates", { forMs: 60_000, said: "Slow down: it resets in ~60s." });
    for (let n = 0; n < 5; n++) await gate.unanswered("reads", "ECONNREFUSED");
    for (const name of [
      "create ok",
      "create 429",
      "create ok",
      "get ok",
      "polled net",
      "polled net",
      "polled single",
      "polled webhook",
    ])
      gate.count(name);
    await gate.flush();
    await ledger.countWebhook(ACCOUNT, "woken");
    await ledger.pauseAccount(ACCOUNT, "402: no credit");
    await ledger.noteSweep(ACCOUNT, Date.now(), HOUR);
    await ledger.noteSwept(ACCOUNT, { untilMs: Date.now() + MINUTE, toAgeMs: HOUR, pauseMs: 15_000, pages: 3 }, 7);
    for (let n = 0; n < 10; n++) await ledger.learnRun(ACCOUNT, "a/b", 8_000, Date.now());

    const shown = await run(place, "status", "--accounts", "--json");
    expect(shown.code).toBe(0);
    expect(jsonLines(shown.stdout)).toEqual([
      expect.objectContaining({
        account: "replicate",
        paused: "402: no credit",
        creates: expect.objectContaining({
          configured_per_minute: 600,
          per_minute: 600,
          effective_per_minute: 300,
          by_hand: false,
          tier: null,
          last_refusal: expect.objectContaining({ said: "Slow down: it resets in ~60s." }),
          breaker: { state: "closed", since: null, reason: null },
        }),
        reads: expect.objectContaining({
          left_beside_polls: 10,
          breaker: expect.objectContaining({ state: "open", reason: "ECONNREFUSED" }),
        }),
        items: { waiting: 3, in_flight: 0, saved: 0, failed: 0, canceled: 0, unclear: 0 },
        unfinished_batches: 1,
        counted_batches: 1,
        requests: { create: { ok: 2, 429: 1 }, get: { ok: 1 } },
        polls: { net: 2, single: 1, sweep: 0, webhook: 1 },
        webhooks: { woken: 1 },
        webhook_asked_at: null,
        sweeps: expect.objectContaining({ interval_ms: 15_000, pages: 3, woken: 7, cover_age_ms: HOUR }),
        run_times: [{ model: "a/b", runs: 10, p5_ms: 7_611, median_ms: 8_300, p95_ms: 8_300 }],
      }),
    ]);
    const words = (await run(place, "status", "--accounts")).stdout;
    expect(words).toMatch(/^paused +402: no credit; to let it go on: .* resume --account replicate$/m);
    expect(words).toMatch(/^creates +600 a minute, 300 now \(after a refusal\)$/m);
    expect(words).toMatch(/^creates refused +\S+Z, until \S+Z: Slow down: it resets in ~60s\.$/m);
    expect(words).toMatch(/^reads breaker +open since \S+Z: ECONNREFUSED; one request at a time/m);
    expect(words).toMatch(/^polls +1 for a webhook, 0 for a sweep, 2 as a net, 1 singly$/m);
    expect(words).toMatch(/^sweeps +every 15 s, 3 pages the last, at \S+Z; 7 polls brought forward$/m);
    expect(words).toMatch(/^runs of a\/b +10 since yesterday: half in 8 s, nine in ten in 8 s to 8 s$/m);
    expect(words).toMatch(/^items +0 in flight, 3 waiting, .* of 1 unfinished batches$/m);
  });

  test("of one that can't be opened on this Redis tells why, until it is, and so does its batch", {
    timeout: 90_000,
  }, async ({ place, services }) => {
    const { bucket, redis } = services;
    async function* readings() {
      yield {
        line: 1,
        row: { input: { prompt: "a" }, target: { kind: "model", owner: "outlast", name: "text" } },
      } as const;
    }
    const options = { name: "b", tenant: "default", account: services.accounts[0] ?? raise("no account") };
    const { batch } = await submitBatch(readings(), options, { ...services, clock: Date.now });
    const key = OBJECT_KEYS.batch(batch);
    const whole = (await bucket.get(key, { maxBytes: 10_000 })) ?? raise("no batch");
    await bucket.put(key, "by hand", JSON_TYPE);
    await redis.hdel(REDIS_KEYS.account(ACCOUNT), "opened_on");

    expect(await run(place, "rebuild"), "as every feed tries").toMatchObject({ code: 1 });
    const why = new RegExp(
      `^not open +account replicate can't be opened on this Redis: \\S+/${batch}/batch\\.json isn't what`,
      "m",
    );
    expect((await run(place, "status", "--accounts")).stdout).toMatch(why);
    const status = await run(place, "status", batch);
    expect(status.stdout).toMatch(why);
    expect(status.stdout, "nobody paused it").toMatch(/^state +open$/m);

    await bucket.put(key, whole, JSON_TYPE);
    expect(await run(place, "rebuild")).toMatchObject({ code: 0 });
    expect((await run(place, "status", "--accounts")).stdout).not.toContain("not open");
    expect((await run(place, "status", batch)).stdout).not.toContain("not open");
  });

  test("tells how saving stands, and status of a batch why it waits for that", { timeout: 60_000 }, async ({
    place,
    services,
  }) => {
    const { ledger } = services;
    const batch = await openBatch(services, 1, 3);
    await ledger.noteOpened(ACCOUNT, await ledger.readIdentity(ACCOUNT), null);
    const ref: AttemptRef = { account: ACCOUNT, batch: batch.id, index: 0, attempt: 1 };
    const nowMs = Date.now() - 20 * MINUTE;
    await ledger.move(ref, "claim", { nowMs, nonce: "n" });
    await ledger.move(ref, "bind", { nowMs, predictionId: predictionId("p1") });
    await ledger.move(ref, "succeed", { nowMs });
    await ledger.noteUnsaved(ref, Date.now() + 40 * MINUTE + 50 * SECOND);
    await ledger.noteHeld(ACCOUNT, "saving is behind: many wait");
    await ledger.addSaves(Math.floor(Date.now() / MINUTE), { saved: 10, busyMs: 16_000, slots: 16 });
    for (let n = 0; n < 5; n++) {
      await ledger.changeBucketBreaker((before) => afterFailure(before, "file:/b: the disk is full", Date.now()));
    }
    const words = (await run(place, "status", "--accounts")).stdout;
    expect(words).toMatch(
      /^saving +0 outputs to be copied, 0 receipts to be written, of all accounts; 600 a minute can/m,
    );
    expect(words).toMatch(/^feeding held +saving is behind: many wait; it goes on by itself$/m);
    expect(words).toMatch(/^oldest unsaved +bought 20 min(?: \d+ s)? ago, expires in 40 min \d+ s$/m);
    expect(words).toMatch(/^bucket +down since \S+Z: file:\/b: the disk is full; one file at a time/m);
    expect((await run(place, "status", batch.id)).stdout).toMatch(
      /^held +saving is behind: many wait; it goes on by itself$/m,
    );
  });

  test("of an account that nobody has worked for says so", { timeout: 60_000 }, async ({ place, services }) => {
    expect(services.accounts).toHaveLength(1);
    expect((await run(place, "status", "--accounts")).stdout).toMatch(/^creates +no worker has worked for it yet$/m);
    const both = await run(place, "status", "0k4tz2m8x1c7v9b3n5q6", "--accounts");
    expect(both).toMatchObject({ code: 1, stderr: expect.stringContaining("not both") });
  });
});

function raise(message: string): never {
  throw new Error(message);
}
