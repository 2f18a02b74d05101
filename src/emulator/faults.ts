/**
 * What goes wrong on purpose, armed by `POST /__faults` and disarmed by `DELETE /__faults`. With requests of the routes
 * `create`, `get`, `list`, `cancel` and `file`:
 *
 *   drop-before-read    the socket is destroyed before anything is done
 *   drop-after-create   the work is done, then the socket is destroyed
 *   status              another answer: the documented body of `status`; `created` says whether the work was done
 *   half-body           the work is done and answered, but the body breaks off in the middle
 *   silence             no answer, and the socket stays open; `created` says whether the work was done
 *   late                the work is done at once and answered after `delayMs`, unless the asker hangs up before
 *   page                the work is done, and answered as if all were well, but with a web page for a body
 *   empty               likewise, with no body
 *
 * With the messages of the route `webhook`, all those of one prediction alike:
 *
 *   drop                they aren't sent
 *   late                they are sent after `delayMs`
 *   repeat              each is sent `times` times, under one id
 *   forge               they are sent; and beside them, as soon as it runs, one with a wrong signature that claims an end
 *
 * A fault strikes `count` requests of its route (of `webhook`: predictions), after letting `skip` of them pass, each with
 * the chance `rate`. That chance is drawn from the seed, from what the request is about, and from how many-th of these it
 * is: a create is about its input, another request about its path, a message about its prediction. So with a `rate`
 * below 1 and no `count`, a run strikes the same inputs again, in whatever order they arrive. Rates of one route are shares
 * of one draw: 0.2 and 0.1 strike three in ten, and none twice. A create that the account's limit refuses
 * isn't struck, and counts for nothing.
 */

import { z } from "zod";
import { drawFraction } from "./chance.ts";
import { Turns } from "./turns.ts";

const REQUEST_ROUTES = ["create", "get", "file", "cancel", "list"] as const;
const REQUEST_KINDS = [
  "drop-before-read",
  "drop-after-create",
  "status",
  "half-body",
  "silence",
  "late",
  "page",
  "empty",
] as const;
const MESSAGE_KINDS = ["drop", "late", "repeat", "forge"] as const;

/** Node's timers hold no more. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

const common = {
  /** How many it strikes; null: all, until it is disarmed. */
  count: z.int().min(1).nullable().default(1),
  /** How many pass first. */
  skip: z.int().min(0).default(0),
  /** Of `late`. */
  delayMs: z.int().min(0).max(LONGEST_DELAY_MS).default(1_000),
  /** The chance, in [0, 1], of each to be struck. */
  rate: z.number().min(0).max(1).default(1),
};

const schema = z.discriminatedUnion("route", [
  z.strictObject({
    route: z.enum(REQUEST_ROUTES),
    kind: z.enum(REQUEST_KINDS),
    /** Of `status`. */
    status: z.int().min(400).max(599).default(500),
    /** Of `status` and `silence`: whether the request has its effect. */
    created: z.boolean().default(false),
    ...common,
  }),
  z.strictObject({
    route: z.literal("webhook"),
    kind: z.enum(MESSAGE_KINDS),
    /** Of `repeat`. */
    times: z.int().min(2).max(100).default(2),
    ...common,
  }),
]);

export type FaultOrder = z.input<typeof schema>;
export type Fault = Readonly<z.output<typeof schema>>;
export type MessageFault = Extract<Fault, { route: "webhook" }>;
export type RequestFault = Exclude<Fault, MessageFault>;

type Armed<F extends Fault = Fault> = { readonly fault: F; seen: number; struck: number };

export type Strike = {
  /** Null: it passes. */
  readonly fault: RequestFault | null;
  /** As if it had never come. */
  withdraw(): void;
};

export class Faults {
  readonly #seed: string;
  #requests: Armed<RequestFault>[] = [];
  #messages: Armed<MessageFault>[] = [];
  #turns = new Turns();

  constructor(seed: string) {
    this.#seed = seed;
  }

  /** Throws a ZodError, which says what is wrong with the order. */
  arm(order: unknown): Fault {
    const fault = schema.parse(order);
    if (fault.route === "webhook") this.#messages.push({ fault, seen: 0, struck: 0 });
    else this.#requests.push({ fault, seen: 0, struck: 0 });
    return fault;
  }

  disarm(): void {
    this.#requests = [];
    this.#messages = [];
    this.#turns = new Turns();
  }

  /** Whether chance decides about requests of a route, so that it matters what they are about. */
  isDrawn(route: string): boolean {
    return this.#requests.some(({ fault }) => fault.route === route && fault.rate < 1);
  }

  /** What happens to a request; `subject` is what it is about. */
  strike(route: string, subject: string): Strike {
    const armed = this.#requests.filter(({ fault }) => fault.route === route);
    if (armed.length === 0) return { fault: null, withdraw: () => {} };
    const name = `${route} ${subject}`;
    const turn = this.#turns.take(name);
    const struck = choose(armed, drawFraction(this.#seed, `fault ${name} ${turn}`));
    return {
      fault: struck?.fault ?? null,
      withdraw: () => {
        this.#turns.giveBack(name, turn);
        if (struck) struck.struck--;
      },
    };
  }

  /** What happens to the messages about a prediction; to be asked once for each. */
  strikeMessages(predictionId: string): MessageFault | null {
    return choose(this.#messages, drawFraction(this.#seed, `fault webhook ${predictionId}`))?.fault ?? null;
  }

  /** What is armed, and how often each has struck. */
  report(): readonly (Fault & { readonly struck: number })[] {
    return [...this.#requests, ...this.#messages].map(({ fault, struck }) => ({ ...fault, struck }));
  }
}

/** The first whose turn it is, of those whose share of [0, 1) holds the number drawn. */
function choose<F extends Fault>(armed: readonly Armed<F>[], drawn: number): Armed<F> | null {
  let share = 0;
  for (const one of armed) {
    const { rate, count, skip } = one.fault;
    const isDrawn = rate === 1 || (drawn >= share && drawn < share + rate);
    if (rate < 1) share += rate;
    if (one.struck === count || one.seen++ < skip || !isDrawn) continue;
    one.struck++;
    return one;
  }
  return null;
}
