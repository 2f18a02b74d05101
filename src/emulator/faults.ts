/**
 * What goes wrong on purpose, armed by `POST /__faults` and disarmed by `DELETE /__faults`:
 *
 *   drop-before-read    the socket is destroyed before anything is read
 *   drop-after-create   the work is done, then the socket is destroyed
 *   status              another answer: the documented body of `status`; `created` says whether the work was done
 *   half-body           the work is done and answered, but the body breaks off in the middle
 *   silence             no answer, and the socket stays open; `created` says whether the work was done
 *   late                the work is done at once and answered after `delayMs`
 *
 * A fault strikes `count` requests of its route, after letting `skip` of them pass, each with the chance `rate`.
 */

import { z } from "zod";
import { drawFraction } from "./chance.ts";

const FAULT_ROUTES = ["create", "get", "file", "cancel", "list"] as const;
const KINDS = ["drop-before-read", "drop-after-create", "status", "half-body", "silence", "late"] as const;

const schema = z.strictObject({
  route: z.enum(FAULT_ROUTES),
  kind: z.enum(KINDS),
  /** Of `status`. */
  status: z.int().min(400).max(599).default(500),
  /** Of `status` and `silence`: whether the request has its effect. */
  created: z.boolean().default(false),
  /** How many requests it strikes; null: all, until it is disarmed. */
  count: z.int().min(1).nullable().default(1),
  /** How many requests of the route pass first. */
  skip: z.int().min(0).default(0),
  /** Of `late`. */
  delayMs: z.int().min(0).default(1_000),
  /** The chance, in [0, 1], of each request to be struck. */
  rate: z.number().min(0).max(1).default(1),
});

export type FaultOrder = z.input<typeof schema>;
export type Fault = Readonly<z.output<typeof schema>>;

type Armed = { readonly fault: Fault; seen: number; struck: number };

export class Faults {
  readonly #seed: string;
  #armed: Armed[] = [];
  #draws = 0;

  constructor(seed: string) {
    this.#seed = seed;
  }

  /** Throws a ZodError, which says what is wrong with the order. */
  arm(order: unknown): Fault {
    const fault = schema.parse(order);
    this.#armed.push({ fault, seen: 0, struck: 0 });
    return fault;
  }

  disarm(): void {
    this.#armed = [];
  }

  /** The fault that strikes this request: the first armed one whose turn it is. */
  strike(route: string): Fault | null {
    for (const armed of this.#armed) {
      const { fault } = armed;
      if (fault.route !== route || armed.struck === (fault.count ?? Infinity)) continue;
      if (armed.seen++ < fault.skip) continue;
      if (fault.rate < 1 && drawFraction(this.#seed, `fault ${this.#draws++}`) >= fault.rate) continue;
      armed.struck++;
      return fault;
    }
    return null;
  }

  /** What is armed, and how often each has struck. */
  report(): readonly (Fault & { readonly struck: number })[] {
    return this.#armed.map(({ fault, struck }) => ({ ...fault, struck }));
  }
}
