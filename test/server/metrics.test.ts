/** `/metrics` over a real socket: what it tells, to whom, and that it is Prometheus' format. */

import { expect } from "vitest";
import { afterFailure } from "../../src/core/breaking.ts";
import type { AttemptRef } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { HOUR, MINUTE } from "../../src/core/time.ts";
import { openGate } from "../../src/gates/account-gate.ts";
import { ACCOUNT, openAccount } from "../support/stages.ts";
import { bearer, KEYS, post, rows, test, WITH_KEYS } from "./serving.ts";

const LOW_CREDIT =
  "Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests while you have less than $5.0 in credit.";

/** Names with labels, and values. Throws where a line is neither a comment nor a sample. */
function samples(text: string): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || /^# (HELP|TYPE) [a-z_]+ /.test(line)) continue;
    const [, name, value] = /^([a-z_]+(?:\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})?) (\S+)$/.exec(line) ?? [];
    if (name === undefined) throw new Error(`not a sample: ${line}`);
    found.set(name, Number(value));
  }
  return found;
}

test("the accounts' rates, refusals, breakers, items, requests, webhooks and sweeps are told", async ({ serve }) => {
  const served = await serve();
  const { ledger, queues } = served.services;
  const account = { name: ACCOUNT, createsPerMinute: 600, readsPerMinute: 3_000, toleratesBurst: true };
  const gate = openGate(account, { ledger, queues, clock: Date.now, mark: () => "a probe" });
  await gate.configure();
  await post(served.app, rows(4));
  await gate.refused("creates", { forMs: 10_000, said: LOW_CREDIT });
  for (let n = 0; n < 5; n++) await gate.unanswered("reads", "ECONNRESET");
  for (const name of ["create ok", "create 429", "get ok", "get ok", "polled net", "polled webhook", "polled net"])
    gate.count(name);
  await gate.flush();
  await ledger.countWebhook(ACCOUNT, "late");
  await ledger.noteSweep(ACCOUNT, Date.now(), HOUR);
  await ledger.noteSwept(ACCOUNT, { untilMs: Date.now() + MINUTE, toAgeMs: HOUR, pauseMs: 5_000, pages: 3 }, 7);
  await ledger.noteHeld(ACCOUNT, "saving is behind");
  await ledger.addSaves(Math.floor(Date.now() / MINUTE), { saved: 10, busyMs: 16_000, slots: 16 });
  for (let n = 0; n < 5; n++) {
    await ledger.changeBucketBreaker((before) => afterFailure(before, "full disk", Date.now()));
  }
  for (let n = 0; n < 10; n++) await ledger.learnRun(ACCOUNT, 'a/"b"', 400, Date.now());
  for (let n = 0; n < 9; n++) await ledger.learnRun(ACCOUNT, "a/rare", 400, Date.now());

  const port = await served.listen();
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  expect(answer.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  const told = samples(await answer.text());
  const at = (name: string, ...labels: string[]) =>
    told.get(`${name}{${[`account="replicate"`, ...labels].join(",")}}`);
  expect(at("outlast_rate_configured_per_minute", 'limit="creates"')).toBe(600);
  expect(at("outlast_rate_effective_per_minute", 'limit="creates"')).toBe(6);
  expect(at("outlast_rate_tier_per_minute", 'limit="creates"')).toBe(6);
  expect(at("outlast_rate_effective_per_minute", 'limit="reads"')).toBe(3_000);
  expect(at("outlast_last_refusal_timestamp_seconds", 'limit="creates"')).toBeGreaterThan(Date.now() / 1_000 - 60);
  expect(at("outlast_breaker_state", 'limit="creates"')).toBe(0);
  expect(at("outlast_breaker_state", 'limit="reads"')).toBe(2);
  expect(at("outlast_reads_left")).toBe(10);
  expect(at("outlast_account_paused")).toBe(0);
  expect(at("outlast_items", 'state="waiting"')).toBe(4);
  expect(at("outlast_unfinished_batches")).toBe(1);
  expect(at("outlast_provider_requests_total", 'request="create"', 'outcome="429"')).toBe(1);
  expect(at("outlast_provider_requests_total", 'request="get"', 'outcome="ok"')).toBe(2);
  expect(at("outlast_polls_total", 'kind="net"')).toBe(2);
  expect(at("outlast_polls_total", 'kind="webhook"')).toBe(1);
  expect(at("outlast_polls_total", 'kind="single"')).toBe(0);
  expect([...told.keys()].filter((name) => name.includes('request="polled"'))).toEqual([]);
  expect(at("outlast_account_unopened")).toBe(0);
  expect(at("outlast_webhooks_total", 'outcome="late"')).toBe(1);
  expect(at("outlast_swept_timestamp_seconds")).toBeGreaterThan(Date.now() / 1_000 - 60);
  expect(at("outlast_sweep_interval_seconds")).toBe(5);
  expect(at("outlast_sweep_pages")).toBe(3);
  expect(at("outlast_sweep_woken_total")).toBe(7);
  expect(at("outlast_runs", String.raw`model="a/\"b\""`)).toBe(10);
  expect(at("outlast_run_seconds", String.raw`model="a/\"b\"",quantile="0.5"`)).toBe(0.4);
  expect(at("outlast_runs", 'model="a/rare"'), "too few to know").toBeUndefined();
  expect(told.get("outlast_saving_backlog")).toBe(0);
  expect(told.get("outlast_saves_per_minute")).toBe(600);
  expect(told.get("outlast_bucket_breaker_state")).toBe(2);
  expect(at("outlast_feed_held")).toBe(1);
  expect(at("outlast_oldest_unsaved_expiry_timestamp_seconds"), "all is saved").toBeUndefined();
});

test("the output that expires first, unsaved, is told, and no more once it is saved", async ({ serve }) => {
  const { app, services } = await serve();
  const { ledger } = services;
  const batch = await post(app, rows(3));
  const boughtAtMs = Date.now() - MINUTE;
  await openAccount(ledger);
  const refs = [0, 1].map((index): AttemptRef => ({ account: ACCOUNT, batch, index, attempt: 1 }));
  for (const ref of refs) {
    await ledger.move(ref, "claim", { nowMs: boughtAtMs, nonce: "n" });
    await ledger.move(ref, "bind", { nowMs: boughtAtMs, predictionId: predictionId(`p${ref.index}`) });
    await ledger.noteUnsaved(ref, boughtAtMs); // it isn't to be copied yet
    await ledger.move(ref, "succeed", { nowMs: boughtAtMs });
    await ledger.noteUnsaved(ref, boughtAtMs + HOUR - ref.index * MINUTE);
  }
  const told = async (name: string) =>
    samples((await app.inject({ url: "/metrics" })).body).get(`outlast_oldest_unsaved_${name}{account="replicate"}`);
  expect(await told("expiry_timestamp_seconds")).toBe((boughtAtMs + HOUR - MINUTE) / 1_000);
  expect(await told("timestamp_seconds")).toBe(boughtAtMs / 1_000);
  await ledger.move(refs[1] as AttemptRef, "finishCopy", { nowMs: Date.now() });
  expect(await told("expiry_timestamp_seconds")).toBe((boughtAtMs + HOUR) / 1_000);
  await ledger.move(refs[0] as AttemptRef, "finishCopy", { nowMs: Date.now() });
  await ledger.noteUnsaved(refs[0] as AttemptRef, boughtAtMs); // too late
  expect(await told("expiry_timestamp_seconds")).toBeUndefined();
});

test("an account that nobody has worked for is told without rates", async ({ serve }) => {
  const { app } = await serve();
  const answer = await app.inject({ url: "/metrics" });
  expect(answer.statusCode).toBe(200);
  expect(samples(answer.body).get('outlast_account_paused{account="replicate"}')).toBe(0);
  expect(answer.body).not.toContain("outlast_rate_per_minute{");
});

test("with API keys only an operator's is taken", async ({ serve }) => {
  const { app } = await serve({ env: WITH_KEYS });
  const statuses = await Promise.all(
    [{}, bearer("wrong"), bearer(KEYS.viewer), bearer(KEYS.producer), bearer(KEYS.operator)].map(
      async (headers) => (await app.inject({ url: "/metrics", headers })).statusCode,
    ),
  );
  expect(statuses).toEqual([401, 401, 403, 403, 200]);
});

test("what is asked of Redis doesn't grow with the batches", async ({ serve }) => {
  const { app, services } = await serve();
  for (let n = 0; n < 3; n++) await post(app, rows(2 + n), { url: `/v1/batches?name=b${n}` });
  const commands = async () => Number(/total_commands_processed:(\d+)/.exec(await services.redis.info("stats"))?.[1]);
  await app.inject({ url: "/metrics" });
  const before = await commands();
  await app.inject({ url: "/metrics" });
  const few = (await commands()) - before;
  expect(few).toBeLessThan(60);
});
