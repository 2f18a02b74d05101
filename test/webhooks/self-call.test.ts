/** The call by which a worker proves that its fleet can be reached: real sockets, and whoever may sit behind a URL. */

import { describe, expect, test } from "vitest";
import { openSelfCall, SELF_CALL_PATH, type SelfCall, selfCallAnswer } from "../../src/webhooks/self-call.ts";
import { type Answer, openReceiver, type Receiver } from "./receiver.ts";

const SECRET = Buffer.from("what the fleet knows");
const TIMING = { answerMs: 300, pausesMs: [20], untold: 0, recheckMs: 30 };

const right: Answer = (response, { body }) => response.end(selfCallAnswer(SECRET, body));

type Watched = AsyncDisposable & { readonly call: SelfCall; readonly said: readonly string[] };

function watch({ url }: Pick<Receiver, "url">, timing: Partial<typeof TIMING> = {}): Watched {
  const said: string[] = [];
  const say = (level: string) => (message: string) => {
    said.push(`${level}: ${message}`);
  };
  const call = openSelfCall({
    publicUrl: url,
    secret: async () => SECRET,
    info: say("info"),
    warn: say("warn"),
    timing: { ...TIMING, ...timing },
  });
  return { call, said, [Symbol.asyncDispose]: () => call.close() };
}

test("our own answer passes, and it is asked for as a webhook is sent", async () => {
  await using receiver = await openReceiver(right);
  await using watched = watch(receiver);
  expect(watched.call.passes()).toBe(false);
  await expect.poll(watched.call.passes).toBe(true);
  await expect.poll(() => receiver.calls.length, { message: "and looked at again" }).toBeGreaterThan(2);
  expect(receiver.calls[0]).toMatchObject({ method: "POST", path: SELF_CALL_PATH });
  expect(new Set(receiver.calls.map(({ body }) => body)).size, "no answer can be kept").toBe(receiver.calls.length);
  expect(watched.said).toEqual([`info: providers are asked to call webhooks at ${receiver.url}`]);
});

describe("no webhook is asked for where", () => {
  const endless: Answer = (response) => {
    const drip = setInterval(() => response.write("x".repeat(1_000)), 1);
    response.once("close", () => clearInterval(drip));
  };
  const cases: readonly (readonly [what: string, answer: number | Answer, said: RegExp])[] = [
    ["nothing is at the address", 404, /was answered 404/],
    ["a redirect leads there", 301, /was answered 301, a redirect, which providers don't follow/],
    [
      "somebody else answers",
      (response) => response.end("welcome"),
      /by somebody else, or by a fleet on another Redis/,
    ],
    [
      "another fleet answers",
      (response, { body }) => response.end(selfCallAnswer(Buffer.from("another"), body)),
      /by somebody else, or by a fleet on another Redis/,
    ],
    ["nobody answers in time", () => undefined, /wasn't answered within 0.3 s/],
    ["the answer breaks off", (response) => response.destroy(), /got no answer \(/],
    ["the answer never ends", endless, /by somebody else/],
  ];
  test.each(cases)("%s: it is told once, with what to do", async (_what, answer, said) => {
    await using receiver = await openReceiver(answer);
    await using watched = watch(receiver);
    await expect.poll(() => receiver.calls.length).toBeGreaterThan(2);
    expect(watched.call.passes()).toBe(false);
    expect(watched.said).toHaveLength(1);
    expect(watched.said[0]).toMatch(said);
    expect(watched.said[0]).toMatch(/^warn: no webhooks are asked for.*OUTLAST_PUBLIC_URL/);
    expect(watched.said[0]).toContain(receiver.url);
  });
});

test("nobody listens yet: it passes once somebody does, and stops when they leave", async () => {
  await using receiver = await openReceiver(503, 503, right, right, 503);
  await using watched = watch(receiver, { pausesMs: [10], recheckMs: 10 });
  await expect.poll(() => watched.said.length).toBe(3);
  expect(watched.said).toEqual([
    expect.stringMatching(/^warn: .*503/),
    expect.stringMatching(/^info: /),
    expect.stringMatching(/^warn: .*503/),
  ]);
  expect(watched.call.passes()).toBe(false);
});

test("what a server needs to start goes untold", async () => {
  await using receiver = await openReceiver(503, 503, right);
  await using watched = watch(receiver, { untold: 2 });
  await expect.poll(watched.call.passes).toBe(true);
  expect(watched.said).toEqual([expect.stringMatching(/^info: /)]);
});

test("closing ends a call that is under way", async () => {
  await using receiver = await openReceiver(() => undefined);
  const watched = watch(receiver, { answerMs: 60_000 });
  await expect.poll(() => receiver.calls.length).toBe(1);
  const closedAt = performance.now();
  await watched.call.close();
  expect(performance.now() - closedAt).toBeLessThan(5_000);
  expect(watched.said).toEqual([]);
});
