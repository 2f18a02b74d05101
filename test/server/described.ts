/** The API's own description, and whether an answer is what it says. */

import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import type { FastifyInstance, LightMyRequestResponse } from "fastify";
import { expect } from "vitest";

type Ref = { readonly $ref: string };
export type Schema = Readonly<Record<string, unknown>>;
type Media = Readonly<Record<string, { readonly schema: Schema; readonly example?: unknown }>>;
type Parameter = {
  readonly in: string;
  readonly name: string;
  readonly required?: boolean;
  readonly description?: string;
  readonly schema: Schema;
};
type Response = {
  readonly description: string;
  readonly headers?: Readonly<Record<string, Ref>>;
  readonly content?: Media;
};

export type Operation = {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly security?: readonly Schema[];
  readonly parameters: readonly (Parameter | Ref)[];
  readonly requestBody?: { readonly required: boolean; readonly content: Media };
  readonly responses: Readonly<Record<string, Response | Ref>>;
};

export type Document = {
  readonly openapi: string;
  readonly servers: readonly { readonly url: string }[];
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  readonly security: readonly Schema[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: Readonly<Record<string, Readonly<Record<string, Schema>>>>;
};

/** Headers that a client may act on: an answer that has one says so in the description. */
const TELLING = [
  "Location",
  "Preference-Applied",
  "Retry-After",
  "WWW-Authenticate",
  "ETag",
  "Accept-Ranges",
  "Content-Range",
];

type Answer = Pick<LightMyRequestResponse, "statusCode" | "headers" | "body">;

export type Described = {
  readonly document: Document;
  readonly operations: readonly (Operation & { readonly method: string; readonly path: string })[];
  readonly parametersOf: (operation: Operation) => readonly Parameter[];
  readonly responsesOf: (operation: Operation) => readonly (Response & { readonly status: number })[];
  /** In what the value isn't as the schema says. */
  readonly faultsOf: (schema: Schema, value: unknown) => readonly unknown[];
  /** Fails where the operation isn't said to answer so: with the status, in the type, of the form, with the headers. */
  readonly expectDescribed: (operationId: string, answer: Answer, status: number) => void;
};

export async function describedBy(app: FastifyInstance): Promise<Described> {
  const document = (await app.inject("/v1/openapi.json")).json<Document>();
  const ajv = new Ajv2020({ allErrors: true, strictTypes: false, allowUnionTypes: true });
  formats.default(ajv);
  ajv.addVocabulary(["example", "components"]);
  ajv.addSchema({ components: { schemas: document.components["schemas"] } }, "api");

  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ ...operation, method: method.toUpperCase(), path })),
  );

  function resolved<T extends object>(value: T | Ref): T {
    if (!("$ref" in value)) return value;
    const [, , kind = "", name = ""] = value.$ref.split("/");
    return document.components[kind]?.[name] as T;
  }

  const responsesOf = ({ responses }: Operation) =>
    Object.entries(responses).map(([status, response]) => ({ status: Number(status), ...resolved(response) }));

  function faultsOf(schema: Schema, value: unknown): readonly unknown[] {
    const validate = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"api#/')) as Schema);
    return validate(value) ? [] : (validate.errors ?? []);
  }

  return {
    document,
    operations,
    parametersOf: ({ parameters }) => parameters.map((parameter) => resolved<Parameter>(parameter)),
    responsesOf,
    faultsOf,
    expectDescribed(operationId, answer, status) {
      expect(answer.statusCode, answer.body).toBe(status);
      const operation = operations.find((one) => one.operationId === operationId);
      const response = operation && responsesOf(operation).find((one) => one.status === status);
      if (response === undefined) throw new Error(`${operationId} isn't said to answer ${status}`);
      for (const header of TELLING) {
        if (header.toLowerCase() in answer.headers) expect(Object.keys(response.headers ?? {})).toContain(header);
      }
      const type = String(answer.headers["content-type"] ?? "").split(";", 1)[0] ?? "";
      if (response.content === undefined) return expect(answer.body).toBe("");
      const media = response.content[type] ?? response.content["*/*"];
      if (media === undefined) throw new Error(`${operationId} isn't said to answer ${status} as ${type}`);
      const value: unknown = /[/+]json$/.test(type) ? JSON.parse(answer.body) : answer.body;
      expect(faultsOf(media.schema, value), answer.body).toEqual([]);
    },
  };
}
