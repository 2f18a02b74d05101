/** Gives an open item's attempt the errand that its state implies: the keeper's remedy for what was dropped. */

import type { Bucket } from "../bucket/bucket.ts";
import type { Errand } from "../core/keeping.ts";
import { type AccountName, type AttemptRef, errandId } from "../core/naming.ts";
import { predictionId } from "../core/prediction.ts";
import type { Ledger, OpenItemFields } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { copyQueue, createQueue, followQueue, recordQueue } from "../queues/queues.ts";
import { placeItems } from "./place-items.ts";

export type GiveErrandDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "partOf" | "standing" | "noteUnsaved">;
  readonly queues: Pick<Queues, "retryFailed" | "create" | "follow" | "copy" | "record">;
  /** For so long after its creation the account's provider keeps a prediction's files. */
  readonly filesKeptMs: (account: AccountName) => number;
  readonly clock: () => number;
};

/** To an item that runs, as `giveErrand`; to any other nothing. */
export async function giveFollow(
  ref: AttemptRef,
  deps: GiveErrandDeps & { readonly ledger: Pick<Ledger, "readItem"> },
): Promise<void> {
  const { attempt, state, fields } = await deps.ledger.readItem(ref);
  if (attempt === ref.attempt && state === "running") await giveErrand(ref, "follow", fields, deps);
}

/** A failed one its tries, a missing one itself; one that is there stays as it is. */
export async function giveErrand(
  ref: AttemptRef,
  errand: Errand,
  fields: Partial<OpenItemFields>,
  { bucket, ledger, queues, filesKeptMs, clock }: GiveErrandDeps,
): Promise<void> {
  const id = errandId(ref);
  const prediction = fields.prediction_id === undefined ? undefined : predictionId(fields.prediction_id);
  const startedAtMs = fields.intent_at === undefined ? clock() : Number(fields.intent_at);
  switch (errand) {
    case "create": {
      if (await queues.retryFailed(createQueue(ref.account).name, id)) return;
      const [place] = await placeItems({ bucket, ledger }, ref.account, ref.batch, ref.index, 1);
      const kind = (await ledger.standing(ref.account, ref.batch))?.batch.kind;
      if (place !== undefined && kind !== undefined) await queues.create([{ ...ref, place }], kind);
      return;
    }
    case "follow": {
      if (await queues.retryFailed(followQueue(ref.account).name, id)) return;
      if (prediction === undefined) throw new Error(`${id} is running, but Redis holds no prediction for it`);
      const deadlineAtMs = fields.deadline_at === undefined ? null : Number(fields.deadline_at);
      await queues.follow(ref, { id: prediction, startedAtMs, deadlineAtMs }, 0);
      return;
    }
    case "copy": {
      const expiresAtMs = startedAtMs + filesKeptMs(ref.account);
      await ledger.noteUnsaved(ref, expiresAtMs);
      if (!(await queues.retryFailed(copyQueue.name, id))) await queues.copy(ref, expiresAtMs, prediction);
      return;
    }
    case "record":
      if (!(await queues.retryFailed(recordQueue.name, id))) await queues.record(ref, prediction);
      return;
    default:
      errand satisfies never;
  }
}
