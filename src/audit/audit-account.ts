/**
 * Holds three books of an account against one another: the bucket's receipts, Redis's working state, the provider's list.
 *
 * In this order, so that an audit of a system at work finds no contradictions where there are none: the list first; then
 * batch by batch what the bucket holds, then where Redis says that items stand, and then the receipts, since a receipt
 * is written before its item's end. What is still nobody's on the list is looked up in Redis once more, and held
 * against the rows of all batches. Memory is bounded by what is read of the list, however large the batches are.
 *
 * It only reads: a crash leaves nothing, and running it again is all there is to do.
 */

import { type ReadList, readProviderList } from "../batches/read-list.ts";
import { type AuditTotals, auditExitCode, openTally } from "../core/auditing.ts";
import { type ListBook, openListBook } from "../core/list-book.ts";
import { type AccountName, type BatchId, itemId, parseErrandId } from "../core/naming.ts";
import { latestAfterIntentMs } from "../core/sweeping.ts";
import type { BatchStanding } from "../ledger/ledger.ts";
import type { Audit, AuditDeps } from "./audit.ts";
import { auditBatch } from "./audit-items.ts";
import { compareRows, findUnclear, lookAgain } from "./audit-unexplained.ts";
import { type AccountFinding, type AuditFinding, iso, type ListTotals, ofPrediction, sumOf } from "./findings.ts";

const FOREIGN_EXAMPLES = 5;

/** The findings of an account's batches; the last one holds the totals. Batches that Redis doesn't know are left out. */
export async function* auditAccount(
  account: AccountName,
  batches: readonly BatchId[],
  deps: AuditDeps,
  signal: AbortSignal,
): AsyncGenerator<AuditFinding> {
  const standings = await standingsOf(account, batches, deps);
  const read = await readList(account, standings, deps, signal);
  const runs = read?.runs ?? [];
  const audit: Audit = {
    account,
    deps,
    read,
    book: openListBook(runs),
    bound: boundByItem(runs),
    tally: openTally(),
    unlisted: { unread: 0, young: 0, vanished: 0 },
    unclear: [],
  };
  let moving = 0;
  for (const { batch } of standings) {
    const stoodStill = yield* auditBatch(audit, batch.id, signal);
    if (!stoodStill) moving++;
  }
  await lookAgain(audit);
  yield* findUnclear(audit);
  for (const { batch } of standings) yield* compareRows(audit, batch, signal);

  const foreign: string[] = [];
  for (const run of audit.book.groups()) {
    audit.tally.listed(run.group, run.predictTimeMs);
    if (run.group === "foreign" && foreign.length < FOREIGN_EXAMPLES) foreign.push(run.id);
    if (run.group !== "matching" && run.group !== "silent") continue;
    yield {
      finding: "unexplained",
      account,
      ...ofPrediction(run.id, audit.book),
      why: run.group,
      could_be: run.couldBe,
    };
  }
  yield totalsOf(audit, standings, moving, foreign);
}

async function standingsOf(account: AccountName, batches: readonly BatchId[], { ledger }: AuditDeps) {
  const standings: BatchStanding[] = [];
  for (const id of batches) {
    const standing = await ledger.standing(account, id);
    if (standing !== null) standings.push(standing);
  }
  return standings;
}

/** From the first moment at which something may have been bought to the last; null where there is nothing to read. */
async function readList(
  account: AccountName,
  standings: readonly BatchStanding[],
  { ledger, list, policy, clock }: AuditDeps,
  signal: AbortSignal,
): Promise<ReadList | null> {
  if (typeof list === "string" || standings.length === 0) return null;
  const nowMs = clock();
  const afterEndMs = latestAfterIntentMs(policy);
  const fromMs = standings.reduce((first, { batch }) => Math.min(first, batch.openedAtMs), nowMs) - policy.skewMs;
  const toMs = standings.reduce((last, { finishedAtMs }) => Math.max(last, (finishedAtMs ?? nowMs) + afterEndMs), 0);
  return readProviderList(account, { fromMs, toMs }, { ...list, ledger, clock }, signal);
}

function boundByItem(runs: ReadList["runs"]): Audit["bound"] {
  const bound = new Map<string, Map<number, string>>();
  for (const { id, holder } of runs) {
    const ref = holder === null ? null : parseErrandId(holder);
    if (ref === null) continue;
    const key = itemId(ref.batch, ref.index);
    bound.set(key, (bound.get(key) ?? new Map<number, string>()).set(ref.attempt, id));
  }
  return bound;
}

// ── the totals ────────────────────────────────────────────────────────────────

function totalsOf(
  { account, deps, read, book, tally, unlisted }: Audit,
  standings: readonly BatchStanding[],
  moving: number,
  foreign: readonly string[],
): AccountFinding {
  const totals = tally.totals();
  const { attempts, causes, duplicates, disagreements } = totals;
  const bySize = [...causes].toSorted(([, a], [, b]) => b.count - a.count);
  return {
    finding: "account",
    account,
    batches: standings.length,
    items: standings.reduce((sum, { batch }) => sum + batch.items, 0),
    exit_code: auditExitCode(totals),
    saved: sumOf(attempts.saved),
    not_saved: { ...sumOf(attempts["not-saved"]), causes: bySize.map(([why, share]) => ({ why, ...sumOf(share) })) },
    in_flight: sumOf(attempts["in-flight"]),
    sending: attempts.sending.count,
    unclear: attempts.unclear.count,
    not_bought: attempts["not-bought"].count,
    carried: attempts.carried.count,
    duplicates: sumOf(duplicates),
    disagreements,
    moving,
    list: read === null ? null : listTotals(read, book, totals, unlisted, foreign),
    list_stopped_by: typeof deps.list === "string" ? deps.list : (read?.stoppedBy ?? null),
  };
}

function listTotals(
  { span }: ReadList,
  book: ListBook,
  { list }: AuditTotals,
  unlisted: Audit["unlisted"],
  foreign: readonly string[],
): ListTotals {
  return {
    predictions: book.size,
    complete: span.complete,
    from: new Date(span.afterMs).toISOString(),
    to: new Date(span.beforeMs).toISOString(),
    oldest: iso(span.oldestMs),
    held: sumOf(list.held),
    elsewhere: sumOf(list.elsewhere),
    duplicates: sumOf(list.duplicate),
    matching: sumOf(list.matching),
    silent: sumOf(list.silent),
    foreign: { ...sumOf(list.foreign), examples: foreign },
    unlisted,
  };
}
