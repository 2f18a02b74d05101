/** The fleet's pace of saving: what several processes wrote, read as one. */

import { expect } from "vitest";
import { openSavingPace } from "../../src/batches/saving-pace.ts";
import { savesPerMinute } from "../../src/core/feeding.ts";
import { MINUTE } from "../../src/core/time.ts";
import { clockAt } from "../support/clock.ts";
import { ACCOUNT, NOON, test } from "../support/stages.ts";

test("two processes' copies add up, and each one's slots count once in a minute", async ({ line }) => {
  await line.clear();
  const clock = clockAt(NOON);
  const paces = [16, 16].map((slots) => openSavingPace(slots, { ledger: line.ledger, clock }));
  for (const pace of paces) {
    for (let n = 0; n < 4; n++) pace.note(n < 3, 2_000);
    await pace.close();
    pace.note(true, 1_000);
    await pace.close();
  }
  expect((await line.ledger.savingMinutes(NOON))[0]).toEqual({ saved: 8, busyMs: 18_000, slots: 32 });
  clock.forward(MINUTE);
  paces[0]?.note(true, 500);
  await paces[0]?.close();
  const minutes = await line.ledger.savingMinutes(NOON + MINUTE);
  expect(minutes.slice(0, 2)).toEqual([
    { saved: 1, busyMs: 500, slots: 16 },
    { saved: 8, busyMs: 18_000, slots: 32 },
  ]);
  expect(savesPerMinute(minutes)).toBeCloseTo((24 * MINUTE * 9) / 18_500);
});

test("what lies longer back than five minutes tells nothing any more", async ({ line }) => {
  await line.clear();
  await line.ledger.addSaves(NOON / MINUTE, { saved: 1, busyMs: 10, slots: 16 });
  expect(savesPerMinute(await line.ledger.savingMinutes(NOON + 4 * MINUTE))).not.toBeNull();
  expect(savesPerMinute(await line.ledger.savingMinutes(NOON + 5 * MINUTE))).toBeNull();
});

test("why less is fed is known for as long as a feed tells", async ({ line }) => {
  await line.clear();
  await line.ledger.noteHeld(ACCOUNT, "saving is behind");
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toBe("saving is behind");
  const [key] = await line.redis.keys("*:held");
  const leftMs = await line.redis.pttl(key ?? "");
  expect(leftMs).toBeGreaterThan(0);
  expect(leftMs).toBeLessThanOrEqual(MINUTE);
  await line.ledger.noteHeld(ACCOUNT, null);
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toBeNull();
});
