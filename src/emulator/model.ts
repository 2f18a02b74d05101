/**
 * What a model is to the emulator: a schema of its input, and functions that say what comes out. Everything that
 * comes out is made from the input alone, and only when somebody asks for it: a prediction stores no output.
 *
 * The API checks inputs itself and answers 422 with `invalid_fields`, in the words of the JSON-schema validator that
 * captured answers show ("width must be less than or equal to 1024"). Fields a schema doesn't know are let through,
 * as Cog strips them with a warning.
 */

import { hash } from "node:crypto";
import { z } from "zod";

/** A part of an output that is served by the file host. */
export type OutputFile = {
  /** The last part of its URL. */
  readonly name: string;
  readonly contentType: string;
  readonly content: FileContent;
};

type FileContent =
  | { readonly kind: "whole"; make(): Buffer }
  /** Made while it is sent, from any byte on; `toByte` is exclusive. */
  | { readonly kind: "stream"; readonly sizeBytes: number; read(fromByte: number, toByte: number): Iterable<Buffer> };

/** How one run goes wrong; the error can be null, as Replicate's was seen to be. */
type Failure = { readonly error: string | null };

export type InvalidField = { readonly type: string; readonly field: string; readonly description: string };

/** What a maker of models writes down. */
export type ModelPlan<Schema extends z.ZodObject> = {
  /** Its owner is `outlast`. */
  readonly name: string;
  readonly description: string;
  readonly input: Schema;
  /** JSON schema of the output, as `components.schemas.Output` shows it. */
  readonly outputSchema: Readonly<Record<string, unknown>>;
  /** `digest`: 64 hex digits that no other input shares; what makes each file its own. */
  files?(input: z.output<Schema>, digest: string): readonly OutputFile[];
  /** `urls` are those of `files`, in their order. */
  output(input: z.output<Schema>, urls: readonly string[], digest: string): unknown;
  /** What a run that doesn't succeed has given by then; nothing unless the model gives its output bit by bit. */
  rest?(input: z.output<Schema>, urls: readonly string[]): unknown;
  /** `luck`, in [0, 1), differs from run to run of the same input. */
  failure?(input: z.output<Schema>, luck: number): Failure | null;
  /** Where the input decides how long it runs. */
  runMs?(input: z.output<Schema>): number;
};

/** The same, with inputs as they arrive. */
export type Model = {
  readonly owner: "outlast";
  readonly name: string;
  readonly fullName: string;
  readonly description: string;
  /** 64 hex digits, made from the name: the same in every emulator. */
  readonly versionId: string;
  readonly openapiSchema: Readonly<Record<string, unknown>>;
  check(input: unknown): readonly InvalidField[];
  files(input: unknown, digest: string): readonly OutputFile[];
  output(input: unknown, urls: readonly string[], digest: string): unknown;
  rest(input: unknown, urls: readonly string[]): unknown;
  failure(input: unknown, luck: number): Failure | null;
  runMs(input: unknown): number | null;
};

export function defineModel<Schema extends z.ZodObject>(plan: ModelPlan<Schema>): Model {
  const fullName = `outlast/${plan.name}`;
  const inputSchema = z.toJSONSchema(plan.input, { io: "input", target: "openapi-3.0" });
  return {
    owner: "outlast",
    name: plan.name,
    fullName,
    description: plan.description,
    versionId: hash("sha256", `version of ${fullName}`, "hex"),
    openapiSchema: {
      openapi: "3.0.2",
      info: { title: "Cog", version: "0.1.0" },
      paths: {},
      components: { schemas: { Input: { title: "Input", ...inputSchema }, Output: plan.outputSchema } },
    },
    check(input) {
      const result = plan.input.safeParse(input, { reportInput: true });
      return result.success ? [] : result.error.issues.map((issue) => invalidField(issue, inputSchema));
    },
    files: (input, digest) => plan.files?.(plan.input.parse(input), digest) ?? [],
    output: (input, urls, digest) => plan.output(plan.input.parse(input), urls, digest),
    rest: (input, urls) => plan.rest?.(plan.input.parse(input), urls) ?? null,
    failure: (input, luck) => plan.failure?.(plan.input.parse(input), luck) ?? null,
    runMs: (input) => plan.runMs?.(plan.input.parse(input)) ?? null,
  };
}

function invalidField(issue: z.core.$ZodIssue, schema: z.core.JSONSchema.BaseSchema): InvalidField {
  const name = issue.path.join(".");
  const field = `input.${name}`;
  switch (issue.code) {
    case "invalid_type":
      return issue.input === undefined
        ? { type: "required", field: "input", description: `${name} is required` }
        : {
            type: "invalid_type",
            field,
            description: `Invalid type. Expected: ${typeIn(schema, name) ?? issue.expected}, given: ${jsonType(issue.input)}`,
          };
    case "invalid_value":
      return {
        type: "enum",
        field,
        description: `${name} must be one of the following: ${issue.values.map((value) => JSON.stringify(value)).join(", ")}`,
      };
    case "too_small":
      return issue.origin === "string"
        ? { type: "string_gte", field, description: `String length must be greater than or equal to ${issue.minimum}` }
        : { type: "number_gte", field, description: `Must be greater than or equal to ${issue.minimum}` };
    case "too_big":
      return issue.origin === "string"
        ? { type: "string_lte", field, description: `String length must be less than or equal to ${issue.maximum}` }
        : { type: "number_lte", field, description: `Must be less than or equal to ${issue.maximum}` };
    case "custom":
    case "invalid_element":
    case "invalid_format":
    case "invalid_key":
    case "invalid_union":
    case "not_multiple_of":
    case "unrecognized_keys":
      return { type: issue.code, field, description: issue.message };
  }
}

/** JSON schema knows integers, which zod calls numbers of a format. */
function typeIn(schema: z.core.JSONSchema.BaseSchema, name: string): string | null {
  const property = schema.properties?.[name];
  return typeof property === "object" && typeof property.type === "string" ? property.type : null;
}

function jsonType(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value;
}
