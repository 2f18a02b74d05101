/** One spelling for equal JSON, so that equal inputs can be counted and seeds be drawn from them. */

import { hash } from "node:crypto";

/** JSON with the keys of every object in order. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}

/** 64 hex digits: SHA-256 of the canonical JSON. */
export function digestOf(value: unknown): string {
  return hash("sha256", canonicalJson(value), "hex");
}
