/** `outlast status --accounts`: how the accounts stand, in words or as lines of JSON. */

import { type AccountReport, type LimitReport, reportAccount } from "../batches/report-account.ts";
import { counted, duration, number } from "../core/figures.ts";
import type { CommandServices } from "../wiring.ts";
import { fields, harmless } from "./columns.ts";
import { OUTLAST, print, printJson, say } from "./output.ts";

export async function showAccounts(services: CommandServices, json: boolean): Promise<void> {
  const { accounts } = services;
  if (accounts.length === 0) say("there are no accounts: set REPLICATE_API_TOKEN or COMETAPI_KEY, or OUTLAST_ACCOUNTS");
  for (const [at, { name }] of accounts.entries()) {
    const report = await reportAccount(name, { ...services, clock: Date.now });
    if (json) await printJson(report);
    else for (const line of [...(at > 0 ? [""] : []), ...linesOf(report)]) await print(line);
  }
}

function linesOf(report: AccountReport): readonly string[] {
  const { creates, reads, items } = report;
  const uncounted = report.unfinished_batches - report.counted_batches;
  const outcomes = Object.entries(report.requests).map(([request, of]) => [request, countsOf(of)] as const);
  return fields({
    account: report.account,
    paused:
      report.paused === null
        ? null
        : `${harmless(report.paused)}; to let it go on: ${OUTLAST} resume --account ${report.account}`,
    "not open": report.unopened === null ? null : harmless(report.unopened),
    creates: creates === null ? "no worker has worked for it yet" : rateOf(creates),
    ...(creates !== null && troubles("creates", creates)),
    reads: reads === null ? null : `${rateOf(reads)}; ${number(reads.left_beside_polls)} left beside polls`,
    ...(reads !== null && troubles("reads", reads)),
    items:
      report.counted_batches === 0
        ? "no unfinished batches"
        : `${number(items.in_flight)} in flight, ${number(items.waiting)} waiting, ${number(items.saved)} saved, ` +
          `${number(items.failed)} failed, ${number(items.canceled)} canceled, of ${number(report.counted_batches)} unfinished batches` +
          (uncounted > 0 ? ` (the oldest; ${number(uncounted)} more)` : ""),
    unclear: report.unclear === 0 ? null : number(report.unclear),
    "oldest open": report.untouched_since === null ? null : `not touched since ${report.untouched_since}`,
    ...Object.fromEntries(outcomes.map(([request, text]) => [`${request} requests`, text])),
    polls: Object.values(report.polls).every((count) => count === 0) ? null : pollsLine(report.polls),
    saving: savingLine(report.saving),
    "feeding held": report.saving.held === null ? null : `${harmless(report.saving.held)}; it goes on by itself`,
    "oldest unsaved": report.saving.oldest_unsaved === null ? null : oldestLine(report.saving.oldest_unsaved),
    bucket:
      report.saving.bucket.state === "closed"
        ? null
        : `down since ${report.saving.bucket.since}: ${harmless(report.saving.bucket.reason ?? "")}; one file at a time finds out when it is back`,
    webhooks: Object.keys(report.webhooks).length === 0 ? null : countsOf(report.webhooks),
    sweeps: report.sweeps === null ? null : sweepsLine(report.sweeps),
    ...Object.fromEntries(report.run_times.map((times) => [`runs of ${harmless(times.model)}`, timesLine(times)])),
  });
}

function rateOf({ per_minute: rate, effective_per_minute: now, by_hand: byHand, tier }: LimitReport): string {
  const source = byHand ? ", set by hand" : "";
  const why = tier === null ? "after a refusal" : `the provider's tier, tried again ${tier.until}`;
  const less = now < rate ? `, ${number(Math.round(now * 10) / 10)} now (${why})` : "";
  return `${number(rate)} a minute${source}${less}`;
}

function troubles(
  what: string,
  { last_refusal: refusal, breaker }: LimitReport,
): Readonly<Record<string, string | null>> {
  return {
    [`${what} refused`]:
      refusal === null ? null : `${refusal.at}, until ${refusal.until}: ${harmless(refusal.said) || "without a word"}`,
    [`${what} breaker`]:
      breaker.state === "closed"
        ? null
        : `${breaker.state} since ${breaker.since}: ${harmless(breaker.reason ?? "")}; one request at a time finds out when it is over`,
  };
}

function countsOf(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${number(count)} ${name}`)
    .join(", ");
}

function pollsLine({ net, single, sweep, webhook }: AccountReport["polls"]): string {
  return `${number(webhook)} for a webhook, ${number(sweep)} for a sweep, ${number(net)} as a net, ${number(single)} singly`;
}

function savingLine({ copies, records, saves_per_minute: perMinute }: AccountReport["saving"]): string | null {
  if (copies + records === 0 && perMinute === null) return null;
  const rate = perMinute === null ? "none was saved lately" : `${number(Math.round(perMinute))} a minute can be saved`;
  return `${counted(copies, "output")} to be copied, ${counted(records, "receipt")} to be written, of all accounts; ${rate}`;
}

function oldestLine({ bought_at, expires_at }: NonNullable<AccountReport["saving"]["oldest_unsaved"]>): string {
  const leftMs = Date.parse(expires_at) - Date.now();
  const left = leftMs > 0 ? `expires in ${duration(leftMs)}` : `expired ${duration(-leftMs)} ago`;
  return bought_at === null ? left : `bought ${duration(Date.now() - Date.parse(bought_at))} ago, ${left}`;
}

function sweepsLine({ swept_at, interval_ms, pages, woken }: NonNullable<AccountReport["sweeps"]>): string {
  return `every ${duration(interval_ms)}, ${counted(pages, "page")} the last, at ${swept_at}; ${number(woken)} polls brought forward`;
}

function timesLine({ runs, p5_ms, median_ms, p95_ms }: AccountReport["run_times"][number]): string {
  return `${number(runs)} since yesterday: half in ${duration(median_ms)}, nine in ten in ${duration(p5_ms)} to ${duration(p95_ms)}`;
}
