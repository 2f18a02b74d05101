import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import { copyOutput } from "../../src/bucket/copy-output.ts";
import { DownloadError } from "../../src/bucket/download.ts";
import { type DownloadAgent, openDownloadAgent } from "../../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import { type AttemptRef, errandId, OBJECT_KEYS, type ObjectKey, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { type Answer, answerOf } from "../../src/core/receipt.ts";
import { HOUR, MINUTE } from "../../src/core/time.ts";
import type { CopyErrand } from "../../src/queues/queues.ts";
import { type CopyDeps, copyOutputs } from "../../workers/copy-outputs.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, NOON, predictionOf, test } from "../support/stages.ts";

/** A host whose files hold their own path, but for those that are gone or broken. */
let server: Server;
let origin = "";
let agent: DownloadAgent;
let asked: string[] = [];
/** How often "returns" is refused. */
let returns = 0;

beforeAll(async () => {
  server = createServer((request, response) => {
    const path = request.url ?? "/";
    asked.push(path);
    if (path.includes("returns") && returns-- > 0) return response.writeHead(403).end();
    if (path.includes("gone")) return response.writeHead(404).end();
    if (path.includes("busy")) return response.writeHead(503).end();
    if (path.includes("page")) return response.writeHead(200, { "content-type": "text/html" }).end("<html>busy</html>");
    if (path.includes("cut")) {
      response.writeHead(200, { "content-length": "100" });
      return response.write("ten bytes.", () => response.destroy());
    }
    response.writeHead(200, { "content-type": path.includes("typed") ? "audio/wav" : "image/png" });
    return response.end(bodyOf(path));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  origin = `http://127.0.0.1:${address.port}`;
  agent = openDownloadAgent({ hosts: [parseHostRule(`127.0.0.1:${address.port}`)] });
});

afterAll(async () => {
  await agent.close();
  server.closeAllConnections();
  server.close();
});

/** Bytes, since no text passes for a picture. */
const bodyOf = (path: string) => Buffer.from(`\u0000the file ${path}`.repeat(100));

type World = {
  readonly line: Line;
  readonly errand: CopyErrand;
  /** How often the prediction was read again. */
  readonly reads: string[];
};

/** An item whose prediction succeeded with this output, or ended as `status` says. */
async function openWorld(
  line: Line,
  output: unknown,
  status: Answer["status"] = "succeeded",
  times: Partial<Pick<Answer, "createdAt" | "completedAt">> = {},
): Promise<World> {
  await line.clear();
  asked = [];
  const batch = await line.submit([{ prompt: "a" }]);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  await line.ledger.advance(ACCOUNT, batch, { before: 0, after: 1 }, [ref], NOON);
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: predictionId("p1") });
  const answer = answerOf(predictionOf("p1", { status, output, ...times }));
  const end = status === "succeeded" ? "saved" : status === "failed" ? "failed" : "canceled";
  const ending = await keepEnding(line.bucket, ref, {
    end,
    error: end === "saved" ? null : "the provider's word",
    answer,
    copied: [],
  });
  await line.ledger.move(ref, status === "succeeded" ? "succeed" : "salvage", { nowMs: NOON, set: { ending } });
  return { line, errand: { ...ref, expiresAtMs: NOON + HOUR }, reads: [] };
}

function depsOf({ line, reads }: World): CopyDeps {
  const { bucket, ledger, queues, clock } = line;
  return {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    copyFile: (ref, file, signal) => copyOutput(bucket, ref, file, { agent, maxBytes: 1e6 }, signal),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending, "copied"),
    isDataRemoved: async (_ref, prediction) => {
      reads.push(prediction);
      return false;
    },
    noteProgress: async (ref, progress) => void (await ledger.markItem(ref, "progress", progress)),
    move: ledger.move,
    enqueueRecord: queues.record,
    clock,
  };
}

const signal = new AbortController().signal;
const run = (world: World, deps = depsOf(world)) => copyOutputs(world.errand, deps, signal);

async function stand({ line, errand }: World) {
  const { state, fields } = await line.ledger.readItem(errand);
  return {
    state,
    ending: await readEnding(line.bucket, errand, fields.ending ?? ""),
    records: (await line.jobs(QUEUE_NAMES.record)).map(({ id }) => id),
  };
}

const urls = (...paths: readonly string[]) => paths.map((path) => origin + path);
const keyOf = ({ errand }: World, n: number, extension: string) => OBJECT_KEYS.output(errand.batch, 0, 1, n, extension);

describe("the files of an output", () => {
  test("are in the bucket byte for byte, under keys in their order, with what proves it", async ({ line }) => {
    const [first, second] = urls("/a/one.png", "/b/two?x=1");
    const output = {
      text: "words",
      files: [first, { again: first, other: `${second}&typed` }],
      tiny: "data:text/plain;base64,aGk=",
    };
    const world = await openWorld(line, output);
    expect(await run(world)).toEqual({ kind: "done" });

    const { state, ending, records } = await stand(world);
    expect(state).toBe("recording");
    expect(records).toEqual([errandId(world.errand)]);
    expect(ending).toMatchObject({ end: "saved", error: null });
    const expected: readonly (readonly [from: string, extension: string, type: string, body: Buffer])[] = [
      [first ?? "", "png", "image/png", bodyOf("/a/one.png")],
      [`${second}&typed`, "wav", "audio/wav", bodyOf("/b/two?x=1&typed")],
      ["data:text/plain;base64,aGk=", "txt", "text/plain", Buffer.from("hi")],
    ];
    expect(ending.copied).toEqual(
      expected.map(([from, extension, type, body], n) => {
        const key = keyOf(world, n, extension);
        const sha256 = createHash("sha256").update(body).digest("hex");
        return { from, key, url: line.bucket.urlOf(key), bytes: body.length, sha256, content_type: type };
      }),
    );
    for (const [n, [, extension, , body]] of expected.entries()) {
      expect(await line.bucket.get(keyOf(world, n, extension), { maxBytes: 1e6 })).toEqual(body);
    }
    expect(asked).toEqual(["/a/one.png", "/b/two?x=1&typed"]);
  });

  test("fail the item where one is gone and its hour is over; the others are kept", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png", "/gone.png", "/3.png", "/gone-too.png"));
    line.clock.forward(HOUR + 1);
    expect(await run(world)).toEqual({ kind: "done" });
    const { state, ending, records } = await stand(world);
    expect({ state, records: records.length }).toEqual({ state: "recording", records: 1 });
    const error = expect.stringMatching(/couldn't be saved: .*gone\.png answered 404.*\(and 1 more of its files\)$/);
    expect(ending).toMatchObject({ end: "failed", error });
    expect(ending.copied.map(({ from }) => from)).toEqual(urls("/1.png", "/3.png"));
    expect(ending.unsaved?.map(({ url }) => url)).toEqual(urls("/gone.png", "/gone-too.png"));
    expect(world.reads, "whatever the provider says of it").toEqual([]);
  });

  test("that are refused are gone when that came three times over two minutes, each time with a look at the prediction", async ({
    line,
  }) => {
    const world = await openWorld(line, urls("/1.png", "/gone.png"));
    for (const atMs of [0, MINUTE]) {
      expect(await run(world)).toEqual({ kind: "snooze", untilMs: NOON + atMs + MINUTE });
      expect(await stand(world)).toMatchObject({ state: "copying", records: [] });
      line.clock.forward(MINUTE);
    }
    expect(await run(world)).toEqual({ kind: "done" });
    const { state, ending } = await stand(world);
    expect(state).toBe("recording");
    expect(ending).toMatchObject({ end: "failed", error: expect.stringMatching(/404.*refused again and again/) });
    expect(ending.copied.map(({ from }) => from)).toEqual(urls("/1.png"));
    expect(world.reads).toEqual(["p1", "p1", "p1"]);
    expect(asked, "what is copied isn't asked for again").toEqual(["/1.png", "/gone.png", "/gone.png", "/gone.png"]);
  });

  test("that were refused for a moment are saved", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png", "/returns.png"));
    returns = 2;
    for (let times = 0; times < 2; times++) {
      expect(await run(world)).toMatchObject({ kind: "snooze" });
      line.clock.forward(MINUTE);
    }
    expect(await run(world)).toEqual({ kind: "done" });
    const { ending } = await stand(world);
    expect(ending).toMatchObject({ end: "saved", error: null });
    expect(ending.copied.map(({ from }) => from)).toEqual(urls("/1.png", "/returns.png"));
    expect(ending.unsaved).toBeUndefined();
  });

  test("are gone at once where the provider has removed the prediction's data", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png", "/gone.png", "/busy.png"));
    expect(await run(world, { ...depsOf(world), isDataRemoved: async () => true })).toEqual({ kind: "done" });
    const { ending } = await stand(world);
    expect(ending).toMatchObject({ end: "failed", error: expect.stringMatching(/404.*has removed.*\(and 1 more/) });
    expect(ending.copied).toHaveLength(1);
    expect(ending.unsaved).toHaveLength(2);
  });

  test("wait where nobody can say whether they are removed, to their hour's end", async ({ line }) => {
    const world = await openWorld(line, urls("/gone.png"));
    line.clock.forward(HOUR - 1);
    const outcome = await run(world, { ...depsOf(world), isDataRemoved: async () => null });
    expect(outcome).toEqual({ kind: "snooze", untilMs: NOON + HOUR + 1 });
    line.clock.forward(2);
    expect(await run(world)).toEqual({ kind: "done" });
    expect((await stand(world)).ending.end).toBe("failed");
  });

  test.for(["failed", "canceled", "aborted"] as const)(
    "of a prediction that %s are kept; one that can't be had changes nothing of its end, and is named",
    async (status, { line }) => {
      const world = await openWorld(line, urls("/1.png", "/gone.png", "/3.png"), status);
      for (let times = 0; times < 2; times++) {
        expect(await run(world)).toMatchObject({ kind: "snooze" });
        line.clock.forward(MINUTE);
      }
      expect(await run(world)).toEqual({ kind: "done" });
      const { state, ending } = await stand(world);
      expect(state).toBe("recording");
      expect(ending).toMatchObject({
        end: status === "failed" ? "failed" : "canceled",
        error: "the provider's word",
        unsaved: [{ url: urls("/gone.png")[0], why: expect.stringContaining("404") }],
      });
      expect(ending.copied.map(({ from }) => from)).toEqual(urls("/1.png", "/3.png"));
    },
  );

  test("on a host that isn't allowed are never asked for", async ({ line }) => {
    const world = await openWorld(line, ["http://169.254.169.254/latest/meta-data"]);
    await run(world);
    expect((await stand(world)).ending).toMatchObject({ end: "failed", copied: [] });
  });

  test("that turn out to be an error page are tried again to the end of the hour", async ({ line }) => {
    const world = await openWorld(line, urls("/page.png"));
    line.clock.forward(HOUR);
    await expect(run(world)).rejects.toThrow(/HTML/);
    line.clock.forward(1);
    expect(await run(world)).toEqual({ kind: "done" });
    const error = expect.stringMatching(/couldn't be saved: .*HTML page, where image\/png/);
    expect((await stand(world)).ending).toMatchObject({ end: "failed", error, copied: [] });
  });

  test("that stand in the output itself, and are wrong there, aren't waited for", async ({ line }) => {
    const wrong = ["data:image/png;base64,", "data:image/png,%3Chtml%3E", "data:image/png;base64,a"];
    const world = await openWorld(line, [...wrong, "data:image/gif;base64,R0lGODlhAQABAAAAACw="]);
    expect(await run(world)).toEqual({ kind: "done" });
    const { ending } = await stand(world);
    expect(ending.end).toBe("failed");
    expect(ending.unsaved?.map(({ url }) => url)).toEqual(wrong);
    expect(ending.copied.map(({ content_type }) => content_type)).toEqual(["image/gif"]);
  });

  test.for(["/busy.png", "/cut.png"])(
    "that stumble (%s) are tried again until they have surely expired",
    async (path, { line }) => {
      const world = await openWorld(line, urls("/1.png", path));
      await expect(run(world)).rejects.toThrow(DownloadError);
      expect(await stand(world)).toMatchObject({ state: "copying", records: [], ending: { copied: [] } });
      asked = [];
      expect(await line.bucket.head(keyOf(world, 1, "png"))).toBeNull();

      line.clock.forward(HOUR + 10 * MINUTE);
      await expect(run(world)).rejects.toThrow(DownloadError);
      line.clock.forward(1);
      expect(await run(world)).toEqual({ kind: "done" });
      expect((await stand(world)).ending).toMatchObject({ end: "failed" });
      expect(new Set(asked), "what is copied isn't asked for again").toEqual(new Set([path]));
    },
  );

  test.for(["/busy.png", "/cut.png", "/page.png", "/returns.png"])(
    "of a prediction that ended an hour and more after its creation aren't given up at the first stumble (%s)",
    async (path, { line }) => {
      const world = await openWorld(line, urls(path), "succeeded", {
        createdAt: new Date(NOON).toISOString(),
        completedAt: new Date(NOON + 75 * MINUTE).toISOString(),
      });
      returns = 1;
      line.clock.forward(75 * MINUTE);
      const again = await run(world).catch((error: unknown) => error);
      if (again instanceof DownloadError) expect(again.kind).not.toBe("gone");
      else expect(again).toEqual({ kind: "snooze", untilMs: NOON + 76 * MINUTE });
      expect(await stand(world)).toMatchObject({ state: "copying", records: [] });
      line.clock.forward(70 * MINUTE + 1);
      expect(await run(world)).toEqual({ kind: "done" });
    },
  );

  test("are left alone where the bucket is the trouble: that is no end of an item", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png"));
    line.clock.forward(3 * HOUR);
    const copyFile = () => Promise.reject(new Error("the bucket is full"));
    await expect(run(world, { ...depsOf(world), copyFile })).rejects.toThrow("full");
    expect((await stand(world)).state).toBe("copying");
  });

  test("that were copied before the bucket gave up aren't asked for again", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png", "/2.png", "/3.png"));
    const deps = depsOf(world);
    const copyFile: CopyDeps["copyFile"] = (ref, file, aborted) =>
      file.n === 1 ? Promise.reject(new Error("the bucket is full")) : deps.copyFile(ref, file, aborted);
    await expect(run(world, { ...deps, copyFile })).rejects.toThrow("full");
    expect(await run(world)).toEqual({ kind: "done" });
    expect(asked).toEqual(["/1.png", "/2.png", "/3.png"]);
    const { ending } = await stand(world);
    expect(ending.end).toBe("saved");
    expect(ending.copied).toHaveLength(3);
  });
});

test("an errand of another attempt, or of an item that has ended, does nothing", async ({ line }) => {
  const world = await openWorld(line, urls("/1.png"));
  const before = await line.look();
  expect(await copyOutputs({ ...world.errand, attempt: 2 }, depsOf(world), signal)).toEqual({ kind: "done" });
  expect(await line.look()).toEqual(before);
  for (const step of ["finishCopy", "save"] as const) await line.ledger.move(world.errand, step, { nowMs: NOON });
  const ended = await line.look();
  expect(await run(world)).toEqual({ kind: "done" });
  expect(await line.look()).toEqual(ended);
  expect(asked).toEqual([]);
});

describe("killed after any effect and run again twice,", () => {
  const long = "x".repeat(9_000);
  test.for<readonly [string, (at: typeof urls) => unknown, effects: number]>([
    ["a copy of three files", (at) => at("/1.png", "/2.png", "/3.png"), 8],
    ["a copy with a long answer", (at) => [...at("/1.png", "/2.png"), long], 7],
    ["a copy of a file that is gone", (at) => at("/1.png", "/gone.png"), 7],
  ])("%s ends as if nothing had happened", async ([, output, effects], { line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: async () => {
        const world = await openWorld(line, output(urls));
        line.clock.forward(HOUR + 1);
        return world;
      },
      run: (world, wrap) => run(world, wrap(depsOf(world))),
      look: ({ line: { look } }) => look(),
    });
    expect(crashes).toHaveLength(effects);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
    expect(Object.keys(undisturbed.objects).filter((key) => key.includes("/output-")).length).toBeGreaterThan(0);
  });
});

test("killed after any effect, a copy of a file that is refused again and again comes to the same end", async ({
  line,
}) => {
  const { undisturbed, crashes } = await everyCrash({
    open: () => openWorld(line, urls("/1.png", "/gone.png")),
    run: async (world, wrap) => {
      for (let times = 0; times < 3; times++) {
        await run(world, wrap(depsOf(world)));
        line.clock.forward(2 * MINUTE);
      }
    },
    look: async (world) => {
      const { state, ending, records } = await stand(world);
      const { end, error, unsaved, copied } = ending;
      return { state, records, end, error, unsaved, copied: copied.map(({ key, sha256 }) => ({ key, sha256 })) };
    },
  });
  expect(undisturbed).toMatchObject({ state: "recording", end: "failed", copied: [{}] });
  expect(crashes.length).toBeGreaterThan(5);
  for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
});

test("a late copy of another worker doesn't undo what was recorded meanwhile", async ({ line }) => {
  const world = await openWorld(line, urls("/1.png"));
  const deps = depsOf(world);
  const copyFile: CopyDeps["copyFile"] = async (ref, file, aborted) => {
    const copied = await deps.copyFile(ref, file, aborted);
    await run(world);
    return { ...copied, sha256: "of the late one" };
  };
  await run(world, { ...deps, copyFile });
  const { state, ending, records } = await stand(world);
  expect({ state, records }).toEqual({ state: "recording", records: [errandId(world.errand)] });
  expect(ending.copied[0]?.sha256).not.toBe("of the late one");
  const key: ObjectKey = keyOf(world, 0, "png");
  expect(await line.bucket.get(key, { maxBytes: 1e6 })).toEqual(bodyOf("/1.png"));
});
