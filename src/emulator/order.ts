/**
 * Reads the body of a create, as strictly as the published schemas do: a property they don't name is a mistake, and so
 * is an input that the model's own schema refuses. Mistakes are reported together, in the 422 body that was captured
 * in public repositories.
 */

import { type Answer, problem } from "./answer.ts";
import type { InvalidField, Model } from "./model.ts";
import { MODELS, VERSIONS } from "./models.ts";
import type { WebhookEvent } from "./prediction.ts";

type CreateBody = {
  readonly model: Model;
  /** An id where one was asked for, else `hidden`. */
  readonly version: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly webhook: string | null;
  readonly webhookEvents: readonly WebhookEvent[] | null;
};

export type Reading =
  | { readonly kind: "read"; readonly body: CreateBody }
  | { readonly kind: "refused"; readonly answer: Answer };

const EVENTS: readonly string[] = ["start", "output", "logs", "completed"] satisfies WebhookEvent[];
const ALLOWED = ["input", "webhook", "webhook_events_filter", "stream"];

/** `model` is the one the path names; null where the body's `version` has to. */
export function readCreateBody(text: string, model: Model | null): Reading {
  const body = parseObject(text);
  if (body === null) {
    return { kind: "refused", answer: problem({ detail: "The request body isn't a JSON object.", status: 400 }) };
  }
  const mistakes = bodyMistakes(body, model === null);
  if (mistakes.length > 0) return refuse(mistakes);

  const target = model === null ? findVersion(String(body["version"])) : { model, version: "hidden" };
  if (target === null) {
    const detail = "The specified version does not exist, or this account is not permitted to run it.";
    return { kind: "refused", answer: problem({ title: "Invalid version or not permitted", detail, status: 422 }) };
  }
  const input = asObject(body["input"]) ?? {};
  const inputMistakes = target.model.check(input);
  if (inputMistakes.length > 0) return refuse(inputMistakes);
  return {
    kind: "read",
    body: {
      ...target,
      input,
      webhook: typeof body["webhook"] === "string" ? body["webhook"] : null,
      webhookEvents: Array.isArray(body["webhook_events_filter"])
        ? body["webhook_events_filter"].filter(isEvent)
        : null,
    },
  };
}

export function refuse(fields: readonly InvalidField[]): { readonly kind: "refused"; readonly answer: Answer } {
  const lines = fields.map(({ field, description }) => `- ${field === "" ? "" : `${field}: `}${description}\n`);
  return {
    kind: "refused",
    answer: problem({ title: "Input validation failed", detail: lines.join(""), status: 422, invalid_fields: fields }),
  };
}

export function parseObject(text: string): Readonly<Record<string, unknown>> | null {
  try {
    return asObject(JSON.parse(text));
  } catch {
    return null;
  }
}

function bodyMistakes(body: Readonly<Record<string, unknown>>, needsVersion: boolean): InvalidField[] {
  const mistakes: InvalidField[] = [];
  for (const name of needsVersion ? ["version", "input"] : ["input"]) {
    if (body[name] === undefined) mistakes.push({ type: "required", field: "", description: `${name} is required` });
  }
  for (const name of Object.keys(body)) {
    if (ALLOWED.includes(name) || (needsVersion && name === "version")) continue;
    const description = `Additional property ${name} is not allowed`;
    mistakes.push({ type: "additional_property_not_allowed", field: "", description });
  }
  const expect = (name: string, type: string, right: (value: unknown) => boolean): void => {
    if (body[name] === undefined || right(body[name])) return;
    mistakes.push({ type: "invalid_type", field: name, description: `Invalid type. Expected: ${type}` });
  };
  expect("version", "string", (value) => typeof value === "string");
  expect("input", "object", (value) => asObject(value) !== null);
  // The published rule is HTTPS; here http is taken too, since what listens beside an emulator seldom has a certificate.
  expect("webhook", "HTTPS URL", (value) => typeof value === "string" && /^https?:/.test(value) && URL.canParse(value));
  expect(
    "webhook_events_filter",
    `array of ${EVENTS.join(", ")}`,
    (value) => Array.isArray(value) && value.every(isEvent),
  );
  return mistakes;
}

/** A 64-hex id, `owner/name:id`, or `owner/name`. */
function findVersion(version: string): { readonly model: Model; readonly version: string } | null {
  const official = MODELS.get(version);
  if (official) return { model: official, version: "hidden" };
  const [name, id] = version.includes(":") ? version.split(":", 2) : [null, version];
  const model = VERSIONS.get(id ?? "");
  if (!model || (name !== null && name !== model.fullName)) return null;
  return { model, version: model.versionId };
}

function isEvent(value: unknown): value is WebhookEvent {
  return typeof value === "string" && EVENTS.includes(value);
}

function asObject(value: unknown): Readonly<Record<string, unknown>> | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : null;
}
