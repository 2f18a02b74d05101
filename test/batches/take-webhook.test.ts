/** What a webhook does, died after every one of its effects and told again, as its provider tells it again. */

import { describe, expect } from "vitest";
import { bookDuplicate } from "../../src/batches/book-duplicate.ts";
import { type TakeDeps, takeWebhook, type WebhookOutcome } from "../../src/batches/take-webhook.ts";
import { writeReceipt } from "../../src/bucket/records.ts";
import { type BatchId, errandId, QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { type PredictionId, predictionId } from "../../src/core/prediction.ts";
import { buildReceipt } from "../../src/core/receipt.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, predictionOf, test } from "../support/stages.ts";

type World = { readonly line: Line; readonly batch: BatchId; readonly later: (() => Promise<unknown>)[] };

async function openWorld(line: Line): Promise<World> {
  await line.clear();
  return { line, batch: await line.submit([{ prompt: "a" }, { prompt: "b" }]), later: [] };
}

const refOf = ({ batch }: World, index = 0) => ({ account: ACCOUNT, batch, index, attempt: 1 });

function depsOf({ line, later }: World): TakeDeps {
  const { bucket, ledger, queues, clock } = line;
  return {
    bucket,
    ledger,
    queues,
    provider: {},
    inASecond: (what) => later.push(what),
    warn: () => undefined,
    error: () => undefined,
    clock,
  };
}

const P1 = predictionId("p1");

function take(world: World, deps = depsOf(world), id: PredictionId = P1): Promise<WebhookOutcome> {
  const prediction = predictionOf(id, { status: "succeeded" });
  return takeWebhook({ ref: refOf(world), nonce: "n", prediction, input: { prompt: "a" } }, deps);
}

async function claim({ line, ...world }: World, then?: "doubt"): Promise<void> {
  const ref = refOf({ line, ...world });
  const claimed = await line.ledger.move(ref, "claim", { nowMs: line.clock(), nonce: "n" });
  expect(claimed.answer).toBe("moved");
  if (then !== undefined) await line.ledger.move(ref, then, { nowMs: line.clock(), nonce: "n" });
}

async function run(world: World, id: PredictionId): Promise<void> {
  await claim(world);
  const { ledger, queues, clock } = world.line;
  await ledger.move(refOf(world), "bind", { nowMs: clock(), nonce: "n", predictionId: id });
  await queues.follow(refOf(world), { id, startedAtMs: clock(), deadlineAtMs: null }, 60_000);
}

describe("a webhook whose taking died after any of its effects, and that comes again", () => {
  const scenarios: Readonly<Record<string, (world: World) => Promise<void>>> = {
    "binds its unclear item": (world) => claim(world, "doubt"),
    "binds its claimed item": (world) => claim(world),
    "binds its item whose intent is gone": async () => undefined,
    "wakes its item": (world) => run(world, P1),
    "is booked where another prediction holds its attempt": (world) => run(world, predictionId("p0")),
  };

  test.for(Object.keys(scenarios))("%s, as if nothing had happened", async (name, { line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: async () => {
        const world = await openWorld(line);
        await scenarios[name]?.(world);
        return world;
      },
      run: (world, wrap) => take(world, { ...depsOf(world), ...wrap(effectsOf(depsOf(world))) }),
      look: async () => {
        const { objects, errands, redis } = await line.look();
        return { objects, errands, redis };
      },
    });
    expect(crashes.length).toBeGreaterThan(2);
    for (const { diedAfter, seen } of crashes) expect([diedAfter, seen]).toEqual([diedAfter, undisturbed]);
  });

  const effectsOf = ({ bucket, ledger, queues }: TakeDeps) => ({ bucket, ledger, queues });
});

test("its poll is brought forward, and once more in a second if one ran just then", async ({ line }) => {
  const world = await openWorld(line);
  await run(world, P1);
  const follow = QUEUE_NAMES.follow(ACCOUNT);
  expect(await take(world)).toBe("woken");
  expect([await line.jobs(follow), world.later.length]).toMatchObject([[{ id: errandId(refOf(world)), delay: 0 }], 0]);
  expect(await take(world), "nothing is left to bring forward").toBe("woken");
  expect([await line.jobs(follow), world.later.length]).toMatchObject([[{ id: errandId(refOf(world)) }], 1]);
});

// Its address proves nothing: the claim that wrote it was given back.
describe("a webhook under another nonce than the item's", () => {
  const sent = { prompt: "a lighthouse in fog", seed: 7, image: "https://ours.example/a.png" };
  type Stand = "waiting" | "claimed" | "unclear";
  const STANDS: readonly Stand[] = ["waiting", "claimed", "unclear"];
  const SHOWING = {
    "all of it": sent,
    "all of it, its file as a copy": { ...sent, image: "https://theirs.example/b.png", added: true },
  };
  const HIDING = {
    nothing: {},
    "no object": null,
    "only a part": { prompt: sent.prompt, seed: 7 },
    "another seed": { ...sent, seed: 8 },
  };

  async function openStanding(line: Line, stand: Stand): Promise<World> {
    await line.clear();
    const world = { line, batch: await line.submit([sent]), later: [] };
    if (stand !== "waiting") await claim(world, stand === "unclear" ? "doubt" : undefined);
    return world;
  }

  /** What it came to; and where the item stands, under which nonce, with which prediction, and how many errands. */
  async function told({ line, ...world }: World, nonce: string, input: unknown) {
    const ref = refOf({ line, ...world });
    const prediction = predictionOf(P1, { status: "succeeded" });
    const outcome = await takeWebhook({ ref, nonce, prediction, input }, depsOf({ line, ...world }));
    const { state, fields } = await line.ledger.readItem(ref);
    const errands = (await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).length;
    const duplicates = await line.redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, ref.batch));
    return { outcome, state, nonce: fields.nonce, prediction: fields.prediction_id, errands, duplicates };
  }

  test.for(Object.entries(SHOWING))("binds its prediction where its body shows %s", async ([, input], { line }) => {
    for (const stand of STANDS) {
      const seen = await told(await openStanding(line, stand), "from before", input);
      expect(seen, stand).toMatchObject({ outcome: "bound", state: "running", prediction: P1, errands: 1 });
    }
  });

  test.for(Object.entries(HIDING))("changes nothing where its body shows %s", async ([, input], { line }) => {
    for (const stand of STANDS) {
      const nonce = stand === "waiting" ? undefined : "n";
      const stands = { state: stand, nonce, prediction: undefined, errands: 0, duplicates: [] };
      const seen = await told(await openStanding(line, stand), "from before", input);
      expect(seen, stand).toEqual({ outcome: "foreign", ...stands });
    }
  });

  test.for(Object.entries(HIDING))("is no duplicate where its body shows %s", async ([, input], { line }) => {
    const world = await openStanding(line, "claimed");
    const { ledger, clock } = line;
    const held = predictionId("p0");
    await ledger.move(refOf(world), "bind", { nowMs: clock(), nonce: "n", predictionId: held });
    for (const nonce of ["from before", "n"]) {
      const seen = await told(world, nonce, input);
      expect(seen).toMatchObject({ outcome: "foreign", state: "running", prediction: held, duplicates: [] });
    }
    expect(await told(world, "n", sent)).toMatchObject({ outcome: "duplicate", prediction: held, duplicates: [P1] });
  });

  test("is bound by the item's own nonce all the same, unless its body shows another's input", async ({ line }) => {
    for (const [shown, input] of Object.entries(HIDING)) {
      const outcome = shown === "another seed" ? "foreign" : "bound";
      expect(await told(await openStanding(line, "unclear"), "n", input), shown).toMatchObject({ outcome });
    }
  });
});

describe("a late answer of the create's", () => {
  async function bookedBy(world: World, id: PredictionId): Promise<readonly string[]> {
    const { bucket, ledger, clock, redis } = world.line;
    await bookDuplicate(refOf(world), id, { bucket, ledger, provider: {}, warn: () => undefined, clock });
    return redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, world.batch));
  }

  test("is no duplicate of itself, while the prediction that its webhook told is followed", async ({ line }) => {
    const world = await openWorld(line);
    await claim(world);
    await take(world);
    expect(await bookedBy(world, P1)).toEqual([]);
    expect(await bookedBy(world, predictionId("p2"))).toEqual(["p2"]);
  });

  test("nor once that has ended, and only its receipt remains", async ({ line }) => {
    const world = await openWorld(line);
    await claim(world);
    await take(world);
    const ref = refOf(world);
    await line.ledger.move(ref, "conclude", { nowMs: line.clock() });
    await writeReceipt(
      line.bucket,
      ref,
      buildReceipt({
        ref,
        rowId: null,
        replyTo: null,
        webhookEvents: [],
        predictionId: P1,
        claimedAtMs: line.clock(),
        recordedAtMs: line.clock(),
        ending: { end: "failed", error: "no", answer: null, copied: [] },
        earlier: [],
      }),
    );
    await line.ledger.move(ref, "fail", { nowMs: line.clock() });
    expect(await bookedBy(world, P1)).toEqual([]);
    expect(await take(world)).toBe("late");
    expect(await bookedBy(world, predictionId("p2"))).toEqual(["p2"]);
  });
});
