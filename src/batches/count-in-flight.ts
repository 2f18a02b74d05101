/** How many of an account's predictions may be running that were bought between two moments. */

import type { AccountName } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";

/** The two counts are of more than what runs, each in its own way: the lesser is nearer. */
export async function countInFlight(
  account: AccountName,
  fromMs: number,
  toMs: number,
  {
    ledger,
    queues,
  }: { readonly ledger: Pick<Ledger, "touchedBetween">; readonly queues: Pick<Queues, "followBacklog"> },
): Promise<number> {
  const counts = await Promise.all([queues.followBacklog(account), ledger.touchedBetween(account, fromMs, toMs)]);
  return Math.min(...counts);
}
