/** An account whose provider keeps files for another time than the usual hour. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Queue } from "bullmq";
import { expect, onTestFinished, test } from "vitest";
import { copyPriority } from "../../src/core/outputs.ts";
import { HOUR } from "../../src/core/time.ts";
import { copyQueue } from "../../src/queues/queues.ts";
import { prompts, report, submit } from "../support/batch.ts";
import { startFleet } from "../support/fleet.ts";

test("its outputs expire when the account's settings say, in the queue's order and in what is shown", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-kept-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const accounts = path.join(folder, "accounts.json");
  const replicate = { provider: "replicate", token: "r8_emulator", files_kept_seconds: 5 * 3_600 };
  await writeFile(accounts, JSON.stringify({ replicate }));
  await using fleet = await startFleet({ env: { REPLICATE_API_TOKEN: "", OUTLAST_ACCOUNTS: accounts } });
  const { ledger, redis, accounts: known } = fleet.services;
  const [account] = known;
  if (account === undefined) throw new Error("the fleet has no account");

  const startMs = Date.now();
  const batch = await submit(fleet, prompts(3));
  const worker = fleet.startWorker(["feed", "create", "follow"]);
  const queue = new Queue(copyQueue.name, { connection: redis });
  onTestFinished(() => queue.close());
  await expect.poll(() => queue.getPrioritizedCount(), { timeout: 30_000 }).toBe(3);
  for (const job of await queue.getPrioritized()) {
    const { expiresAtMs } = copyQueue.read(job.id ?? "", job.data, job.timestamp);
    expect(expiresAtMs).toBeGreaterThan(startMs + 5 * HOUR - 1_000);
    expect(expiresAtMs).toBeLessThan(Date.now() + 5 * HOUR);
    expect(job.priority).toBe(copyPriority(expiresAtMs));
  }
  const oldest = await ledger.oldestUnsaved(account.name);
  expect(oldest?.expiresAtMs).toBeGreaterThan(startMs + 5 * HOUR - 1_000);
  expect(oldest?.boughtAtMs).toBeGreaterThanOrEqual(startMs);
  expect(await worker.stop()).toBe(0);

  fleet.startWorker(["copy", "record"]);
  await expect.poll(async () => (await report(fleet, batch)).saved, { timeout: 30_000 }).toBe(3);
  expect(await ledger.oldestUnsaved(account.name)).toBeNull();
});
