/** Files that are hard to have: what is saved is right, what isn't says why, and what was paid for is counted. */

import { expect, test } from "vitest";
import { redriveItems } from "../../src/batches/redrive-items.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import { expectRightBytes, model, report, results, submit, untilSettled } from "../support/batch.ts";
import { startFleet } from "../support/fleet.ts";

const QUICK = { queueMs: { medianMs: 20, spread: 0 }, runMs: { medianMs: 50, spread: 0 } };

test("pages and empty bodies in place of pictures are asked for again; what a failed run had made is kept", async () => {
  await using fleet = await startFleet({ emulator: QUICK });
  fleet.startWorker();
  for (const kind of ["page", "empty"] as const) fleet.emulator.arm({ route: "file", kind, count: 2 });
  const batch = await submit(fleet, [
    ...Array.from({ length: 6 }, (_, n) => ({ input: { prompt: `picture ${n}` }, target: model("picture") })),
    { input: { prompt: "three of four", made: 3 }, target: model("halting") },
    { input: { prompt: "an hour for nothing", made: 0 }, target: model("halting") },
  ]);
  expect(await untilSettled(fleet, batch)).toMatchObject({ saved: 6, failed: 2, not_saved: 0 });
  await expectRightBytes(fleet, batch);
  const [rest, nothing] = (await results(fleet, batch)).slice(6);
  expect(rest).toMatchObject({ status: "failed", error: "CUDA out of memory (E1001)" });
  expect(rest?.output).toEqual(rest?.outputs.map(({ key }) => key));
  expect(rest?.outputs).toHaveLength(3);
  expect(nothing).toMatchObject({ status: "failed", output: [], outputs: [] });
});

test("a file that the provider has removed is paid for and not saved, at once, and bought again by a person alone", async () => {
  await using fleet = await startFleet({ emulator: { ...QUICK, expiryMs: 4_000 } });
  fleet.startWorker();
  fleet.emulator.arm({ route: "file", kind: "status", status: 503, count: 4 });
  const [account] = fleet.services.accounts;
  if (account === undefined) throw new Error("the fleet has no account");
  const batch = await submit(fleet, [{ input: { prompt: "too late" }, target: model("picture") }]);
  expect(await untilSettled(fleet, batch)).toMatchObject({ saved: 0, failed: 1, not_saved: 1 });
  const receipt = await readReceipt(fleet.services.bucket, { batch, index: 0, attempt: 1 });
  expect(receipt).toMatchObject({
    status: "failed",
    prediction_status: "succeeded",
    error: expect.stringMatching(/couldn't be saved: .*404.*the provider has removed the prediction's data/),
    attempts: [{ attempt: 1, not_saved: true }],
    unsaved: [{ url: receipt?.output }],
  });
  expect(fleet.emulator.books().creates.total).toBe(1);

  fleet.emulator.disarm();
  const standing = await fleet.services.ledger.standing(account.name, batch);
  if (standing === null) throw new Error("Redis knows no such batch");
  await redriveItems(standing.batch, { ends: new Set(["failed"]) }, { ...fleet.services, clock: Date.now });
  expect(await untilSettled(fleet, batch)).toMatchObject({ saved: 1, failed: 0, not_saved: 1 });
  expect(fleet.emulator.books().creates.total).toBe(2);
  expect((await report(fleet, batch)).metrics.output_files).toBe(1);
});
