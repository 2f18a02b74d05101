/**
 * Order: 3,600 outputs whose expiries are spread over ten minutes, the first a minute ahead, come to the copy queue
 * shuffled, and are saved at 1.05 times the rate that it takes to save all in time. BullMQ's own queue decides which is
 * next, with our priorities and, beside it, without any. The time is virtual: the k-th that is taken is saved after
 * k/rate, so that eleven minutes pass in some seconds.
 */

import { Queue } from "bullmq";
import { pino } from "pino";
import { batchIdFrom, errandId, parseAccountName } from "../../src/core/naming.ts";
import { DONE } from "../../src/core/outcome.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";
import { connectRedis } from "../../src/ledger/connect-redis.ts";
import { consume } from "../../src/queues/consume.ts";
import { openQueues } from "../../src/queues/enqueue.ts";
import { copyQueue } from "../../src/queues/queues.ts";
import type { BenchOptions } from "./bench.ts";
import { startSystem } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const OUTPUTS = 3_600;
const FIRST_MS = MINUTE;
const SPREAD_MS = 10 * MINUTE;
const HEADROOM = 1.05;
const LIMIT_MS = 5 * MINUTE;

type Run = { readonly expired: number; readonly closestMs: number };

export async function measureOrder({ short, signal }: BenchOptions): Promise<void> {
  const outputs = short ? OUTPUTS / 6 : OUTPUTS;
  const perMs = (HEADROOM * outputs) / (FIRST_MS + SPREAD_MS);
  const ours = await takeAll(outputs, perMs, true, signal);
  const inTurn = await takeAll(outputs, perMs, false, signal);
  const row = (name: string, { expired, closestMs }: Run, aim: string) => [
    name,
    fixed(expired, 0),
    closestMs >= 0 ? `${fixed(closestMs / SECOND, 1)} s before` : `${fixed(-closestMs / SECOND, 1)} s after`,
    aim,
  ];
  printTable(
    `Order: ${fixed(outputs, 0)} outputs that expire over 10 minutes, saved at ${HEADROOM} times what it takes`,
    ["", "expired", "the closest saved", "goal"],
    [
      row("by expiry, as our queue has them", ours, goal(ours.expired, "at most", 0, 0)),
      row("first come, first served", inTurn, ""),
    ],
  );
  printNote("BullMQ's own queue gives the order; the time is virtual: the k-th that is taken is saved after k/rate");
}

/** How late each is saved, in the order in which a real queue gives them out. */
async function takeAll(outputs: number, perMs: number, byExpiry: boolean, signal: AbortSignal): Promise<Run> {
  await using system = await startSystem({ emulator: {}, signal });
  await using opened = new AsyncDisposableStack();
  const redis = await connectRedis(system.redisUrl, "worker");
  opened.defer(() => redis.disconnect());
  const queues = openQueues(redis);
  opened.defer(() => queues.close());
  const account = parseAccountName("replicate");
  if (account === null) throw new TypeError("replicate is an account's name");
  const batch = batchIdFrom(crypto.getRandomValues(new Uint8Array(20)));
  const plain = new Queue(copyQueue.name, { connection: redis });
  opened.defer(() => plain.close());

  const startMs = Date.now();
  const arriving = shuffled(
    Array.from({ length: outputs }, (_, index) => ({
      ref: { account, batch, index, attempt: 1 },
      expiresAtMs: startMs + FIRST_MS + Math.round((index * SPREAD_MS) / outputs),
    })),
  );
  for (const { ref, expiresAtMs } of arriving) {
    if (byExpiry) await queues.copy(ref, expiresAtMs);
    else await plain.add("errand", [account, expiresAtMs], { ...copyQueue.job, jobId: errandId(ref) });
  }
  let taken = 0;
  let expired = 0;
  let closestMs = Number.POSITIVE_INFINITY;
  const consumer = consume(
    copyQueue,
    async ({ expiresAtMs }) => {
      const leftMs = expiresAtMs - (startMs + ++taken / perMs);
      closestMs = Math.min(closestMs, leftMs);
      if (leftMs < 0) expired++;
      return DONE;
    },
    { redis, log: pino({ level: "silent" }) },
  );
  opened.defer(() => consumer.close());
  await system.until(`${outputs} copies are taken`, async () => taken >= outputs, { everyMs: 50, limitMs: LIMIT_MS });
  return { expired, closestMs };
}

/** By a generator of its own, so that each run has the same order. */
function shuffled<T>(list: T[]): readonly T[] {
  let seed = 1;
  for (let at = list.length - 1; at > 0; at--) {
    seed = (seed * 48_271) % 2_147_483_647;
    const other = seed % (at + 1);
    [list[at], list[other]] = [list[other] as T, list[at] as T];
  }
  return list;
}
