/**
 * Both adapters against the emulator, which is written from the providers' documentation and shares no code with them:
 * the port, and its menu of faults, with its books to say what was bought.
 */

import { describe, expect, test } from "vitest";
import type { Target } from "../../src/core/prediction.ts";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import type { FaultOrder } from "../../src/emulator/faults.ts";
import { createCometApi } from "../../src/providers/cometapi.ts";
import { createReplicate } from "../../src/providers/replicate.ts";
import { conforms } from "./conformance.ts";

const TARGET: Target = { kind: "model", owner: "outlast", name: "text" };
const OPTIONS = {
  seed: "providers",
  tokens: ["r8_emulated"],
  cometKeys: ["sk-emulated"],
  createsPerMinute: Infinity,
  readsPerMinute: Infinity,
  queueMs: { medianMs: 20, spread: 0 },
  runMs: { medianMs: 20, spread: 0 },
};
const never = () => new AbortController().signal;
const input = (n: number) => ({ prompt: `number ${n}` });

conforms("Replicate, emulated,", async () => {
  const disposing = new AsyncDisposableStack();
  const emulator = disposing.use(await startEmulator(OPTIONS));
  const open = (token: string) => disposing.use(createReplicate({ baseUrl: emulator.apiUrl, token }));
  return {
    provider: open("r8_emulated"),
    stranger: open("r8_stranger"),
    target: TARGET,
    input,
    accepted: () => emulator.books().predictions.total,
    [Symbol.asyncDispose]: () => disposing.disposeAsync(),
  };
});

conforms("CometAPI, emulated,", async () => {
  const disposing = new AsyncDisposableStack();
  const emulator = disposing.use(await startEmulator(OPTIONS));
  const open = (key: string) => disposing.use(createCometApi({ baseUrl: emulator.cometUrl, key }));
  return {
    provider: open("sk-emulated"),
    stranger: open("sk-stranger"),
    target: TARGET,
    input,
    accepted: () => emulator.books().predictions.total,
    [Symbol.asyncDispose]: () => disposing.disposeAsync(),
  };
});

describe("a create that the emulator spoils", () => {
  const cases: readonly (readonly [name: string, fault: FaultOrder, error: object, created: number])[] = [
    ["by dropping it unread", { route: "create", kind: "drop-before-read" }, { kind: "unknown", status: null }, 0],
    ["by dropping the answer", { route: "create", kind: "drop-after-create" }, { kind: "unknown", status: null }, 1],
    ["by cutting the answer", { route: "create", kind: "half-body" }, { kind: "unknown", status: 201 }, 1],
    ["by silence", { route: "create", kind: "silence" }, { kind: "unknown", status: null }, 0],
    [
      "by silence, with the work done",
      { route: "create", kind: "silence", created: true },
      { kind: "unknown", status: null },
      1,
    ],
    ["by answering late", { route: "create", kind: "late", delayMs: 800 }, { kind: "unknown", status: null }, 1],
    ["by answering 500", { route: "create", kind: "status", status: 500 }, { kind: "unknown", status: 500 }, 0],
    [
      "by answering 502, with the work done",
      { route: "create", kind: "status", status: 502, created: true },
      { kind: "unknown", status: 502 },
      1,
    ],
    ["by answering 503", { route: "create", kind: "status", status: 503 }, { kind: "unknown", status: 503 }, 0],
    [
      "by answering 409, with the work done",
      { route: "create", kind: "status", status: 409, created: true },
      { kind: "unknown", status: 409 },
      1,
    ],
    ["by answering 400", { route: "create", kind: "status", status: 400 }, { kind: "refused", status: 400 }, 0],
    ["by answering 402", { route: "create", kind: "status", status: 402 }, { kind: "refused", status: 402 }, 0],
    ["by answering 413", { route: "create", kind: "status", status: 413 }, { kind: "refused", status: 413 }, 0],
    ["by answering 422", { route: "create", kind: "status", status: 422 }, { kind: "refused", status: 422 }, 0],
    [
      "by answering 429",
      { route: "create", kind: "status", status: 429 },
      { kind: "refused", status: 429, retryAfterMs: expect.any(Number) },
      0,
    ],
  ];

  test.each(cases)("%s", async (_name, fault, error, created) => {
    await using emulator = await startEmulator(OPTIONS);
    await using provider = createReplicate({ baseUrl: emulator.apiUrl, token: "r8_emulated", createDeadlineMs: 500 });
    emulator.arm(fault);
    const create = provider.create({ target: TARGET, input: input(1) }, never());
    await expect(create).rejects.toMatchObject({ name: "ProviderError", ...error });
    await provider.check(never());
    expect(emulator.books()).toMatchObject({ creates: { surplus: 0 }, predictions: { total: created } });
    await expect.poll(() => answered(emulator, "replicate create")).toBe(1); // a late answer is booked late
  });
});

/** How many requests came to a route, whatever became of them. */
function answered(emulator: Emulator, route: string): number {
  return Object.values(emulator.books().requests[route] ?? {}).reduce((sum, times) => sum + times, 0);
}

test("a list of several pages is whole", async () => {
  await using emulator = await startEmulator(OPTIONS);
  await using provider = createReplicate({ baseUrl: emulator.apiUrl, token: "r8_emulated" });
  const made: string[] = [];
  for (let n = 0; n < 205; n++) made.push((await provider.create({ target: TARGET, input: input(n) }, never())).id);
  const listed: string[] = [];
  const sizes: number[] = [];
  for (let next: string | undefined; sizes.length === 0 || next !== undefined; ) {
    const page = await provider.list(next === undefined ? { after: "2025-01-01T00:00:00Z" } : { next }, never());
    sizes.push(page.predictions.length);
    listed.push(...page.predictions.map(({ id }) => id));
    next = page.next;
  }
  expect(sizes).toEqual([100, 100, 5]);
  expect(listed).toEqual(made.toReversed());
});

test("an input that the model won't have is refused with words that say why", async () => {
  await using emulator = await startEmulator(OPTIONS);
  await using provider = createReplicate({ baseUrl: emulator.apiUrl, token: "r8_emulated" });
  const create = provider.create({ target: TARGET, input: { prompt: "" } }, never());
  await expect(create).rejects.toMatchObject({
    kind: "refused",
    status: 422,
    detail: expect.stringContaining("prompt"),
  });
});

test("the token goes nowhere but to its own provider's API", async () => {
  await using emulator = await startEmulator(OPTIONS);
  await using replicate = createReplicate({ baseUrl: emulator.apiUrl, token: "r8_emulated" });
  await using comet = createCometApi({ baseUrl: emulator.cometUrl, key: "sk-emulated" });
  const { id } = await replicate.create({ target: TARGET, input: input(1) }, never());
  await replicate.cancel(id, never());
  await replicate.list({}, never());
  await comet.get((await comet.create({ target: TARGET, input: input(2) }, never())).id, never());
  expect(emulator.books().tokens_out_of_place).toEqual([]);
});
