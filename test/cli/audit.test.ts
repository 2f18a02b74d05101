/** `outlast audit` of real runs: what it finds where everything is right, and where somebody had a hand in the books. */

import { Redis } from "ioredis";
import { describe, expect, test } from "vitest";
import type { AccountFinding, AuditFinding } from "../../src/audit/findings.ts";
import { readReceipt, writeDuplicate } from "../../src/bucket/records.ts";
import { type BatchId, itemId, OBJECT_KEYS, REDIS_KEYS } from "../../src/core/naming.ts";
import { model, prompts, report, results, submit, untilSettled } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { jsonLines, lines, outlast } from "./outlast.ts";

const QUICK = { runMs: { medianMs: 100, spread: 0.2 }, queueMs: { medianMs: 20, spread: 0 } };
const BUT_SWEEP = ["feed", "create", "follow", "copy", "record", "finish", "keep"];

type Audited = {
  readonly code: number | null;
  readonly totals: AccountFinding;
  readonly findings: readonly Exclude<AuditFinding, AccountFinding>[];
};

async function audit({ env }: Fleet, ...batch: readonly string[]): Promise<Audited> {
  const { code, stdout, stderr } = await outlast(["audit", ...batch, "--json"], { env });
  expect(stderr).toBe("");
  const findings = jsonLines<AuditFinding>(stdout);
  const totals = findings.find((finding) => finding.finding === "account");
  if (totals === undefined) throw new Error(`the audit has no totals:\n${stdout}`);
  expect(findings.at(-1)).toBe(totals);
  expect(totals.exit_code).toBe(code);
  return { code, totals, findings: findings.filter((finding) => finding.finding !== "account") };
}

async function finish(fleet: Fleet, batch: BatchId): Promise<void> {
  await untilSettled(fleet, batch);
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 30_000 }).toBe("finished");
}

/** Somebody else with the account's token, or we, unnoticed. */
async function buyByHand({ emulator }: Fleet, prompt: string): Promise<string> {
  const answer = await fetch(`${emulator.apiUrl}/models/outlast/picture/predictions`, {
    method: "POST",
    headers: { authorization: "Bearer r8_emulator", "content-type": "application/json" },
    body: JSON.stringify({ input: { prompt } }),
  });
  expect(answer.status).toBe(201);
  return ((await answer.json()) as { readonly id: string }).id;
}

const none = { count: 0, predict_time: 0 };

describe("an audit", () => {
  test("of a run without faults finds nothing, and of every hand in the books what it did", {
    timeout: 120_000,
  }, async () => {
    await using fleet = await startFleet({ emulator: QUICK });
    const { bucket, ledger } = fleet.services;
    const worker = fleet.startWorker();
    const batch = await submit(fleet, prompts(40), "foxes");
    const other = await submit(fleet, [{ input: { prompt: "of another batch" }, target: model("picture") }], "other");
    await finish(fleet, batch);
    await finish(fleet, other);
    expect(await worker.stop()).toBe(0);
    const { account, metrics } = await report(fleet, batch);
    const saved = await results(fleet, batch);

    const clean = await audit(fleet, batch);
    expect(clean.findings).toEqual([]);
    expect(clean).toMatchObject({
      code: 0,
      totals: {
        account: "replicate",
        batches: 1,
        items: 40,
        saved: { count: 40, predict_time: metrics.predict_time },
        not_saved: { ...none, causes: [] },
        in_flight: none,
        sending: 0,
        unclear: 0,
        not_bought: 0,
        duplicates: none,
        disagreements: 0,
        moving: 0,
        list: { predictions: 41, complete: true, held: { count: 40 }, elsewhere: { count: 1 }, foreign: none },
        list_stopped_by: null,
      },
    });
    expect((await audit(fleet)).totals).toMatchObject({
      batches: 2,
      items: 41,
      saved: { count: 41 },
      list: { predictions: 41, held: { count: 41 }, elsewhere: none, matching: none, silent: none },
    });

    // Somebody else buys on the account, with an input that is none of ours, and by more than one page.
    const foreign = await buyByHand(fleet, "a whale that nobody here asked for");
    const strange = await audit(fleet);
    expect(strange).toMatchObject({ code: 0, findings: [] });
    expect(strange.totals.list?.foreign).toMatchObject({ count: 1, examples: [foreign] });

    // A prediction was bought for an item that holds another, and booked.
    const surplus = await buyByHand(fleet, "prompt number 3");
    const unexplained = await audit(fleet);
    expect(unexplained.code, "nobody knows whose it is").toBe(4);
    expect(unexplained.findings).toMatchObject([
      { finding: "unexplained", prediction_id: surplus, why: "matching", could_be: [itemId(batch, 3)] },
    ]);
    await writeDuplicate(bucket, { batch, index: 3, attempt: 1 }, surplus, Date.now());
    const booked = await audit(fleet, batch);
    expect(booked).toMatchObject({
      code: 2,
      totals: { saved: { count: 40 }, duplicates: { count: 1 }, list: { duplicates: { count: 1 }, matching: none } },
      findings: [{ finding: "duplicate", item: itemId(batch, 3), prediction_id: surplus, status: expect.any(String) }],
    });

    // A receipt is removed: Redis still knows what was bought.
    await bucket.delete(OBJECT_KEYS.receipt(batch, 7, 1));
    const removed = await audit(fleet, batch);
    expect(removed.code).toBe(2);
    expect(removed.totals).toMatchObject({
      saved: { count: 39 },
      not_saved: { count: 1, causes: [{ why: "its receipt is missing", count: 1 }] },
      list: { held: { count: 40 } },
    });
    expect(removed.findings).toContainEqual(
      expect.objectContaining({
        finding: "not_saved",
        item: itemId(batch, 7),
        index: 7,
        attempt: 1,
        prediction_id: saved[7]?.prediction_id,
        alive: true,
      }),
    );
    const said = ({ findings }: Audited) =>
      findings.flatMap((one) => (one.finding === "disagreement" ? `${one.index}: ${one.what}` : []));
    expect(said(removed)).toEqual([
      "7: Redis says saved, and attempt 1 has no receipt",
      expect.stringMatching(/^null: Redis adds up \d+ predict time \(ms\), the receipts \d+$/),
      expect.stringMatching(/^null: Redis adds up \d+ bytes of outputs, the receipts \d+$/),
      "null: Redis adds up 40 files, the receipts 39",
    ]);

    // A byte is changed: the item waits, says Redis, and would be bought again.
    const redis = new Redis(fleet.redis.url);
    await redis.setrange(REDIS_KEYS.bytes(account, batch), 9, "\x10");
    await redis.quit();
    expect(said(await audit(fleet, batch))).toEqual(
      expect.arrayContaining([
        "9: Redis says waiting, and the receipt of attempt 1 says saved",
        "null: the counters say that 40 items are saved, the items' bytes say 39",
        "null: the counters say that 0 items are waiting, the items' bytes say 1",
      ]),
    );

    // A file is cut off, a receipt scribbled over, another copied to a second item, and an item appears that nobody
    // submitted.
    await bucket.put(saved[11]?.outputs[0]?.key ?? "", "short", { contentType: "image/png" });
    await bucket.put(OBJECT_KEYS.receipt(batch, 12, 1), "{", { contentType: "application/json" });
    const twin = await readReceipt(bucket, { batch, index: 14, attempt: 1 });
    await bucket.put(OBJECT_KEYS.receipt(batch, 13, 1), JSON.stringify(twin), { contentType: "application/json" });
    await bucket.put(OBJECT_KEYS.receipt(batch, 40, 1), "{}", { contentType: "application/json" });
    const shown = await outlast(["audit", batch], { env: fleet.env });
    expect(shown.code).toBe(2);
    expect(lines(shown.stdout)).toEqual(
      expect.arrayContaining([
        "account replicate: 1 batch, 40 items",
        expect.stringMatching(/^billed and saved +37 /),
        expect.stringMatching(/^billed, not saved +3 /),
        expect.stringMatching(/^- a file that was saved has another length now +1 /),
        expect.stringMatching(/^bought twice +1 /),
        expect.stringMatching(/^others' +1 /),
        expect.stringMatching(/^the books disagree in \d+ places$/),
        expect.stringMatching(new RegExp(`^ {2}item ${itemId(batch, 11)}, prediction \\w+: a file that was saved has`)),
        `  item ${itemId(batch, 12)}: the receipt of attempt 1 can't be read`,
        `  item ${itemId(batch, 14)}: prediction ${twin?.prediction_id} is held by item ${itemId(batch, 13)}, too`,
        `  batch ${batch}: the bucket has objects of item 40, and Redis knows 40 items`,
      ]),
    );
    expect(await ledger.readStates(account, batch, 9, 1), "an audit mends nothing").toMatchObject([
      { state: "waiting" },
    ]);
  });

  test("of a system at work finds no contradiction, and nothing that isn't ours", { timeout: 120_000 }, async () => {
    await using fleet = await startFleet({ emulator: QUICK, createsPerMinute: 1_800 });
    const batch = await submit(fleet, prompts(300));
    fleet.startWorker();
    fleet.startWorker();
    let bought = 0;
    let meanwhile = 0;
    for (let over = false; !over; ) {
      over = (await report(fleet, batch)).state === "finished";
      const { findings, totals } = await audit(fleet);
      expect(findings.filter(({ finding }) => finding !== "in_flight")).toEqual([]);
      const { saved, in_flight: inFlight, sending, not_bought: notBought } = totals;
      expect(saved.count + inFlight.count + sending + notBought).toBe(300);
      expect(saved.count + inFlight.count).toBeGreaterThanOrEqual(bought);
      bought = saved.count + inFlight.count;
      if (bought > 0 && saved.count < 300) meanwhile++;
    }
    expect(bought).toBe(300);
    expect(meanwhile, "some audits were made in the middle of it").toBeGreaterThan(0);
  });

  test("says what is unclear, with what could be its own, and why what was bought isn't saved", {
    timeout: 60_000,
  }, async () => {
    await using fleet = await startFleet({ emulator: QUICK });
    fleet.emulator.arm({ route: "create", kind: "drop-after-create", count: 1 });
    const batch = await submit(fleet, [
      ...prompts(3),
      { input: { prompt: "a fox" }, target: model("moderated") },
      { input: { prompt: "a crow" }, target: model("moderated") },
    ]);
    fleet.startWorker(BUT_SWEEP);
    const settled = await untilSettled(fleet, batch);
    expect(settled).toMatchObject({ saved: 2, failed: 2, unclear: 1 });
    const { code, totals, findings } = await audit(fleet, batch);
    expect(code).toBe(4);
    const [dropped] = [...fleet.emulator.predictionRows()];
    expect(findings).toContainEqual(
      expect.objectContaining({ finding: "unclear", since: expect.any(String), candidates: [dropped?.id] }),
    );
    expect(findings).toContainEqual(
      expect.objectContaining({ finding: "unexplained", prediction_id: dropped?.id, why: "matching" }),
    );
    expect(totals).toMatchObject({
      saved: { count: 2 },
      not_saved: { count: 2, causes: [{ why: expect.stringMatching(/^failed: .*flagged as sensitive/), count: 2 }] },
      unclear: 1,
      disagreements: 0,
    });
    for (const finding of findings) if (finding.finding === "not_saved") expect(finding.alive).toBe(false);

    const redis = new Redis(fleet.redis.url);
    await redis.del(REDIS_KEYS.unclear(settled.account));
    await redis.quit();
    expect((await audit(fleet)).findings).toContainEqual(
      expect.objectContaining({
        finding: "disagreement",
        what: expect.stringMatching(/^Redis says unclear, and doesn't/),
      }),
    );
  });

  test("of an account whose provider has no list says so, and holds the other two books", {
    timeout: 60_000,
  }, async () => {
    await using fleet = await startFleet({ emulator: QUICK, provider: "cometapi" });
    fleet.startWorker();
    const batch = await submit(fleet, prompts(3));
    await finish(fleet, batch);
    expect(await audit(fleet)).toMatchObject({
      code: 0,
      findings: [],
      totals: {
        account: "cometapi",
        saved: { count: 3 },
        list: null,
        list_stopped_by: expect.stringMatching(/^cometapi has no list: /),
      },
    });
    const { stdout } = await outlast(["audit", batch], { env: fleet.env });
    expect(stdout).toMatch(/^the provider's list wasn't read: cometapi has no list: .*\nthe books agree$/m);
  });

  test("goes on where the list breaks off, and says so", { timeout: 60_000 }, async () => {
    await using fleet = await startFleet({ emulator: QUICK });
    fleet.startWorker();
    const batch = await submit(fleet, prompts(120));
    await finish(fleet, batch);
    fleet.emulator.arm({ route: "list", kind: "status", status: 500, skip: 1, count: null });
    expect(await audit(fleet, batch)).toMatchObject({
      code: 0,
      findings: [],
      totals: {
        saved: { count: 120 },
        list: { predictions: 100, complete: false, held: { count: 100 }, unlisted: { vanished: 0 } },
        list_stopped_by: expect.stringContaining("500"),
      },
    });
  });
});

test("a repair saves what is paid for and alive, buys nothing, and each prediction counts once", {
  timeout: 120_000,
}, async () => {
  // The outputs' host isn't allowed: the predictions succeed, and nothing of them can be kept.
  await using fleet = await startFleet({ emulator: QUICK });
  const stranger = fleet.startWorker([], { OUTLAST_OUTPUT_HOSTS: "elsewhere.example" });
  const batch = await submit(fleet, prompts(5), "foxes");
  await finish(fleet, batch);
  await stranger.stop();
  expect(await report(fleet, batch)).toMatchObject({ failed: 5, saved: 0 });
  const before = await audit(fleet, batch);
  expect(before).toMatchObject({ code: 2, totals: { not_saved: { count: 5 } } });

  const repaired = await outlast(["audit", batch, "--repair"], { env: fleet.env });
  expect(repaired.stderr).toMatch(/5 items are being saved now, without buying anything/);
  fleet.startWorker();
  await finish(fleet, batch);
  expect(await report(fleet, batch)).toMatchObject({ failed: 0, saved: 5, metrics: { output_files: 5 } });
  expect(fleet.emulator.books().creates.total).toBe(5);

  const after = await audit(fleet, batch);
  expect(after).toMatchObject({ code: 0, totals: { saved: { count: 5 }, carried: 5, not_saved: none } });
  expect(after.totals.saved.predict_time).toBeCloseTo(before.totals.not_saved.predict_time);
  for (const { attempts } of await results(fleet, batch)) {
    expect(attempts.map(({ status }) => status)).toEqual(["failed", "saved"]);
    expect(attempts[0]?.prediction_id).toBe(attempts[1]?.prediction_id);
  }
  expect((await outlast(["audit", batch, "--repair"], { env: fleet.env })).stderr).toMatch(/nothing is to be repaired/);
});
