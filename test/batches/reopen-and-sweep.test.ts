/** From a lost second of Redis to the provider's list: what was bought in it is found, what wasn't is sent again. */

import { expect } from "vitest";
import { placeItems } from "../../src/batches/place-items.ts";
import { reopenAccount } from "../../src/batches/reopen-account.ts";
import { withdrawItem } from "../../src/batches/withdraw-item.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import { readRow } from "../../src/bucket/input-parts.ts";
import { QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { DEFAULT_SWEEP_POLICY } from "../../src/core/sweeping.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";
import type { ListPage } from "../../src/providers/provider.ts";
import { resolveByList } from "../../workers/resolve-by-list.ts";
import { buy, buyAndEnd, claim, feed, refOf, remember, savedAs, statesOf } from "../support/life.ts";
import { ACCOUNT, type Line, NOON, predictionOf, test } from "../support/stages.ts";

/** What the provider has: its id, its prompt, and when it was created. */
type Bought = { readonly id: string; readonly prompt: string; readonly atMs: number };

async function sweep(line: Line, books: readonly Bought[]): Promise<readonly { after?: string; before?: string }[]> {
  const { bucket, ledger, queues, clock } = line;
  const asked: { after?: string; before?: string }[] = [];
  const list = async (query: { after?: string; before?: string }): Promise<ListPage> => {
    asked.push(query);
    const { after = "", before = "" } = query;
    const shown = books.filter(({ atMs }) => atMs >= Date.parse(after) && atMs < Date.parse(before));
    return {
      predictions: shown.map(({ id, atMs }) => predictionOf(id, { createdAt: new Date(atMs).toISOString() })),
      inputs: new Map(shown.map(({ id, prompt }) => [predictionId(id), { prompt }])),
      serverDate: new Date(clock()),
    };
  };
  const deps = {
    account: ACCOUNT,
    provider: { list },
    noteSweep: ledger.noteSweep,
    intents: ledger.intents,
    readRow: async ({ account, batch, index }: ReturnType<typeof refOf>) => {
      const [place] = await placeItems({ bucket, ledger }, account, batch, index, 1);
      if (place === undefined) throw new Error("the row is gone");
      return readRow(bucket, batch, place);
    },
    openOn: ledger.openOn,
    holdersAmong: ledger.holdersAmong,
    move: ledger.move,
    withdraw: (...[of, row, why]: Parameters<typeof withdrawItem>) => withdrawItem(of, row, why, line),
    keepEnding: (...[of, ending]: [ReturnType<typeof refOf>, Parameters<typeof keepEnding>[2]]) =>
      keepEnding(bucket, of, ending),
    enqueueFollow: queues.follow,
    enqueueRecord: queues.record,
    wakeFeed: queues.wakeFeed,
    warn: () => undefined,
    policy: DEFAULT_SWEEP_POLICY,
    whenAbsent: "resend" as const,
    clock,
  };
  await resolveByList(deps as unknown as Parameters<typeof resolveByList>[0], new AbortController().signal);
  return asked;
}

const PROMPTS = ["fox", "crow", "whale", "fox", "owl"];

/**
 * Row 0 is saved before Redis is copied; in the seconds that are lost rows 1 and 3 are bought, and 3 is saved. Row 2 is
 * claimed and its request never arrives, row 4 waits. The prompts of 0 and 3 are the same.
 */
async function lose(
  line: Line,
  how: "behind" | "emptied",
): Promise<{ batch: ReturnType<typeof refOf>["batch"]; books: Bought[] }> {
  await line.clear();
  const batch = await line.submit(PROMPTS.map((prompt) => ({ prompt })));
  await feed(line, { windowRows: 2_000 });
  const books: Bought[] = [];
  const bought = (id: string, index: number) =>
    books.push({ id, prompt: PROMPTS[index] ?? "", atMs: line.clock() + SECOND });
  bought(`p-${batch.slice(0, 4)}-0-1`, 0);
  await buyAndEnd(line, refOf(batch, 0), savedAs(refOf(batch, 0)));
  const restore = await remember(line);
  line.clock.forward(2 * SECOND);
  bought(await buy(line, refOf(batch, 1)), 1);
  bought(`p-${batch.slice(0, 4)}-3-1`, 3);
  await buyAndEnd(line, refOf(batch, 3), savedAs(refOf(batch, 3)));
  await claim(line, refOf(batch, 2));
  line.clock.forward(SECOND);
  await (how === "behind" ? restore() : line.redis.flushall());
  await reopenAccount(ACCOUNT, {
    bucket: line.bucket,
    ledger: line.ledger,
    queues: line.queues,
    restartLosesNothing: false,
    restoreLimits: async () => undefined,
    tell: () => undefined,
    clock: line.clock,
  });
  return { batch, books };
}

const AFTER = {
  behind: ["1 saved", "1 unclear", "1 unclear", "1 recording", "1 unclear"],
  emptied: ["1 saved", "1 unclear", "1 unclear", "1 saved", "1 unclear"],
};

test.for(["behind", "emptied"] as const)(
  "after Redis was %s the list gives back what was bought, and only what surely wasn't is sent again",
  async (how, { line }) => {
    const { batch, books } = await lose(line, how);
    expect(await statesOf(line, batch)).toEqual(AFTER[how]);
    const [asked] = await sweep(line, books);
    expect(Date.parse(asked?.after ?? "")).toBeLessThanOrEqual(NOON - DEFAULT_SWEEP_POLICY.skewMs);
    expect(Date.parse(asked?.before ?? "")).toBeGreaterThanOrEqual(NOON + 3 * SECOND + 60 * SECOND);
    const found = [...AFTER[how]];
    found[1] = "1 running";
    expect(await statesOf(line, batch), "found at once; the rest isn't known to be absent yet").toEqual(found);
    expect((await line.ledger.readItem(refOf(batch, 1))).fields).toMatchObject({ prediction_id: books[1]?.id });
    expect((await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).map(({ id }) => id)).toContain(`${batch}-1-1`);

    line.clock.forward(10 * MINUTE);
    await sweep(line, books);
    expect(await statesOf(line, batch), "ten minutes aren't enough").toEqual(found);
    line.clock.forward(2 * MINUTE);
    await sweep(line, books);
    [found[2], found[4]] = ["1 waiting", "1 waiting"];
    expect(await statesOf(line, batch)).toEqual(found);
    await feed(line, { createBacklog: async () => 0 });
    const fed = (await line.jobs(QUEUE_NAMES.create(ACCOUNT))).map(({ id }) => id);
    expect(fed.toSorted()).toEqual([`${batch}-2-1`, `${batch}-4-1`]);
  },
);

test.for(["behind", "emptied"] as const)(
  "a prediction that a receipt names is given to no twin, after Redis was %s",
  async (how, { line }) => {
    await line.clear();
    const batch = await line.submit([{ prompt: "fox" }, { prompt: "fox" }]);
    await feed(line);
    const restore = await remember(line);
    const id = `p-${batch.slice(0, 4)}-0-1`;
    await buyAndEnd(line, refOf(batch, 0), savedAs(refOf(batch, 0)));
    await (how === "behind" ? restore() : line.redis.flushall());
    await reopenAccount(ACCOUNT, {
      bucket: line.bucket,
      ledger: line.ledger,
      queues: line.queues,
      restartLosesNothing: false,
      restoreLimits: async () => undefined,
      tell: () => undefined,
      clock: line.clock,
    });
    line.clock.forward(12 * MINUTE);
    await sweep(line, [{ id, prompt: "fox", atMs: NOON + SECOND }]);
    expect((await statesOf(line, batch))[1]).toBe("1 waiting");
  },
);
