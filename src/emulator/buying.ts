/**
 * How a prediction comes to be: bought by a create of the API, or by somebody else who has the account's token, which
 * `POST /__foreign` plays. The books keep the two apart; the API doesn't, and bills and lists both. A share of creates,
 * drawn from the seed and the input, may be accompanied by somebody else's of the very same input, just before or just
 * after it.
 */

import { z } from "zod";
import type { Account } from "./accounts.ts";
import type { Books } from "./books.ts";
import { digestOf } from "./canonical.ts";
import { drawFraction } from "./chance.ts";
import { MODELS } from "./models.ts";
import type { Prediction } from "./prediction.ts";
import type { Order, Predictions } from "./predictions.ts";

type BuyingSettings = {
  readonly seed: string;
  readonly foreignTwins: number;
};

const foreignSchema = z
  .strictObject({
    model: z.string().refine((name) => MODELS.has(name), "no such model"),
    input: z.record(z.string(), z.unknown()),
    /** How many predictions of this input. */
    count: z.int().min(1).max(10_000).default(1),
    /** The account's name, as the books have it. Default: that of Replicate's first token. */
    account: z.string().optional(),
  })
  .superRefine(({ model, input }, context) => {
    for (const { field, description } of MODELS.get(model)?.check(input) ?? []) {
      context.addIssue({ code: "custom", path: [field], message: description });
    }
  });

export type ForeignOrder = z.input<typeof foreignSchema>;

export class Buying {
  readonly #settings: BuyingSettings;
  readonly #predictions: Predictions;
  readonly #books: Books;
  readonly #accounts: readonly Account[];

  /** The first account is the one that strangers use unless told otherwise. */
  constructor(settings: BuyingSettings, predictions: Predictions, books: Books, accounts: readonly Account[]) {
    this.#settings = settings;
    this.#predictions = predictions;
    this.#books = books;
    this.#accounts = accounts;
  }

  /** By a create that was admitted. */
  buy(order: Omit<Order, "foreign">): Prediction {
    const { seed, foreignTwins } = this.#settings;
    const earlier = this.#books.createsOf(order.digest);
    const drawn = foreignTwins === 0 ? 1 : drawFraction(seed, `twin ${order.digest} ${earlier}`);
    const buyTwin = (): unknown => this.#buyForeign(order);
    if (drawn < foreignTwins / 2) buyTwin();
    const prediction = this.#predictions.create({ ...order, foreign: false });
    this.#books.created(prediction);
    if (drawn >= foreignTwins / 2 && drawn < foreignTwins) buyTwin();
    return prediction;
  }

  /** By somebody else. Throws a ZodError, which says what is wrong with the order. */
  buyForeign(order: unknown): readonly Prediction[] {
    const names = this.#accounts.map(({ name }) => name);
    const {
      model: name,
      input,
      count,
      account: accountName,
    } = foreignSchema
      .refine(({ account }) => account === undefined || names.includes(account), {
        path: ["account"],
        message: `no such account; there are ${names.join(", ")}`,
      })
      .parse(order);
    const account = this.#accounts.find((one) => accountName === undefined || one.name === accountName);
    const model = MODELS.get(name);
    if (!account || !model) throw new Error(`an emulator without account or without ${name}`);
    const bought = { account, model, version: "hidden", deployment: null, input };
    const digest = digestOf({ model: name, input });
    return Array.from({ length: count }, () => this.#buyForeign({ ...bought, digest }));
  }

  #buyForeign(order: Pick<Order, "account" | "model" | "version" | "deployment" | "input" | "digest">): Prediction {
    const { account, model, version, deployment, input, digest } = order;
    const silent = { webhook: null, webhookEvents: null, cancelAfterMs: null };
    return this.#predictions.create({ account, model, version, deployment, input, digest, ...silent, foreign: true });
  }
}
