/**
 * What an account's gate does for all processes together: two of them, each with a gate of its own, on one real Redis and
 * BullMQ's own queues. What is refused, down or slow is known to the other, too, and no job holds a slot for it.
 */

import { Queue } from "bullmq";
import { pino } from "pino";
import { describe, expect, onTestFinished } from "vitest";
import { isDataRemoved } from "../../src/batches/read-again.ts";
import { type AccountName, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { SECOND } from "../../src/core/time.ts";
import { type AccountGate, openGate } from "../../src/gates/account-gate.ts";
import { gatedProvider, NoReadLeft, patiently, whilePollsMay } from "../../src/gates/gated-provider.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../../src/providers/provider.ts";
import { consume } from "../../src/queues/consume.ts";
import { createQueue } from "../../src/queues/queues.ts";
import { throughGate } from "../../workers/through-gate.ts";
import { clockAt, type TestClock } from "../support/clock.ts";
import { accountName, type Line, MODEL, NOON, predictionOf, test } from "../support/stages.ts";

let accounts = 0;
const signal = new AbortController().signal;

function newAccount(): AccountName {
  return accountName(`gated-${accounts++}`);
}

function gateOf({ ledger, queues }: Line, name: AccountName, clock: () => number, mark = "a probe"): AccountGate {
  const account = { name, createsPerMinute: 600, readsPerMinute: 3_000, toleratesBurst: true };
  return openGate(account, { ledger, queues, clock, mark: () => mark });
}

/** Two processes, and the clock that both look at. */
async function twoOf(line: Line): Promise<{ a: AccountGate; b: AccountGate; clock: TestClock; name: AccountName }> {
  const name = newAccount();
  const clock = clockAt(NOON);
  const [a, b] = [gateOf(line, name, clock, "a"), gateOf(line, name, clock, "b")];
  await a.configure();
  return { a, b, clock, name };
}

const DOWN = new ProviderError("refused", { kind: "not-sent", detail: "ECONNREFUSED" });
const prediction = predictionOf("p1");

function providerOf(answer: () => Promise<typeof prediction>): Provider & Required<Pick<Provider, "cancel">> {
  return { targets: new Set(["model"]), create: answer, get: answer, cancel: answer };
}

const failing = (error: Error) => providerOf(() => Promise.reject(error));
const create = (provider: Provider) => provider.create({ target: MODEL, input: {} }, signal);
const get = (provider: Provider) => provider.get(predictionId("p1"), signal);

describe("a refusal", () => {
  test("met by one process halves the rate of all at once, and all wait as long as the provider said", async ({
    line,
  }) => {
    const { a, b, clock, name } = await twoOf(line);
    const meta = () => line.redis.hmget(`bull:${QUEUE_NAMES.create(name)}:meta`, "max", "duration");
    expect(await meta()).toEqual(["1", "100"]);
    const refusal = new ProviderError("429", {
      kind: "refused",
      status: 429,
      retryAfterMs: 8_000,
      detail: "slow down",
    });
    await expect(create(gatedProvider(failing(refusal), a))).rejects.toBe(refusal);

    expect(await meta()).toEqual(["1", "200"]);
    expect((await a.enter("creates")).waitMs).toBe(8_000);
    expect((await b.enter("creates")).waitMs).toBe(8_000);
    expect((await b.enter("reads")).waitMs, "reads have a limit of their own").toBe(0);
    clock.forward(8_000);
    expect((await b.enter("creates")).waitMs).toBe(0);
    clock.forward(30_000);
    expect(await b.retune()).toBe(450);
    clock.forward(30_000);
    expect(await b.retune()).toBe(600);
    expect(await meta()).toEqual(["1", "100"]);
  });

  test("that names a low-credit tier sets the rate to it, until it is tried again", async ({ line }) => {
    const { a, b, clock, name } = await twoOf(line);
    const said = "Your rate limit is reduced to 6 requests per minute with a burst of 1 requests while …";
    await a.refused("creates", { forMs: SECOND, said });
    expect(await line.redis.hmget(`bull:${QUEUE_NAMES.create(name)}:meta`, "max", "duration")).toEqual(["1", "11000"]);
    expect(await b.retune()).toBe(6);
    clock.forward(9 * 60_000);
    expect(await b.retune()).toBe(6);
    clock.forward(60_000);
    expect(await b.retune()).toBe(24);
  });

  test("of many requests at once is one", async ({ line }) => {
    const { a, b } = await twoOf(line);
    await Promise.all([a, b, a, b, a].map((gate) => gate.refused("creates", { forMs: SECOND, said: "" })));
    expect(await a.retune()).toBe(300);
  });

  test("stops the queue on every worker without holding a slot, and never cuts a longer wait short", async ({
    line,
  }) => {
    const name = newAccount();
    await gateOf(line, name, Date.now).configure();
    // Neither has looked yet; who has sees it within a second, and until then the queue itself stands.
    const gates = [gateOf(line, name, Date.now), gateOf(line, name, Date.now)];
    const ran: number[] = [];
    const refused = Promise.withResolvers<void>();
    const spec = createQueue(name);
    const stageOf = (gate: AccountGate) => async () => {
      ran.push(Date.now());
      if (ran.length > 1) return { kind: "done" } as const;
      await gate.refused("creates", { forMs: 1_500, said: "" });
      refused.resolve();
      return { kind: "rate-limit", forMs: 200 } as const; // as if another had been told less
    };
    const at = { redis: line.redis, log: pino({ level: "silent" }) };
    const workers = gates.map((gate) => consume(spec, throughGate(gate, "creates", stageOf(gate)), at));
    const queue = new Queue(spec.name, { connection: line.redis });
    onTestFinished(async () => {
      for (const worker of workers) await worker.close();
      await queue.close();
    });
    const add = (n: number) => queue.add("errand", [name, 0, 0, 0], { ...spec.job, jobId: `${"0".repeat(20)}-${n}-1` });
    await add(0);
    await refused.promise; // what was sent before it couldn't know
    for (const n of [1, 2, 3]) await add(n);
    await expect.poll(() => ran.length, { timeout: 15_000, interval: 20 }).toBe(5);
    const [first = 0, second = 0] = ran;
    expect(second - first).toBeGreaterThanOrEqual(1_400);
  });
});

describe("a provider that is down", () => {
  test("is asked by one probe of all processes at a time, and by all again once it has answered", async ({ line }) => {
    const { a, b, clock } = await twoOf(line);
    const [toA, toB] = [gatedProvider(failing(DOWN), a), gatedProvider(failing(DOWN), b)];
    for (const provider of [toA, toB, toA, toB, toA]) await expect(create(provider)).rejects.toBe(DOWN);
    clock.forward(SECOND);
    const [first, second] = [await a.enter("creates"), await b.enter("creates")];
    expect([first.waitMs, second.waitMs]).toEqual([0, SECOND]);
    await expect(create(toA)).rejects.toBe(DOWN);
    await first.leave();
    clock.forward(SECOND);
    expect((await b.enter("creates")).waitMs, "twice as long now").toBe(SECOND);
    clock.forward(SECOND);
    expect((await b.enter("creates")).waitMs).toBe(0);
    await create(
      gatedProvider(
        providerOf(async () => prediction),
        b,
      ),
    );
    await expect.poll(async () => (await b.enter("creates")).waitMs).toBe(0);
    clock.forward(SECOND);
    expect((await a.enter("creates")).waitMs).toBe(0);
  });

  test("isn't asked for its list by stages, but for a page that is the probe", async ({ line }) => {
    const { a, b, clock } = await twoOf(line);
    let pages = 0;
    const list = async () => {
      pages++;
      return { predictions: [], inputs: new Map() };
    };
    const listing = whilePollsMay(gatedProvider({ ...failing(DOWN), list }, a), a);
    for (let n = 0; n < 5; n++) await expect(get(gatedProvider(failing(DOWN), a))).rejects.toBe(DOWN);
    await expect(listing.list?.({}, signal)).rejects.toMatchObject({ kind: "not-sent", waitMs: SECOND });
    expect(pages).toBe(0);
    clock.forward(SECOND);
    await listing.list?.({}, signal);
    expect(pages).toBe(1);
    clock.forward(SECOND);
    await expect.poll(async () => (await b.enter("reads")).waitMs, { timeout: 10_000 }).toBe(0);
    expect((await line.ledger.readBudgets(newest())).breakers.reads.state).toBe("closed");
  });

  test("holds creates while polls find nobody, and a probe that asked nothing is another's", async ({ line }) => {
    const { a, b, clock } = await twoOf(line);
    for (let n = 0; n < 5; n++) await expect(get(gatedProvider(failing(DOWN), a))).rejects.toBe(DOWN);
    expect((await b.enter("creates")).waitMs).toBe(SECOND);
    clock.forward(SECOND);
    const pass = await a.enter("reads");
    expect(pass.waitMs).toBe(0);
    await pass.leave();
    clock.forward(SECOND);
    expect((await b.enter("reads")).waitMs).toBe(0);
  });

  test("isn't one that refuses, that answers nonsense, or whose request was stopped here", async ({ line }) => {
    const { a } = await twoOf(line);
    const stopped = AbortSignal.abort();
    for (const error of [
      new ProviderError("401", { kind: "refused", status: 401 }),
      new ProviderError("409", { kind: "unknown", status: 409 }),
      new ProviderError("never sent", { kind: "refused" }),
      new ProviderAnswerError("HTML", { status: 200 }),
    ]) {
      for (let n = 0; n < 6; n++) await expect(get(gatedProvider(failing(error), a))).rejects.toBe(error);
    }
    const cut = gatedProvider(failing(DOWN), a);
    for (let n = 0; n < 6; n++) await expect(cut.get(predictionId("p1"), stopped)).rejects.toBe(DOWN);
    expect((await a.enter("reads")).waitMs).toBe(0);
  });

  test("is back once it says that it is asked too often", async ({ line }) => {
    const { a, b, clock } = await twoOf(line);
    for (let n = 0; n < 5; n++) await expect(get(gatedProvider(failing(DOWN), a))).rejects.toBe(DOWN);
    clock.forward(SECOND);
    const probe = await a.enter("reads");
    expect(probe.waitMs).toBe(0);
    const often = new ProviderError("429", { kind: "refused", status: 429, retryAfterMs: 200, detail: "" });
    await expect(get(gatedProvider(failing(often), a))).rejects.toBe(often);
    await probe.leave();
    clock.forward(200);
    for (const gate of [a, b, a]) expect((await gate.enter("reads")).waitMs, "for all").toBe(0);
  });

  test("that answers five times between its failures is never taken for it", async ({ line }) => {
    const { a, clock } = await twoOf(line);
    const answers = [DOWN, DOWN, DOWN, DOWN, null];
    for (let n = 0; n < 50; n++) {
      const error = answers[n % 5] ?? null;
      const provider = gatedProvider(error === null ? providerOf(async () => prediction) : failing(error), a);
      await get(provider).catch(() => undefined);
      await expect.poll(async () => (await line.ledger.readBudgets(newest())).breakers.reads.state).toBe("closed");
    }
    clock.forward(1);
    expect((await a.enter("reads")).waitMs).toBe(0);
  });
});

const newest = () => accountName(`gated-${accounts - 1}`);

describe("a cancel", () => {
  test("takes from a fifth of the reads that all share, and isn't sent where none is left", async ({ line }) => {
    const { a, b } = await twoOf(line);
    let sent = 0;
    const provider = providerOf(async () => {
      sent++;
      return prediction;
    });
    const canceling = [a, b].map((gate) => gatedProvider(provider, gate));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 15 }, () => canceling.map(({ cancel }) => cancel(predictionId("p1"), signal))).flat(),
    );
    const refused = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(sent, "ten a second, and perhaps a second began meanwhile").toBeOneOf([10, 20]);
    expect(refused).toHaveLength(30 - sent);
    for (const { reason } of refused) expect(reason).toBeInstanceOf(NoReadLeft);
    await patiently(canceling[0] ?? provider).cancel?.(predictionId("p1"), signal);
    expect(sent, "who cancels once waits for its turn").toBeOneOf([11, 21]);
  });

  test("and a page of the list share these reads; who can wait does, for as long as he can", async ({ line }) => {
    const name = newAccount();
    // One read beside polls in three seconds.
    const account = { name, createsPerMinute: 600, readsPerMinute: 100, toleratesBurst: true };
    const gate = openGate(account, { ...line, clock: Date.now, mark: () => "a probe" });
    await gate.configure();
    expect(await gate.readsPerMinute()).toBe(100);
    const sent: string[] = [];
    const answer = async () => {
      sent.push("cancel");
      return prediction;
    };
    const list = async () => {
      sent.push("list");
      return { predictions: [], inputs: new Map() };
    };
    const provider = gatedProvider({ ...providerOf(answer), list }, gate);
    await provider.cancel(predictionId("p1"), signal);
    await expect(patiently(provider, 0).list?.({}, signal)).rejects.toBeInstanceOf(NoReadLeft);
    expect(sent).toEqual(["cancel"]);
    await patiently(provider, 10 * SECOND).list?.({}, signal);
    expect(sent).toEqual(["cancel", "list"]);
    await whilePollsMay(patiently(provider, 10 * SECOND), gate).list?.({}, signal);
    expect(sent).toEqual(["cancel", "list", "list"]);
    await gate.refused("reads", { forMs: 60 * SECOND, said: "" });
    await expect(patiently(provider, 10 * SECOND).list?.({}, signal)).rejects.toBeInstanceOf(NoReadLeft);
    expect(sent).toEqual(["cancel", "list", "list"]);
    expect(await gate.readsPerMinute(), "as creates, half of it then").toBe(50);
  });
});

describe("a prediction whose files are refused", () => {
  const asks = (provider: Provider, gate: AccountGate) =>
    isDataRemoved(predictionId("p1"), { provider: gatedProvider(provider, gate), gate }, signal);

  test("is read again, and tells whether its data is removed; nobody knows where nobody tells", async ({ line }) => {
    const { a } = await twoOf(line);
    expect(
      await asks(
        providerOf(async () => prediction),
        a,
      ),
    ).toBe(false);
    expect(
      await asks(
        providerOf(async () => ({ ...prediction, dataRemoved: true })),
        a,
      ),
    ).toBe(true);
    expect(await asks(failing(new ProviderError("404", { kind: "refused", status: 404 })), a)).toBeNull();
    expect(await asks(failing(new ProviderAnswerError("HTML", { status: 200 })), a)).toBeNull();
    await expect(asks(failing(new TypeError("a defect")), a)).rejects.toThrow("a defect");
  });

  test("isn't asked for where the provider is down, or no read is left beside the polls", async ({ line }) => {
    const { a, b } = await twoOf(line);
    let asked = 0;
    const provider = providerOf(async () => {
      asked++;
      return prediction;
    });
    const answers = await Promise.all(Array.from({ length: 30 }, () => asks(provider, a)));
    expect(asked, "ten a second, and perhaps a second began meanwhile").toBeOneOf([10, 20]);
    expect(answers.filter((answer) => answer === null)).toHaveLength(30 - asked);

    for (let n = 0; n < 5; n++) await expect(get(gatedProvider(failing(DOWN), b))).rejects.toBe(DOWN);
    const before = asked;
    expect(await asks(provider, b)).toBeNull();
    expect(asked).toBe(before);
  });
});

test("a rate that is new in the settings holds, also where whoever took it first died before it was set", async ({
  line,
}) => {
  const name = newAccount();
  const settings = { name, createsPerMinute: 600, readsPerMinute: 3_000, toleratesBurst: true };
  const open = (createsPerMinute: number, ledger = line.ledger) =>
    openGate({ ...settings, createsPerMinute }, { ...line, ledger, clock: clockAt(NOON), mark: () => "a probe" });
  await open(600).configure();
  const changePace = () => Promise.reject(new Error("killed"));
  await expect(open(60, { ...line.ledger, changePace }).configure()).rejects.toThrow("killed");
  const gate = open(60);
  await gate.configure();
  expect(await gate.retune()).toBe(60);
  expect((await line.ledger.readBudgets(name)).paces.creates).toMatchObject({ perMinute: 60, byHand: false });
});

test("what requests come to is counted once a second, and not by the request itself", async ({ line }) => {
  const { a, name } = await twoOf(line);
  await create(
    gatedProvider(
      providerOf(async () => prediction),
      a,
    ),
  );
  for (const error of [DOWN, new ProviderError("500", { kind: "unknown", status: 500 })]) {
    await expect(get(gatedProvider(failing(error), a))).rejects.toBe(error);
  }
  expect(await line.ledger.requestCounts(name)).toEqual({});
  await expect
    .poll(() => line.ledger.requestCounts(name), { timeout: 10_000 })
    .toEqual({ "create ok": 1, "get not_sent": 1, "get 500": 1 });
});
