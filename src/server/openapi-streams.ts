/** What goes in and out as something else than JSON, as the API's description has it: rows, results, events, files. */

import { z } from "zod";
import type { ResultLine } from "../core/receipt.ts";
import { MAX_ROW_BYTES } from "../core/rows.ts";
import { schemaRef } from "./openapi-errors.ts";
import * as schemas from "./schemas.ts";

type Content = Readonly<Record<string, { readonly schema: object; readonly example?: string }>>;

const target = z.string().nullish();

const row = z
  .strictObject({
    input: z.record(z.string(), z.unknown()).meta({ description: "What the model takes." }),
    id: z
      .string()
      .min(1)
      .max(255)
      .nullish()
      .meta({ description: "Yours, and only one row's of the batch; results lines repeat it." }),
    model: target.meta({ description: "`owner/name`, or `owner/name:version`." }),
    version: target.meta({ description: "64 hex digits." }),
    deployment: target.meta({ description: "`owner/name`." }),
  })
  .meta({
    id: "BatchRow",
    description: `A row of a batch, at most ${MAX_ROW_BYTES} bytes. One of \`model\`, \`version\` and \`deployment\`, or none where the
query names one for all rows.`,
  });

const metrics = z.record(z.string(), z.unknown()).meta({ description: "As the provider tells them." });
const end = z.enum(["saved", "failed", "canceled"]);

const resultLine: z.ZodType<ResultLine> = z
  .object({
    index: z.int().nonnegative().meta({ description: "The row's place in the input, from 0." }),
    item: z.string().meta({ description: "The item's id, which is its prediction's in this API." }),
    id: z.string().nullable().meta({ description: "The row's own." }),
    status: z.enum([...end.options, "unclear", "waiting", "in_flight"]),
    prediction_id: z.string().nullable().meta({ description: "The provider's." }),
    output: z.unknown().meta({ description: "Each file in it by its object's key in the bucket." }),
    outputs: z
      .array(
        z.object({
          key: z.string(),
          url: z.string().meta({ description: "Opens without a key." }),
          bytes: z.int().nonnegative(),
          sha256: z.string(),
          content_type: z.string(),
        }),
      )
      .readonly()
      .meta({ description: "The kept files." }),
    error: z.string().nullable(),
    metrics,
    attempts: z
      .array(
        z.object({
          attempt: z.int().positive(),
          status: end,
          prediction_id: z.string().nullable(),
          error: z.string().nullable(),
          metrics,
          not_saved: z
            .literal(true)
            .exactOptional()
            .meta({ description: "It is paid for, and its output isn't in the bucket, or not all of it." }),
        }),
      )
      .readonly()
      .meta({ description: "Each purchase that has ended, oldest first." }),
  })
  .meta({ id: "ResultLine", description: "What became of an item." });

const event = {
  type: "object",
  properties: {
    event: { const: "batch" },
    id: { type: "string", description: "Names how the batch stands; what `Last-Event-ID` takes." },
    data: { type: "string", contentMediaType: "application/json", contentSchema: schemaRef(schemas.batch) },
  },
  required: ["event", "id", "data"],
};

export const ROWS_IN: Content = lines(["application/x-ndjson", "application/jsonl"], {
  description: "A line of JSON a row, as many as there are.",
  items: schemaRef(row),
  example: `{"input": {"prompt": "a lighthouse in the fog"}, "id": "fog-1", "model": "outlast/picture"}
{"input": {"prompt": "a lighthouse at noon"}, "id": "noon-1", "model": "outlast/picture"}
`,
});

export const RESULTS_OUT: Content = lines(["application/x-ndjson"], {
  description: "A line of JSON an item.",
  items: schemaRef(resultLine),
  example: `{"index":0,"item":"0123456789abcdefghjk000000","id":"fog-1","status":"waiting","prediction_id":null,"output":null,"outputs":[],"error":null,"metrics":{},"attempts":[]}
`,
});

export const EVENTS_OUT: Content = lines(["text/event-stream"], {
  description: "Server-sent events (WHATWG HTML, section 9.2); lines that begin with a colon are signs of life.",
  items: event,
  example: `retry: 2000

event: batch
id: qYc4tS0mV1nB2xKe
data: {"batch": "0123456789abcdefghjk", "state": "running", "items": 3, …}

`,
});

export const FILE_OUT: Content = { "*/*": { schema: { type: "string", format: "binary" } } };

/** One value after another is a text to OpenAPI 3.1; what it is made of stands in its `contentSchema`. */
function lines(
  types: readonly string[],
  { description, items, example }: { readonly description: string; readonly items: object; readonly example: string },
): Content {
  const contentSchema = { type: "array", items };
  return Object.fromEntries(
    types.map((type) => [
      type,
      { schema: { type: "string", description, contentMediaType: type, contentSchema }, example },
    ]),
  );
}
