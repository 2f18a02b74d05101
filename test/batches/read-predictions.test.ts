/** Predictions by their id: what never changes is read once, and where they stand every time. */

import { expect } from "vitest";
import { openPredictions } from "../../src/batches/read-predictions.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import type { StoredRow } from "../../src/bucket/input-parts.ts";
import { wrappedBucket } from "../../src/bucket/wrapped-bucket.ts";
import { type AttemptRef, type BatchId, itemId } from "../../src/core/naming.ts";
import type { PredictionView } from "../../src/core/prediction-view.ts";
import { bringTo } from "../server/items.ts";
import { ACCOUNT, type Line, NOON, test } from "../support/stages.ts";

const ASKERS = 50;
const MEBI = 1024 * 1024;
const LINKS = { baseUrl: "https://predictions.example", fileUrl: (_item: string, key: string) => key };

/** Counts what is read of each object. */
function counted(bucket: Bucket): { readonly bucket: Bucket; readonly reads: Map<string, number> } {
  const reads = new Map<string, number>();
  const count = (key: string) => reads.set(key, (reads.get(key) ?? 0) + 1);
  const counting = wrappedBucket(bucket, {
    get: (key, options) => {
      count(key);
      return bucket.get(key, options);
    },
    getRange: (key, start, length) => {
      count(key);
      return bucket.getRange(key, start, length);
    },
  });
  return { bucket: counting, reads };
}

async function open(line: Line) {
  await line.clear();
  const batch = await line.submit([{ prompt: "a fox" }]);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  const { bucket, reads } = counted(line.bucket);
  const row: StoredRow = { input: { prompt: "a fox" }, target: { kind: "model", owner: "outlast", name: "text" } };
  return { ref, id: itemId(batch, 0), row, reads, predictions: openPredictions({ bucket, ledger: line.ledger }) };
}

test("what isn't in memory is read once for all who ask at once", async ({ line }) => {
  const { ref, id, reads, predictions } = await open(line);
  await bringTo("saved", ref, line);
  const shown = await Promise.all(
    Array.from({ length: ASKERS }, async () => {
      const found = await predictions.find(id, "default");
      return found === null ? null : predictions.view(found, LINKS);
    }),
  );
  expect(new Set(shown.map((view) => view?.status))).toEqual(new Set(["succeeded"]));
  expect(reads.size, "the row's part, its index, the receipt").toBeGreaterThanOrEqual(2);
  expect(
    [...reads.values()].every((times) => times === 1),
    JSON.stringify([...reads]),
  ).toBe(true);
});

test("who waits for a read gets it, whatever comes into memory meanwhile, or leaves it", async ({ line }) => {
  for (const meanwhile of ["the same", "much else"] as const) {
    const { id, predictions, row } = await open(line);
    const asking = predictions.find(id, "default");
    if (meanwhile === "the same") predictions.remember(id, "default", ACCOUNT, row);
    else {
      for (let n = 0; n < 100; n++) {
        predictions.remember(itemId(id.slice(0, 20) as BatchId, n + 1), "default", ACCOUNT, {
          ...row,
          input: { text: "x".repeat(MEBI) },
        });
      }
    }
    expect((await asking)?.id, meanwhile).toBe(id);
  }
});

test("what Redis has lost isn't told as something that waits", async ({ line }) => {
  const { ref, id, predictions } = await open(line);
  await bringTo("saved", ref, line);
  expect((await predictions.find(id, "default"))?.state).toBe("saved");
  await line.clear();
  expect(await predictions.find(id, "default")).toBeNull();
});

test("where it stands is asked each time, and of another tenant's nothing is told", async ({ line }) => {
  const { ref, id, predictions } = await open(line);
  expect((await predictions.find(id, "default"))?.state).toBe("waiting");
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  expect((await predictions.find(id, "default"))?.state).toBe("claimed");
  expect(await predictions.find(id, "another"), "also where it is in memory").toBeNull();
  expect(await predictions.find(itemId(ref.batch, 1), "default"), "no such item").toBeNull();
});

test("as JSON it is what is shown, with the addresses of the day; what has ended is made once for them", async ({
  line,
}) => {
  const { ref, id, predictions } = await open(line);
  let addresses = 0;
  async function told(day = 1, baseUrl = LINKS.baseUrl): Promise<PredictionView> {
    const fileUrl = (_item: string, key: string) => {
      addresses++;
      return `${baseUrl}/${day}/${key}`;
    };
    const found = await predictions.find(id, "default");
    if (found === null) throw new Error("it isn't found");
    const text = await predictions.json(found, { baseUrl, sameWhile: `${day} ${baseUrl}`, fileUrl });
    const before = addresses;
    expect(text).toBe(JSON.stringify(await predictions.view(found, { baseUrl, fileUrl })));
    addresses = before;
    return JSON.parse(text) as PredictionView;
  }

  expect((await told()).status).toBe("starting");
  await bringTo("saved", ref, line);
  const saved = await told();
  expect(saved.status, "what isn't over isn't kept").toBe("succeeded");
  expect(JSON.stringify(saved.output)).toContain("/1/batches/");
  expect(await told()).toEqual(saved);
  expect(addresses, "asked for twice, made once").toBe(1);
  expect(JSON.stringify((await told(2)).output)).toContain("/2/batches/");
  expect((await told(1, "https://another.example")).urls.get).toMatch(/^https:\/\/another\.example\//);

  const standing = await line.ledger.standing(ACCOUNT, ref.batch);
  if (standing === null) throw new Error("the batch is gone");
  await line.ledger.redrive(standing.batch, [{ index: 0, ended: 1 }], NOON);
  expect((await told()).status, "another attempt is open").toBe("starting");
});
