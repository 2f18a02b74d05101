/**
 * What every bucket must do, run for each adapter by the test file beside it. A new kind of store passes this whole,
 * or it isn't one.
 */

import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bucket, ObjectInfo } from "../../src/bucket/bucket.ts";
import { checkBucket } from "../../src/bucket/check-bucket.ts";

export type BucketUnderTest = {
  readonly bucket: Bucket;
  /** The same store through another adapter object, as a second process has it. */
  readonly other: Bucket;
  /** What unfinished writes left in the store, by whatever name it has there. */
  leftovers(): Promise<readonly string[]>;
  stop(): Promise<void>;
};

const MEGABYTE = 1024 * 1024;
const TEXT = { contentType: "text/plain" };
const PNG = { contentType: "image/png" };

export function bucketSuite(name: string, start: () => Promise<BucketUnderTest>): void {
  describe(name, () => {
    let store: BucketUnderTest;
    let bucket: Bucket;
    beforeAll(async () => {
      store = await start();
      bucket = store.bucket;
    }, 120_000);
    afterAll(async () => store?.stop(), 60_000);

    const keysOf = async (listed: AsyncIterable<ObjectInfo>): Promise<string[]> =>
      (await Array.fromAsync(listed)).map(({ key }) => key);
    const text = async (key: string): Promise<string | undefined> =>
      (await bucket.get(key, { maxBytes: MEGABYTE }))?.toString();

    test("what was put is read back, byte for byte, by every way of reading", async () => {
      const body = randomBytes(300_000);
      await bucket.put("round/trip.png", body, PNG);
      expect(await bucket.get("round/trip.png", { maxBytes: 300_000 })).toEqual(body);
      expect(await bucket.getRange("round/trip.png", 0, 300_000)).toEqual(body);
      const stream = await bucket.getStream("round/trip.png");
      expect(stream && (await buffer(stream))).toEqual(body);
      for (const [start, length] of [
        [0, 1],
        [100_000, 150_000],
        [299_999, 1],
        [0, 300_000],
        [7, 0],
      ] as const) {
        const part = await bucket.getStream("round/trip.png", { start, length });
        expect(part && (await buffer(part))).toEqual(body.subarray(start, start + length));
      }
      const info = { key: "round/trip.png", bytes: 300_000, contentType: "image/png" };
      expect(await bucket.head("round/trip.png")).toEqual(info);
      expect(await Array.fromAsync(store.other.list("round/"))).toMatchObject([{ key: info.key, bytes: info.bytes }]);
    });

    test("a string is stored as UTF-8", async () => {
      await bucket.put("round/words.txt", "größe 漢字 🙂", TEXT);
      expect(await text("round/words.txt")).toBe("größe 漢字 🙂");
    });

    test("an object's address is the bucket's with its key", () => {
      expect(bucket.urlOf("a/b.txt")).toBe(`${bucket.url}/a/b.txt`);
    });

    test("an object that isn't there is null everywhere, and deleting it is no error", async () => {
      expect(await bucket.get("none/such.txt", { maxBytes: 10 })).toBeNull();
      expect(await bucket.getRange("none/such.txt", 0, 10)).toBeNull();
      expect(await bucket.getRange("none/such.txt", 0, 0)).toBeNull();
      expect(await bucket.getStream("none/such.txt")).toBeNull();
      expect(await bucket.head("none/such.txt")).toBeNull();
      expect(await keysOf(bucket.list("none/"))).toEqual([]);
      await bucket.delete("none/such.txt");
    });

    test("a deleted object is gone and its key free again", async () => {
      await bucket.put("gone/a.txt", "a", TEXT);
      await bucket.delete("gone/a.txt");
      expect(await bucket.head("gone/a.txt")).toBeNull();
      expect(await keysOf(bucket.list("gone/"))).toEqual([]);
      expect(await bucket.putOnce("gone/a.txt", "b", TEXT)).toBe(true);
      expect(await text("gone/a.txt")).toBe("b");
    });

    test("an object over the size asked for is refused instead of read", async () => {
      await bucket.put("size/a.txt", "0123456789", TEXT);
      expect(await text("size/a.txt")).toBe("0123456789");
      await expect(bucket.get("size/a.txt", { maxBytes: 9 })).rejects.toMatchObject({
        name: "BucketError",
        code: "too-large",
        message: expect.stringContaining("size/a.txt"),
      });
    });

    test("readers of an object that is being replaced see a whole old or a whole new one", async () => {
      const bodies = ["a", "b", "c"].map((letter) => letter.repeat(MEGABYTE / 2));
      await bucket.put("replaced.txt", bodies[0] ?? "", TEXT);
      let writing = true;
      const readers = Array.from({ length: 4 }, async () => {
        let reads = 0;
        for (; writing; reads++) expect(bodies).toContain(await text("replaced.txt"));
        return reads;
      });
      for (let n = 1; n <= 15; n++) await bucket.put("replaced.txt", bodies[n % 3] ?? "", TEXT);
      writing = false;
      expect(Math.min(...(await Promise.all(readers)))).toBeGreaterThan(0);
    });

    test("of sixteen writers that race to put once, one wins and its object stays", async () => {
      for (let round = 0; round < 5; round++) {
        const key = `once/race-${round}.json`;
        const racers = Array.from({ length: 16 }, (_, n) => ({
          from: n % 2 ? bucket : store.other,
          body: `racer ${n}`,
        }));
        const won = await Promise.all(racers.map(({ from, body }) => from.putOnce(key, body, TEXT)));
        const winners = racers.filter((_, n) => won[n]);
        expect(winners).toHaveLength(1);
        expect(await text(key)).toBe(winners[0]?.body);
        expect(await bucket.putOnce(key, "late", TEXT)).toBe(false);
        expect(await text(key)).toBe(winners[0]?.body);
      }
    });

    test("put once doesn't replace what an ordinary put wrote", async () => {
      await bucket.put("once/taken.txt", "first", TEXT);
      expect(await bucket.putOnce("once/taken.txt", "second", TEXT)).toBe(false);
      expect(await text("once/taken.txt")).toBe("first");
    });

    test("a stream of 20 MB in uneven chunks arrives byte for byte", async () => {
      const hash = createHash("sha256");
      let left = 20 * MEGABYTE;
      function* chunks(): Generator<Buffer> {
        for (let n = 1; left > 0; n++) {
          const chunk = randomBytes(Math.min(left, (n * 7_919) % 200_000 || 1));
          left -= chunk.length;
          hash.update(chunk);
          yield chunk;
        }
      }
      await bucket.putStream("stream/large.png", Readable.from(chunks(), { objectMode: false }), PNG);
      expect(await bucket.head("stream/large.png")).toMatchObject({ bytes: 20 * MEGABYTE, contentType: "image/png" });
      const back = createHash("sha256");
      for await (const chunk of (await bucket.getStream("stream/large.png")) ?? []) back.update(chunk as Buffer);
      expect(back.digest("hex")).toBe(hash.digest("hex"));
    });

    test("a stream of 160 MB is written with less than 64 MB of buffers", async () => {
      const before = bufferBytes();
      let peak = 0;
      let produced = 0;
      async function* chunks(): AsyncGenerator<Buffer> {
        for (; produced < 160 * MEGABYTE; produced += MEGABYTE / 4) {
          yield Buffer.alloc(MEGABYTE / 4, produced % 251);
          peak = Math.max(peak, bufferBytes(before + 64 * MEGABYTE) - before);
        }
      }
      await bucket.putStream("stream/huge.bin", Readable.from(chunks(), { objectMode: false }), TEXT);
      expect((await bucket.head("stream/huge.bin"))?.bytes).toBe(160 * MEGABYTE);
      expect(peak).toBeLessThan(64 * MEGABYTE);
      await bucket.delete("stream/huge.bin");
    });

    describe.each([
      ["before its first byte", 0],
      ["after a little", 3_000],
      ["after several parts", 21 * MEGABYTE],
    ])("a stream that breaks %s", (_when, breaksAt) => {
      const failure = new Error("the sender hung up");
      async function* breaking(): AsyncGenerator<Buffer> {
        for (let sent = 0; sent < breaksAt; sent += MEGABYTE) yield Buffer.alloc(Math.min(breaksAt, MEGABYTE));
        throw failure;
      }

      test("leaves nothing where nothing was, and throws its own error", async () => {
        const put = bucket.putStream("broken/new.bin", Readable.from(breaking(), { objectMode: false }), TEXT);
        await expect(put).rejects.toBe(failure);
        expect(await bucket.head("broken/new.bin")).toBeNull();
        expect(await keysOf(bucket.list("broken/new"))).toEqual([]);
        expect(await store.leftovers()).toEqual([]);
      });

      test("leaves the old object as it was", async () => {
        await bucket.put("broken/old.bin", "old", TEXT);
        const put = bucket.putStream("broken/old.bin", Readable.from(breaking(), { objectMode: false }), TEXT);
        await expect(put).rejects.toBe(failure);
        expect(await text("broken/old.bin")).toBe("old");
        expect(await store.leftovers()).toEqual([]);
      });

      test("leaves nothing when it is aborted there, closes its source and throws the reason", async () => {
        const stop = new AbortController();
        const reason = new Error("closing down");
        let closed = false;
        async function* silent(): AsyncGenerator<Buffer> {
          try {
            for (let sent = 0; sent < breaksAt; sent += MEGABYTE) yield Buffer.alloc(Math.min(breaksAt, MEGABYTE));
            queueMicrotask(() => stop.abort(reason));
            await new Promise((resolve) => stop.signal.addEventListener("abort", resolve));
          } finally {
            closed = true;
          }
        }
        const body = Readable.from(silent(), { objectMode: false });
        const put = bucket.putStream("broken/aborted.bin", body, { ...TEXT, signal: stop.signal });
        await expect(put).rejects.toBe(reason);
        expect(await bucket.head("broken/aborted.bin")).toBeNull();
        expect(await store.leftovers()).toEqual([]);
        await expect.poll(() => closed).toBe(true);
      });
    });

    test("a stream destroyed without a reason, or aborted before it began, leaves nothing", async () => {
      const destroyed = Readable.from([Buffer.from("x")], { objectMode: false });
      destroyed.destroy();
      await expect(bucket.putStream("broken/destroyed.bin", destroyed, TEXT)).rejects.toMatchObject({
        code: "ERR_STREAM_PREMATURE_CLOSE",
      });
      const aborted = Readable.from([Buffer.from("x")], { objectMode: false });
      const signal = AbortSignal.abort(new Error("too late"));
      await expect(bucket.putStream("broken/destroyed.bin", aborted, { ...TEXT, signal })).rejects.toThrow("too late");
      expect(await bucket.head("broken/destroyed.bin")).toBeNull();
      expect(await store.leftovers()).toEqual([]);
    });

    test("ranges end at the object's end", async () => {
      await bucket.put("range/digits.txt", "0123456789", TEXT);
      const range = async (start: number, length: number): Promise<string | undefined> =>
        (await bucket.getRange("range/digits.txt", start, length))?.toString();
      expect(await range(0, 1)).toBe("0");
      expect(await range(0, 10)).toBe("0123456789");
      expect(await range(0, 11)).toBe("0123456789");
      expect(await range(3, 4)).toBe("3456");
      expect(await range(9, 1)).toBe("9");
      expect(await range(9, 100)).toBe("9");
      expect(await range(10, 1)).toBe("");
      expect(await range(1_000, 5)).toBe("");
      expect(await range(4, 0)).toBe("");
      await bucket.put("range/empty.txt", "", TEXT);
      expect((await bucket.getRange("range/empty.txt", 0, 5))?.length).toBe(0);
      await expect(bucket.getRange("range/digits.txt", -1, 5)).rejects.toThrow(RangeError);
      await expect(bucket.getRange("range/digits.txt", 0, 1.5)).rejects.toThrow(RangeError);
    });

    test("empty objects exist, however they were written", async () => {
      await bucket.put("empty/put.txt", "", TEXT);
      expect(await bucket.putOnce("empty/once.txt", new Uint8Array(), TEXT)).toBe(true);
      expect(await bucket.putOnce("empty/once.txt", "more", TEXT)).toBe(false);
      await bucket.putStream("empty/stream.txt", Readable.from([], { objectMode: false }), TEXT);
      for (const key of ["empty/put.txt", "empty/once.txt", "empty/stream.txt"]) {
        expect((await bucket.get(key, { maxBytes: 0 }))?.length).toBe(0);
        expect((await bucket.head(key))?.bytes).toBe(0);
        const stream = await bucket.getStream(key);
        expect(stream && (await buffer(stream)).length).toBe(0);
      }
      expect(await keysOf(bucket.list("empty/"))).toEqual(["empty/once.txt", "empty/put.txt", "empty/stream.txt"]);
    });

    test("a list has every key in the order of UTF-8 bytes, over folders and page ends", async () => {
      const names = [
        "a-b",
        "a.b",
        "a/b",
        "a/b-c",
        "a/b.d/e",
        "a0",
        "aa",
        "b!/x",
        "b/x",
        "b/\u{ff5e}",
        "b/\u{1f642}",
        "ä",
        "é/1",
      ];
      const many = Array.from(
        { length: 1_100 },
        (_, n) => `many/${String(n).padStart(4, "0")}${n % 3 ? "" : "/sub"}.txt`,
      );
      const keys = [...names, ...many].map((key) => `list/${key}`);
      for (let n = 0; n < keys.length; n += 50) {
        await Promise.all(keys.slice(n, n + 50).map((key) => bucket.put(key, "x", TEXT)));
      }
      const sorted = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      expect(await keysOf(bucket.list("list/"))).toEqual(sorted);

      for (const after of [0, 3, 5, 9, 12, 500, 1_001, sorted.length - 1].map((n) => sorted[n] ?? "")) {
        const behind = sorted.slice(sorted.indexOf(after) + 1);
        expect(await keysOf(bucket.list("list/", { after }))).toEqual(behind);
      }
      const between = ["list/a/", "list/a/b-", "list/a/zzz", "list/many/0500.txu", "list/zz", "aaa", ""];
      for (const after of between) {
        const behind = sorted.filter((key) => Buffer.compare(Buffer.from(key), Buffer.from(after)) > 0);
        expect(await keysOf(bucket.list("list/", { after }))).toEqual(behind);
      }
      for (const prefix of [
        "list/a",
        "list/a/",
        "list/a/b",
        "list/a/b.",
        "list/many/00",
        "list/many/0003",
        "list/b/x",
        "list/none",
      ]) {
        expect(await keysOf(bucket.list(prefix))).toEqual(sorted.filter((key) => key.startsWith(prefix)));
      }
      expect(await keysOf(bucket.list("list/many/", { after: "list/many/0990" }))).toEqual(
        sorted.filter((key) => key.startsWith("list/many/") && key > "list/many/0990"),
      );
    });

    test("a list that is left early, and one whose objects vanish meanwhile, end well", async () => {
      for (let n = 0; n < 5; n++) await bucket.put(`leave/${n}.txt`, "x", TEXT);
      for await (const { key } of bucket.list("leave/")) {
        expect(key).toBe("leave/0.txt");
        break;
      }
      const seen: string[] = [];
      for await (const { key } of bucket.list("leave/")) {
        seen.push(key);
        await bucket.delete(key);
      }
      expect(seen[0]).toBe("leave/0.txt");
      expect(await keysOf(bucket.list("leave/"))).toEqual([]);
    });

    test.each([
      "größe/漢字.txt",
      "emoji/🙂.txt",
      "space in/the name.txt",
      "odd/%41+&=?#;'\"<>|*:@!$(),~^`[]{}.txt",
      "dots/...x/.hidden",
      "trailing/dot.",
    ])("the key %s is kept as it is", async (key) => {
      await bucket.put(key, key, TEXT);
      expect(await text(key)).toBe(key);
      expect(await keysOf(bucket.list(key.slice(0, key.indexOf("/") + 1)))).toContain(key);
      expect(await bucket.putOnce(key, "other", TEXT)).toBe(false);
      await bucket.delete(key);
      expect(await bucket.head(key)).toBeNull();
    });

    test.each([
      "",
      "/absolute",
      "..",
      "../out",
      "a/../../out",
      "a/..",
      ".",
      "a/./b",
      "a//b",
      "a/",
      "a\\b",
      "..\\out",
      "nul\0",
      "line\nbreak",
      "c1\u0085",
      "lone\ud800surrogate",
      ".outlast-tmp/x",
      { of: "256 bytes in one segment", key: "ä".repeat(128) },
      { of: "1,025 bytes", key: `${"y/".repeat(512)}z` },
    ])("the key %j is refused by every operation", async (given) => {
      const key = typeof given === "string" ? given : given.key;
      const refused = { name: "BucketError", code: "bad-key" };
      await expect(bucket.put(key, "x", TEXT)).rejects.toMatchObject(refused);
      await expect(bucket.putOnce(key, "x", TEXT)).rejects.toMatchObject(refused);
      await expect(bucket.putStream(key, Readable.from([], { objectMode: false }), TEXT)).rejects.toMatchObject(
        refused,
      );
      await expect(bucket.get(key, { maxBytes: 1 })).rejects.toMatchObject(refused);
      await expect(bucket.getRange(key, 0, 1)).rejects.toMatchObject(refused);
      await expect(bucket.getStream(key)).rejects.toMatchObject(refused);
      await expect(bucket.head(key)).rejects.toMatchObject(refused);
      await expect(bucket.delete(key)).rejects.toMatchObject(refused);
      expect(() => bucket.urlOf(key)).toThrow(expect.objectContaining(refused));
    });

    test.each(["/", "../", "../o", "a/../", "a/../b", "a//", "./", "..\\"])(
      "the prefix %j is refused by list",
      async (prefix) => {
        await expect(keysOf(bucket.list(prefix))).rejects.toMatchObject({ name: "BucketError", code: "bad-key" });
      },
    );

    test("the check finds everything right and leaves nothing behind", async () => {
      const before = await keysOf(bucket.list(""));
      const report = await checkBucket(bucket);
      expect(report.findings.filter(({ ok }) => !ok)).toEqual([]);
      expect(report).toMatchObject({ ok: true, url: bucket.url });
      expect(report.findings.map(({ check }) => check)).toEqual([
        "write",
        "read",
        "range",
        "list",
        "put-once",
        "delete",
      ]);
      expect(await keysOf(bucket.list(""))).toEqual(before);
    });
  });
}

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** What is in buffers; where that is `many`, only what somebody still holds, and not what waits to be collected. */
function bufferBytes(many = Number.POSITIVE_INFINITY): number {
  if (process.memoryUsage().arrayBuffers > many) collect();
  return process.memoryUsage().arrayBuffers;
}
