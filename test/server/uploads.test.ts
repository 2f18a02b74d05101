/** Rows as a stream of any length: what the server has taken in and not yet written down stays small. */

import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { BatchId } from "../../src/core/naming.ts";
import { report } from "../support/batch.ts";
import { startFleet } from "../support/fleet.ts";
import { head, openRawClient } from "./raw-client.ts";

const MIB = 1024 * 1024;
/** Each of 100 kB. */
const ROW = Buffer.from(`{"input":{"prompt":"${"a".repeat(100_000)}"},"model":"outlast/text"}\n`);

test("300 MB that come as fast as the server takes them cost it little memory", { timeout: 120_000 }, async ({
  skip,
}) => {
  if (process.platform !== "linux") skip("reads /proc");
  await using fleet = await startFleet();
  const server = await fleet.startServer();
  const port = Number(new URL(server.url).port);
  await upload(port, 10); // brings what the server keeps anyway
  const before = await peakBytes(server.pid);
  const batch = await upload(port, 3_000);
  const grownBytes = (await peakBytes(server.pid)) - before;
  expect(await report(fleet, batch)).toMatchObject({ items: 3_000 });
  // 83 MiB were measured, most of it not yet collected.
  expect(grownBytes).toBeLessThan(150 * MIB);
});

async function upload(port: number, count: number): Promise<BatchId> {
  using client = await openRawClient(port);
  const length = `Content-Length: ${count * ROW.length}`;
  await client.send(head("POST /v1/batches", "Content-Type: application/x-ndjson", length));
  for (let n = 0; n < count; n++) await client.send(ROW);
  const [answer] = await client.answers(1);
  expect(answer?.status, answer?.body).toBe(201);
  return (JSON.parse(answer?.body ?? "") as { batch: BatchId }).batch;
}

/** The most memory that a process has ever had at once. */
async function peakBytes(pid: number): Promise<number> {
  const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) * 1024;
}
