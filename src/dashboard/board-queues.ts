/**
 * The pipeline's queues as bull-board shows them: in the order of the funnel, each with what it is for, read-only.
 * The only file outside `src/queues` that knows BullMQ, since bull-board wants its objects.
 */

import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { type AccountName, errandId, parseErrandId, parseItemId, QUEUE_NAMES } from "../core/naming.ts";
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
export type JobPlace = { readonly boardName: string; readonly displayName: string; readonly state: string };

export type BoardQueues = {
  readonly adapters: readonly BullMQAdapter[];
  /** The queues that have a job for this attempt now, in the order of the funnel. */
  readonly findErrand: (account: AccountName, id: string) => Promise<readonly JobPlace[]>;
  close(): Promise<void>;
};

export function openBoardQueues(redis: Redis, accounts: readonly AccountName[]): BoardQueues {
  const open = viewsOf(accounts).map((view) => {
    // The workers' queues write the settings of a queue; a reader leaves them alone.
    const queue = new Queue(view.name, { connection: redis, skipMetasUpdate: true });
    // A lost connection fails the requests that need it; without a listener it would end the process.
    queue.on("error", () => undefined);
    return { view, queue };
  });
  return {
    adapters: open.map(({ view, queue }) => adapterOf(view, queue)),

    async findErrand(account, id) {
      const stages = new Set<string>([
        QUEUE_NAMES.create(account),
        QUEUE_NAMES.follow(account),
        QUEUE_NAMES.copy,
        QUEUE_NAMES.record,
      ]);
      const places = await Promise.all(
        open
          .filter(({ view }) => stages.has(view.name))
          .map(async ({ view, queue }) => ({
            boardName: `${prefixOf(view)}${view.name}`,
            displayName: displayNameOf(view),
            state: (await queue.getJobState(id)) as string,
          })),
      );
      return places.filter(({ state }) => state !== "unknown");
    },

    async close() {
      await Promise.all(open.map(({ queue }) => queue.close()));
    },
  };
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
      fields: ["account", "expires_at"],
    },
    {
      name: QUEUE_NAMES.record,
      place: 6,
      label: "record",
      description: "Writes the receipt, then counts the item, exactly once. The last thousand stay to be looked at.",
      fields: ["account"],
    },
    {
      name: QUEUE_NAMES.finish,
      place: 7,
      label: "finish",
      description: "Writes results and manifest of a batch whose items have all ended.",
      fields: ["account"],
    },
    {
      name: QUEUE_NAMES.keep,
      place: 8,
      label: "keep",
      description: "Once a minute: whatever has stood still too long gets its errand again.",
      fields: null,
    },
  ];
}

function adapterOf(view: QueueView, queue: Queue): BullMQAdapter {
  const adapter = new BullMQAdapter(queue, {
    readOnlyMode: true,
    prefix: prefixOf(view),
    displayName: displayNameOf(view),
    description: view.description,
    externalJobUrl: (job) => itemLink(view, job) as { href: string },
  });
  adapter.setFormatter("name", (job: { readonly id?: unknown; readonly name?: string }) => titleOf(job));
  adapter.setFormatter("data", (data: unknown) => showable(named(view, data)));
  adapter.setFormatter("returnValue", (value: unknown) => showable(value));
  adapter.setFormatter("progress", (value: unknown) => showable(value));
  return adapter;
}

function prefixOf({ place }: QueueView): string {
  return `${place} `;
}

function displayNameOf({ place, label }: QueueView): string {
  return `${place} ${label}`;
}

/** Errands are all called so; what a person wants to know is which item. */
function titleOf({ id, name }: { readonly id?: unknown; readonly name?: string }): string {
  const errand = parseErrandId(String(id));
  if (errand === null) return redactText(name ?? "");
  return `item ${errand.index}${errand.attempt > 1 ? `, attempt ${errand.attempt}` : ""}`;
}

/** The page that shows the same item through all stages; none where the job isn't about one item. */
function itemLink(
  view: QueueView,
  job: { readonly id?: unknown; readonly returnvalue?: unknown },
): { readonly href: string; readonly displayText: string } | undefined {
  const id = view.name === QUEUE_NAMES.inputs ? admittedAs(job.returnvalue) : String(job.id);
  return id === null || parseErrandId(id) === null
    ? undefined
    : { href: `/jobs/${id}`, displayText: "this item through all stages" };
}

/** Admission answers the id of the item that the input became. */
function admittedAs(returned: unknown): string | null {
  const item = typeof returned === "string" ? parseItemId(returned) : null;
  return item === null ? null : errandId({ ...item, attempt: 1 });
}

/** Errands carry short lists; with the names of what is in them a person can read them. */
function named(view: QueueView, data: unknown): unknown {
  if (view.fields === null || !Array.isArray(data)) return data;
  const values: readonly unknown[] = data;
  return Object.fromEntries(
    view.fields.map((field, at) => {
      const value = values[at];
      const isTime = field.endsWith("_at") && typeof value === "number";
      return [field, isTime ? new Date(value).toISOString() : value];
    }),
  );
}
