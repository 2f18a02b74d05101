/** What an open item's hash keeps of its row, so that whoever ends the item needn't read it. Written with the claim. */

import type { StoredRow } from "../bucket/input-parts.ts";
import type { OpenItemFields } from "../ledger/ledger.ts";

export function claimFields(row: StoredRow): Partial<OpenItemFields> {
  return {
    ...(row.id !== undefined && { row_id: row.id }),
    ...(row.reply_to !== undefined && { reply_to: row.reply_to }),
    ...(row.webhook !== undefined && { webhook_events: row.webhook.events.join(",") }),
    ...(row.deadline !== undefined && { deadline_at: String(Date.parse(row.deadline)) }),
  };
}
