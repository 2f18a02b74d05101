/**
 * What Redis knows of an account: whether and why nothing is bought for it, and the rates last taken from the
 * configuration.
 */

import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { z } from "zod";
import { type AccountName, REDIS_KEYS } from "../core/naming.ts";
import type { Rate } from "../core/pacing.ts";
import { MINUTE } from "../core/time.ts";
import { MAX_UNCLEAR } from "./items.ts";
import type { Scripts } from "./scripts.ts";

/** Sweeps come four times a minute; after so long without one, nobody looks. */
const SWEPT_LATELY_MS = 2 * MINUTE;

/** How the reason ends where no person paused the account, and none can resume it. */
const UNCLEAR_HALT = "of its items are unclear, and nothing more is bought until some are resolved";

export function isUnclearHalt(reason: string): boolean {
  return reason.endsWith(UNCLEAR_HALT);
}

/** Which Redis it is: `<run id>/<a mark of its data>`. */
export type RedisIdentity = string;

/** Between these moments Redis may have lost claims. */
export type LostSpan = { readonly fromMs: number; readonly toMs: number };

export type AccountOpening = {
  /** Which Redis the account's items are bought on; null: on none yet, as far as this one knows. */
  readonly on: RedisIdentity | null;
  /** When the last item was claimed; null: none was, as far as this Redis knows. */
  readonly lastClaimMs: number | null;
  /** When the account was last opened on a Redis that had lost something; null: never. */
  readonly lostByMs: number | null;
};

/** Why nothing, or less, is bought for an account. */
export type AccountHolds = {
  /** It is paused, or too many of its items are unclear. */
  readonly paused: string | null;
  /** It can't be opened on this Redis, which is tried again and again. */
  readonly unopened: string | null;
  /** Less of it is fed than could be: saving is behind, or the bucket is down. */
  readonly held: string | null;
};

export type AccountSight = {
  readonly unclear: number;
  /** Items that somebody must be working on. */
  readonly open: number;
  /** Batches without a manifest. */
  readonly unfinished: number;
  /** When the open item that was touched longest ago was touched. */
  readonly untouchedSinceMs: number | null;
  /** When a sweep of the provider's list last came by. */
  readonly sweptAtMs: number | null;
};

export function accountsOf(redis: Redis, scripts: Scripts) {
  /** Which Redis this is, now. */
  async function readIdentity(account: AccountName): Promise<RedisIdentity> {
    return z.string().parse(await scripts.outlastReadIdentity(REDIS_KEYS.epoch(account), randomUUID()));
  }

  async function opening(account: AccountName): Promise<AccountOpening> {
    const key = REDIS_KEYS.account(account);
    const [on, lastClaim, lostTo] = await redis.hmget(key, "opened_on", "last_claim", "lost_to");
    return {
      on: on ?? null,
      lastClaimMs: lastClaim == null ? null : Number(lastClaim),
      lostByMs: lostTo == null ? null : Number(lostTo),
    };
  }

  /** This Redis, if the account is open on it; else null. */
  async function openOn(account: AccountName): Promise<RedisIdentity | null> {
    const [identity, { on }] = await Promise.all([readIdentity(account), opening(account)]);
    return on === identity ? identity : null;
  }

  /** Why nothing more is bought for the account, or null: it is paused, or too many of its items are unclear. */
  async function pausedReason(account: AccountName): Promise<string | null> {
    const [paused, unclear] = await Promise.all([
      redis.hget(REDIS_KEYS.account(account), "paused"),
      redis.zcard(REDIS_KEYS.unclear(account)),
    ]);
    if (paused !== null || unclear < MAX_UNCLEAR) return paused;
    return `${unclear} ${UNCLEAR_HALT}`;
  }

  return {
    /** Claims are turned away and nothing is fed until `resumeAccount`. The first reason stays. */
    async pauseAccount(account: AccountName, reason: string): Promise<boolean> {
      return (await redis.hsetnx(REDIS_KEYS.account(account), "paused", reason)) === 1;
    },

    async resumeAccount(account: AccountName): Promise<boolean> {
      return (await redis.hdel(REDIS_KEYS.account(account), "paused")) === 1;
    },

    pausedReason,

    async accountHolds(account: AccountName): Promise<AccountHolds> {
      const [paused, reason, held] = await Promise.all([
        pausedReason(account),
        redis.hget(REDIS_KEYS.account(account), "unopened"),
        redis.get(REDIS_KEYS.held(account)),
      ]);
      // Another process may have opened it while the one that couldn't said so.
      return { paused, unopened: reason === null || (await openOn(account)) !== null ? null : reason, held };
    },

    /** The account can't be opened on this Redis; `noteOpened` takes it back. */
    async noteUnopened(account: AccountName, reason: string): Promise<void> {
      await redis.hset(REDIS_KEYS.account(account), "unopened", reason);
    },

    readIdentity,
    opening,

    openOn,

    /** Whether the account is open on this very Redis. */
    async isOpen(account: AccountName): Promise<boolean> {
      return (await openOn(account)) !== null;
    },

    /** From now on items of the account may be bought on this Redis. `lost`: what the one before it may have lost. */
    async noteOpened(account: AccountName, on: RedisIdentity, lost: LostSpan | null): Promise<void> {
      const span = lost === null ? {} : { lost_from: lost.fromMs, lost_to: lost.toMs };
      const key = REDIS_KEYS.account(account);
      await redis
        .multi()
        .hset(key, { opened_on: on, ...span })
        .hdel(key, "unopened")
        .exec();
    },

    /** The account's unclear items are looked for on the provider's list, each for so long after its intent. */
    async noteSweep(account: AccountName, nowMs: number, horizonMs: number): Promise<void> {
      await redis.hset(REDIS_KEYS.account(account), "swept_at", nowMs, "sweep_horizon_ms", horizonMs);
    },

    /** Whether some unclear item of the account may yet be resolved without a person. */
    async resolvesByItself(account: AccountName, nowMs: number): Promise<boolean> {
      const [[sweptAt, horizonMs], newest] = await Promise.all([
        redis.hmget(REDIS_KEYS.account(account), "swept_at", "sweep_horizon_ms"),
        redis.zrange(REDIS_KEYS.unclear(account), 0, "0", "REV", "WITHSCORES"),
      ]);
      const intentAtMs = Number(newest[1] ?? Number.NaN);
      return nowMs - Number(sweptAt ?? Number.NaN) < SWEPT_LATELY_MS && nowMs < intentAtMs + Number(horizonMs);
    },

    /**
     * Whether a rate from the configuration is new since a process last took it from there. A rate that a person
     * set since then by hand stands until the configuration changes.
     */
    async takeConfiguredRate(account: AccountName, name: "creates" | "reads", rate: string): Promise<boolean> {
      const key = REDIS_KEYS.account(account);
      const [[, before] = [null, null]] =
        (await redis.multi().hget(key, `configured_${name}`).hset(key, `configured_${name}`, rate).exec()) ?? [];
      return before !== rate;
    },

    /** As they were last taken; null: no worker has taken any. */
    async configuredRates(account: AccountName): Promise<{ readonly creates: Rate; readonly reads: Rate } | null> {
      const texts = await redis.hmget(REDIS_KEYS.account(account), "configured_creates", "configured_reads");
      const [creates, reads] = texts.map((text) => {
        const [perMinute, toleratesBurst] = (text ?? "").split(" ");
        return Number(perMinute) > 0
          ? { perMinute: Number(perMinute), toleratesBurst: toleratesBurst !== "false" }
          : null;
      });
      return creates == null || reads == null ? null : { creates, reads };
    },

    /** What stands there for people to see, whoever wrote it. None of it grows with the account's batches. */
    async readAccountSight(account: AccountName): Promise<AccountSight> {
      const [sweptAt, unclear, open, unfinished, [, oldest]] = await Promise.all([
        redis.hget(REDIS_KEYS.account(account), "swept_at"),
        redis.zcard(REDIS_KEYS.unclear(account)),
        redis.zcard(REDIS_KEYS.open(account)),
        redis.zcard(REDIS_KEYS.unfinished(account)),
        redis.zrange(REDIS_KEYS.open(account), 0, "0", "WITHSCORES"),
      ]);
      return {
        unclear,
        open,
        unfinished,
        untouchedSinceMs: oldest === undefined ? null : Number(oldest),
        sweptAtMs: sweptAt === null ? null : Number(sweptAt),
      };
    },
  };
}
