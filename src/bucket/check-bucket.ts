/**
 * Tries everything of a bucket that Outlast leans on, with small objects that are removed again. For `outlast doctor`
 * and the start-up check: a store that takes a second put-once would let two processes both believe a claim theirs.
 */

import { randomUUID } from "node:crypto";
import { type Bucket, BucketError } from "./bucket.ts";

export type BucketFinding = {
  readonly check: "write" | "read" | "range" | "list" | "put-once" | "delete";
  readonly ok: boolean;
  /** What was found, as a sentence for a person. */
  readonly sentence: string;
};

export type BucketReport = {
  /** The bucket's address. */
  readonly url: string;
  readonly ok: boolean;
  readonly findings: readonly BucketFinding[];
};

const TEXT = { contentType: "text/plain" } as const;
const RACERS = 8;

/** Throws a BucketError with the first fault: nothing is bought that couldn't be kept. */
export async function requireSoundBucket(bucket: Bucket): Promise<void> {
  const fault = (await checkBucket(bucket)).findings.find((finding) => !finding.ok);
  if (fault !== undefined)
    throw new BucketError(
      "failed",
      `the bucket ${bucket.url} can't be used: ${fault.sentence} Mend it, or set OUTLAST_BUCKET to another.`,
    );
}

export async function checkBucket(bucket: Bucket): Promise<BucketReport> {
  const key = `outlast-check-${randomUUID()}.txt`;
  const onceKey = key.replace(".txt", "-once.txt");
  const findings: BucketFinding[] = [];

  const attempt = async (
    check: BucketFinding["check"],
    run: () => Promise<string | null>,
    good: string,
  ): Promise<boolean> => {
    const finding = await run().then(
      (fault): BucketFinding => ({ check, ok: fault === null, sentence: fault ?? good }),
      (error: unknown): BucketFinding => ({ check, ok: false, sentence: sentenceOf(error) }),
    );
    findings.push(finding);
    return finding.ok;
  };

  const written = await attempt(
    "write",
    async () => {
      await bucket.put(key, "first", TEXT);
      await bucket.put(key, "0123456789", TEXT);
      return null;
    },
    "Objects can be written and replaced.",
  );
  if (!written) return { url: bucket.url, ok: false, findings }; // the rest would say the same again

  await attempt("read", () => readsBack(bucket, key), "What was written is read back.");
  await attempt("range", () => readsRange(bucket, key), "A part of an object can be read.");
  await attempt("list", () => lists(bucket, key), "Objects are listed.");
  await attempt(
    "put-once",
    () => putsOnce(bucket, onceKey),
    `Of ${RACERS} writers that wanted a free key one got it, and a later one was refused.`,
  );
  await attempt("delete", () => deletes(bucket, [key, onceKey]), "Objects can be deleted.");
  return { url: bucket.url, ok: findings.every((finding) => finding.ok), findings };
}

async function readsBack(bucket: Bucket, key: string): Promise<string | null> {
  const body = (await bucket.get(key, { maxBytes: 1_000 }))?.toString();
  if (body === "0123456789") return null;
  return body === undefined
    ? `${bucket.urlOf(key)} was written but isn't found: use a store that shows an object as soon as it is written.`
    : `${bucket.urlOf(key)} doesn't hold what was written last: use a store that shows an object as soon as it is replaced.`;
}

async function readsRange(bucket: Bucket, key: string): Promise<string | null> {
  const middle = (await bucket.getRange(key, 3, 4))?.toString();
  const end = (await bucket.getRange(key, 8, 100))?.toString();
  const behind = (await bucket.getRange(key, 10, 1))?.toString();
  if (middle === "3456" && end === "89" && behind === "") return null;
  return `Ranges of ${bucket.urlOf(key)} come back wrong: use a store that serves ranges.`;
}

async function lists(bucket: Bucket, key: string): Promise<string | null> {
  for await (const info of bucket.list(key)) {
    if (info.key === key && info.bytes === 10) return null;
  }
  return `${bucket.urlOf(key)} was written but isn't listed: use a store whose lists show an object as soon as it is written.`;
}

async function putsOnce(bucket: Bucket, key: string): Promise<string | null> {
  const racers = Array.from({ length: RACERS }, (_, n) => `racer ${n}`);
  const won = await Promise.all(racers.map((body) => bucket.putOnce(key, body, TEXT)));
  const winners = racers.filter((_, n) => won[n]);
  const late = await bucket.putOnce(key, "late", TEXT);
  const kept = (await bucket.get(key, { maxBytes: 1_000 }))?.toString();
  const remedy = "Outlast would pay twice here; use a store with conditional writes (If-None-Match).";
  if (late) return `A second create-only write to the same key was accepted. ${remedy}`;
  if (winners.length !== 1)
    return `Of ${RACERS} writers that wanted one free key ${winners.length} were told they got it. ${remedy}`;
  if (kept !== winners[0])
    return `The writer that was told it got the key isn't the one whose object is there. ${remedy}`;
  return null;
}

async function deletes(bucket: Bucket, keys: readonly string[]): Promise<string | null> {
  for (const key of keys) {
    await bucket.delete(key);
    if ((await bucket.head(key)) !== null) return `${bucket.urlOf(key)} was deleted but is still there.`;
  }
  return null;
}

function sentenceOf(error: unknown): string {
  if (!(error instanceof BucketError)) throw error;
  return `${error.message[0]?.toUpperCase()}${error.message.slice(1)}.`;
}
