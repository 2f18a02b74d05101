/** What goes in and out over HTTP, as schemas: they check what comes in, and are the API's documentation. */

import { z } from "zod";
import { MAX_ATTEMPT } from "../core/item.ts";
import { WEBHOOK_EVENTS } from "../core/prediction.ts";

/** Zod has no word of its own for what is missing. */
export const REQUIRED = "is required";

const moment = z.iso.datetime({ offset: true });

/** As it is: a record's schema would copy it. */
const input = z
  .custom<Readonly<Record<string, unknown>>>(
    (value) => typeof value === "object" && value !== null && !Array.isArray(value),
    { error: ({ input: given }) => (given === undefined ? REQUIRED : "must be an object with the model's inputs") },
  )
  .meta({ type: "object", description: "What the model takes.", example: { prompt: "a lighthouse in the fog" } });

const createFields = {
  input,
  webhook: z
    .url({ protocol: /^https?$/ })
    .max(2_000)
    .optional()
    .meta({ description: "Called once when the prediction begins, if asked for, and once when it has ended." }),
  webhook_events_filter: z
    .array(z.enum(WEBHOOK_EVENTS))
    .refine(({ length }) => length <= WEBHOOK_EVENTS.length, `at most ${WEBHOOK_EVENTS.length} kinds of events`)
    .optional()
    .meta({
      maxItems: WEBHOOK_EVENTS.length,
      description: "Default: output and completed. One call at the end tells output, logs and completion.",
    }),
  stream: z.boolean().optional().meta({ description: "Accepted, as official clients send it; nothing is streamed." }),
};

export const createBody = z.strictObject({
  version: z
    .string()
    .max(300)
    .meta({ description: "A version's id, `owner/name:id`, or `owner/name`.", example: "owner/name" }),
  ...createFields,
});
/** Where the path names what runs. */
export const createOfPathBody = z.strictObject(createFields);

/** Where the address says it all. Official clients send a Content-Type without a body, which is checked as null. */
export const noBody = z.strictObject({}).nullable();

const idOf = (what: string) =>
  z
    .string()
    .max(100)
    .meta({ description: `The ${what}'s id.` });

export const ownerAndName = z.object({
  owner: z.string().max(100).meta({ description: "Whose it is." }),
  name: z.string().max(100).meta({ description: "What it is called there." }),
});
export const predictionParams = z.object({ id: idOf("prediction") });
export const batchParams = z.object({ id: idOf("batch") });
export const fileParams = z.object({
  item: idOf("prediction"),
  name: z.string().max(100).meta({ description: "The file's, as output URLs have it." }),
});
export const fileQuery = z.object({
  expires: z.string().max(20).optional().meta({ description: "Until when the signature holds." }),
  signature: z.string().max(100).optional(),
});

export const predictionsQuery = z.strictObject({
  created_after: moment.optional().meta({ description: "Inclusive." }),
  created_before: moment.optional().meta({ description: "Exclusive." }),
  cursor: z.string().max(4_000).optional().meta({ description: "From `next`." }),
});

export const createBatchQuery = z.strictObject({
  name: z.string().min(1).max(200).default("rows").meta({ description: "Part of what makes it the same batch." }),
  model: z.string().max(300).optional().meta({ description: "For rows that name none; or `version`, `deployment`." }),
  version: z.string().max(300).optional().meta({ description: "As `model`." }),
  deployment: z.string().max(300).optional().meta({ description: "As `model`." }),
  account: z
    .string()
    .max(31)
    .optional()
    .meta({ description: "Who pays; unnamed the key's, the only one, or `replicate`." }),
  retry_failed: z.coerce
    .number()
    .int()
    .min(0)
    .max(MAX_ATTEMPT - 1)
    .default(0)
    .meta({ description: "So many more attempts of what the provider itself failed, each paid for." }),
  again: z
    .stringbool()
    .default(false)
    .meta({ type: "boolean", default: false, description: "Make a new batch even if it is the same." }),
});

export const batchesQuery = z.strictObject({
  cursor: z.string().max(200).optional().meta({ description: "From `next`." }),
});

// ── answers ───────────────────────────────────────────────────────────────────

export const prediction = z
  .object({
    id: z.string(),
    model: z.string(),
    version: z.string(),
    input: z.record(z.string(), z.unknown()),
    output: z.unknown().meta({ description: "File URLs lead to the kept copies." }),
    error: z.string().nullable(),
    status: z.enum(["starting", "processing", "succeeded", "failed", "canceled", "aborted"]),
    logs: z.string(),
    data_removed: z.literal(false),
    created_at: moment,
    started_at: moment.optional(),
    completed_at: moment.optional(),
    deadline: moment.optional(),
    deployment: z.string().optional(),
    source: z.literal("api"),
    metrics: z.record(z.string(), z.unknown()),
    urls: z.object({ get: z.string(), cancel: z.string(), web: z.string() }),
    webhook: z.string().optional(),
    webhook_events_filter: z.array(z.enum(WEBHOOK_EVENTS)).readonly().optional(),
  })
  .meta({ id: "Prediction" });

export const predictionsPage = z.object({
  previous: z.null(),
  next: z.string().nullable(),
  results: z.array(prediction).readonly(),
});

const count = z.int().nonnegative();

export const batch = z
  .object({
    batch: z.string(),
    name: z.string(),
    state: z.enum(["open", "running", "paused", "finished", "canceled"]),
    items: count,
    waiting: count,
    in_flight: count,
    saved: count,
    failed: count,
    canceled: count,
    unclear: count,
    duplicates: count.meta({ description: "Predictions that were bought for an item which had one." }),
    not_saved: count.meta({
      description:
        "Predictions that succeeded, and so are paid for, and whose output couldn't be saved, or not all of it.",
    }),
    account: z.string(),
    paused: z.string().nullable(),
    paused_by: z.enum(["batch", "account", "unclear"]).nullable(),
    unopened: z
      .string()
      .nullable()
      .meta({ description: "Why its account can't be opened after Redis lost something; it is tried by itself." }),
    held: z.string().nullable().meta({ description: "Why less is bought for the moment: saving is behind." }),
    canceled_at: moment.nullable(),
    opened_at: moment,
    finished_at: moment.nullable(),
    metrics: z.object({ predict_time: z.number(), output_files: count, output_bytes: count }),
  })
  .meta({ id: "Batch" });

export const batchWithFailures = batch.extend({
  failures: z
    .array(z.object({ error: z.string(), count, example: z.string() }))
    .meta({ description: "Failed items by cause, at most a hundred; `example`: an item's id." }),
});

export const batchesPage = z.object({
  previous: z.null(),
  next: z.string().nullable(),
  results: z.array(batch).readonly(),
});

export const problem = z
  .object({ title: z.string(), status: z.int(), detail: z.string() })
  .meta({ id: "Problem", description: "As application/problem+json (RFC 9457)." });

export const invalid = problem
  .extend({
    invalid_fields: z.array(z.object({ type: z.string(), field: z.string(), description: z.string() })).optional(),
    more_invalid_fields: z.int().optional().meta({ description: "Beyond the hundred that are told." }),
    invalid_rows: z.array(z.object({ line: z.int(), reason: z.string() })).optional(),
    more_invalid_rows: z.boolean().optional(),
  })
  .meta({ id: "InvalidInput" });

export const webhookSecret = z.object({ key: z.string() });
export const account = z.object({ type: z.literal("organization"), username: z.string(), name: z.string() });
