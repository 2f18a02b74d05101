/**
 * What a provider's webhook does, once its signature holds: it wakes the item whose prediction it tells of, or gives the
 * item its prediction, where nobody knows that yet. It never decides that a prediction is over: the next poll does.
 *
 * Whether the batch or the account is paused, or canceled, changes nothing: the money is spent.
 *
 * If this process dies:
 *   after the mark         the item's next poll takes it; only the hurry is lost.
 *   after the bind         the item runs; the keeper gives it its errand. The provider, unanswered, calls again.
 *   while a duplicate is booked   the provider calls again, and booking it again changes nothing.
 */

import type { Bucket } from "../bucket/bucket.ts";
import { couldBe, shows } from "../core/matching.ts";
import { type AttemptRef, errandId } from "../core/naming.ts";
import type { Waker } from "../core/polling.ts";
import type { Prediction } from "../core/prediction.ts";
import { meaningOf } from "../core/telling.ts";
import type { Ledger, OpenItemFields } from "../ledger/ledger.ts";
import type { Provider } from "../providers/provider.ts";
import type { Queues } from "../queues/enqueue.ts";
import { bookDuplicate, isItsOwn } from "./book-duplicate.ts";
import { claimFields } from "./claim-fields.ts";
import { readItemRow } from "./place-items.ts";

/** What came of it; counted by these words. */
export type WebhookOutcome =
  /** The item's next poll comes now. */
  | "woken"
  /** The item has its prediction by it. */
  | "bound"
  /** A poll had seen the end before. */
  | "late"
  /** Another prediction holds the attempt: it was bought twice. */
  | "duplicate"
  /** Another attempt holds the prediction: identical inputs, which the provider's list couldn't tell apart. */
  | "elsewhere"
  /** Its input is provably another item's. */
  | "foreign"
  /** Nothing is known here of the attempt: Redis has lost it, and may be given it back. */
  | "unknown";

export type ToldWebhook = {
  readonly ref: AttemptRef;
  readonly nonce: string;
  readonly prediction: Prediction;
  /** As the provider shows it; anything but an object shows nothing. */
  readonly input: unknown;
};

export type TakeDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<
    Ledger,
    "standing" | "partOf" | "readItem" | "markItem" | "move" | "holdersAmong" | "addDuplicate"
  >;
  readonly queues: Pick<Queues, "wakeFollow" | "follow">;
  readonly provider: Pick<Provider, "cancel">;
  /** Does it in a second, if this process still lives. */
  readonly inASecond: (what: () => Promise<unknown>) => void;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly error: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock: () => number;
};

/** Each round loses to another step of the item, of which an attempt has few; the same call may come at the same time. */
const ROUNDS = 5;

export async function takeWebhook(told: ToldWebhook, deps: TakeDeps): Promise<WebhookOutcome> {
  const { ref, nonce, prediction } = told;
  for (let round = 0; round < ROUNDS; round++) {
    const [standing, item] = await Promise.all([
      deps.ledger.standing(ref.account, ref.batch),
      deps.ledger.readItem(ref),
    ]);
    if (standing === null || ref.index >= standing.batch.items) return "unknown";
    const { attempt, state, fields } = item;
    const meaning = meaningOf(
      { attempt: ref.attempt, nonce, prediction: prediction.id },
      { attempt, state, prediction: fields.prediction_id ?? null, nonce: fields.nonce ?? null },
    );
    switch (meaning.kind) {
      case "unknown":
      case "late":
        return meaning.kind;
      case "wake":
        return wake(told, fields, deps);
      case "another":
        return bookSurplus(told, deps);
      case "ended":
        return (await isItsOwn(ref, prediction.id, deps)) ? "late" : bookSurplus(told, deps);
      case "bind": {
        const bound = await bind(told, meaning.step, deps);
        if (bound === "lost") continue;
        if (bound === "bound" && state === "unclear") {
          const item = errandId(ref);
          deps.warn({ item, prediction: prediction.id }, "a webhook told an unclear item's prediction");
        }
        return bound;
      }
      default:
        meaning satisfies never;
    }
  }
  throw new Error(`item ${errandId(ref)} moved ${ROUNDS} times while its webhook was read`);
}

/** A wake that is refused because a poll runs is repeated: that one may have looked for marks a moment too early. */
async function wake(
  { ref, prediction }: ToldWebhook,
  fields: Partial<OpenItemFields>,
  { ledger, queues, inASecond, clock }: TakeDeps,
): Promise<WebhookOutcome> {
  if ((await ledger.markItem(ref, "wake", "webhook" satisfies Waker)) !== "running") return "late";
  if (!(await queues.wakeFollow(ref))) {
    const startedAtMs = Number(fields.intent_at ?? clock());
    const deadlineAtMs = fields.deadline_at === undefined ? null : Number(fields.deadline_at);
    await queues.follow(ref, { id: prediction.id, startedAtMs, deadlineAtMs }, 0); // in case it is missing
    inASecond(() => queues.wakeFollow(ref));
  }
  return "woken";
}

async function bind(
  { ref, nonce, prediction, input }: ToldWebhook,
  step: "bind" | "adopt",
  deps: TakeDeps,
): Promise<"bound" | "elsewhere" | "foreign" | "lost"> {
  const row = await readItemRow(deps, ref);
  // An address whose nonce isn't the claim's proves nothing: the input has to.
  if (!couldBe(row.input, input) || (step === "adopt" && !shows(input, row.input))) return "foreign";
  const nowMs = deps.clock();
  const moved = await deps.ledger.move(ref, step, {
    nowMs,
    predictionId: prediction.id,
    // With the claim that wrote them, they may have been given back.
    ...(step === "bind" ? { nonce } : { set: claimFields(row) }),
  });
  if (moved.answer === "taken") return "elsewhere";
  if (moved.answer !== "moved") return "lost";
  const deadlineAtMs = row.deadline === undefined ? null : Date.parse(row.deadline);
  const startedAtMs = moved.intentAtMs ?? nowMs;
  await deps.queues.follow(ref, { id: prediction.id, startedAtMs, deadlineAtMs }, 0);
  return "bound";
}

/** Bought for an attempt that has another, or has ended - unless it is somebody else's. */
async function bookSurplus(
  { ref, prediction, input }: ToldWebhook,
  deps: TakeDeps,
): Promise<"late" | "duplicate" | "elsewhere" | "foreign"> {
  const holder = (await deps.ledger.holdersAmong(ref.account, [prediction.id], deps.clock())).get(prediction.id);
  if (holder !== undefined) return holder === errandId(ref) ? "late" : "elsewhere";
  if (!shows(input, (await readItemRow(deps, ref)).input)) return "foreign";
  await bookDuplicate(ref, prediction.id, {
    ...deps,
    // What its signed word calls over needs no cancel, for which its sender would wait.
    provider: isRunning(prediction) ? deps.provider : {},
    warn: deps.error,
  });
  return "duplicate";
}

function isRunning({ status }: Prediction): boolean {
  return status === "starting" || status === "processing" || status === "unknown";
}
