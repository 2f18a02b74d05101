import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { openBucket, parseBucketAddress } from "../../src/bucket/open-bucket.ts";

describe("a bucket's address", () => {
  test.each([
    ["s3://name", { kind: "s3", bucket: "name", prefix: "" }],
    ["s3://name/", { kind: "s3", bucket: "name", prefix: "" }],
    ["s3://my.name-1/some/prefix", { kind: "s3", bucket: "my.name-1", prefix: "some/prefix" }],
    ["s3://name/prefix/", { kind: "s3", bucket: "name", prefix: "prefix" }],
    ["file:outputs", { kind: "folder", folder: "outputs" }],
    ["file:./some/outputs", { kind: "folder", folder: "./some/outputs" }],
    ["file:../outputs", { kind: "folder", folder: "../outputs" }],
    ["file:/abs/out puts", { kind: "folder", folder: "/abs/out puts" }],
    ["file:///abs/outputs", { kind: "folder", folder: "/abs/outputs" }],
  ])("%j is read", (address, parsed) => {
    expect(parseBucketAddress(address)).toEqual(parsed);
  });

  test.each([
    ["", /write s3:\/\/name\/prefix, or file:folder/],
    ["outputs", /write s3:\/\/name\/prefix, or file:folder/],
    ["gs://name", /write s3:\/\/name\/prefix, or file:folder/],
    ["s3:name", /write s3:\/\/name\/prefix, or file:folder/],
    ["s3://", /no bucket name/],
    ["s3:///prefix", /no bucket name/],
    ["s3://na me", /no bucket name/],
    ["s3://name//x", /the prefix .* is absolute/],
    ["s3://name/a/../b", /the prefix .* has the segment \.\./],
    ["file:", /names no folder/],
    ["file://host/folder", /names a host/],
  ])("%j is refused with a word on how to write it", (address, message) => {
    expect(() => parseBucketAddress(address)).toThrow(message);
  });

  test("opens the folder or the store that it names", async () => {
    const folder = await mkdtemp(join(tmpdir(), "outlast-open-"));
    try {
      const bucket = await openBucket(`file:${folder}/outputs`);
      await bucket.put("a.txt", "x", { contentType: "text/plain" });
      expect(await readFile(resolve(folder, "outputs/a.txt"), "utf8")).toBe("x");
      const s3 = await openBucket("s3://name/prefix", { endpoint: "http://127.0.0.1:1", region: "auto" });
      expect(s3.url).toBe("s3://name/prefix");
      await s3.close();
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
