import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import fc from "fast-check";
import { test as base, describe, expect } from "vitest";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { compareKeys } from "../../src/bucket/keys.ts";
import { bucketSuite } from "./bucket-suite.ts";

const TEXT = { contentType: "text/plain" };
const DAY_MS = 86_400_000;

bucketSuite("a folder", async () => {
  const folder = await mkdtemp(join(tmpdir(), "outlast-bucket-"));
  return {
    bucket: await openFileBucket(folder),
    other: await openFileBucket(folder),
    leftovers: async () => readdir(join(folder, ".outlast-tmp")),
    stop: async () => rm(folder, { recursive: true, force: true }),
  };
});

// oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
const test = base.extend("folder", async ({}, { onCleanup }) => {
  const folder = await mkdtemp(join(tmpdir(), "outlast-bucket-"));
  onCleanup(() => rm(folder, { recursive: true, force: true }));
  return folder;
});

const keysOf = async (bucket: Bucket, prefix = ""): Promise<string[]> =>
  (await Array.fromAsync(bucket.list(prefix))).map(({ key }) => key);

describe("a folder as a bucket", () => {
  test("is made where it is missing, and holds plain files at the paths their keys say", async ({ folder }) => {
    const bucket = await openFileBucket(join(folder, "new/outputs"));
    await bucket.put("batches/b1/output-0.png", "pixels", TEXT);
    expect(await readFile(join(folder, "new/outputs/batches/b1/output-0.png"), "utf8")).toBe("pixels");
    expect(bucket.url).toBe(`file:${folder}/new/outputs`);
    expect(bucket.urlOf("a/b.txt")).toBe(`file:${folder}/new/outputs/a/b.txt`);
  });

  test("tells a content type from the extension", async ({ folder }) => {
    const bucket = await openFileBucket(folder);
    await bucket.put("a.webp", "x", TEXT);
    await bucket.put("a", "x", TEXT);
    expect((await Array.fromAsync(bucket.list(""))).map(({ contentType }) => contentType)).toEqual([
      null,
      "image/webp",
    ]);
  });

  test("never shows a file before it is whole", async ({ folder }) => {
    const bucket = await openFileBucket(folder);
    let release = (): void => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    async function* slow(): AsyncGenerator<Buffer> {
      yield Buffer.alloc(100_000);
      await released;
      yield Buffer.alloc(100_000);
    }
    const put = bucket.putStream("slow.bin", Readable.from(slow(), { objectMode: false }), TEXT);
    const temporary = join(folder, ".outlast-tmp");
    await expect.poll(async () => (await readdir(temporary)).length).toBe(1);
    expect(await keysOf(bucket)).toEqual([]);
    expect(await bucket.head("slow.bin")).toBeNull();
    release();
    await put;
    expect(await keysOf(bucket)).toEqual(["slow.bin"]);
    expect(await readdir(temporary)).toEqual([]);
  });

  test("whose writer is killed at any moment holds only whole objects", async ({ folder }) => {
    const program = `
      import { openFileBucket } from ${JSON.stringify(new URL("../../src/bucket/file-bucket.ts", import.meta.url).href)};
      const bucket = await openFileBucket(${JSON.stringify(folder)});
      console.log("writing");
      for (let n = 0; ; n++) {
        const body = String(n % 10).repeat(300_000);
        await Promise.all([bucket.put("put.txt", body, {}), bucket.putOnce("once/" + n + ".txt", body, {})]);
      }`;
    for (let round = 0; round < 4; round++) {
      const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(child.stdout, "data");
      const bucket = await openFileBucket(folder);
      await expect.poll(async () => (await bucket.head("put.txt"))?.bytes).toBe(300_000);
      child.kill("SIGKILL");
      await once(child, "exit");
      for (const key of await keysOf(bucket)) {
        const body = (await bucket.get(key, { maxBytes: 300_000 }))?.toString() ?? "";
        expect(body).toBe((body[0] ?? "?").repeat(300_000));
      }
      await rm(join(folder, "once"), { recursive: true, force: true });
    }
  });

  test("loses temporary files of yesterday when it is opened, and keeps those of today", async ({ folder }) => {
    const temporary = join(folder, ".outlast-tmp");
    await mkdir(temporary);
    await writeFile(join(temporary, "old"), "x");
    await utimes(join(temporary, "old"), new Date(), new Date(Date.now() - DAY_MS - 60_000));
    await writeFile(join(temporary, "young"), "x");
    await openFileBucket(folder);
    expect(await readdir(temporary)).toEqual(["young"]);
  });

  test("goes on after a tidy person removed its hidden folder or its objects' folders", async ({ folder }) => {
    const bucket = await openFileBucket(folder);
    await bucket.put("a/b/c.txt", "1", TEXT);
    await rm(join(folder, ".outlast-tmp"), { recursive: true });
    await bucket.put("a/b/d.txt", "2", TEXT);
    expect(await keysOf(bucket)).toEqual(["a/b/c.txt", "a/b/d.txt"]);
    await rm(join(folder, "a"), { recursive: true });
    await bucket.put("a/b/e.txt", "3", TEXT);
    await rm(join(folder, "a"), { recursive: true });
    expect(await bucket.putOnce("a/b/f.txt", "4", TEXT)).toBe(true);
    expect(await keysOf(bucket)).toEqual(["a/b/f.txt"]);
  });

  test("that is gone says so, and isn't made anew behind anybody's back", async ({ folder }) => {
    const bucket = await openFileBucket(join(folder, "disk"));
    await bucket.put("a/b.txt", "x", TEXT);
    await rm(join(folder, "disk"), { recursive: true });
    const gone = { name: "BucketError", code: "missing-bucket" };
    await expect(bucket.put("a/b.txt", "x", TEXT)).rejects.toMatchObject(gone);
    await expect(bucket.putOnce("c.txt", "x", TEXT)).rejects.toMatchObject(gone);
    await expect(bucket.get("a/b.txt", { maxBytes: 1 })).rejects.toMatchObject(gone);
    await expect(bucket.head("a/b.txt")).rejects.toMatchObject(gone);
    await expect(keysOf(bucket)).rejects.toMatchObject(gone);
    await expect(keysOf(bucket, "a/")).rejects.toMatchObject(gone);
    expect(await readdir(folder)).toEqual([]);
  });

  test("in whose place a plain file stands is gone, whatever is asked of it", async ({ folder }) => {
    const bucket = await openFileBucket(join(folder, "disk"));
    await bucket.put("a/b.txt", "x", TEXT);
    await rm(join(folder, "disk"), { recursive: true });
    await writeFile(join(folder, "disk"), "mine");
    const gone = { name: "BucketError", code: "missing-bucket" };
    for (const key of ["a.txt", "a/b.txt", "a/b/c.txt"]) {
      await expect(bucket.put(key, "x", TEXT)).rejects.toMatchObject(gone);
      await expect(bucket.putOnce(key, "x", TEXT)).rejects.toMatchObject(gone);
      await expect(bucket.putStream(key, Readable.from(["x"]), TEXT)).rejects.toMatchObject(gone);
      await expect(bucket.get(key, { maxBytes: 1 })).rejects.toMatchObject(gone);
      await expect(bucket.getRange(key, 0, 1)).rejects.toMatchObject(gone);
      await expect(bucket.getStream(key)).rejects.toMatchObject(gone);
      await expect(bucket.head(key)).rejects.toMatchObject(gone);
      await expect(bucket.delete(key)).rejects.toMatchObject(gone);
    }
    await expect(keysOf(bucket)).rejects.toMatchObject(gone);
    await expect(keysOf(bucket, "a/")).rejects.toMatchObject(gone);
    expect(await readFile(join(folder, "disk"), "utf8")).toBe("mine");
  });

  test("refuses an object whose name would have to be a file and a folder at once", async ({ folder }) => {
    const bucket = await openFileBucket(folder);
    await bucket.put("a", "x", TEXT);
    await bucket.put("b/c", "x", TEXT);
    const refused = { name: "BucketError", code: "bad-key" };
    await expect(bucket.put("a/b", "x", TEXT)).rejects.toMatchObject(refused);
    await expect(bucket.put("a/b/c", "x", TEXT)).rejects.toMatchObject(refused);
    await expect(bucket.putOnce("a/b", "x", TEXT)).rejects.toMatchObject(refused);
    await expect(bucket.put("b", "x", TEXT)).rejects.toMatchObject(refused);
    await expect(bucket.putOnce("b", "x", TEXT)).rejects.toMatchObject(refused);
    expect(await bucket.get("a/b", { maxBytes: 1 })).toBeNull();
    expect(await bucket.get("b", { maxBytes: 1 })).toBeNull();
    await bucket.delete("b");
    expect(await keysOf(bucket)).toEqual(["a", "b/c"]);
    expect(await readdir(join(folder, ".outlast-tmp"))).toEqual([]);
  });

  test("follows no symbolic link, neither to read nor to write nor to list", async ({ folder }) => {
    const outside = join(folder, "outside");
    const inside = join(folder, "bucket");
    await mkdir(join(outside, "sub"), { recursive: true });
    await writeFile(join(outside, "secret.txt"), "secret");
    const bucket = await openFileBucket(inside);
    await bucket.put("real/a.txt", "a", TEXT);
    await symlink(outside, join(inside, "door"));
    await symlink(join(outside, "secret.txt"), join(inside, "real/link.txt"));
    const refused = { name: "BucketError", code: "bad-key" };
    for (const key of ["door/secret.txt", "real/link.txt"]) {
      await expect(bucket.get(key, { maxBytes: 100 })).rejects.toMatchObject(refused);
      await expect(bucket.getStream(key)).rejects.toMatchObject(refused);
      await expect(bucket.head(key)).rejects.toMatchObject(refused);
    }
    for (const key of ["door/new.txt", "door/sub/new.txt", "door/sub/deep/new.txt"]) {
      await expect(bucket.put(key, "x", TEXT)).rejects.toMatchObject(refused);
      await expect(bucket.putOnce(key, "x", TEXT)).rejects.toMatchObject(refused);
    }
    await expect(bucket.delete("door/secret.txt")).rejects.toMatchObject(refused);
    await expect(keysOf(bucket, "door/")).rejects.toMatchObject(refused);
    expect(await keysOf(bucket)).toEqual(["real/a.txt"]);
    await bucket.put("real/link.txt", "own", TEXT); // replaces the link, not what it led to
    expect(await readFile(join(outside, "secret.txt"), "utf8")).toBe("secret");
    expect(await readdir(join(outside, "sub"))).toEqual([]);
  });

  test("opened through a symbolic link is the folder behind it", async ({ folder }) => {
    await mkdir(join(folder, "real"));
    await symlink(join(folder, "real"), join(folder, "link"));
    const bucket = await openFileBucket(join(folder, "link"));
    await bucket.put("a.txt", "x", TEXT);
    expect(bucket.url).toBe(`file:${folder}/real`);
    expect(await keysOf(bucket)).toEqual(["a.txt"]);
  });

  test("shows nothing that no key could name", async ({ folder }) => {
    const bucket = await openFileBucket(folder);
    await bucket.put("a.txt", "x", TEXT);
    await writeFile(join(folder, "back\\slash"), "x");
    await writeFile(join(folder, "new\nline"), "x");
    expect(await keysOf(bucket)).toEqual(["a.txt"]);
  });

  test("can't be opened where a file is, in one line", async ({ folder }) => {
    await writeFile(join(folder, "file"), "x");
    const opening = openFileBucket(join(folder, "file"));
    await expect(opening).rejects.toMatchObject({ name: "BucketError", message: expect.stringMatching(/^[^\n]+$/) });
  });

  test("holds what many writers put into one new folder at the same time", async ({ folder }) => {
    const bucket = await openFileBucket(folder);
    const keys = Array.from({ length: 200 }, (_, n) => `items/${n % 20}/deep/${String(n).padStart(3, "0")}.txt`);
    await Promise.all(keys.map((key) => bucket.put(key, key, TEXT)));
    expect((await keysOf(bucket)).length).toBe(200);
  });
});

describe("the order of keys", () => {
  test("is that of their UTF-8 bytes", () => {
    const key = fc.string({ unit: "binary", maxLength: 8 });
    fc.assert(
      fc.property(key, key, (a, b) => {
        expect(Math.sign(compareKeys(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
      }),
    );
  });
});
