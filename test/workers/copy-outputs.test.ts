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
import { answerOf } from "../../src/core/receipt.ts";
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

beforeAll(async () => {
  server = createServer((request, response) => {
    const path = request.url ?? "/";
    asked.push(path);
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

type World = { readonly line: Line; readonly errand: CopyErrand };

/** An item whose prediction succeeded with this output. */
async function openWorld(line: Line, output: unknown): Promise<World> {
  await line.clear();
  asked = [];
  const batch = await line.submit([{ prompt: "a" }]);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  await line.ledger.advance(ACCOUNT, batch, { before: 0, after: 1 }, [ref], NOON);
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: predictionId("p1") });
  const answer = answerOf(predictionOf("p1", { status: "succeeded", output }));
  const ending = await keepEnding(line.bucket, ref, { end: "saved", error: null, answer, copied: [] });
  await line.ledger.move(ref, "succeed", { nowMs: NOON, set: { ending } });
  return { line, errand: { ...ref, expiresAtMs: NOON + HOUR } };
}

function depsOf({ line }: World): CopyDeps {
  const { bucket, ledger, queues, clock } = line;
  return {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    copyFile: (ref, file, signal) => copyOutput(bucket, ref, file, { agent, maxBytes: 1e6 }, signal),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending, "copied"),
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

  test("fail the item where one is gone and its hour is over; what was saved before is named", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png", "/gone.png", "/3.png"));
    // Within the hour it is paid for, and a 404 may be anybody's.
    await expect(run(world)).rejects.toThrow(/404/);
    expect((await stand(world)).state).toBe("copying");
    line.clock.forward(HOUR + 1);
    expect(await run(world)).toEqual({ kind: "done" });
    const { state, ending, records } = await stand(world);
    expect({ state, records: records.length }).toEqual({ state: "recording", records: 1 });
    expect(ending).toMatchObject({ end: "failed", error: expect.stringMatching(/couldn't be saved: .*404/) });
    expect(ending.copied.map(({ from }) => from)).toEqual(urls("/1.png"));
  });

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

  test.for(["/busy.png", "/cut.png"])(
    "that stumble (%s) are tried again until they have surely expired",
    async (path, { line }) => {
      const world = await openWorld(line, urls("/1.png", path));
      await expect(run(world)).rejects.toThrow(DownloadError);
      expect(await stand(world)).toMatchObject({ state: "copying", records: [], ending: { copied: [] } });
      expect(await line.bucket.head(keyOf(world, 1, "png"))).toBeNull();

      line.clock.forward(HOUR + 10 * MINUTE);
      await expect(run(world)).rejects.toThrow(DownloadError);
      line.clock.forward(1);
      expect(await run(world)).toEqual({ kind: "done" });
      expect((await stand(world)).ending).toMatchObject({ end: "failed" });
    },
  );

  test("are left alone where the bucket is the trouble: that is no end of an item", async ({ line }) => {
    const world = await openWorld(line, urls("/1.png"));
    line.clock.forward(3 * HOUR);
    const copyFile = () => Promise.reject(new Error("the bucket is full"));
    await expect(run(world, { ...depsOf(world), copyFile })).rejects.toThrow("full");
    expect((await stand(world)).state).toBe("copying");
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
