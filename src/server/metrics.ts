/**
 * `/metrics`: how the accounts stand, in Prometheus' text format. Made anew for each scrape from what Redis holds for all
 * processes, so it doesn't matter which server is asked; none of what is asked grows with the batches.
 */

import type { FastifyPluginAsync } from "fastify";
import { Counter, Gauge, Registry } from "prom-client";
import { type AccountReport, type LimitReport, type ReportDeps, reportAccount } from "../batches/report-account.ts";
import type { AccountName } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";

export type MetricsDeps = ReportDeps & { readonly accounts: readonly { readonly name: AccountName }[] };

export function metricsRoute(deps: MetricsDeps): FastifyPluginAsync {
  return async (app) => {
    app.get("/metrics", { schema: { hide: true } }, async (_request, reply) => {
      const reports = await Promise.all(deps.accounts.map(({ name }) => reportAccount(name, deps)));
      const registry = new Registry();
      fill(registry, reports);
      return reply.type(registry.contentType).send(await registry.metrics());
    });
  };
}

const BREAKER_STATES = { closed: 0, "half-open": 1, open: 2 } as const;

function fill(registry: Registry, reports: readonly AccountReport[]): void {
  const gauge = <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) =>
    new Gauge<Label | "account">({ name, help, labelNames: ["account", ...labelNames], registers: [registry] });
  const counter = <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) =>
    new Counter<Label | "account">({ name, help, labelNames: ["account", ...labelNames], registers: [registry] });

  const rate = {
    configured: gauge("outlast_rate_configured_per_minute", "Requests a minute by the settings.", "limit"),
    set: gauge("outlast_rate_per_minute", "Requests a minute as set by hand, else by the settings.", "limit"),
    effective: gauge("outlast_rate_effective_per_minute", "Requests a minute that are allowed now.", "limit"),
  };
  const tier = gauge("outlast_rate_tier_per_minute", "To what the provider reduced the account (low credit).", "limit");
  const refusedAt = gauge("outlast_last_refusal_timestamp_seconds", "When the provider last answered 429.", "limit");
  const refusedUntil = gauge("outlast_refused_until_timestamp_seconds", "Until when it asked to wait then.", "limit");
  const breaker = gauge(
    "outlast_breaker_state",
    "0 closed, 1 half-open, 2 open: the provider seems to be down.",
    "limit",
  );
  const readsLeft = gauge("outlast_reads_left", "Reads that are left beside polls in the window that runs.");
  const paused = gauge("outlast_account_paused", "1: nothing more is bought, and status --accounts says why.");
  const unopened = gauge(
    "outlast_account_unopened",
    "1: it can't be opened on this Redis, nothing is bought, and status --accounts says why.",
  );
  const items = gauge("outlast_items", "Items of unfinished batches, at most the oldest 100 of them.", "state");
  const batches = gauge("outlast_unfinished_batches", "Batches that haven't finished.");
  const open = gauge("outlast_open_items", "Items that somebody must be working on.");
  const untouched = gauge(
    "outlast_oldest_open_timestamp_seconds",
    "When the open item that stands longest was touched.",
  );
  const unclear = gauge("outlast_unclear_items", "Items whose create was never answered, unresolved.");
  const creating = gauge("outlast_create_backlog", "Jobs that wait to create a prediction.");
  const requests = counter("outlast_provider_requests_total", "Requests to the provider.", "request", "outcome");
  const polls = counter(
    "outlast_polls_total",
    "Polls that were answered: nets below webhooks and sweeps, single ones, brought forward by a sweep or a webhook.",
    "kind",
  );
  const webhooks = counter("outlast_webhooks_total", "The provider's webhooks by what they came to.", "outcome");
  const swept = {
    at: gauge("outlast_swept_timestamp_seconds", "When a sweep of the provider's list last came by."),
    interval: gauge("outlast_sweep_interval_seconds", "From one sweep to the next, as the last one left it."),
    pages: gauge("outlast_sweep_pages", "Pages that the last sweep read."),
  };
  const woken = counter("outlast_sweep_woken_total", "Polls that sweeps brought forward.");
  const runs = gauge("outlast_runs", "Runs that ended since yesterday, of the 20 models that ran most.", "model");
  const runTime = gauge("outlast_run_seconds", "How long their runs take.", "model", "quantile");
  const unsaved = {
    bought: gauge(
      "outlast_oldest_unsaved_timestamp_seconds",
      "When the output that expires next, unsaved, was bought.",
    ),
    expires: gauge("outlast_oldest_unsaved_expiry_timestamp_seconds", "When the provider deletes it."),
  };
  const held = gauge(
    "outlast_feed_held",
    "1: less is fed than could be, since saving is behind or the bucket is down.",
  );
  fillSaving(registry, reports[0]?.saving ?? null);

  for (const report of reports) {
    const { account } = report;
    for (const limit of ["creates", "reads"] as const) {
      const stands: LimitReport | null = report[limit];
      if (stands === null) continue;
      const labels = { account, limit };
      rate.configured.set(labels, stands.configured_per_minute);
      rate.set.set(labels, stands.per_minute);
      rate.effective.set(labels, stands.effective_per_minute);
      breaker.set(labels, BREAKER_STATES[stands.breaker.state]);
      if (stands.tier !== null) tier.set(labels, stands.tier.per_minute);
      if (stands.last_refusal !== null) {
        refusedAt.set(labels, secondsOf(stands.last_refusal.at));
        refusedUntil.set(labels, secondsOf(stands.last_refusal.until));
      }
    }
    if (report.reads !== null) readsLeft.set({ account }, report.reads.left_beside_polls);
    paused.set({ account }, report.paused === null ? 0 : 1);
    unopened.set({ account }, report.unopened === null ? 0 : 1);
    for (const [state, count] of Object.entries(report.items)) items.set({ account, state }, count);
    batches.set({ account }, report.unfinished_batches);
    open.set({ account }, report.open);
    if (report.untouched_since !== null) untouched.set({ account }, secondsOf(report.untouched_since));
    unclear.set({ account }, report.unclear);
    creating.set({ account }, report.create_backlog);
    held.set({ account }, report.saving.held === null ? 0 : 1);
    const oldest = report.saving.oldest_unsaved;
    if (oldest !== null) {
      if (oldest.bought_at !== null) unsaved.bought.set({ account }, secondsOf(oldest.bought_at));
      unsaved.expires.set({ account }, secondsOf(oldest.expires_at));
    }
    for (const [request, outcomes] of Object.entries(report.requests)) {
      for (const [outcome, count] of Object.entries(outcomes)) requests.inc({ account, request, outcome }, count);
    }
    for (const [kind, count] of Object.entries(report.polls)) polls.inc({ account, kind }, count);
    for (const [outcome, count] of Object.entries(report.webhooks)) webhooks.inc({ account, outcome }, count);
    if (report.sweeps !== null) {
      swept.at.set({ account }, secondsOf(report.sweeps.swept_at));
      swept.interval.set({ account }, report.sweeps.interval_ms / SECOND);
      swept.pages.set({ account }, report.sweeps.pages);
      woken.inc({ account }, report.sweeps.woken);
    }
    for (const { model, runs: ended, p5_ms, median_ms, p95_ms } of report.run_times) {
      runs.set({ account, model }, ended);
      runTime.set({ account, model, quantile: "0.05" }, p5_ms / SECOND);
      runTime.set({ account, model, quantile: "0.5" }, median_ms / SECOND);
      runTime.set({ account, model, quantile: "0.95" }, p95_ms / SECOND);
    }
  }
}

/** What all accounts share; the same in each report. */
function fillSaving(registry: Registry, saving: AccountReport["saving"] | null): void {
  if (saving === null) return;
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers: [registry] });
  gauge("outlast_saving_backlog", "Jobs that wait to be copied or recorded, of all accounts.").set(
    saving.copies + saving.records,
  );
  if (saving.saves_per_minute !== null) {
    gauge("outlast_saves_per_minute", "Outputs a minute that the fleet can save, of all accounts.").set(
      saving.saves_per_minute,
    );
  }
  gauge("outlast_bucket_breaker_state", "0 closed, 1 half-open, 2 open: the bucket seems to be down.").set(
    BREAKER_STATES[saving.bucket.state],
  );
}

function secondsOf(iso: string): number {
  return Date.parse(iso) / SECOND;
}
