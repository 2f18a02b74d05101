/**
 * Calls a client's own webhook: when its prediction begins (once), and when it has ended (again, later and later,
 * until the receiver takes it or a minute has passed). The body is the prediction as the API shows it at that moment.
 *
 * Order of effects: the item is read from wherever it stands, described, signed, posted. Nothing is written anywhere,
 * so if this process dies:
 *   before the post    nothing has happened; the call is made by the next run.
 *   after it           the call is made again, under the same id, by which its receiver knows it.
 *
 * An address that may not be called and a receiver that says it is gone end the errand at once. Whatever wasn't taken
 * in the end stays in the failed set with its reason; the prediction itself can be read all the same.
 */

import type { FoundItem } from "../src/batches/find-item.ts";
import type { RowWebhook } from "../src/bucket/input-parts.ts";
import { type ItemId, itemId, webhookCallId } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import type { PredictionView } from "../src/core/prediction-view.ts";
import type { NotifyErrand } from "../src/queues/queues.ts";
import { WebhookError } from "../src/webhooks/deliver.ts";
import { type SignedCall, signCall } from "../src/webhooks/sign.ts";

export type NotifyDeps = {
  /** Null: nothing of that id is known any more. */
  readonly findItem: (id: ItemId) => Promise<FoundItem | null>;
  readonly describe: (found: FoundItem, webhook: RowWebhook) => Promise<PredictionView>;
  readonly secretOf: (tenant: string) => Promise<Buffer>;
  /** Throws WebhookError. */
  readonly deliver: (url: string, call: SignedCall, signal: AbortSignal) => Promise<void>;
  readonly clock: () => number;
};

export async function notifyClients(
  errand: NotifyErrand,
  deps: NotifyDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  const found = await deps.findItem(itemId(errand.batch, errand.index));
  const webhook = found?.row.webhook;
  // What a later attempt comes to is told by its own errands.
  if (found === null || webhook === undefined || found.attempt !== errand.attempt) return DONE;

  const body = JSON.stringify(await deps.describe(found, webhook));
  const secret = await deps.secretOf(found.of.tenant);
  const call = signCall({ id: webhookCallId(errand, errand.event), body }, secret, deps.clock());
  try {
    await deps.deliver(webhook.url, call, signal);
    return DONE;
  } catch (error) {
    if (!(error instanceof WebhookError) || !isHopeless(error)) throw error;
    return { kind: "unrecoverable", reason: error.message };
  }
}

function isHopeless({ kind }: WebhookError): boolean {
  switch (kind) {
    case "refused-host":
    case "gone":
      return true;
    case "transient":
      return false;
    default:
      return kind satisfies never;
  }
}
