/** What all steps of one audit share. */

import type { ListDeps, ReadList } from "../batches/read-list.ts";
import type { Bucket } from "../bucket/bucket.ts";
import type { openTally } from "../core/auditing.ts";
import type { ListBook } from "../core/list-book.ts";
import { type AccountName, type AttemptRef, type BatchId, itemId } from "../core/naming.ts";
import type { SweepPolicy } from "../core/sweeping.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { AuditFinding } from "./findings.ts";

export type AuditDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "standing" | "readStates" | "readItem" | "partOf" | "holdersAmong" | "intents">;
  /** A text: why the provider's list isn't read. */
  readonly list: Pick<ListDeps, "list" | "pauseMs" | "maxPages"> | string;
  readonly policy: SweepPolicy;
  readonly clock: () => number;
};

export type Audit = {
  readonly account: AccountName;
  readonly deps: AuditDeps;
  readonly read: ReadList | null;
  readonly book: ListBook;
  /** By item: which attempt Redis knows to hold which of the listed predictions. */
  readonly bound: ReadonlyMap<string, ReadonlyMap<number, string>>;
  readonly tally: ReturnType<typeof openTally>;
  readonly unlisted: Record<"unread" | "young" | "vanished", number>;
  readonly unclear: { readonly ref: AttemptRef; readonly fromMs: number | null; readonly toMs: number }[];
};

export function disagreement(
  { account, tally }: Audit,
  batch: BatchId,
  index: number | null,
  what: string,
): AuditFinding {
  tally.disagreement();
  return { finding: "disagreement", account, batch, item: index === null ? null : itemId(batch, index), index, what };
}
