import { Queue, Worker } from "bullmq";
import fc from "fast-check";
import { pino } from "pino";
import { describe, expect, onTestFinished } from "vitest";
import { rateWindow } from "../../src/core/feeding.ts";
import { type AttemptRef, errandId, notifyJobId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { DONE, type StageOutcome } from "../../src/core/outcome.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { HOUR, MINUTE } from "../../src/core/time.ts";
import { consume } from "../../src/queues/consume.ts";
import {
  type CreateErrand,
  copyQueue,
  createQueue,
  feedJobId,
  feedQueue,
  finishQueue,
  followQueue,
  inputsQueue,
  keepQueue,
  notifyQueue,
  type QueueSpec,
  recordQueue,
} from "../../src/queues/queues.ts";
import { ACCOUNT, batchNamed, type Line, NOON, test } from "../support/stages.ts";

const log = pino({ level: "silent" });
const BATCH = batchNamed("a batch");
const refOf = (index: number, attempt = 1): AttemptRef => ({ account: ACCOUNT, batch: BATCH, index, attempt });
const createOf = (index: number): CreateErrand => ({
  ...refOf(index),
  place: { part: 0, offset: 10 * index, length: 9 },
});

/** Runs a stage on one of the queues until the test ends. */
function work<Payload>(
  { redis }: Line,
  spec: QueueSpec<Payload>,
  stage: (payload: Payload) => Promise<StageOutcome>,
): void {
  const consumer = consume(spec, stage, { redis, log });
  onTestFinished(() => consumer.close());
}

const one = <Payload>(spec: QueueSpec<Payload>): QueueSpec<Payload> => ({ ...spec, concurrency: 1 });

describe("an errand", () => {
  test("comes out as it was put in, whatever the queue", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    const prediction = { id: predictionId("p1"), startedAtMs: NOON, deadlineAtMs: NOON + HOUR };
    await queues.create([createOf(3)], "file");
    await queues.follow(refOf(3), prediction, 0);
    await queues.copy(refOf(3), NOON + HOUR);
    await queues.record(refOf(3));
    await queues.notify(refOf(3), "end");
    await queues.finish(ACCOUNT, BATCH);
    await queues.wakeFeed(ACCOUNT);
    const read = async <Payload>(spec: QueueSpec<Payload>) => {
      const [job, ...more] = await line.jobs(spec.name);
      expect(more).toEqual([]);
      return spec.read(job?.id ?? "", job?.data, NOON);
    };
    expect(await read(createQueue(ACCOUNT))).toEqual(createOf(3));
    expect(await read(followQueue(ACCOUNT))).toEqual({
      ...refOf(3),
      predictionId: "p1",
      startedAtMs: NOON,
      deadlineAtMs: NOON + HOUR,
      told: false,
    });
    expect(await read(copyQueue)).toEqual({ ...refOf(3), expiresAtMs: NOON + HOUR });
    expect(await read(recordQueue)).toEqual(refOf(3));
    expect(await read(notifyQueue)).toEqual({ ...refOf(3), event: "end" });
    expect(await read(finishQueue)).toEqual({ account: ACCOUNT, batch: BATCH });
    expect(await read(feedQueue)).toEqual({ account: ACCOUNT });
  });

  test("that isn't one is refused, not guessed at", () => {
    const specs: readonly QueueSpec<unknown>[] = [
      createQueue(ACCOUNT),
      followQueue(ACCOUNT),
      copyQueue,
      recordQueue,
      notifyQueue,
      finishQueue,
    ];
    fc.assert(
      fc.property(fc.string(), fc.anything(), fc.constantFrom(...specs), (id, data, spec) => {
        expect(() => spec.read(id, data, NOON)).toThrow(/./);
      }),
    );
    expect(() => recordQueue.read(errandId(refOf(1)), ["Not An Account"], NOON)).toThrow(/not an account/);
    expect(() => followQueue(ACCOUNT).read(errandId(refOf(1)), [ACCOUNT, "a/../b", 1, null], NOON)).toThrow(
      /not a prediction id/,
    );
  });

  test("added twice is one, and can be added again once it is done", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    const add = async () => {
      await queues.create([createOf(0), createOf(1)], "file");
      await queues.follow(refOf(0), { id: predictionId("p"), startedAtMs: NOON, deadlineAtMs: null }, HOUR);
      await queues.copy(refOf(0), NOON);
      await queues.record(refOf(0));
      await queues.finish(ACCOUNT, BATCH);
    };
    await add();
    await add();
    const names = [
      QUEUE_NAMES.create(ACCOUNT),
      QUEUE_NAMES.follow(ACCOUNT),
      QUEUE_NAMES.copy,
      QUEUE_NAMES.record,
      QUEUE_NAMES.finish,
    ];
    const counts = await Promise.all(names.map(async (name) => (await line.jobs(name)).length));
    expect(counts).toEqual([2, 1, 1, 1, 1]);

    let copied = 0;
    work(line, copyQueue, async () => {
      copied++;
      return DONE;
    });
    await expect.poll(() => copied).toBe(1);
    await expect.poll(() => line.jobs(QUEUE_NAMES.copy)).toEqual([]);
    await queues.copy(refOf(0), NOON);
    await expect.poll(() => copied).toBe(2);
  });
});

describe("the order", () => {
  test("of creates: singles before the rows of files, each in the order they were fed", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    await queues.create([0, 1, 2].map(createOf), "file");
    await queues.create([10, 11].map(createOf), "singles");
    await queues.create([3, 4].map(createOf), "file");
    expect(await queues.createBacklog(ACCOUNT)).toBe(7);
    const ran: number[] = [];
    work(line, one(createQueue(ACCOUNT)), async ({ index }) => {
      ran.push(index);
      return DONE;
    });
    await expect.poll(() => ran).toEqual([10, 11, 0, 1, 2, 3, 4]);
  });

  test("of copies: the nearest expiry first", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    const expiries = [40, 5, 90, 20, 60].map((minutes) => NOON + minutes * MINUTE);
    for (const [index, expiresAtMs] of expiries.entries()) await queues.copy(refOf(index), expiresAtMs);
    expect(await queues.savingBacklog()).toEqual({ copies: 5, records: 0 });
    const ran: number[] = [];
    work(line, one(copyQueue), async ({ expiresAtMs }) => {
      ran.push((expiresAtMs - NOON) / MINUTE);
      return DONE;
    });
    await expect.poll(() => ran).toEqual([5, 20, 40, 60, 90]);
  });

  test("of copies that wait, or failed, is that of their expiry again when their turn comes", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    const minutes = [40, 5, 90, 20, 60];
    const seen: string[] = [];
    const ran: number[] = [];
    for (const [index, minute] of minutes.entries()) await queues.copy(refOf(index), NOON + minute * MINUTE);
    const mayEnd = { now: false };
    const consumer = consume(
      one(copyQueue),
      async ({ index, expiresAtMs }) => {
        const minute = (expiresAtMs - NOON) / MINUTE;
        if (mayEnd.now) {
          ran.push(minute);
          return DONE;
        }
        seen.push(String(minute));
        if (index % 2 === 0) throw new Error("a host that breaks");
        return { kind: "snooze", untilMs: Date.now() + 500 };
      },
      { redis: line.redis, log },
    );
    await expect.poll(() => seen.length).toBeGreaterThanOrEqual(minutes.length);
    await consumer.close();
    mayEnd.now = true;
    // All are due again before anybody takes one.
    const reader = new Queue(copyQueue.name, { connection: line.redis });
    onTestFinished(() => reader.close());
    for (const job of await reader.getDelayed(0, 10)) await job.promote();
    work(line, one(copyQueue), async ({ expiresAtMs }) => {
      ran.push((expiresAtMs - NOON) / MINUTE);
      return DONE;
    });
    await expect.poll(() => ran).toEqual([5, 20, 40, 60, 90]);
  });

  test("of copies that a dead worker held: before all others", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    await queues.copy(refOf(0), NOON + 90 * MINUTE);
    const dead = new Worker(copyQueue.name, null, {
      connection: line.redis,
      lockDuration: 100,
      skipStalledCheck: true,
      skipLockRenewal: true,
    });
    expect((await dead.getNextJob("a token"))?.id).toBe(errandId(refOf(0)));
    await dead.close(true);
    const later = [40, 5].map((minute) => NOON + minute * MINUTE);
    for (const [n, expiresAtMs] of later.entries()) await queues.copy(refOf(n + 1), expiresAtMs);
    const ran: number[] = [];
    let release = (): void => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    work(line, one(copyQueue), async ({ expiresAtMs }) => {
      ran.push((expiresAtMs - NOON) / MINUTE);
      if (ran.length === 1) await held;
      return DONE;
    });
    // While the nearest is being copied, the lost one comes back to the head of the line.
    const reader = new Queue(copyQueue.name, { connection: line.redis });
    onTestFinished(() => reader.close());
    await expect.poll(() => reader.getWaitingCount(), { timeout: 15_000 }).toBe(1);
    release();
    await expect.poll(() => ran).toEqual([5, 90, 40]);
  });
});

test("more rows than one command carries are all added", async ({ line }) => {
  await line.clear();
  await line.queues.create(
    Array.from({ length: 1_201 }, (_, n) => createOf(n)),
    "file",
  );
  expect(await line.queues.createBacklog(ACCOUNT)).toBe(1_201);
  await line.queues.create([], "file");
});

test("the feed runs at once when it is woken, and there is only ever one of an account", async ({ line }) => {
  await line.clear();
  const { queues } = line;
  let runs = 0;
  work(line, feedQueue, async () => {
    runs++;
    return { kind: "snooze", untilMs: Date.now() + HOUR };
  });
  await queues.wakeFeed(ACCOUNT);
  await expect.poll(() => runs).toBe(1);
  const isAsleep = async () => (await line.jobs(QUEUE_NAMES.feed)).every(({ delay }) => delay > 0);
  await expect.poll(isAsleep).toBe(true);
  await queues.wakeFeed(ACCOUNT);
  await expect.poll(() => runs).toBe(2);
  await expect.poll(isAsleep).toBe(true);
  await Promise.all([queues.wakeFeed(ACCOUNT), queues.wakeFeed(ACCOUNT), queues.wakeFeed(ACCOUNT)]);
  await expect.poll(() => runs).toBeGreaterThan(2);
  expect(await line.jobs(QUEUE_NAMES.feed)).toHaveLength(1);
});

test("a feed that runs already needs no waking", async ({ line }) => {
  await line.clear();
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  let running = false;
  work(line, feedQueue, async () => {
    running = true;
    await released;
    return DONE;
  });
  await line.queues.wakeFeed(ACCOUNT);
  await expect.poll(() => running).toBe(true);
  await line.queues.wakeFeed(ACCOUNT);
  release();
});

describe("a poll that is to come", () => {
  const prediction = { id: predictionId("p1"), startedAtMs: NOON, deadlineAtMs: null };

  test("is brought forward by whoever wakes it", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    await queues.follow(refOf(0), prediction, HOUR);
    await queues.follow(refOf(1), prediction, HOUR);
    const polled: number[] = [];
    work(line, followQueue(ACCOUNT), async ({ index }) => {
      polled.push(index);
      return DONE;
    });
    expect(await queues.wakeFollow(refOf(1))).toBe(true);
    await expect.poll(() => polled).toEqual([1]);
    expect((await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).map(({ id }) => id)).toEqual([errandId(refOf(0))]);
  });

  test("can't be brought forward where there is none, where it is due already, or while it runs", async ({ line }) => {
    await line.clear();
    const { queues } = line;
    expect(await queues.wakeFollow(refOf(0))).toBe(false);
    await queues.follow(refOf(0), prediction, 0);
    expect(await queues.wakeFollow(refOf(0))).toBe(false);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let running = false;
    work(line, followQueue(ACCOUNT), async () => {
      running = true;
      await released;
      return DONE;
    });
    await expect.poll(() => running).toBe(true);
    expect(await queues.wakeFollow(refOf(0))).toBe(false);
    release();
  });

  test("carries on that its end is told by a webhook", async ({ line }) => {
    await line.clear();
    await line.queues.follow(refOf(0), { ...prediction, told: true }, HOUR);
    const [job] = await line.jobs(QUEUE_NAMES.follow(ACCOUNT));
    expect(followQueue(ACCOUNT).read(job?.id ?? "", job?.data, NOON)).toMatchObject({ told: true });
  });

  test("is put off by whoever sees the prediction run, and comes at once all the same for who wakes it", async ({
    line,
  }) => {
    await line.clear();
    const { queues } = line;
    const nowMs = Date.now();
    await queues.follow(refOf(0), prediction, MINUTE);
    await queues.follow(refOf(1), prediction, HOUR);
    await queues.follow(refOf(2), prediction, 0);
    const dueBefore = async (ms: number) =>
      (await queues.pollsDueBefore(ACCOUNT, [refOf(0), refOf(1), refOf(2), refOf(3)], nowMs + ms)).map(
        ({ index }) => index,
      );
    expect(await dueBefore(0)).toEqual([]);
    expect(await dueBefore(2 * MINUTE), "one that is due already is on its way").toEqual([0]);
    for (const index of [0, 2, 3]) {
      await queues.deferFollow(refOf(index), nowMs, (errand) => {
        expect(errand).toMatchObject({ index, predictionId: "p1", startedAtMs: NOON });
        return nowMs + HOUR;
      });
    }
    expect(await dueBefore(2 * MINUTE)).toEqual([]);
    await queues.deferFollow(refOf(1), nowMs, () => null);
    expect(await dueBefore(2 * HOUR)).toEqual([0, 1]);

    const polled: number[] = [];
    work(line, followQueue(ACCOUNT), async ({ index }) => {
      polled.push(index);
      return DONE;
    });
    await expect.poll(() => polled).toEqual([2]);
    expect(await queues.wakeFollow(refOf(0))).toBe(true);
    await expect.poll(() => polled).toEqual([2, 0]);
  });
});

test("a client's webhook is called once for the beginning, and seven times at most for the end", async ({ line }) => {
  await line.clear();
  const { queues } = line;
  for (let times = 0; times < 2; times++) {
    await queues.notify(refOf(0), "start");
    await queues.notify(refOf(0), "end");
  }
  const queue = new Queue(QUEUE_NAMES.notify, { connection: line.redis });
  onTestFinished(() => queue.close());
  const jobs = await queue.getJobs(["wait"]);
  expect(new Map(jobs.map(({ id, opts }) => [id, opts.attempts]))).toEqual(
    new Map([
      [notifyJobId(refOf(0), "start"), 1],
      [notifyJobId(refOf(0), "end"), 7],
    ]),
  );
});

test("a producer that has only bullmq gets its result on its own queue, once", async ({ redis, line }) => {
  await line.clear();
  const { queues } = line;
  const result = { index: 0, status: "saved", output: ["a key"] };
  await queues.reply("my-results", "01hq000000000000000000000a", result);
  await queues.reply("my-results", "01hq000000000000000000000a", result);
  const got: unknown[] = [];
  const producer = new Worker("my-results", async (job) => got.push(job.data), {
    connection: { host: redis.host, port: redis.port, maxRetriesPerRequest: null },
  });
  onTestFinished(() => producer.close());
  await expect.poll(() => got).toEqual([result]);
});

test("an input under a job id of its producer's is one job, without one it gets a new id each time", async ({
  line,
}) => {
  await line.clear();
  const { queues } = line;
  const ids = [
    await queues.input({ a: 1 }, "mine"),
    await queues.input({ a: 1 }, "mine"),
    await queues.input({}),
    await queues.input({}),
  ];
  expect(ids.slice(0, 2)).toEqual(["mine", "mine"]);
  expect(new Set(ids).size).toBe(3);
  const [first] = await line.jobs(QUEUE_NAMES.inputs);
  expect(inputsQueue.read(first?.id ?? "", first?.data, NOON)).toMatchObject({ addedAtMs: NOON });
});

test("a rate is the whole fleet's: over a window no more jobs start than it allows", async ({ line }) => {
  await line.clear();
  const { queues } = line;
  const spec = createQueue(ACCOUNT);
  const window = rateWindow(600, true);
  expect(window).toEqual({ max: 1, durationMs: 100 });
  await queues.setRate(spec.name, window);
  await queues.create(
    Array.from({ length: 200 }, (_, n) => createOf(n)),
    "file",
  );
  const starts: number[] = [];
  const stage = async () => {
    starts.push(Date.now());
    return DONE;
  };
  work(line, spec, stage);
  work(line, spec, stage);
  const OVER_MS = 2_000;
  await expect
    .poll(() => (starts.at(-1) ?? 0) - (starts[0] ?? 0), { timeout: 10_000, interval: 20 })
    .toBeGreaterThan(OVER_MS);
  const within = starts.filter((atMs) => atMs - (starts[0] ?? 0) <= OVER_MS).length;
  expect(within).toBeLessThanOrEqual(22);
  expect(within).toBeGreaterThanOrEqual(8);

  await queues.setRate(spec.name, { max: 1_000, durationMs: 100 });
  await expect.poll(() => starts.length, { timeout: 5_000, interval: 20 }).toBe(200);
});

test("a job that failed for good gets its tries again", async ({ line }) => {
  await line.clear();
  const { queues } = line;
  expect(await queues.retryFailed(QUEUE_NAMES.record, errandId(refOf(0)))).toBe(false);
  await queues.record(refOf(0));
  expect(await queues.retryFailed(QUEUE_NAMES.record, errandId(refOf(0))), "it only waits").toBe(false);
  let runs = 0;
  work(line, recordQueue, async () => (runs++ === 0 ? { kind: "unrecoverable", reason: "a defect" } : DONE));
  const queue = new Queue(QUEUE_NAMES.record, { connection: line.redis });
  onTestFinished(() => queue.close());
  const stateOf = async () => (await queue.getJob(errandId(refOf(0))))?.getState();
  await expect.poll(stateOf).toBe("failed");
  await queues.record(refOf(0));
  expect(await stateOf(), "adding it again does nothing").toBe("failed");
  expect(await queues.retryFailed(QUEUE_NAMES.record, errandId(refOf(0)))).toBe(true);
  await expect.poll(stateOf).toBe("completed");
  expect(runs).toBe(2);
});

test("the keeper is scheduled once, however many processes start", async ({ line }) => {
  await line.clear();
  await Promise.all([line.queues.scheduleKeeper(), line.queues.scheduleKeeper()]);
  const queue = new Queue(keepQueue.name, { connection: line.redis });
  onTestFinished(() => queue.close());
  expect(await queue.getJobSchedulers()).toMatchObject([{ key: "keep", every: MINUTE }]);
  expect(feedJobId(ACCOUNT)).toBe("feed-replicate");
});
