/** Large files and the slots that a process copies with, over real sockets. */

import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { copyOutput } from "../../src/bucket/copy-output.ts";
import { type DownloadAgent, openDownloadAgent } from "../../src/bucket/download-agent.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { TEMPORARY_FOLDER } from "../../src/bucket/keys.ts";
import { type LargeFiles, NoLargeSlot, openLargeFiles } from "../../src/bucket/large-files.ts";
import { ACCOUNT, batchNamed } from "../support/stages.ts";

const LARGE = 10_000;
const signal = new AbortController().signal;

let folder: string;
let bucket: Bucket;
let server: Server;
let origin: string;
let agent: DownloadAgent;
let asked: string[];
/** Answers that were begun and wait for their end. */
let open: ServerResponse[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "outlast-large-"));
  bucket = await openFileBucket(folder);
  asked = [];
  open = [];
  // `/told-20000` announces its length, `/untold-20000` doesn't; with `-held` behind it, all but the last byte comes.
  server = createServer((request, response) => {
    const [, told, bytes = "0", held] = /^\/(told|untold)-(\d+)(-held)?/.exec(request.url ?? "") ?? [];
    asked.push(request.url ?? "");
    response.writeHead(200, told === "told" ? { "content-length": bytes } : {});
    if (held === undefined) return response.end("x".repeat(Number(bytes)));
    open.push(response);
    return response.write("x".repeat(Number(bytes) - 1));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  origin = `http://127.0.0.1:${address.port}`;
  agent = openDownloadAgent({ hosts: [parseHostRule(`127.0.0.1:${address.port}`)] });
});

afterEach(async () => {
  await agent.close();
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true, force: true });
});

/** The slot is taken before anything is written, and that before the file has come. */
async function untilSlotIsHeld(): Promise<void> {
  await expect.poll(async () => (await readdir(join(folder, TEMPORARY_FOLDER))).length).toBe(1);
}

/** Copies files of one output, each by its path. */
function copy(large: LargeFiles, paths: readonly string[], { index = 0, mayWait = true } = {}) {
  const ref = { account: ACCOUNT, batch: batchNamed("large"), index, attempt: 1 };
  return large.during(`${index}`, mayWait, async (through) => {
    const copied: number[] = [];
    for (const [n, path] of paths.entries()) {
      const file = { n, url: origin + path };
      const { bytes } = await through({ bucket, agent }, (ends) =>
        copyOutput(ends.bucket, ref, file, { agent: ends.agent, maxBytes: 1e6 }, signal),
      );
      copied.push(bytes);
    }
    return copied;
  });
}

for (const kind of ["told", "untold"]) {
  test(`a ${kind} large file that finds no slot waits, and small ones pass it`, async () => {
    const large = openLargeFiles(1, LARGE);
    const first = copy(large, ["/told-20000-held"], { index: 1 });
    await untilSlotIsHeld();

    await expect(copy(large, [`/${kind}-20000`], { index: 2 })).rejects.toThrow(NoLargeSlot);
    expect(await copy(large, [`/${kind}-9000`], { index: 3 })).toEqual([9_000]);
    const before = asked.length;
    await expect(copy(large, [`/${kind}-20000`], { index: 2 })).rejects.toThrow(NoLargeSlot);
    expect(asked.length, "it was found large before, so its host isn't asked again").toBe(before);

    open[0]?.end("x");
    expect(await first).toEqual([20_000]);
    expect(await copy(large, [`/${kind}-20000`], { index: 2 })).toEqual([20_000]);
  });
}

test("what waits no longer goes at once, and its slot is given back like any other", async () => {
  const large = openLargeFiles(1, LARGE);
  const first = copy(large, ["/told-20000-held"], { index: 1 });
  await untilSlotIsHeld();
  expect(await copy(large, ["/told-20000"], { index: 2, mayWait: false })).toEqual([20_000]);
  await expect(copy(large, ["/told-20000"], { index: 3 })).rejects.toThrow(NoLargeSlot);
  open[0]?.end("x");
  await first;
  expect(await copy(large, ["/told-20000"], { index: 3 })).toEqual([20_000]);
});

test("an output keeps its slot from one file to the next", async () => {
  const large = openLargeFiles(1, LARGE);
  const several = copy(large, ["/told-20000", "/told-10", "/untold-20000", "/told-20000-held"], { index: 1 });
  await untilSlotIsHeld();
  await expect(copy(large, ["/told-20000"], { index: 2 })).rejects.toThrow(NoLargeSlot);
  await expect.poll(() => open.length).toBe(1);
  open[0]?.end("x");
  expect(await several).toEqual([20_000, 10, 20_000, 20_000]);
});

test("a copy that fails gives its slot back", async () => {
  const large = openLargeFiles(1, LARGE);
  const broken = copy(large, ["/told-20000-held"], { index: 1 });
  await untilSlotIsHeld();
  open[0]?.destroy();
  await expect(broken).rejects.toThrow(/broke off/);
  expect(await copy(large, ["/told-20000"], { index: 2 })).toEqual([20_000]);
});
