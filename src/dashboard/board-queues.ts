/**
 * The pipeline's queues as bull-board shows them: in the order of the funnel, each with what it is for, read-only.
 * The only file outside `src/queues` that knows BullMQ, since bull-board wants its objects.
 */

import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import {
  type AccountName,
  type AttemptRef,
  errandId,
  notifyJobId,
  parseErrandId,
  parseItemId,
  parseNotifyJobId,
  QUEUE_NAMES,
} from "../core/naming.ts";
import { type ProviderAccount, predictionUrl } from "./provider-link.ts";
import { redactText, showable } from "./showing.ts";

/** Fields of a job's data, in the order of its list; times are epoch ms. */
type Field = "account" | "part" | "offset" | "length" | "prediction_id" | "started_at" | "expires_at";

type QueueView = {
  readonly name: string;
  /** Its place in the funnel; the board sorts by names, and puts this before them. */
  readonly place: number;
  readonly label: string;
  readonly description: string;
  readonly fields: readonly Field[] | null;
};

/** Where a job stands in one queue, by the name that the board gives the queue. */
export type JobPlace = {
  readonly boardName: string;
  readonly jobId: string;
  readonly displayName: string;
  readonly state: string;
};

export type BoardQueues = {
  readonly adapters: readonly BullMQAdapter[];
  /** What the board calls a queue in its addresses; null where it shows no such queue. */
  readonly boardNameOf: (queueName: string) => string | null;
  /** The jobs that are about this attempt now, in the order of the funnel. */
  readonly findErrands: (ref: AttemptRef) => Promise<readonly JobPlace[]>;
  close(): Promise<void>;
};

export function openBoardQueues(redis: Redis, accounts: readonly ProviderAccount[]): BoardQueues {
  const open = viewsOf(accounts.map(({ name }) => name)).map((view) => {
    // The workers' queues write the settings of a queue; a reader leaves them alone.
    const queue = new Queue(view.name, { connection: redis, skipMetasUpdate: true });
    // A lost connection fails the requests that need it; without a listener it would end the process.
    queue.on("error", () => undefined);
    return { view, queue };
  });
  return {
    adapters: open.map(({ view, queue }) => adapterOf(view, queue, accounts)),

    boardNameOf(queueName) {
      const found = open.find(({ view }) => view.name === queueName);
      return found === undefined ? null : boardNameOf(found.view);
    },

    async findErrands(ref) {
      const places = await Promise.all(
        open.flatMap(({ view, queue }) =>
          jobIdsIn(view.name, ref).map(async (jobId) => ({
            boardName: boardNameOf(view),
            jobId,
            displayName: `${displayNameOf(view)}${eventIn(jobId)}`,
            state: (await queue.getJobState(jobId)) as string,
          })),
        ),
      );
      return places.filter(({ state }) => state !== "unknown");
    },

    async close() {
      await Promise.all(open.map(({ queue }) => queue.close()));
    },
  };
}

/** The ids that a queue's jobs about an attempt have; none where its jobs are about something else. */
function jobIdsIn(queueName: string, ref: AttemptRef): readonly string[] {
  switch (queueName) {
    case QUEUE_NAMES.create(ref.account):
    case QUEUE_NAMES.follow(ref.account):
    case QUEUE_NAMES.copy:
    case QUEUE_NAMES.record:
      return [errandId(ref)];
    case QUEUE_NAMES.notify:
      return [notifyJobId(ref, "start"), notifyJobId(ref, "end")];
    default:
      return [];
  }
}

function viewsOf(accounts: readonly AccountName[]): readonly QueueView[] {
  return [
    {
      name: QUEUE_NAMES.inputs,
      place: 1,
      label: "inputs",
      description: "Single inputs from any program that has BullMQ; each is admitted and becomes an item.",
      fields: null,
    },
    {
      name: QUEUE_NAMES.feed,
      place: 2,
      label: "feed",
      description: "One errand per account that never ends: it gives out rows, in fair turns between batches.",
      fields: ["account"],
    },
    ...accounts.map(
      (account): QueueView => ({
        name: QUEUE_NAMES.create(account),
        place: 3,
        label: `create (${account})`,
        description: "Buys each item's prediction once. Kept shallow: about three seconds of the account's rate.",
        fields: ["account", "part", "offset", "length"],
      }),
    ),
    ...accounts.map(
      (account): QueueView => ({
        name: QUEUE_NAMES.follow(account),
        place: 4,
        label: `follow (${account})`,
        description: "Predictions that run: delayed until their next poll, which alone decides that they are over.",
        fields: ["account", "prediction_id", "started_at"],
      }),
    ),
    {
      name: QUEUE_NAMES.copy,
      place: 5,
      label: "copy",
      description: "Copies each output into the bucket, the nearest expiry first.",
      fields: ["account", "expires_at", "prediction_id"],
    },
    {
      name: QUEUE_NAMES.record,
      place: 6,
      label: "record",
      description: "Writes the receipt, then counts the item, exactly once. The last thousand stay to be looked at.",
      fields: ["account", "prediction_id"],
    },
    {
      name: QUEUE_NAMES.notify,
      place: 7,
      label: "notify",
      description: "Calls clients' own webhooks. A failed job is a call that nobody took, with the reason.",
      fields: ["account"],
    },
    {
      name: QUEUE_NAMES.finish,
      place: 8,
      label: "finish",
      description: "Writes results and manifest of a batch whose items have all ended.",
      fields: ["account"],
    },
    {
      name: QUEUE_NAMES.keep,
      place: 9,
      label: "keep",
      description: "Once a minute: whatever has stood still too long gets its errand again.",
      fields: null,
    },
    {
      name: QUEUE_NAMES.sweep,
      place: 9,
      label: "sweep",
      description: "Reads the provider's list: wakes what is over, and finds what became of unclear items.",
      fields: ["account"],
    },
  ];
}

function adapterOf(view: QueueView, queue: Queue, accounts: readonly ProviderAccount[]): BullMQAdapter {
  const adapter = new BullMQAdapter(queue, {
    readOnlyMode: true,
    prefix: prefixOf(view),
    displayName: displayNameOf(view),
    description: view.description,
    externalJobUrl: (job) => itemLink(view, job) as { href: string },
  });
  adapter.setFormatter("name", (job: { readonly id?: unknown; readonly name?: string }) => titleOf(job));
  adapter.setFormatter("data", (data: unknown) => showable(named(view, data, accounts)));
  adapter.setFormatter("returnValue", (value: unknown) => showable(value));
  adapter.setFormatter("progress", (value: unknown) => showable(value));
  return adapter;
}

function prefixOf({ place }: QueueView): string {
  return `${place} `;
}

function boardNameOf(view: QueueView): string {
  return `${prefixOf(view)}${view.name}`;
}

function displayNameOf({ place, label }: QueueView): string {
  return `${place} ${label}`;
}

/** Errands are all called so; what a person wants to know is which item. */
function titleOf({ id, name }: { readonly id?: unknown; readonly name?: string }): string {
  const ref = attemptIn(String(id));
  if (ref === null) return redactText(name ?? "");
  return `item ${ref.index}${ref.attempt > 1 ? `, attempt ${ref.attempt}` : ""}${eventIn(String(id))}`;
}

/** The attempt that a job is about, by the job's id. */
function attemptIn(jobId: string): Omit<AttemptRef, "account"> | null {
  return parseErrandId(jobId) ?? parseNotifyJobId(jobId);
}

/** What a client is told, where the job does that. */
function eventIn(jobId: string): string {
  const call = parseNotifyJobId(jobId);
  return call === null ? "" : `, ${call.event}`;
}

/** The page that shows the same item through all stages; none where the job isn't about one item. */
function itemLink(
  view: QueueView,
  job: { readonly id?: unknown; readonly returnvalue?: unknown },
): { readonly href: string; readonly displayText: string } | undefined {
  const ref = view.name === QUEUE_NAMES.inputs ? admittedAs(job.returnvalue) : attemptIn(String(job.id));
  return ref === null ? undefined : { href: `/jobs/${errandId(ref)}`, displayText: "this item through all stages" };
}

/** Admission answers the id of the item that the input became. */
function admittedAs(returned: unknown): Omit<AttemptRef, "account"> | null {
  const item = typeof returned === "string" ? parseItemId(returned) : null;
  return item === null ? null : { ...item, attempt: 1 };
}

/** Errands carry short lists; with the names of what is in them a person can read them. */
function named(view: QueueView, data: unknown, accounts: readonly ProviderAccount[]): unknown {
  if (view.fields === null || !Array.isArray(data)) return data;
  const values: readonly unknown[] = data;
  return Object.fromEntries(
    view.fields.flatMap((field, at) => {
      const value = values[at];
      if (field === "prediction_id") {
        return typeof value === "string" ? [[field, value], ...pageOf(values, value, accounts)] : [];
      }
      const isTime = field.endsWith("_at") && typeof value === "number";
      return [[field, isTime ? new Date(value).toISOString() : value]];
    }),
  );
}

/** Where the provider shows the prediction; the list begins with the account. */
function pageOf(
  [account]: readonly unknown[],
  prediction: string,
  accounts: readonly ProviderAccount[],
): readonly (readonly [string, unknown])[] {
  const found = predictionUrl(account as AccountName, prediction, accounts);
  return found === null ? [] : [["prediction_url", found.url]];
}
