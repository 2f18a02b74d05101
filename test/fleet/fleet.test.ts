/**
 * The fleet that `docker compose --profile demo up` makes, from Dockerfile and docker-compose.yml as they are: the images
 * are built, a batch goes in by the queue API, one of three workers is killed in the middle of it, and in the end the
 * provider's books say what was bought and what was fetched.
 *
 *   OUTLAST_TEST_FLEET=1      runs it: it wants an engine, docker compose (or docker-compose from 1.28 on) and minutes
 *   OUTLAST_TEST_REDIS_IMAGE  another image than redis:7
 *   OUTLAST_TEST_BASE_IMAGE   a Debian image to make the one of Node from, where node:24 can't be pulled (node-image.ts)
 */

import { createHash } from "node:crypto";
import { afterAll, beforeAll, expect, onTestFailed, test, vi } from "vitest";
import type { BatchReport } from "../../src/batches/report-batch.ts";
import type { ResultLine } from "../../src/core/receipt.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";
import type { Audit, FileRow } from "../../src/emulator/books.ts";
import { type Compose, docker, findCompose, openCompose } from "./compose.ts";
import { buildNodeImage } from "./node-image.ts";

const ITEMS = 300;
/** The API's key where no token is set. */
const KEY = "outlast-demo-key";

const BUILD_MS = 8 * MINUTE;
const UP_MS = 2 * MINUTE;
const BATCH_MS = 5 * MINUTE;
const ASK_MS = 30 * SECOND;

const found =
  process.env["OUTLAST_TEST_FLEET"] === "1" ? await findCompose() : { missing: "set OUTLAST_TEST_FLEET=1 to run it" };

if ("missing" in found) test("the composed fleet", ({ skip }) => skip(found.missing));
else suite(found.command);

function suite(command: readonly string[]): void {
  let fleet: Compose;
  let serve = "";
  let emulator = "";
  let batch = "";
  let survivors: readonly string[] = [];

  beforeAll(async () => {
    fleet = await openCompose(command, {
      ...(await images()),
      OUTLAST_PORT: "0",
      EMULATOR_PORT: "0",
      OUTLAST_SETTLING_SECONDS: "5", // the emulator lists a prediction at once
    });
    await fleet.run(["build"], BUILD_MS);
    await up();
  }, BUILD_MS + UP_MS);
  afterAll(() => fleet?.[Symbol.asyncDispose](), UP_MS);

  test("nobody in it is root, and only production's dependencies are there", { timeout: UP_MS }, async () => {
    tellOnFailure();
    const look = "id -un; ls node_modules";
    const [user, ...packages] = (await fleet.run(["exec", "-T", "serve", "sh", "-c", look])).split("\n");
    expect(user).toBe("node");
    expect(packages).toContain("bullmq");
    expect(packages.filter((name) => ["vitest", "typescript", "miniflare", "node"].includes(name))).toEqual([]);
    expect(await fleet.run(["exec", "-T", "s3", "id", "-un"])).toBe("node");
  });

  test("a batch ends as the provider's books say, though a worker is killed in the middle", {
    timeout: BATCH_MS + UP_MS,
  }, async () => {
    tellOnFailure();
    batch = await submit();
    const [killed = "", ...others] = await fleet.containers("worker");
    survivors = others;
    expect(survivors).toHaveLength(2);
    await expect.poll(async () => (await report()).saved, { timeout: BATCH_MS, interval: 200 }).toBeGreaterThan(30);
    await docker("kill", killed);
    expect(await report()).toMatchObject({ state: "running" });

    // What was being claimed at that moment is unclear, until the provider's list has settled what became of it.
    await expect.poll(async () => (await report()).state, { timeout: BATCH_MS, interval: SECOND }).toBe("finished");
    const end = await report();
    expect(end).toMatchObject({ items: ITEMS, saved: ITEMS, failed: 0, canceled: 0, unclear: 0 });

    const books = await audit();
    expect(books.creates).toMatchObject({ total: ITEMS, distinct_inputs: ITEMS, surplus: 0 });
    expect(books.tokens_out_of_place).toEqual([]);
    const served = new Set(books.file_list.map(({ sha256 }) => sha256));
    const kept = (await results()).flatMap(({ outputs }) => outputs.map(({ sha256 }) => sha256));
    expect(new Set(kept).size).toBe(ITEMS);
    expect(kept.filter((sha256) => !served.has(sha256))).toEqual([]);
  });

  test("workers that are told to stop drain, and what was done is there after everything was taken down", {
    timeout: 3 * UP_MS,
  }, async () => {
    tellOnFailure();
    const [before, lines] = [await report(), await results()];
    await fleet.run(["stop", "worker"], UP_MS);
    const exits = await docker("inspect", "--format", "{{.State.ExitCode}}", ...survivors);
    expect(exits.split("\n")).toEqual(["0", "0"]);

    await fleet.run(["down"], UP_MS);
    await up();
    expect(await report()).toEqual(before);
    expect(await results()).toEqual(lines);
    const line = lines.findLast(({ status }) => status === "saved");
    const file = await ask(line?.outputs[0]?.url ?? "");
    const sha256 = createHash("sha256")
      .update(await file.bytes())
      .digest("hex");
    expect(sha256).toBe(line?.outputs[0]?.sha256);
  });

  /** Until `serve` says that Redis and bucket answer, and Docker has found it healthy. */
  async function up(): Promise<void> {
    await fleet.run(["up", "--detach", "--scale", "worker=3"], UP_MS);
    const [container = ""] = await fleet.containers("serve");
    const health = () => docker("inspect", "--format", "{{.State.Health.Status}}", container);
    await vi.waitUntil(async () => (await health()) === "healthy", { timeout: UP_MS, interval: SECOND });
    serve = await fleet.originOf("serve", 7_700);
    emulator = await fleet.originOf("emulator", 7_810);
    await ask("/ready");
  }

  async function ask(path: string, rows?: readonly string[]): Promise<Response> {
    const answer = await fetch(serve + path, {
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/x-ndjson" },
      signal: AbortSignal.timeout(ASK_MS),
      ...(rows !== undefined && { method: "POST", body: rows.join("\n") }),
    });
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
    return answer;
  }

  async function submit(): Promise<string> {
    const rows = Array.from({ length: ITEMS }, (_, at) => JSON.stringify({ input: { prompt: `prompt number ${at}` } }));
    const answer = await ask("/v1/batches?name=fleet&model=outlast/picture", rows);
    return ((await answer.json()) as BatchReport).batch;
  }

  async function report(): Promise<BatchReport> {
    return (await (await ask(`/v1/batches/${batch}`)).json()) as BatchReport;
  }

  /** With addresses from the server's root: after a restart it has another port. */
  async function results(): Promise<readonly ResultLine[]> {
    const text = await (await ask(`/v1/batches/${batch}/results`)).text();
    const lines = text.split("\n").filter((line) => line !== "");
    return lines
      .map((line) => JSON.parse(line) as ResultLine)
      .map(({ outputs, ...line }) => ({
        ...line,
        outputs: outputs.map((file) => ({ ...file, url: pathOf(file.url) })),
      }));
  }

  function pathOf(url: string): string {
    const { pathname, search } = new URL(url);
    return `${pathname}${search}`;
  }

  async function audit(): Promise<Audit & { readonly file_list: readonly FileRow[] }> {
    const answer = await fetch(`${emulator}/__audit?files=1`, { signal: AbortSignal.timeout(ASK_MS) });
    return (await answer.json()) as Audit & { readonly file_list: readonly FileRow[] };
  }

  function tellOnFailure(): void {
    onTestFailed(async () => console.error(await fleet.run(["logs", "--no-color", "--tail", "40"])));
  }
}

/** Where the real images can't be pulled, others stand in for them. */
async function images(): Promise<Readonly<Record<string, string>>> {
  const { OUTLAST_TEST_REDIS_IMAGE: redis = "", OUTLAST_TEST_BASE_IMAGE: base = "" } = process.env;
  const node = "outlast-test/node:24";
  if (base !== "") await buildNodeImage(base, node);
  return { ...(redis !== "" && { REDIS_IMAGE: redis }), ...(base !== "" && { NODE_IMAGE: node }) };
}
