/** Items brought into a state as the stages would bring them there, with what would then lie in the bucket. */

import { createHash } from "node:crypto";
import { writeReceipt } from "../../src/bucket/records.ts";
import { type ItemState, type ItemStep, isEnd } from "../../src/core/item.ts";
import { type AttemptRef, type BatchId, OBJECT_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { buildReceipt, type Ending } from "../../src/core/receipt.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { ACCOUNT, openAccount } from "../support/stages.ts";

const STEPS: Readonly<Record<ItemState, readonly ItemStep[]>> = {
  waiting: [],
  claimed: ["claim"],
  running: ["claim", "bind"],
  copying: ["claim", "bind", "succeed"],
  recording: ["claim", "bind", "conclude"],
  saved: ["claim", "bind", "succeed", "finishCopy", "save"],
  failed: ["claim", "bind", "conclude", "fail"],
  canceled: ["claim", "bind", "conclude", "cancel"],
  unclear: ["claim", "doubt"],
};

/** What a saved item's one file holds. */
export const contentOf = (index: number) => `the output of item ${index}`;

export async function bringTo(
  state: ItemState,
  { batch, index }: { readonly batch: BatchId; readonly index: number },
  { bucket, ledger }: Pick<CommandServices, "bucket" | "ledger">,
): Promise<void> {
  await openAccount(ledger, ACCOUNT); // Redis may have been started again since
  const ref = { account: ACCOUNT, batch, index, attempt: 1 };
  const prediction = predictionId(`${batch}-${index}`);
  const nonce = `nonce-${index}`;
  for (const step of STEPS[state]) {
    if (isEnd(state) && step === STEPS[state].at(-1)) {
      const ending = await endingOf(state, ref, { bucket });
      const receipt = buildReceipt({
        ref,
        rowId: null,
        replyTo: null,
        webhookEvents: [],
        predictionId: prediction,
        claimedAtMs: 1_000,
        recordedAtMs: 2_000,
        earlier: [],
        ending,
      });
      await writeReceipt(bucket, ref, receipt);
    }
    const options = step === "claim" ? { nonce } : step === "bind" ? { nonce, predictionId: prediction } : {};
    const { answer } = await ledger.move(ref, step, { nowMs: 1_000, ...options });
    if (answer !== "moved") throw new Error(`item ${index} can't ${step}: ${answer}`);
  }
}

async function endingOf(
  end: Extract<ItemState, "saved" | "failed" | "canceled">,
  ref: AttemptRef,
  { bucket }: Pick<CommandServices, "bucket">,
): Promise<Ending> {
  const key = OBJECT_KEYS.output(ref.batch, ref.index, ref.attempt, 0, "txt");
  const from = "https://replicate.delivery/out.txt";
  const body = contentOf(ref.index);
  if (end === "saved") await bucket.put(key, body, { contentType: "text/plain" });
  const copied = {
    key,
    url: bucket.urlOf(key),
    bytes: body.length,
    sha256: createHash("sha256").update(body).digest("hex"),
    content_type: "text/plain",
    from,
  };
  const answer = {
    status: ({ saved: "succeeded", failed: "failed", canceled: "canceled" } as const)[end],
    output: end === "saved" ? [from] : null,
    error: end === "failed" ? "the model gave up" : null,
    logs: null,
    model: "outlast/text",
    version: null,
    createdAt: null,
    startedAt: null,
    completedAt: null,
    metrics: {},
  };
  return { end, error: null, answer, copied: end === "saved" ? [copied] : [] };
}
