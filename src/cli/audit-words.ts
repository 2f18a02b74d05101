/** What an audit found, in words and tables for people. */

import type { AccountFinding, AuditFinding } from "../audit/findings.ts";
import { counted, duration, number } from "../core/figures.ts";
import { SECOND } from "../core/time.ts";
import { cut, harmless, shortTime, table } from "./columns.ts";

const MAX_CAUSES = 10;

type Line = readonly [what: string, count: number, seconds: number | null];

export function totalLines(found: AccountFinding): readonly string[] {
  const { saved, not_saved: notSaved, in_flight: inFlight, list } = found;
  const causes = notSaved.causes.slice(0, MAX_CAUSES);
  const attempts: readonly Line[] = [
    ["billed and saved", saved.count, saved.predict_time],
    ["billed, not saved", notSaved.count, notSaved.predict_time],
    ...causes.map(({ why, count, predict_time }): Line => [`- ${why}`, count, predict_time]),
    ...some(["in flight", inFlight.count, inFlight.predict_time]),
    ...some(["being sent", found.sending, null]),
    ["unclear", found.unclear, null],
    ["not bought", found.not_bought, null],
    ...some(["carried on by a later attempt", found.carried, null]),
    ["bought twice", found.duplicates.count, found.duplicates.predict_time],
  ];
  const header = `account ${found.account}: ${counted(found.batches, "batch").replace(/batchs$/, "batches")}, ${counted(found.items, "item")}`;
  return [
    header,
    "",
    ...shareTable("attempts", attempts),
    "",
    ...(list === null ? [] : listLines(list)),
    ...(found.list_stopped_by === null
      ? []
      : [`the provider's list wasn't read${list === null ? "" : " to its end"}: ${harmless(found.list_stopped_by)}`]),
    found.disagreements === 0 ? "the books agree" : `the books disagree in ${counted(found.disagreements, "place")}`,
    ...(found.moving === 0 ? [] : [`${found.moving} of the batches moved meanwhile: their totals weren't compared`]),
  ];
}

function listLines(list: NonNullable<AccountFinding["list"]>): readonly string[] {
  const { unread, young, vanished } = list.unlisted;
  const whole = list.complete ? list.from : (list.oldest ?? list.to);
  const unlisted = [
    [unread, "older or newer than what was read of it"],
    [young, "too young to show"],
    [vanished, "vanished"],
  ] as const;
  const missing = unlisted.filter(([count]) => count > 0).map(([count, why]) => `${number(count)} ${why}`);
  return [
    ...shareTable("on the provider's list", [
      ["held by an item", list.held.count, list.held.predict_time],
      ...some(["held by an item of another batch", list.elsewhere.count, list.elsewhere.predict_time]),
      ["bought twice, and booked", list.duplicates.count, list.duplicates.predict_time],
      ["held by nobody, and it could be ours", list.matching.count, list.matching.predict_time],
      ["held by nobody, and it shows too little", list.silent.count, list.silent.predict_time],
      ["others'", list.foreign.count, list.foreign.predict_time],
    ]),
    "",
    `the list was read from ${shortTime(whole)} to ${shortTime(list.to)} (UTC): ${counted(list.predictions, "prediction")}`,
    ...(missing.length === 0 ? [] : [`of ours aren't on it: ${missing.join(", ")}`]),
  ];
}

function shareTable(unit: string, lines: readonly Line[]): readonly string[] {
  // The table aligns by its first row's kinds, so that words come first.
  return table(
    ["", unit, "ran for"],
    lines.map(([what, count, seconds]) => [`${what}`, count, ranFor(seconds)]),
  ).map((line) => line.trimEnd());
}

function some(line: Line): readonly Line[] {
  return line[1] > 0 ? [line] : [];
}

function ranFor(seconds: number | null): string {
  return seconds === null || seconds === 0 ? "" : duration(seconds * SECOND);
}

/** So many findings of each kind are told; --json tells all. */
const MAX_TOLD = 10;
const LONGEST_TOLD = 200;

const TITLES = {
  not_saved: "billed, not saved",
  in_flight: "in flight",
  unclear: "unclear",
  duplicate: "bought twice",
  unexplained: "held by nobody",
  disagreement: "the books disagree",
  vanished: "vanished from the list",
} as const;

type Told = Exclude<AuditFinding, AccountFinding>;

export function openTelling() {
  const kinds = new Map<keyof typeof TITLES, { count: number; readonly lines: string[] }>();
  return {
    add(finding: Told): void {
      // What goes on needs nobody's look.
      if (finding.finding === "in_flight") return;
      const kind = kinds.get(finding.finding) ?? { count: 0, lines: [] };
      kinds.set(finding.finding, kind);
      kind.count++;
      if (kind.lines.length < MAX_TOLD) kind.lines.push(`  ${cut(sentenceOf(finding), LONGEST_TOLD)}`);
    },
    lines: (): readonly string[] =>
      [...kinds].flatMap(([kind, { count, lines }]) => [
        "",
        `${TITLES[kind]}:`,
        ...lines,
        ...(count > lines.length ? [`  and ${number(count - lines.length)} more, with --json`] : []),
      ]),
  };
}

function sentenceOf(finding: Exclude<Told, { readonly finding: "in_flight" }>): string {
  switch (finding.finding) {
    case "not_saved":
    case "in_flight": {
      const { item, prediction_id: prediction, why, error, alive } = finding;
      const files = alive ? "; its files can probably still be fetched" : "";
      return `item ${item}, prediction ${prediction ?? "unknown"}: ${error ?? why}${files}`;
    }
    case "unclear": {
      const { item, since, candidates } = finding;
      const shown = candidates.length === 0 ? "no prediction on the list that could be its own" : candidates.join(", ");
      return `item ${item}, since ${since ?? "nobody knows when"}: ${shown}`;
    }
    case "duplicate":
      return `item ${finding.item}: prediction ${finding.prediction_id}${finding.status === null ? "" : `, ${finding.status}`}`;
    case "vanished":
      return `item ${finding.item}: prediction ${finding.prediction_id}`;
    case "disagreement":
      return `${finding.item === null ? `batch ${finding.batch}` : `item ${finding.item}`}: ${finding.what}`;
    case "unexplained": {
      const { prediction_id: prediction, created_at: at, why, could_be: couldBe } = finding;
      const owner = `${why === "matching" ? "by its input it could be of" : "its input shows nothing; it could be of"} ${couldBe.join(", ")}`;
      return `prediction ${prediction} of ${at ?? "an unknown time"}: ${owner}`;
    }
    default:
      return finding satisfies never;
  }
}
