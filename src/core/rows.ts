/**
 * One row of a batch: the input a person wants predicted, under which id, and by which code.
 *
 * A row on the way in is an object
 *
 *     {"input": {…}, "id"?: "…", "model"? | "version"? | "deployment"?: "…"}
 *
 * with at most one of the last three; without any it takes the batch's. Whatever else it holds is refused by name, so
 * that a misspelt key is found before money is spent. `null` stands for a key that isn't there, as in tables made by
 * programs. What is wrong is told in a person's words, without a line number: the caller knows it.
 */

import type { Target } from "./prediction.ts";

/** Of a row as JSON. Files go in as URLs; a larger row is most likely a file pasted in. */
export const MAX_ROW_BYTES = 1024 * 1024;

/**
 * The input itself is the first. Models take a handful of levels; other programs' parsers give up somewhere from some
 * hundred on, and then a whole page of a list for one item in it.
 */
export const MAX_INPUT_DEPTH = 200;

export type Row = {
  readonly input: Record<string, unknown>;
  readonly id?: string;
  readonly target?: Target;
};

export type RowDefaults = { readonly target?: Target };

export type RowReading = { readonly ok: true; readonly row: Row } | { readonly ok: false; readonly reason: string };

export type TargetReading =
  | { readonly ok: true; readonly target: Target }
  | { readonly ok: false; readonly reason: string };

const TARGET_KEYS = ["model", "version", "deployment"] as const;
const KEYS: readonly string[] = ["input", "id", ...TARGET_KEYS];

/** Reads a row; one without a target of its own takes that of `defaults`, and is refused if there is none. */
export function readRow(value: unknown, defaults: RowDefaults): RowReading {
  if (!isObject(value)) return refuse(`a row is an object, {"input": {…}}, not ${kindOf(value)}`);
  const unfit = jsonProblem(value);
  if (unfit !== null) return refuse(unfit);

  const unknown = Object.keys(value).filter((key) => !KEYS.includes(key));
  const input = value["input"] ?? undefined;
  if (input === undefined) {
    const hint =
      unknown.length > 0 ? `: what the model takes belongs inside it, {"input": {${quote(unknown[0])}: …}}` : "";
    return refuse(`no "input"${hint}`);
  }
  if (!isObject(input)) return refuse(`"input" is an object with the model's inputs, not ${kindOf(input)}`);
  if (unknown.length > 0) {
    const names = unknown.slice(0, 5).map(quote).join(", ");
    return refuse(`unknown key ${names}: a row has "input", "id" and one of "model", "version" and "deployment"`);
  }

  const id = value["id"] ?? undefined;
  const idProblem = id === undefined ? null : problemOfId(id);
  if (idProblem !== null) return refuse(idProblem);

  const target = readTarget(value, defaults);
  if (!target.ok) return target;
  return { ok: true, row: { input, ...(typeof id === "string" && { id }), target: target.target } };
}

function readTarget(row: Record<string, unknown>, defaults: RowDefaults): TargetReading {
  const [key, second] = TARGET_KEYS.filter((name) => (row[name] ?? undefined) !== undefined);
  if (key === undefined) {
    if (defaults.target !== undefined) return { ok: true, target: defaults.target };
    return refuse('no model: name one in the row ("model", "version" or "deployment"), or one for all rows');
  }
  if (second !== undefined) return refuse(`both "${key}" and "${second}": a row names one of them`);
  const text = row[key];
  if (typeof text !== "string") return refuse(`"${key}" is text, not ${kindOf(text)}`);
  return parseTarget(key, text);
}

// -- targets ---------------------------------------------------------------------------------------------------------

/** What is named by one of the three words; null where none is. */
export function readTargetChoice(
  choice: {
    readonly [Kind in Target["kind"]]?: string | undefined;
  },
): TargetReading | null {
  const [named, second] = TARGET_KEYS.flatMap((kind) => {
    const text = choice[kind];
    return text === undefined ? [] : [{ kind, text }];
  });
  if (named === undefined) return null;
  if (second !== undefined) return refuse(`both "${named.kind}" and "${second.kind}": name one of them`);
  return parseTarget(named.kind, named.text);
}

export function parseTarget(kind: Target["kind"], text: string): TargetReading {
  switch (kind) {
    case "model":
      return parseModel(text);
    case "version":
      return parseVersion(text);
    case "deployment":
      return parseDeployment(text);
    default:
      return kind satisfies never;
  }
}

/** `owner/name`, or `owner/name:version`, which is that version. */
function parseModel(text: string): TargetReading {
  const [path = "", version = "", ...more] = text.split(":");
  const named = parsePath(path);
  if (named !== null && path === text) return { ok: true, target: { kind: "model", ...named } };
  if (named !== null && isVersionId(version) && more.length === 0) return versionTarget(version);
  const hint = isVersionId(text) ? '; give a version alone as "version"' : "";
  return refuse(`"model" is owner/name, or owner/name: and the 64 hex digits of a version, not ${quote(text)}${hint}`);
}

/** The 64 hex digits of a version, alone or after `owner/name:`. */
function parseVersion(text: string): TargetReading {
  if (isVersionId(text)) return versionTarget(text);
  const [path = "", version = "", ...more] = text.split(":");
  if (parsePath(path) !== null && isVersionId(version) && more.length === 0) return versionTarget(version);
  return refuse(`"version" is the 64 hex digits of a version, alone or after owner/name:, not ${quote(text)}`);
}

/** `owner/name`. */
function parseDeployment(text: string): TargetReading {
  const named = parsePath(text);
  if (named !== null) return { ok: true, target: { kind: "deployment", ...named } };
  return refuse(`"deployment" is owner/name, not ${quote(text)}`);
}

/** Both parts go into URLs as they are: no part can be `.` or `..`, or hold anything that needs escaping. */
function parsePath(text: string): { readonly owner: string; readonly name: string } | null {
  const match = /^([\w-][\w.-]{0,99})\/([\w-][\w.-]{0,99})$/.exec(text);
  return match?.[1] === undefined || match[2] === undefined ? null : { owner: match[1], name: match[2] };
}

function isVersionId(text: string): boolean {
  return /^[0-9a-f]{64}$/i.test(text);
}

function versionTarget(version: string): TargetReading {
  return { ok: true, target: { kind: "version", version: version.toLowerCase() } };
}

// -- small rules -----------------------------------------------------------------------------------------------------

function problemOfId(id: unknown): string | null {
  if (typeof id !== "string")
    return `"id" is text, not ${kindOf(id)}${typeof id === "number" ? `: write "${id}"` : ""}`;
  if (id === "") return '"id" is empty: leave it out, or name the row';
  if (id.length > 255) return `"id" has ${id.length} characters, at most 255 are allowed`;
  // Lone surrogates can't be written as UTF-8: two ids could become one.
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(id) || !id.isWellFormed()) return `"id" ${quote(id)} holds control characters`;
  return null;
}

function jsonProblem(value: unknown): string | null {
  let json: string;
  try {
    json = JSON.stringify(value);
  } catch {
    return "can't be written as JSON: it is nested too deeply, or refers to itself";
  }
  if (isTooLarge(json)) return `larger than ${MAX_ROW_BYTES} bytes as JSON: give files as URLs`;
  return isTooDeep(json) ? `nested too deeply: at most ${MAX_INPUT_DEPTH} levels` : null;
}

function isTooLarge(json: string): boolean {
  // UTF-8 takes at least a byte per character, at most three: most rows need no counting.
  if (json.length * 3 <= MAX_ROW_BYTES) return false;
  return json.length > MAX_ROW_BYTES || new TextEncoder().encode(json).length > MAX_ROW_BYTES;
}

/** Looks at the text, which is bounded, and not into the values, where a walk could overflow or never end. */
function isTooDeep(json: string): boolean {
  const deepest = MAX_INPUT_DEPTH + 1; // the row is around the input
  if (json.length <= 2 * deepest) return false; // a level takes two brackets
  let depth = 0;
  for (let at = 0; at < json.length; at++) {
    const char = json[at];
    if (char === '"') at = endOfText(json, at);
    else if (char === "}" || char === "]") depth--;
    else if ((char === "{" || char === "[") && ++depth > deepest) return true;
  }
  return false;
}

/** Where the text that begins there has its closing quote. */
function endOfText(json: string, start: number): number {
  for (let at = start + 1; at < json.length; at++) {
    if (json[at] === "\\") at++;
    else if (json[at] === '"') return at;
  }
  return json.length;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return "text";
  if (typeof value === "number") return "a number";
  return typeof value === "boolean" ? "true or false" : "an object";
}

/** A person's own words in a message to them, cut where they are long. */
export function quote(text: string | undefined): string {
  const shown = text ?? "";
  return JSON.stringify(shown.length > 80 ? `${shown.slice(0, 77)}...` : shown);
}

function refuse(reason: string): { readonly ok: false; readonly reason: string } {
  return { ok: false, reason };
}
