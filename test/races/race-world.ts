/**
 * A world for races: a real Redis, a folder as bucket, the real stages, queues and use cases; only the provider is one
 * in memory (`provider.ts`).
 *
 * Whoever acts in it, a stage that runs or a person who says something, gets its effects through a `Pace`, which lets each
 * effect wait for its turn. fast-check's scheduler gives the turns, one at a time, so that an interleaving is chosen,
 * repeated by its seed, and shrunk. `settle` then runs whatever the queues hold, as workers would, until nothing is left
 * to do.
 */

import { type Job, Queue, Worker } from "bullmq";
import type { Scheduler } from "fast-check";
import { bookDuplicate } from "../../src/batches/book-duplicate.ts";
import { cancelItem } from "../../src/batches/cancel-item.ts";
import { openExpectations } from "../../src/batches/expect-runs.ts";
import { giveErrand } from "../../src/batches/give-errand.ts";
import { CannotHold, holdBatch } from "../../src/batches/hold-batch.ts";
import { redriveItems } from "../../src/batches/redrive-items.ts";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { takeWebhook, type WebhookOutcome } from "../../src/batches/take-webhook.ts";
import { withdrawItem } from "../../src/batches/withdraw-item.ts";
import { copyOutput } from "../../src/bucket/copy-output.ts";
import { openDownloadAgent } from "../../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import { readRow } from "../../src/bucket/input-parts.ts";
import { readEarlierAttempts, readReceipt, writeReceipt } from "../../src/bucket/records.ts";
import { ITEM_STATES, type ItemByte, isEnd } from "../../src/core/item.ts";
import { type AttemptRef, type BatchId, parseErrandId, webhookPath } from "../../src/core/naming.ts";
import { DONE, type StageOutcome } from "../../src/core/outcome.ts";
import { DEFAULT_POLL_POLICY } from "../../src/core/polling.ts";
import type { Prediction } from "../../src/core/prediction.ts";
import { DEFAULT_SWEEP_POLICY } from "../../src/core/sweeping.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { copyQueue, createQueue, followQueue, recordQueue } from "../../src/queues/queues.ts";
import { type CopyDeps, copyOutputs } from "../../workers/copy-outputs.ts";
import { type CreateDeps, createPrediction } from "../../workers/create-prediction.ts";
import { feedBatches } from "../../workers/feed-batches.ts";
import { type FollowDeps, followPrediction } from "../../workers/follow-prediction.ts";
import { keepItems } from "../../workers/keep-items.ts";
import { type RecordDeps, recordMetrics } from "../../workers/record-metrics.ts";
import { type SweepDeps, sweepMemory, sweepPredictions } from "../../workers/sweep-predictions.ts";
import { feedEffects, wakeEffects } from "../support/effects.ts";
import { ACCOUNT, ADMITTING, type Line, MODEL } from "../support/stages.ts";
import { type Booked, type CreateMode, type Fate, openProvider, type RaceProvider } from "./provider.ts";

/** Where item 0 stands when the race begins; item 1 waits to be bought. */
export const STARTS = ["waiting", "unclear", "running", "ended"] as const;
type Start = (typeof STARTS)[number];

export type Scenario = {
  readonly start: Start;
  /** Whether the two items have one input. */
  readonly twins: boolean;
  readonly retryFailed: number;
  readonly modes: readonly CreateMode[];
  readonly fates: readonly Fate[];
  readonly polls: readonly number[];
  /** Whether item 0's predictions run until somebody ends them. */
  readonly endless: boolean;
  /** Who is first about to do this stands still before it, until most others are through. */
  readonly frozenBefore: string | null;
};

/** Effects and steps before which a standstill may cost most. */
export const FREEZING_POINTS = [
  ..."claim create bind adopt doubt giveBack withdraw enqueueFollow".split(" "),
  ..."get takeMarks succeed conclude keepEnding writeReceipt fail save".split(" "),
  ..."list intents holdersAmong markItem wakeFollow walkCancel redrive advance putOnce".split(" "),
];

/** Carries out an effect when it is its turn. */
type Pace = <T>(label: string, effect: () => Promise<T> | T) => Promise<T>;

export type RaceWorld = {
  readonly scenario: Scenario;
  readonly line: Line;
  readonly batch: BatchId;
  readonly provider: RaceProvider;
  /** Whose request asked for a prediction. */
  readonly attemptOf: (booked: Booked) => { readonly ref: AttemptRef; readonly nonce: string };
  /** Whether what is made from now on is told by a webhook, as its provider ends it. */
  tellsByWebhook: boolean;
  /** What actors started, to be waited for. */
  readonly spawned: Promise<unknown>[];
  /** What must not be: a stage that threw, an end that changed. */
  readonly troubles: string[];
  /** As every effect left it; index → what was seen of the item last. */
  readonly seen: Map<number, ItemByte>;
  readonly webhooks: WebhookOutcome[];
  /** Effects wait for this while the race goes on. */
  pace: (actor: string) => Pace;
};

const ITEMS = 2;
/** Each is taken among those of all others. */
const FROZEN_TURNS = 30;
const creates = createQueue(ACCOUNT);
const follows = followQueue(ACCOUNT);
const BEHIND_CREATE = [follows.name, copyQueue.name, recordQueue.name];
const PUBLIC_URL = "https://outlast.example";
const signal = new AbortController().signal;
const atOnce: Pace = async (_label, effect) => effect();

// ── the world ─────────────────────────────────────────────────────────────────

export async function openRace(line: Line, scenario: Scenario): Promise<RaceWorld> {
  await line.clear();
  const { bucket, ledger, queues, clock } = line;
  async function* rows() {
    for (let n = 0; n < ITEMS; n++) {
      yield { line: n + 1, row: { input: { prompt: n > 0 && !scenario.twins ? "crow" : "fox" }, target: MODEL } };
    }
  }
  const options = { name: "a race", tenant: "default", account: ADMITTING, retryFailed: scenario.retryFailed };
  const { batch } = await submitBatch(rows(), options, { bucket, ledger, queues, clock });

  const world: RaceWorld = {
    scenario,
    line,
    batch,
    provider: openProvider(
      scenario,
      clock,
      ({ input }) => scenario.endless && input["prompt"] === "fox",
      (booked) => {
        if (world.tellsByWebhook) spawn(world, "webhook", () => tell(world, booked, world.pace("webhook")));
      },
    ),
    attemptOf,
    tellsByWebhook: false,
    spawned: [],
    troubles: [],
    seen: new Map(),
    webhooks: [],
    pace: () => atOnce,
  };
  await feed(world, atOnce);
  await bringTo(world, scenario.start);
  return world;
}

function attemptOf({ request }: Booked): { readonly ref: AttemptRef; readonly nonce: string } {
  const [, errand = "", nonce = ""] = /\/([^/]+)\/([^/]+)$/.exec(request.webhookUrl ?? "") ?? [];
  const ref = parseErrandId(errand);
  if (ref === null) throw new Error(`a request names no attempt: ${request.webhookUrl}`);
  return { ref: { account: ACCOUNT, ...ref }, nonce };
}

async function bringTo(world: RaceWorld, start: Start): Promise<void> {
  if (start === "waiting") return;
  const job = await takeJob(world, creates.name, atOnce);
  if (job !== undefined) await runJob(world, creates.name, job, atOnce);
  // So long that a sweep may be clean.
  if (start === "unclear") world.line.clock.forward(12 * MINUTE);
  if (start !== "ended") return;
  for (let rounds = 0; rounds < 4; rounds++) {
    for (const name of BEHIND_CREATE) await workOff(world, name, atOnce, 1);
  }
}

function spawn(world: RaceWorld, actor: string, act: () => Promise<unknown>): void {
  const acted = act().catch((error: unknown) => {
    world.troubles.push(`${actor} threw ${error instanceof Error ? error.stack : String(error)}`);
  });
  world.spawned.push(acted);
}

/** Lets actors act at once, each effect of theirs at a turn of the scheduler's. */
export async function race(world: RaceWorld, scheduler: Scheduler, actors: readonly Actor[]): Promise<void> {
  let { frozenBefore } = world.scenario;
  world.pace = (actor) => async (label, effect) => {
    if (frozenBefore !== null && label.split(" ").includes(frozenBefore)) {
      frozenBefore = null;
      for (let n = 0; n < FROZEN_TURNS; n++) await scheduler.schedule(Promise.resolve(), `${actor}: stands still`);
    }
    let ended: { readonly value: Awaited<ReturnType<typeof effect>> } | { readonly error: unknown } | null = null;
    const turn = scheduler.schedule(Promise.resolve(), `${actor}: ${label}`, undefined, async (take) => {
      try {
        ended = { value: await effect() };
      } catch (error) {
        ended = { error };
      }
      await watch(world, `${actor}: ${label}`);
      await take();
    });
    await turn;
    const how = ended as { readonly value: never } | { readonly error: unknown } | null;
    if (how === null) throw new Error("a turn came without its effect");
    if ("error" in how) throw how.error;
    return how.value;
  };
  await watch(world, "the start");
  for (const actor of actors) spawn(world, actor, () => ACTORS[actor](world, world.pace(actor)));
  const all = async () => {
    for (let next = world.spawned.shift(); next !== undefined; next = world.spawned.shift()) await next;
  };
  await scheduler.waitFor(all());
  world.pace = () => atOnce;
  world.tellsByWebhook = false;
}

/**
 * An end doesn't change within its attempt, attempts only grow, and the counters are what the bytes say, at every
 * moment.
 */
export async function watch({ line, batch, seen, troubles }: RaceWorld, after: string): Promise<void> {
  const [items, standing] = await Promise.all([
    line.ledger.readStates(ACCOUNT, batch, 0, ITEMS),
    line.ledger.standing(ACCOUNT, batch),
  ]);
  for (const [index, item] of items.entries()) {
    const before = seen.get(index);
    seen.set(index, item);
    if (before === undefined) continue;
    const ended = isEnd(before.state) && before.attempt === item.attempt && before.state !== item.state;
    if (ended || item.attempt < before.attempt) {
      troubles.push(`${after} made item ${index} ${JSON.stringify(item)}, which was ${JSON.stringify(before)}`);
    }
  }
  const counted = ITEM_STATES.map((state) => standing?.counts[state] ?? 0).join();
  const bytes = ITEM_STATES.map((state) => items.filter((item) => item.state === state).length).join();
  if (counted !== bytes) troubles.push(`after ${after} the counters say ${counted}, the bytes ${bytes}`);
}

/** No effects; and two that are made of others, which wait for their turns themselves. */
const UNPACED: ReadonlySet<PropertyKey> = new Set([
  "clock",
  "random",
  "nonce",
  "warn",
  "warnOfStatus",
  "countPoll",
  "urlOf",
  "webhookFor",
  "withdraw",
  "bookDuplicate",
]);

/** Lets each of an actor's effects, those in nested objects too, wait for its turn. */
function paced<T extends object>(effects: T, pace: Pace): T {
  if (pace === atOnce) return effects;
  return new Proxy(effects, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value === "function") {
        if (UNPACED.has(name)) return value.bind(target) as unknown;
        return (...args: unknown[]) => pace(labelOf(name, args), (): unknown => Reflect.apply(value, target, args));
      }
      return typeof value === "object" && value !== null ? paced(value, pace) : value;
    },
  });
}

function labelOf(name: PropertyKey, [ref, step]: readonly unknown[]): string {
  if (typeof ref !== "object" || ref === null || !("index" in ref)) return String(name);
  const isWord = typeof step === "string" && /^\w+$/.test(step);
  return `${String(name)} item ${String(ref.index)}${isWord ? ` ${step}` : ""}`;
}

// ── who acts ──────────────────────────────────────────────────────────────────

export type Actor =
  | "buy"
  | "rerun"
  | "poll"
  | "webhook"
  | "list"
  | "cancel item"
  | "cancel batch"
  | "redrive"
  | "clock";

const ACTORS: Readonly<Record<Actor, (world: RaceWorld, pace: Pace) => Promise<unknown>>> = {
  async buy(world, pace) {
    for (let rounds = 0; rounds < 2; rounds++) {
      await feed(world, pace);
      await workOff(world, creates.name, pace, 1);
    }
  },
  async poll(world, pace) {
    for (let looks = 0; looks < 3; looks++) {
      for (const name of BEHIND_CREATE) await workOff(world, name, pace, 1);
    }
  },
  /** A worker that was taken for dead runs an errand of item 0 that another runs, too, or has run. */
  async rerun(world, pace) {
    const errand = await pace("looks", () => world.line.createErrand(world.batch, 0, world.seen.get(0)?.attempt ?? 1));
    await createPrediction(errand, createDeps(world, pace), signal);
    for (const name of BEHIND_CREATE) {
      const jobs = await pace("looks", () => world.line.jobs(name));
      const job = jobs.find(({ id }) => parseErrandId(id)?.index === 0);
      if (job !== undefined) await runStage(world, name, job, pace);
    }
  },
  async webhook(world, pace) {
    world.tellsByWebhook = true;
    for (const booked of world.provider.books) spawn(world, "webhook", () => tell(world, booked, pace));
  },
  list: sweep,
  async "cancel item"(world, pace) {
    const { bucket, ledger, queues, clock } = world.line;
    const { ref, state, row } = await pace("finds the item", async () => {
      const item = await ledger.readItem({ account: ACCOUNT, batch: world.batch, index: 0 });
      const errand = await world.line.createErrand(world.batch, 0, item.attempt);
      return { ref: errand, state: item.state, row: await readRow(bucket, world.batch, errand.place) };
    });
    // What a person's process does a second later, the scheduler does when it likes.
    const wakeFollow = async (of: AttemptRef) => {
      if (await queues.wakeFollow(of)) return true;
      spawn(world, "cancel item", () => pace("wakeFollow, a second later", () => queues.wakeFollow(of)));
      return true;
    };
    const effects = paced({ bucket, ledger, queues: { ...queues, wakeFollow } }, pace);
    await cancelItem({ ...ref, state }, row, { ...effects, clock });
  },
  async "cancel batch"(world, pace) {
    const { bucket, ledger, queues, clock } = world.line;
    const standing = await pace("standing", () => ledger.standing(ACCOUNT, world.batch));
    if (standing === null) throw new Error("the batch is gone");
    await refusable(holdBatch(standing, "cancel", { ...paced({ bucket, ledger, queues }, pace), clock }));
    await feed(world, pace);
  },
  async redrive(world, pace) {
    const { bucket, ledger, queues, clock } = world.line;
    const standing = await pace("standing", () => ledger.standing(ACCOUNT, world.batch));
    if (standing === null) throw new Error("the batch is gone");
    const ends = new Set(["failed", "canceled"] as const);
    await refusable(redriveItems(standing.batch, { ends }, { ...paced({ bucket, ledger, queues }, pace), clock }));
  },
  /** Intents grow too old to be acted on; not so old that they are given up. */
  async clock(world, pace) {
    for (let n = 0; n < 2; n++) await pace("moves on", () => world.line.clock.forward(6 * SECOND));
  },
};

/** People may be told that they can't. */
async function refusable(act: Promise<unknown>): Promise<void> {
  await act.catch((error: unknown) => {
    if (!(error instanceof CannotHold)) throw error;
  });
}

/** The provider ends a prediction, and says so to the address that its request named. */
async function tell(world: RaceWorld, booked: Booked, pace: Pace): Promise<void> {
  const prediction = await pace("the prediction ends", () => world.provider.end(booked.id));
  await deliver(world, { ...attemptOf(booked), prediction, input: booked.request.input }, pace);
}

export async function deliver(
  world: RaceWorld,
  told: { readonly ref: AttemptRef; readonly nonce: string; readonly prediction: Prediction; readonly input: unknown },
  pace: Pace = atOnce,
): Promise<WebhookOutcome> {
  const { bucket, ledger, queues, clock } = world.line;
  const outcome = await takeWebhook(told, {
    ...paced({ bucket, ledger, queues, provider: world.provider }, pace),
    inASecond: (what) => spawn(world, "webhook", what),
    warn: () => undefined,
    error: () => undefined,
    clock,
  });
  world.webhooks.push(outcome);
  return outcome;
}

// ── the stages ────────────────────────────────────────────────────────────────

let nonces = 0;

export function createDeps(world: RaceWorld, pace: Pace = atOnce): CreateDeps {
  const { bucket, ledger, queues, clock } = world.line;
  const deps: Omit<CreateDeps, "policy"> = {
    readRow: ({ batch, place }) => readRow(bucket, batch, place),
    move: ledger.move,
    withdraw: (ref, row, why) => withdrawItem(ref, row, why, { ...paced({ bucket, ledger, queues }, pace), clock }),
    provider: world.provider,
    webhookFor: (ref, nonce) => PUBLIC_URL + webhookPath(ref, nonce),
    pauseAccount: async (reason) => void (await ledger.pauseAccount(ACCOUNT, reason)),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    expect: openExpectations(ACCOUNT, { ledger, clock }).expect,
    isOpen: ledger.isOpen,
    readItem: ledger.readItem,
    pause: async () => undefined,
    warn: () => undefined,
    bookDuplicate: (ref, prediction) =>
      bookDuplicate(ref, prediction, {
        ...paced({ bucket, ledger, provider: world.provider }, pace),
        warn: () => undefined,
        clock,
      }),
    enqueueRecord: queues.record,
    enqueueNotify: queues.notify,
    enqueueFinish: ({ account, batch }) => queues.finish(account, batch),
    waitForTurn: async () => undefined,
    nonce: () => `nonce-${nonces++}`,
    clock,
    random: () => 0.5,
  };
  return { ...paced(deps, pace), policy: DEFAULT_POLL_POLICY };
}

async function feed(world: RaceWorld, pace: Pace): Promise<void> {
  await feedBatches({ account: ACCOUNT }, { ...paced(feedEffects(world.line, 600), pace) });
}

export async function sweep(world: RaceWorld, pace: Pace = atOnce): Promise<void> {
  const { bucket, ledger, queues, clock } = world.line;
  const deps: Omit<SweepDeps, "policy" | "account" | "whenAbsent" | "memory"> = {
    ...wakeEffects(world.line),
    provider: world.provider,
    noteSweep: ledger.noteSweep,
    intents: ledger.intents,
    readRow: async ({ batch, index }) => readRow(bucket, batch, (await world.line.createErrand(batch, index)).place),
    openOn: ledger.openOn,
    move: ledger.move,
    withdraw: (ref, row, why) => withdrawItem(ref, row, why, { ...paced({ bucket, ledger, queues }, pace), clock }),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    enqueueRecord: queues.record,
    wakeFeed: queues.wakeFeed,
  };
  // A process's first sweep, for both ends.
  const memory = sweepMemory();
  const given = { account: ACCOUNT, policy: DEFAULT_SWEEP_POLICY, whenAbsent: "resend" as const, memory };
  await sweepPredictions({ ...paced(deps, pace), ...given }, signal);
}

async function keep(world: RaceWorld): Promise<void> {
  const { bucket, ledger, queues, clock } = world.line;
  await keepItems(
    {
      accounts: [ACCOUNT],
      untouched: ledger.untouched,
      readItem: ledger.readItem,
      touch: ledger.touch,
      close: ledger.close,
      revive: (ref, errand, fields) =>
        giveErrand(ref, errand, fields, { bucket, ledger, queues, filesKeptMs: () => HOUR, clock }),
      reviveErrands: async () => undefined,
      unfinishedBatches: ledger.unfinishedBatches,
      standing: ledger.standing,
      enqueueFinish: queues.finish,
      warn: (fields, message) => world.troubles.push(`${message}: ${JSON.stringify(fields)} ${String(fields["err"])}`),
      clock,
    },
    signal,
  );
}

/** A job as far as its stage reads it. */
type SeenJob = { readonly id: string; readonly data: unknown };

const agent = openDownloadAgent({ hosts: [] });

function stageOf(world: RaceWorld, queueName: string, job: SeenJob, pace: Pace): Promise<StageOutcome> {
  const { bucket, ledger, queues, clock } = world.line;
  const { id, data } = job;
  switch (queueName) {
    case creates.name:
      return createPrediction(creates.read(id, data, 0), createDeps(world, pace), signal);
    case follows.name: {
      const deps: Omit<FollowDeps, "policy"> = {
        provider: world.provider,
        move: ledger.move,
        takeMarks: ledger.takeMarks,
        incompleteSince: (ref) => ledger.incompleteSince(ref, clock()),
        keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
        enqueueCopy: queues.copy,
        filesKeptMs: HOUR,
        enqueueRecord: queues.record,
        pauseAccount: async () => undefined,
        expect: openExpectations(ACCOUNT, { ledger, clock }).expect,
        countPoll: () => undefined,
        learnRun: (model, runMs) => ledger.learnRun(ACCOUNT, model, runMs, clock()),
        warn: () => undefined,
        warnOfStatus: () => undefined,
        clock,
        random: () => 0.5,
      };
      const given = { ...paced(deps, pace), policy: DEFAULT_POLL_POLICY };
      return followPrediction(follows.read(id, data, 0), given, signal);
    }
    case copyQueue.name: {
      const deps: CopyDeps = {
        readItem: ledger.readItem,
        readEnding: (ref, text) => readEnding(bucket, ref, text),
        keepEnding: (ref, ending) => keepEnding(bucket, ref, ending, "copied"),
        isDataRemoved: async () => null,
        noteProgress: async (ref, progress) => void (await ledger.markItem(ref, "progress", progress)),
        copyFile: (ref, file) => copyOutput(bucket, ref, file, { agent, maxBytes: 1e6 }, signal),
        move: ledger.move,
        enqueueRecord: queues.record,
        clock,
      };
      return copyOutputs(copyQueue.read(id, data, 0), paced(deps, pace), signal);
    }
    case recordQueue.name: {
      const deps: RecordDeps = {
        readItem: ledger.readItem,
        readEnding: (ref, text) => readEnding(bucket, ref, text),
        readReceipt: (ref) => readReceipt(bucket, ref),
        readEarlierAttempts: (ref) => readEarlierAttempts(bucket, ref),
        writeReceipt: (ref, receipt) => writeReceipt(bucket, ref, receipt),
        move: ledger.move,
        reply: queues.reply,
        enqueueNotify: queues.notify,
        enqueueFinish: ({ account, batch }) => queues.finish(account, batch),
        wakeFeed: ({ account }) => queues.wakeFeed(account),
        clock,
      };
      return recordMetrics(recordQueue.read(id, data, 0), paced(deps, pace));
    }
    default:
      throw new Error(`no stage of a race: ${queueName}`);
  }
}

/** A worker's throw is a trouble: nothing here fails but the provider. */
async function runStage(world: RaceWorld, queueName: string, job: SeenJob, pace: Pace): Promise<StageOutcome> {
  try {
    return await stageOf(world, queueName, job, pace);
  } catch (error) {
    world.troubles.push(`${queueName} threw ${error instanceof Error ? error.stack : String(error)}`);
    return DONE;
  }
}

// ── BullMQ's part, by hand ────────────────────────────────────────────────────

type Hands = { readonly queue: Queue; readonly worker: Worker };
const hands = new Map<string, Hands>();

function handsOf({ line }: RaceWorld, name: string): Hands {
  let found = hands.get(name);
  if (found === undefined) {
    const connection = line.redis;
    found = { queue: new Queue(name, { connection }), worker: new Worker(name, null, { connection, autorun: false }) };
    found.queue.on("error", () => undefined);
    found.worker.on("error", () => undefined);
    hands.set(name, found);
  }
  return found;
}

export async function closeHands(): Promise<void> {
  await Promise.all([...hands.values()].flatMap(({ queue, worker }) => [queue.close(), worker.close(true)]));
  hands.clear();
  await agent.close();
}

const TOKEN = "a worker";

/** The next job of a queue, in a worker's hands. */
async function takeJob(world: RaceWorld, queueName: string, pace: Pace): Promise<Job | undefined> {
  const { worker } = handsOf(world, queueName);
  return pace("takes a job", () => worker.getNextJob(TOKEN, { block: false }));
}

async function runJob(world: RaceWorld, queueName: string, job: Job, pace: Pace): Promise<void> {
  const outcome = await runStage(world, queueName, { id: job.id ?? "", data: job.data as unknown }, pace);
  await pace(`ends its job, ${outcome.kind}`, async () => {
    if (outcome.kind === "nothing") job.opts.removeOnComplete = true;
    if (outcome.kind === "done" || outcome.kind === "nothing") await job.moveToCompleted(undefined, TOKEN, false);
    // Whatever it is to wait for: the next look finds it due.
    else await job.moveToDelayed(Date.now() + HOUR, TOKEN);
  });
}

/** Takes all jobs of a queue and runs them at once; so often, since a run may leave or add some. */
async function workOff(world: RaceWorld, queueName: string, pace: Pace, looks: number): Promise<void> {
  const { queue } = handsOf(world, queueName);
  for (let look = 0; look < looks; look++) {
    await pace(`${queueName}: time passes`, () => queue.promoteJobs());
    const running: Promise<void>[] = [];
    for (
      let job = await takeJob(world, queueName, pace);
      job !== undefined;
      job = await takeJob(world, queueName, pace)
    ) {
      running.push(runJob(world, queueName, job, pace));
    }
    await Promise.all(running);
  }
}

/** More than any scenario needs. */
const MAX_ROUNDS = 30;

/**
 * Does what is left to do, as a fleet would, until there is nothing: sweeps and the keeper come when their time has
 * come.
 */
export async function settle(world: RaceWorld): Promise<void> {
  let before = "";
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const stands = (await standings(world)).join();
    // Nothing moves by itself: what is looked for needs time to show, and what was dropped to be missed.
    world.line.clock.forward(stands === before ? 12 * MINUTE : 5 * SECOND);
    before = stands;
    await feed(world, atOnce);
    for (const name of [creates.name, ...BEHIND_CREATE]) await workOff(world, name, atOnce, 2);
    await sweep(world);
    await keep(world);
    await watch(world, "settling");
    if (await isQuiet(world)) return;
  }
}

async function isQuiet(world: RaceWorld): Promise<boolean> {
  if ([...world.seen.values()].some(({ state }) => !isEnd(state))) return false;
  for (const name of [creates.name, ...BEHIND_CREATE]) {
    const { queue } = handsOf(world, name);
    const counts = await queue.getJobCounts("wait", "prioritized", "delayed", "active", "failed");
    if (Object.values(counts).some((count) => count > 0)) return false;
  }
  return true;
}

/** Where each item stands, for tables: attempt and state. */
export async function standings({ line, batch }: RaceWorld): Promise<readonly string[]> {
  const items = await line.ledger.readStates(ACCOUNT, batch, 0, ITEMS);
  return items.map(({ attempt, state }) => `${attempt} ${state}`);
}
