/**
 * What every provider does, whoever it is: one suite, run per adapter against a well-behaved server on a real port.
 *
 * An ability that the provider's object lacks is skipped by itself: its absence is the statement.
 */

import { describe, expect, test } from "vitest";
import { type Prediction, predictionId, type Target } from "../../src/core/prediction.ts";
import { type Provider, ProviderError } from "../../src/providers/provider.ts";

/** One provider under test; opened afresh for each test. */
export type Subject = AsyncDisposable & {
  readonly provider: Provider;
  /** The same server, with a token that it doesn't know. */
  readonly stranger: Provider;
  readonly target: Target;
  /** An input that the target takes; distinct for distinct numbers. */
  input(n: number): Readonly<Record<string, unknown>>;
  /** How many creates the server has accepted. */
  accepted(): number | Promise<number>;
};

const never = () => new AbortController().signal;

export function conforms(name: string, open: () => Promise<Subject>): void {
  describe(`${name} keeps to the port:`, () => {
    test("each create is accepted once and gives a prediction of its own", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      const made: Prediction[] = [];
      for (let n = 0; n < 3; n++) made.push(await provider.create({ target, input: subject.input(n) }, never()));
      expect(new Set(made.map(({ id }) => id)).size).toBe(3);
      expect(await subject.accepted()).toBe(3);
    });

    test("a prediction can be followed by its id to its end, and then has its output", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      const { id } = await provider.create({ target, input: subject.input(1) }, never());
      await expect.poll(() => provider.get(id, never()), { timeout: 20_000 }).toSatisfy(hasEnded);
      const ended = await provider.get(id, never());
      expect(ended).toMatchObject({
        id,
        status: "succeeded",
        statusWord: "succeeded",
        error: null,
        dataRemoved: false,
      });
      expect(ended.output).not.toBeNull();
    });

    test("a token that isn't known is refused with 401 by every ability, and nothing is accepted", async () => {
      await using subject = await open();
      const { stranger, target } = subject;
      const id = predictionId("p0");
      const refused = { kind: "refused", status: 401 };
      expect(await failureOf(stranger.create({ target, input: subject.input(1) }, never()))).toMatchObject(refused);
      expect(await failureOf(stranger.get(id, never()))).toMatchObject(refused);
      if (stranger.list) expect(await failureOf(stranger.list({}, never()))).toMatchObject(refused);
      if (stranger.cancel) expect(await failureOf(stranger.cancel(id, never()))).toMatchObject(refused);
      if (stranger.check) expect(await failureOf(stranger.check(never()))).toMatchObject(refused);
      if (stranger.webhookSecret) expect(await failureOf(stranger.webhookSecret(never()))).toMatchObject(refused);
      expect(await subject.accepted()).toBe(0);
    });

    test("a prediction that isn't there is refused with 404", async () => {
      await using subject = await open();
      const failure = await failureOf(subject.provider.get(predictionId("nosuchprediction0000000000"), never()));
      expect(failure).toMatchObject({ kind: "refused", status: 404 });
    });

    test("an aborted signal sends nothing", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      const failure = await failureOf(provider.create({ target, input: subject.input(1) }, AbortSignal.abort()));
      expect(failure).toMatchObject({ kind: "not-sent" });
      expect(await subject.accepted()).toBe(0);
    });

    test("a create form that it doesn't declare is refused unsent", async () => {
      await using subject = await open();
      const { provider } = subject;
      expect(provider.targets).toContain(subject.target.kind);
      const forms: readonly Target[] = [
        { kind: "version", version: "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa" },
        { kind: "model", owner: "ada", name: "loom" },
        { kind: "deployment", owner: "ada", name: "loom" },
      ];
      for (const target of forms.filter(({ kind }) => !provider.targets.has(kind))) {
        const failure = await failureOf(provider.create({ target, input: subject.input(1) }, never()));
        expect(failure).toMatchObject({ kind: "refused", status: null });
      }
      expect(await subject.accepted()).toBe(0);
    });

    test("its list, if it has one, shows every prediction once, newest first, with its input", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      if (!provider.list) return;
      const made: string[] = [];
      for (let n = 0; n < 7; n++) made.push((await provider.create({ target, input: subject.input(n) }, never())).id);
      const listed: string[] = [];
      for (let next: string | undefined, pages = 0; pages === 0 || next !== undefined; pages++) {
        expect(pages).toBeLessThan(10);
        const page = await provider.list(next === undefined ? {} : { next }, never());
        expect(page.serverDate).toBeInstanceOf(Date);
        for (const { id } of page.predictions) {
          listed.push(id);
          expect(page.inputs.get(id)).toMatchObject(subject.input(made.indexOf(id)));
        }
        next = page.next;
      }
      expect(listed).toEqual(made.toReversed());
    });

    test("its list, if it has one, begins with `after` and ends before `before`", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      if (!provider.list) return;
      for (let n = 0; n < 3; n++) {
        const { createdAt } = await provider.create({ target, input: subject.input(n) }, never());
        const next = () => Date.now() > Date.parse(createdAt ?? "");
        await expect.poll(next, { interval: 1 }).toBe(true); // no two in one millisecond
      }
      const { predictions } = await provider.list({}, never());
      const [newest, middle, oldest] = predictions.map(({ createdAt }) => createdAt ?? "");
      expect(predictions).toHaveLength(3);
      const between = await provider.list({ after: middle ?? "", before: newest ?? "" }, never());
      expect(between.predictions.map(({ createdAt }) => createdAt)).toEqual([middle]);
      const early = await provider.list({ before: middle ?? "" }, never());
      expect(early.predictions.map(({ createdAt }) => createdAt)).toEqual([oldest]);
    });

    test("its cancel, if it has one, ends a prediction", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      if (!provider.cancel) return;
      const { id } = await provider.create({ target, input: subject.input(1) }, never());
      await provider.cancel(id, never());
      await expect.poll(() => provider.get(id, never())).toSatisfy(hasEnded);
      expect(["canceled", "aborted", "succeeded"]).toContain((await provider.get(id, never())).status);
    });

    test("its webhooks, if it has any, are signed with a secret and read as its list is", async () => {
      await using subject = await open();
      const { provider, target } = subject;
      if (!provider.webhookSecret) return;
      expect(await provider.webhookSecret(never())).toMatch(/^whsec_[A-Za-z0-9+/]+={0,2}$/);
      const prediction = await provider.create({ target, input: subject.input(1) }, never());
      const body = { id: prediction.id, status: "succeeded", input: subject.input(1), output: "x" };
      expect(provider.readWebhook?.(body)).toMatchObject({
        prediction: { id: prediction.id, status: "succeeded", output: "x" },
        input: subject.input(1),
      });
      for (const nothing of [undefined, null, [], {}, "text", { id: "p1" }]) {
        expect(provider.readWebhook?.(nothing)).toBeNull();
      }
    });

    test("its check, if it has one, names the account and tells the time", async () => {
      await using subject = await open();
      if (!subject.provider.check) return;
      const { account, serverDate } = await subject.provider.check(never());
      expect(account).not.toBe("");
      expect(Math.abs((serverDate?.getTime() ?? 0) - Date.now())).toBeLessThan(60_000);
      expect(await subject.accepted()).toBe(0);
    });
  });
}

function hasEnded({ status }: Prediction): boolean {
  return ["succeeded", "failed", "canceled", "aborted"].includes(status);
}

async function failureOf(action: Promise<unknown>): Promise<ProviderError> {
  const error = await action.then(
    () => new Error("it succeeded"),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ProviderError)) throw error;
  return error;
}
