/** Clients' webhooks over a whole line: real workers buy from the emulator, and a real receiver is told. */

import { Queue } from "bullmq";
import { expect, test } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { describePrediction } from "../../src/batches/describe-prediction.ts";
import { signedFileUrl } from "../../src/batches/file-links.ts";
import { findItem } from "../../src/batches/find-item.ts";
import { type ItemId, QUEUE_NAMES } from "../../src/core/naming.ts";
import type { WebhookEvent } from "../../src/core/prediction.ts";
import type { PredictionView } from "../../src/core/prediction-view.ts";
import { shownSecret } from "../../src/webhooks/sign.ts";
import { model } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { idOf, isValid, openReceiver, predictionIn } from "../webhooks/receiver.ts";

const BASE_URL = "https://outlast.example";

type Wish = {
  readonly model: string;
  readonly events: readonly WebhookEvent[];
  /** What its client is to be told, by the events of the calls' ids. */
  readonly told: readonly string[];
};

const WISHES: readonly Wish[] = [
  { model: "picture", events: ["start", "output", "logs", "completed"], told: ["start", "end"] },
  { model: "picture", events: ["output", "completed"], told: ["end"] },
  { model: "picture", events: ["logs"], told: ["end"] },
  { model: "picture", events: ["start"], told: ["start"] },
  { model: "picture", events: [], told: [] },
  { model: "moderated", events: ["completed"], told: ["end"] },
];

test("each client is told what it asked for, once, signed, and as the API shows it", async () => {
  await using receiver = await openReceiver(200);
  await using fleet = await startFleet({
    emulator: { runMs: { medianMs: 200, spread: 0.1 } },
    env: { OUTLAST_WEBHOOK_HOSTS: receiver.host },
  });
  const items = await Promise.all(WISHES.map((wish, n) => admit(fleet, wish, n, receiver.url)));
  const worker = fleet.startWorker();

  const views = () => Promise.all(items.map((item) => shown(fleet, item)));
  const statuses = async () => (await views()).map(({ status }) => status);
  await expect
    .poll(statuses, { timeout: 60_000, interval: 100 })
    .toEqual([...Array<string>(5).fill("succeeded"), "failed"]);
  const wanted = WISHES.flatMap(({ told }, n) => told.map((event) => `msg_${items[n]}_1_${event}`));
  await expect.poll(() => receiver.calls.map(idOf).toSorted(), { timeout: 10_000 }).toEqual(wanted.toSorted());
  expect(await worker.stop()).toBe(0);
  expect(receiver.calls).toHaveLength(wanted.length);
  expect(await leftToTell(fleet)).toBe(0);

  const secret = shownSecret(await fleet.services.ledger.secretFor("webhooks:default"));
  const standing = new Map((await views()).map((view) => [view.id, view]));
  for (const call of receiver.calls) {
    expect(await isValid(call, secret)).toBe(true);
    const told = predictionIn(call);
    expect(call.path).toBe(`/hook?n=${items.indexOf(told.id)}`);
    if (idOf(call).endsWith("_end")) expect(told).toEqual(standing.get(told.id));
  }
});

async function admit({ services }: Fleet, wish: Wish, n: number, receiverUrl: string): Promise<ItemId> {
  const [account] = services.accounts;
  if (account === undefined) throw new Error("the fleet has no account");
  const { item } = await openAdmission({ ...services, clock: Date.now }).admit({
    tenant: "default",
    account: account.name,
    identity: null,
    row: { input: { prompt: `prompt number ${n}` }, target: model(wish.model) },
    replyTo: null,
    cancelAfterMs: null,
    webhook: { url: `${receiverUrl}/hook?n=${n}`, events: wish.events, base_url: BASE_URL },
  });
  return item;
}

/** Calls that are still to be made, or that nobody took. */
async function leftToTell({ services }: Fleet): Promise<number> {
  const queue = new Queue(QUEUE_NAMES.notify, { connection: services.redis, skipMetasUpdate: true });
  try {
    return await queue.getJobCountByTypes("wait", "active", "delayed", "failed");
  } finally {
    await queue.close();
  }
}

async function shown({ services: { bucket, ledger } }: Fleet, item: ItemId): Promise<PredictionView> {
  const found = await findItem({ bucket, ledger }, item);
  if (found === null) throw new Error(`Redis knows no item ${item}`);
  const secret = await ledger.secretFor("files");
  return describePrediction(bucket, found, {
    baseUrl: BASE_URL,
    fileUrl: (id, key) => signedFileUrl(secret, BASE_URL, id, key, Date.now()),
  });
}
