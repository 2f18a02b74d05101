import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { readResults } from "../../src/batches/read-results.ts";
import { InputRefused, readInputJob, type SingleInput } from "../../src/batches/single-input.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { parseRow, placeRows, readRow } from "../../src/bucket/input-parts.ts";
import { noteWindow } from "../../src/bucket/window-notes.ts";
import { wrappedBucket } from "../../src/bucket/wrapped-bucket.ts";
import { type BatchId, type ItemId, OBJECT_KEYS, parseItemId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { DAY, MINUTE } from "../../src/core/time.ts";
import { type AdmitDeps, admitInputs } from "../../workers/admit-inputs.ts";
import { dieAfter, everyCrash } from "../support/crash.ts";
import { remember } from "../support/life.ts";
import { ACCOUNT, ADMITTING, accountName, type Line, MODEL, NOON, objectsIn, test } from "../support/stages.ts";

type Wrap = <T extends object>(effects: T) => T;
const asItIs: Wrap = (effects) => effects;

type ItemAdmission = { readonly admit: (input: SingleInput) => Promise<ItemId> };

/** An admission that answers the item alone. */
function open({ bucket, ledger, queues, clock }: Line, wrap: Wrap = asItIs): ItemAdmission {
  const { admit } = openAdmission(wrap({ bucket, ledger, queues, clock }));
  return { admit: async (input) => (await admit(input)).item };
}

function told(): Pick<AdmitDeps, "warn" | "clock"> & { readonly said: string[] } {
  const said: string[] = [];
  return { said, warn: (_fields, message) => said.push(message), clock: () => NOON };
}

/** An input as a producer would put it into the queue, under an id of its own. */
function single(id: string, prompt = `prompt of ${id}`, more: Readonly<Record<string, unknown>> = {}): SingleInput {
  const data = { input: { prompt }, model: "outlast/text", id, ...more };
  return readInputJob({ jobId: "1", addedAtMs: NOON, data }, [ADMITTING]);
}

/** An input that can't come again. */
function anonymous(prompt = "hello"): SingleInput {
  return { ...single("unused", prompt), identity: null, row: { input: { prompt }, target: MODEL } };
}

/** Every row of the batch of an item, as its parts hold them. */
async function partsOf({ bucket }: Line, batch: BatchId): Promise<readonly (readonly string[])[]> {
  const parts: string[][] = [];
  for (;;) {
    const body = await bucket.get(OBJECT_KEYS.input(batch, parts.length), { maxBytes: 1e8 });
    if (body === null) return parts;
    parts.push(body.toString("utf8").split("\n").slice(0, -1));
  }
}

const batchOf = (item: ItemId): BatchId => parseItemId(item)?.batch ?? ("" as BatchId);

/** Redis and bucket agree: as many rows published as the parts hold, every one found where its index says. */
async function expectWhole(line: Line, batch: BatchId): Promise<void> {
  const standing = await line.ledger.standing(ACCOUNT, batch);
  const parts = await partsOf(line, batch);
  const rows = parts.flat().map((text) => parseRow(text));
  expect(standing).toMatchObject({ parts: parts.length, batch: { items: rows.length } });
  for (const [index, row] of rows.entries()) {
    const part = await line.ledger.partOf(ACCOUNT, batch, index);
    const [place] = await placeRows(line.bucket, batch, part, index, 1);
    if (place === undefined) throw new Error(`row ${index} has no place`);
    expect(await readRow(line.bucket, batch, { ...place, part: part.part })).toEqual(row);
  }
}

describe("an input", () => {
  test("becomes an item that is fed, and whose row says where the answer goes", async ({ line }) => {
    await line.clear();
    const item = await open(line).admit(single("a", "hello", { reply_to: "my-queue" }));
    const batch = batchOf(item);
    expect(parseItemId(item)?.index).toBe(0);
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([batch]);
    expect((await line.jobs(QUEUE_NAMES.feed)).map(({ id }) => id)).toEqual([`feed-${ACCOUNT}`]);
    const [[row = ""] = []] = await partsOf(line, batch);
    expect(parseRow(row)).toMatchObject({ input: { prompt: "hello" }, id: "a", reply_to: "my-queue" });
    await expectWhole(line, batch);
  });

  test("that comes again is the same item, in this process, in another and on another day", async ({ line }) => {
    await line.clear();
    const here = open(line);
    const first = await here.admit(single("a"));
    expect(await here.admit(single("a"))).toBe(first);
    expect(await open(line).admit(single("a"))).toBe(first);
    line.clock.forward(DAY);
    expect(await open(line).admit(single("a"))).toBe(first);
    expect((await line.ledger.standing(ACCOUNT, batchOf(first)))?.batch.items).toBe(1);
    expect(await open(line).admit(single("b")), "another day, another batch").not.toContain(batchOf(first));
  });

  test("under a known id with other content is refused, and the first one stands", async ({ line }) => {
    await line.clear();
    const admission = open(line);
    const first = await admission.admit(single("a", "one"));
    await expect(admission.admit(single("a", "two"))).rejects.toThrow(InputRefused);
    await expect(admission.admit(single("a", "one", { model: "outlast/picture" }))).rejects.toThrow(/already/);
    expect(await admission.admit(single("a", "one"))).toBe(first);
    await expectWhole(line, batchOf(first));
  });

  test("twice at once, in one process or in two, is one item", async ({ line }) => {
    await line.clear();
    const [here, there] = [open(line), open(line)];
    const items = await Promise.all([here, here, there, there, open(line)].map((one) => one.admit(single("a"))));
    expect(new Set(items).size).toBe(1);
    const batch = batchOf(items[0] as ItemId);
    await expectWhole(line, batch);
    const { counts } = (await line.ledger.standing(ACCOUNT, batch)) ?? {};
    expect(counts?.waiting, "a row that lost the race is void, never bought").toBe(1);
  });

  test("whose twin was faster by a hair stands in a part twice, but only one row is ever bought", async ({ line }) => {
    await line.clear();
    const { bucket, ledger, queues, clock } = line;
    let twin: ItemId | null = null;
    let calls = 0;
    // The twin is admitted between this one's look for it and this one's part.
    const standing: typeof ledger.standing = async (...of) => {
      if (++calls === 1) twin = await open(line).admit(single("a"));
      return ledger.standing(...of);
    };
    const { item, row } = await openAdmission({ bucket, ledger: { ...ledger, standing }, queues, clock }).admit(
      single("a"),
    );
    expect(row, "its own row is void").toBeNull();
    expect(item).toBe(twin);
    const batch = batchOf(item);
    await expectWhole(line, batch);
    expect((await ledger.standing(ACCOUNT, batch))?.counts).toMatchObject({ waiting: 1, canceled: 1 });
    const claims = [0, 1].map((index) =>
      ledger.move({ account: ACCOUNT, batch, index, attempt: 1 }, "claim", { nowMs: NOON, nonce: "n" }),
    );
    expect((await Promise.all(claims)).map(({ answer }) => answer)).toEqual(["moved", "lost"]);
    const lines = await Array.fromAsync(readResults({ bucket, ledger }, { account: ACCOUNT, id: batch, items: 2 }));
    expect(lines.map(({ status }) => status)).toEqual(["in_flight", "canceled"]);
  });

  test("twice at once with different content is one item and one refusal", async ({ line }) => {
    await line.clear();
    const [here, there] = [open(line), open(line)];
    const told = await Promise.allSettled([here.admit(single("a", "one")), there.admit(single("a", "two"))]);
    expect(told.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
    const again = await Promise.allSettled([here.admit(single("a", "one")), here.admit(single("a", "two"))]);
    expect(again.map(({ status }) => status)).toEqual(told.map(({ status }) => status));
  });
});

describe("an input without an identity", () => {
  test("is an item each time it comes, in a part of its own or with its twin, and leaves no key", async ({ line }) => {
    await line.clear();
    const here = open(line);
    const alone = await here.admit(anonymous());
    const twins = await Promise.all([here.admit(anonymous()), here.admit(anonymous())]);
    expect(new Set([alone, ...twins]).size).toBe(3);
    const batch = batchOf(alone);
    await expectWhole(line, batch);
    expect((await line.ledger.standing(ACCOUNT, batch))?.counts).toMatchObject({ waiting: 3, canceled: 0 });
    expect(Object.keys(await objectsIn(line.bucket)).filter((key) => key.startsWith("keys/"))).toEqual([]);
    const rows = (await partsOf(line, batch)).flat().map((text) => parseRow(text));
    expect(new Set(rows.map(({ nonce }) => nonce)).size).toBe(3);
    for (const { identity, input_sha256 } of rows) expect([identity, input_sha256]).toEqual([undefined, undefined]);
  });

  test("is answered with its row: when it was admitted, until when it may run, whom its client wants told", async ({
    line,
  }) => {
    await line.clear();
    const { bucket, ledger, queues, clock } = line;
    const webhook = { url: "https://client.example/hook", events: ["completed"], base_url: "http://here" } as const;
    const asked = { ...anonymous(), cancelAfterMs: 90_000, webhook, replyTo: "my-queue" };
    const { item, row } = await openAdmission({ bucket, ledger, queues, clock }).admit(asked);
    expect(row).toEqual({
      input: { prompt: "hello" },
      target: MODEL,
      nonce: expect.any(String),
      reply_to: "my-queue",
      created_at: "2026-11-20T12:00:00.000Z",
      deadline: "2026-11-20T12:01:30.000Z",
      webhook,
    });
    const [[stored = ""] = []] = await partsOf(line, batchOf(item));
    expect(parseRow(stored)).toEqual(row);
  });

  test("shares a part with others that have one, and each gets its own item", async ({ line }) => {
    await line.clear();
    const here = open(line);
    const inputs = [single("a"), anonymous("x"), single("b"), anonymous("y"), single("a"), anonymous("x")];
    const items = await Promise.all(inputs.map((input) => here.admit(input)));
    expect(items[4], "the same input").toBe(items[0]);
    expect(new Set(items).size).toBe(5);
    const rows = (await partsOf(line, batchOf(items[0] as ItemId))).flat().map((text) => parseRow(text));
    expect(items.map((item) => rows[parseItemId(item)?.index ?? -1]?.input)).toEqual(
      inputs.map(({ row }) => row.input),
    );
  });

  test("that was admitted is answered so, whatever befalls the feed's wake or others of its part", async ({ line }) => {
    await line.clear();
    const { batch } = parseItemId(await open(line).admit(single("a"))) ?? { batch: "" as BatchId };
    line.clock.forward(DAY);
    const bucket = wrappedBucket(line.bucket, {
      async get(key, options) {
        if (key === OBJECT_KEYS.batch(batch)) throw new Error("the bucket has a bad moment");
        return line.bucket.get(key, options);
      },
    });
    const wakeFeed = () => Promise.reject(new Error("Redis has a bad moment"));
    const { admit } = openAdmission({ ...line, bucket, clock: line.clock, queues: { ...line.queues, wakeFeed } });
    const answers = await Promise.allSettled([admit(single("a")), admit(anonymous()), admit(single("b"))]);
    expect(answers.map(({ status }) => status)).toEqual(["rejected", "fulfilled", "fulfilled"]);
  });

  test("that loses the race for a part's number goes into the next, once", async ({ line }) => {
    await line.clear();
    const [here, there] = [open(line), open(line)];
    const items = await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? here : there).admit(anonymous(`prompt ${n}`))),
    );
    expect(new Set(items).size).toBe(40);
    const batch = batchOf(items[0] as ItemId);
    await expectWhole(line, batch);
    const rows = (await partsOf(line, batch)).flat().map((text) => parseRow(text));
    expect(rows).toHaveLength(40);
    expect(items.map((item) => rows[parseItemId(item)?.index ?? -1]?.input["prompt"])).toEqual(
      items.map((_, n) => `prompt ${n}`),
    );
    expect((await line.ledger.standing(ACCOUNT, batch))?.counts).toMatchObject({ waiting: 40, canceled: 0 });
  });
});

/** A bucket that carries the put of a part out, and then answers as it is told. */
function bucketThat(bucket: Bucket, answer: (key: string) => Promise<boolean>): Bucket {
  const putOnce: Bucket["putOnce"] = async (key, ...rest) => {
    const wrote = await bucket.putOnce(key, ...rest);
    return /input-\d+\.jsonl$/.test(key) ? answer(key) : wrote;
  };
  return new Proxy(bucket, {
    get(target, name) {
      const value: unknown = name === "putOnce" ? putOnce : Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

describe("a part that was put", () => {
  test("and is answered as taken, since the client of S3 sent it again, is still its own", async ({ line }) => {
    await line.clear();
    const bucket = bucketThat(line.bucket, async () => false);
    const { ledger, queues, clock } = line;
    const { item, row } = await openAdmission({ bucket, ledger, queues, clock }).admit(anonymous());
    expect(row?.input).toEqual({ prompt: "hello" });
    await expectWhole(line, batchOf(item));
    expect(await partsOf(line, batchOf(item))).toHaveLength(1);
    expect((await line.ledger.standing(ACCOUNT, batchOf(item)))?.counts.waiting).toBe(1);
  });

  test("and isn't there any more is published by nobody", async ({ line }) => {
    await line.clear();
    const bucket = bucketThat(line.bucket, async (key) => {
      await line.bucket.delete(key);
      return false;
    });
    const { ledger, queues, clock } = line;
    await expect(openAdmission({ bucket, ledger, queues, clock }).admit(anonymous())).rejects.toThrow(
      /input-0\.jsonl was there, and isn't any more/,
    );
    const [id] = await ledger.listBatches(1);
    expect((await ledger.standing(ACCOUNT, id as BatchId))?.batch.items).toBe(0);
  });

  test("by somebody who died over it holds items of the next admission's batch: they are bought, too", async ({
    line,
  }) => {
    await line.clear();
    const { bucket, ledger, queues, clock } = line;
    const dead = bucketThat(bucket, () => Promise.reject(new Error("the connection broke")));
    const lost = openAdmission({ bucket: dead, ledger, queues, clock });
    // In one part, or each in its own: they come at once.
    const deaths = await Promise.allSettled([lost.admit(anonymous("lost 1")), lost.admit(anonymous("lost 2"))]);
    expect(deaths).toMatchObject([{ status: "rejected" }, { status: "rejected" }]);
    const [id] = await ledger.listBatches(1);
    const left = await partsOf(line, id as BatchId);
    expect(left.flat().length).toBeGreaterThan(0);

    const item = await open(line).admit(anonymous("next"));
    const batch = batchOf(item);
    expect(batch).toBe(id);
    expect(parseItemId(item)?.index).toBe(left.flat().length);
    expect(await partsOf(line, batch)).toHaveLength(left.length + 1);
    await expectWhole(line, batch);
    expect((await ledger.standing(ACCOUNT, batch))?.counts).toMatchObject({
      waiting: left.flat().length + 1,
      canceled: 0,
    });
  });
});

test("five hundred inputs at once land in few parts, without holes, each its own item", async ({ line }) => {
  await line.clear();
  const admissions = [open(line), open(line)];
  const ids = Array.from({ length: 500 }, (_, n) => `input ${n}`);
  const items = await Promise.all(ids.map((id, n) => (admissions[n % 2] as ItemAdmission).admit(single(id))));
  expect(new Set(items).size).toBe(500);
  const batch = batchOf(items[0] as ItemId);
  const parts = await partsOf(line, batch);
  expect(parts.length).toBeLessThan(50);
  expect(parts.flat()).toHaveLength(500);
  expect(items.map((item) => parseItemId(item)?.index).toSorted((a, b) => (a ?? 0) - (b ?? 0))).toEqual(
    ids.map((_, n) => n),
  );
  for (const [n, item] of items.entries()) {
    expect(parseRow(parts.flat()[parseItemId(item)?.index ?? -1] ?? "").id).toBe(ids[n]);
  }
  expect((await line.ledger.standing(ACCOUNT, batch))?.counts.waiting).toBe(500);
});

describe("killed after any effect and run again twice,", () => {
  const three = [single("a"), single("b"), single("c")];

  test.for([
    ["one input", three.slice(0, 1)],
    ["three inputs that share a part", three],
  ] as const)("the admission of %s ends as if nothing had happened", async ([, inputs], { line }) => {
    type World = { items: readonly ItemId[] };
    const { undisturbed, crashes } = await everyCrash<World, unknown>({
      open: async () => {
        await line.clear();
        return { items: [] };
      },
      run: async (world, wrap) => {
        const admission = open(line, wrap);
        world.items = await Promise.all(inputs.map((input) => admission.admit(input)));
      },
      // How many parts they make, and which of the three stands first, is chance.
      look: async ({ items }) => {
        const batch = batchOf(items[0] as ItemId);
        await expectWhole(line, batch);
        const standing = await line.ledger.standing(ACCOUNT, batch);
        const unfed = await line.ledger.unfedBatches(ACCOUNT, 10);
        const keys = Object.keys((await line.look()).objects).filter((key) => key.startsWith("keys/"));
        return { items: items.toSorted(), rows: standing?.batch.items, counts: standing?.counts, unfed, keys };
      },
    });
    // Which of three comes when is chance, too.
    expect(crashes.length).toBeGreaterThan(5);
    if (inputs.length === 1) expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("publishPart");
    for (const { diedAfter, n, seen } of crashes) {
      expect(seen, `died after ${diedAfter}, effect ${n}`).toEqual(undisturbed);
    }
  });

  test("an input without an identity is admitted each time it is tried, and its parts are whole", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash<{ tried: number }, unknown>({
      open: async () => {
        await line.clear();
        return { tried: 0 };
      },
      run: async (world, wrap) => {
        world.tried++;
        await open(line, wrap).admit(anonymous(`try ${world.tried}`));
      },
      look: async ({ tried }) => {
        const [batch] = await line.ledger.listBatches(1);
        if (batch === undefined) throw new Error("no batch was opened");
        await expectWhole(line, batch);
        const standing = await line.ledger.standing(ACCOUNT, batch);
        const prompts = (await partsOf(line, batch)).flat().map((text) => parseRow(text).input["prompt"]);
        // The dead one's own input, if its part was put; then those of the two tries after it, each once.
        const expected = Array.from({ length: tried }, (_, n) => `try ${n + 1}`);
        expect([expected, expected.slice(1)]).toContainEqual(prompts);
        return {
          counts: { ...standing?.counts, waiting: prompts.length },
          waiting: standing?.counts.waiting === prompts.length,
        };
      },
    });
    expect(undisturbed).toMatchObject({ counts: { waiting: 3 }, waiting: true });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("publishPart");
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toMatchObject({ waiting: true });
  });

  test("another input's admission completes the part that the dead one left", async ({ line }) => {
    await line.clear();
    // writeBatch, openBatch, readIdentity, standing, and the part is there.
    const doomed = dieAfter(4, { bucket: line.bucket, ledger: line.ledger, queues: line.queues, clock: line.clock });
    await expect(openAdmission(doomed.effects).admit(single("a"))).rejects.toThrow(/died|dead/);
    expect(doomed.done.at(-1)).toBe("putOnce");
    const other = await open(line).admit(single("b"));
    const batch = batchOf(other);
    expect(await partsOf(line, batch)).toHaveLength(2);
    await expectWhole(line, batch);
    expect(await open(line).admit(single("a"))).toBe(`${batch}000000`);
    expect(other).toBe(`${batch}000001`);
    expect((await line.ledger.standing(ACCOUNT, batch))?.counts.waiting).toBe(2);
  });

  test("an item that was promised the day before is fed all the same", async ({ line }) => {
    await line.clear();
    let promised = false;
    for (let n = 0; !promised; n++) {
      await line.clear();
      const { bucket, ledger, queues, clock } = line;
      const doomed = dieAfter(n, { bucket, ledger, queues, clock });
      await openAdmission(doomed.effects)
        .admit(single("a"))
        .catch(() => undefined);
      promised = (await line.bucket.list("keys/")[Symbol.asyncIterator]().next()).done === false;
    }
    line.clock.forward(DAY);
    const item = await open(line).admit(single("a"));
    expect((await line.ledger.standing(ACCOUNT, batchOf(item)))?.batch.items).toBe(1);
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toContain(batchOf(item));
  });
});

describe("a job of the inputs queue", () => {
  const good = { input: { prompt: "a" }, model: "outlast/text" };
  const other = { name: accountName("cometapi"), targets: new Set(["version"] as const) };
  const read = (data: unknown, accounts = [ADMITTING]) => readInputJob({ jobId: "7", addedAtMs: NOON, data }, accounts);

  test.for<readonly [string, unknown, RegExp]>([
    ["no object", "text", /an input is an object/],
    ["a list", [good], /an input is an object/],
    ["nothing", undefined, /an input is an object/],
    ["no input", { model: "outlast/text" }, /no "input"/],
    ["no model", { input: {} }, /model/],
    [
      "an input that is very deep",
      { ...good, input: JSON.parse(`{"a":${"[".repeat(1_000)}${"]".repeat(1_000)}}`) as object },
      /nested too deeply: at most 200 levels/,
    ],
    ["a misspelt key", { ...good, modle: "x" }, /unknown key "modle"/],
    ["an unknown account", { ...good, account: "nobody" }, /no account "nobody".*replicate/],
    ["an account of another kind", { ...good, account: 7 }, /no account 7/],
    ["our own queue to reply to", { ...good, reply_to: "outlast-feed" }, /reply_to/],
    ["a queue BullMQ can't have", { ...good, reply_to: "a:b" }, /reply_to/],
    ["no text to reply to", { ...good, reply_to: 5 }, /reply_to/],
    ["a queue that can't be written as UTF-8", { ...good, reply_to: "q\ud800" }, /reply_to/],
  ])("with %s fails with the reason", async ([, data, reason]) => {
    const deps: AdmitDeps = {
      ...told(),
      readInput: (job) => readInputJob(job, [ADMITTING]),
      admit: () => Promise.reject(new Error("never asked")),
    };
    const outcome = await admitInputs({ jobId: "7", addedAtMs: NOON, data }, deps);
    expect(outcome).toEqual({ kind: "unrecoverable", reason: expect.stringMatching(reason) });
  });

  test("is the only account's, else replicate's, unless it names one that takes its kind", () => {
    expect(read(good).account).toBe(ACCOUNT);
    expect(read(good, [other, ADMITTING]).account).toBe(ACCOUNT);
    const version = { input: {}, version: "a".repeat(64), account: "cometapi" };
    expect(read(version, [other, ADMITTING]).account).toBe(other.name);
    expect(() => read({ ...good, account: "cometapi" }, [other, ADMITTING])).toThrow(/can't run a model/);
  });

  test("is known by its own id, else by the job's and its time", () => {
    expect(read({ ...good, id: "mine" }).identity).toBe("id:mine");
    expect(read(good).identity).toBe(`job:7:${NOON}`);
    expect(read({ ...good, id: `job:7:${NOON}` }).identity).not.toBe(read(good).identity);
  });

  test("answers with its item's id; trouble with bucket or Redis is waited out, without using up a try", async () => {
    const readInput = (job: Parameters<AdmitDeps["readInput"]>[0]) => readInputJob(job, [ADMITTING]);
    const job = { jobId: "7", addedAtMs: NOON, data: good };
    const item = "0".repeat(26) as ItemId;
    const deps = { ...told(), readInput };
    expect(await admitInputs(job, { ...deps, admit: async () => ({ item }) })).toEqual({ kind: "done", value: item });
    const admit = () => Promise.reject(new Error("the bucket is away"));
    expect(await admitInputs(job, { ...deps, admit })).toEqual({ kind: "snooze", untilMs: NOON + 5_000 });
    expect(deps.said).toEqual([expect.stringMatching(/couldn't be admitted/)]);
  });
});

describe("an admission that lives while Redis", () => {
  const statesIn = async (line: Line, batch: BatchId) => {
    const { batch: of } = (await line.ledger.standing(ACCOUNT, batch)) ?? raise("Redis knows no such batch");
    return (await line.ledger.readStates(ACCOUNT, batch, 0, of.items)).map(({ state }) => state);
  };

  test("is emptied puts its batch back, and goes on behind what the bucket has", async ({ line }) => {
    await line.clear();
    const server = open(line);
    const first = await server.admit(single("one"));
    const batch = batchOf(first);
    await server.admit(anonymous("two"));
    await noteWindow(line.bucket, batch, { first: 0, last: 0, notedAtMs: NOON });
    line.clock.forward(MINUTE);
    await line.redis.flushall();

    const third = await server.admit(single("three"));
    expect(parseItemId(third)).toEqual({ batch, index: 2 });
    await expectWhole(line, batch);
    expect(await statesIn(line, batch), "only the first was given out").toEqual(["unclear", "waiting", "waiting"]);
    expect(await server.admit(single("one"))).toBe(first);
    expect(await open(line).admit(single("three"))).toBe(third);
    await expectWhole(line, batch);
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([batch]);
  });

  test("is emptied before the first part of a batch is published leaves no half of a batch", async ({ line }) => {
    await line.clear();
    const { bucket, ledger, queues, clock } = line;
    let emptied = false;
    const publishPart: typeof ledger.publishPart = async (...part) => {
      if (!emptied) await line.redis.flushall();
      emptied = true;
      return ledger.publishPart(...part);
    };
    const { item } = await openAdmission({ bucket, ledger: { ...ledger, publishPart }, queues, clock }).admit(
      single("a"),
    );
    await expectWhole(line, batchOf(item));
    expect(await statesIn(line, batchOf(item))).toEqual(["waiting"]);
  });

  test("loses its last moments publishes the parts that were lost, and goes on behind them", async ({ line }) => {
    await line.clear();
    const server = open(line);
    const batch = batchOf(await server.admit(single("one")));
    const restore = await remember(line);
    await server.admit(single("two"));
    await server.admit(anonymous("three"));
    await restore();
    expect((await line.ledger.standing(ACCOUNT, batch))?.batch.items).toBe(1);

    expect(parseItemId(await server.admit(single("four")))).toEqual({ batch, index: 3 });
    await expectWhole(line, batch);
    await restore();
    expect(parseItemId(await open(line).admit(single("two"))), "asked again, it is published").toEqual({
      batch,
      index: 1,
    });
    expect((await line.ledger.standing(ACCOUNT, batch))?.batch.items).toBeGreaterThan(1);
    await restore();
    const items = await Promise.all([server, open(line)].map((one, n) => one.admit(anonymous(`at once ${n}`))));
    expect(new Set(items.map((item) => parseItemId(item)?.index))).toEqual(new Set([4, 5]));
    await expectWhole(line, batch);
  });
});

function raise(message: string): never {
  throw new Error(message);
}
