import { Queue } from "bullmq";
import { pino } from "pino";
import { describe, expect, onTestFinished } from "vitest";
import type { StageOutcome } from "../../src/core/outcome.ts";
import { type Consumer, consume } from "../../src/queues/consume.ts";
import type { QueueSpec } from "../../src/queues/queues.ts";
import { heldQueue, holdJob } from "../support/crash.ts";
import { type Line, test } from "../support/stages.ts";

type Stage = (payload: string, signal: AbortSignal) => Promise<StageOutcome & { readonly value?: string }>;

const log = pino({ level: "silent" });
let queues = 0;

/** A queue of its own whose jobs carry a text, and a consumer that runs `stage` on them. */
function start(
  { redis }: Line,
  stage: Stage,
  options: { readonly attempts?: number; readonly concurrency?: number } = {},
) {
  const spec: QueueSpec<string> = {
    name: `test-${queues++}`,
    read: (_id, data) => {
      if (typeof data !== "string") throw new TypeError("not a text");
      return data;
    },
    job: { attempts: options.attempts ?? 1, backoff: { type: "outlast" } },
    concurrency: options.concurrency ?? 1,
  };
  const queue = new Queue(spec.name, { connection: redis });
  const ran: { readonly text: string; readonly atMs: number }[] = [];
  const consumer: Consumer = consume(
    spec,
    (text, signal) => {
      ran.push({ text, atMs: Date.now() });
      return stage(text, signal);
    },
    { redis, log },
  );
  onTestFinished(async () => {
    consumer.abort("the test is over");
    await consumer.close();
    await queue.close();
  });
  return {
    queue,
    consumer,
    ran,
    add: async (text: unknown): Promise<string> => (await queue.add("errand", text, spec.job)).id ?? "",
    /** A job once it is in this state. */
    job: async (id: string, state: "completed" | "failed" | "delayed" | "active") => {
      await expect
        .poll(async () => (await queue.getJob(id))?.getState(), { timeout: 10_000, interval: 10 })
        .toBe(state);
      const job = await queue.getJob(id);
      if (job === undefined) throw new Error(`job ${id} is gone`);
      return job;
    },
  };
}

const textsOf = (ran: readonly { readonly text: string }[]) => ran.map(({ text }) => text);

describe("an outcome", () => {
  test("done completes the job, with the value where there is one", async ({ line }) => {
    const { add, job } = start(line, async (text) => ({ kind: "done", ...(text === "ask" && { value: "answer" }) }));
    expect((await job(await add("ask"), "completed")).returnvalue).toBe("answer");
    expect((await job(await add("say"), "completed")).returnvalue).toBeNull();
  });

  test("nothing leaves no trace, so that the same errand can be given again", async ({ line }) => {
    const { queue, ran } = start(line, async () => (ran.length === 1 ? { kind: "nothing" } : { kind: "done" }));
    const give = () => queue.add("errand", "a", { jobId: "an errand", removeOnComplete: { count: 1_000 } });
    await give();
    await expect.poll(async () => ran.length === 1 && (await queue.getJob("an errand")) === undefined).toBe(true);
    await give();
    await expect.poll(async () => (await queue.getJob("an errand"))?.getState()).toBe("completed");
    await give();
    expect(await queue.getJobCounts("wait", "active", "completed")).toEqual({ wait: 0, active: 0, completed: 1 });
    expect(ran).toHaveLength(2);
  });

  test("snooze runs the job again later and uses up no try", async ({ line }) => {
    const { add, job, ran } = start(line, async () =>
      ran.length < 4 ? { kind: "snooze", untilMs: Date.now() + 60 } : { kind: "done" },
    );
    const done = await job(await add("a"), "completed");
    expect(ran).toHaveLength(4);
    expect(done.attemptsMade).toBe(1);
    for (const [n, { atMs }] of ran.entries()) {
      if (n > 0) expect(atMs - (ran[n - 1]?.atMs ?? 0)).toBeGreaterThanOrEqual(55);
    }
  });

  test("snooze holds no slot", async ({ line }) => {
    const { add, job, ran } = start(line, async (text) =>
      text === "slow" ? { kind: "snooze", untilMs: Date.now() + 3_600_000 } : { kind: "done" },
    );
    const slow = await add("slow");
    await job(await add("quick"), "completed");
    expect((await job(slow, "delayed")).attemptsMade).toBe(0);
    expect(textsOf(ran)).toEqual(["slow", "quick"]);
  });

  test("a job that was snoozed comes back to its place among those that are ordered", async ({ line }) => {
    const { add, queue, job, ran } = start(line, async (text) =>
      text === "second" && !ran.slice(0, -1).some((run) => run.text === "second")
        ? { kind: "snooze", untilMs: Date.now() + 3_600_000 }
        : { kind: "done" },
    );
    await queue.pause();
    const { id: second = "" } = await queue.add("errand", "second", { priority: 2 });
    await queue.resume();
    const snoozed = await job(second, "delayed");
    await queue.pause();
    await snoozed.promote();
    const { id: third = "" } = await queue.add("errand", "third", { priority: 3 });
    const { id: first = "" } = await queue.add("errand", "first", { priority: 1 });
    await add("unordered comes first");
    await queue.resume();
    for (const id of [first, second, third]) await job(id, "completed");
    expect(textsOf(ran)).toEqual(["second", "unordered comes first", "first", "second", "third"]);
  });

  test("rate-limit stops the whole queue for so long, and this job comes first afterwards", async ({ line }) => {
    const { queue, add, job, ran } = start(line, async () =>
      ran.length === 1 ? { kind: "rate-limit", forMs: 500 } : { kind: "done" },
    );
    await queue.setGlobalRateLimit(1_000, 100);
    await queue.pause();
    const [first, second] = [await add("first"), await add("second")];
    await queue.resume();
    expect((await job(second, "completed")).attemptsMade).toBe(1);
    expect((await job(first, "completed")).attemptsMade, "a try isn't used up").toBe(1);
    expect(textsOf(ran)).toEqual(["first", "first", "second"]);
    expect((ran[1]?.atMs ?? 0) - (ran[0]?.atMs ?? 0)).toBeGreaterThanOrEqual(480);
  });

  test("unrecoverable fails the job at once, with the reason", async ({ line }) => {
    const { add, job, ran } = start(line, async () => ({ kind: "unrecoverable", reason: "no model like that" }), {
      attempts: 5,
    });
    const failed = await job(await add("a"), "failed");
    expect(failed.failedReason).toBe("no model like that");
    expect(ran).toHaveLength(1);
  });
});

describe("a thrown error", () => {
  test("is tried again, later and later", async ({ line }) => {
    const stage: Stage = async () => {
      if (ran.length < 3) throw new Error("the bucket stumbled");
      return { kind: "done" };
    };
    const { add, job, ran } = start(line, stage, { attempts: 3 });
    const done = await job(await add("a"), "completed");
    expect(done.attemptsMade).toBe(3);
    const pauses = ran.slice(1).map(({ atMs }, n) => atMs - (ran[n]?.atMs ?? 0));
    expect(pauses[0]).toBeGreaterThanOrEqual(370);
    expect(pauses[1]).toBeGreaterThanOrEqual(740);
  });

  test("fails the job when its tries are used up; it stays with the reason for somebody to see", async ({ line }) => {
    const { add, job, ran } = start(line, () => Promise.reject(new Error("always")), { attempts: 2 });
    expect((await job(await add("a"), "failed")).failedReason).toBe("always");
    expect(ran).toHaveLength(2);
  });
});

test("tries that failed before a snooze aren't counted any more: what never ends never uses them up", async ({
  line,
}) => {
  const { add, queue, ran, job } = start(
    line,
    async () => {
      if (ran.length % 2 === 1) throw new Error("a bad moment");
      return ran.length < 8 ? { kind: "snooze", untilMs: Date.now() } : { kind: "done" };
    },
    { attempts: 2 },
  );
  const id = await add("a");
  expect((await job(id, "completed")).attemptsMade).toBe(2);
  expect(ran).toHaveLength(8);
  const pauses = ran.slice(1).map(({ atMs }, n) => atMs - (ran[n]?.atMs ?? 0));
  expect(Math.max(...pauses), "each as after a first failure").toBeLessThan(900);
  expect(await queue.getJobCounts("failed", "delayed")).toEqual({ failed: 0, delayed: 0 });
});

test("a job that fails for ever keeps its last stacks alone", async ({ line }) => {
  const { add, queue, job } = start(line, () => Promise.reject(new Error("always")));
  const id = await add("a");
  for (let times = 1; times <= 6; times++) {
    const failed = await job(id, "failed");
    expect(failed.stacktrace).toHaveLength(Math.min(times, 3));
    await failed.retry("failed", { resetAttemptsMade: true });
    await expect.poll(async () => (await queue.getJob(id))?.finishedOn ?? 0).toBeGreaterThan(failed.finishedOn ?? 0);
  }
});

test("a job that can't be read fails with the reason, and the worker goes on", async ({ line }) => {
  const { add, job, ran } = start(line, async () => ({ kind: "done" }), { attempts: 5 });
  for (const data of [{ an: "object" }, null, 7]) {
    const { failedReason, attemptsMade } = await job(await add(data), "failed");
    expect(failedReason).toMatch(/can't be read: TypeError: not a text/);
    expect(attemptsMade).toBe(1);
  }
  await job(await add("good"), "completed");
  expect(textsOf(ran)).toEqual(["good"]);
});

describe("closing", () => {
  test("lets running jobs end and takes no more", async ({ line }) => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const { queue, consumer, add, job, ran } = start(line, async () => {
      await released;
      return { kind: "done" };
    });
    const [first, second] = [await add("first"), await add("second")];
    await expect.poll(() => ran.length).toBe(1);
    let closed = false;
    const closing = consumer.close().then(() => {
      closed = true;
    });
    await job(first, "active");
    expect(closed).toBe(false);
    release();
    await closing;
    await job(first, "completed");
    expect(await (await queue.getJob(second))?.getState()).toBe("waiting");
    expect(ran).toHaveLength(1);
  });

  test("asks what runs on to stop, with the reason", async ({ line }) => {
    const { consumer, add, ran, job } = start(line, async (_text, signal) => {
      await new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () =>
          reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason))),
        );
      });
      return { kind: "done" };
    });
    const id = await add("a");
    await expect.poll(() => ran.length).toBe(1);
    consumer.abort("the process is stopping");
    await consumer.close();
    expect((await job(id, "failed")).failedReason).toMatch(/stopping/);
  });
});

test("what a killed worker held goes on within 15 s, and uses up no try", { timeout: 40_000 }, async ({
  redis,
  line,
}) => {
  const queue = new Queue(heldQueue.name, { connection: line.redis });
  const id = (await queue.add("errand", "held", heldQueue.job)).id ?? "";
  const holder = await holdJob(redis.url);
  const runs: string[] = [];
  // The other worker was there all the time, as in a fleet.
  const consumer = consume(
    heldQueue,
    async (job) => {
      runs.push(job);
      return { kind: "done" };
    },
    { redis: line.redis, log },
  );
  onTestFinished(async () => {
    await consumer.close();
    await queue.close();
  });
  await holder.kill();
  const killedAtMs = Date.now();
  await expect.poll(() => runs, { timeout: 30_000, interval: 50 }).toEqual([id]);
  expect(Date.now() - killedAtMs).toBeLessThan(15_000);
  await expect.poll(async () => (await queue.getJob(id))?.getState()).toBe("completed");
  expect((await queue.getJob(id))?.attemptsMade).toBe(1);
});
