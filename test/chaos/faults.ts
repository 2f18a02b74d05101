/**
 * What goes wrong at the provider in a chaos run. 5 % of creates buy a prediction without a clear answer, in equal shares
 * of each kind; another 0.5 % break off with nothing bought, which from here looks the same. A few polls and downloads
 * fail as well, which must cost nothing. Of the webhooks half are lost, so that the list has to tell, and some come late,
 * five times, or beside forged ones.
 */

import type { FaultOrder } from "../../src/emulator/faults.ts";
import type { ListRules } from "../../src/emulator/listed.ts";

const UNCLEAR_KINDS: readonly (readonly FaultOrder[])[] = [
  [{ route: "create", kind: "drop-after-create" }],
  [500, 502, 503, 504].map((status) => ({ route: "create", kind: "status", status, created: true })),
  [
    { route: "create", kind: "silence", created: true },
    { route: "create", kind: "late", delayMs: 35_000 }, // later than a create's deadline of 30 s
  ],
  [{ route: "create", kind: "half-body" }],
];

/**
 * `most`: of each kind of unclear answer, in a run that has no time to wait for the evidence on late ones; null: any
 * number.
 */
export function faults({
  unclear,
  most,
}: {
  readonly unclear: number;
  readonly most: number | null;
}): readonly FaultOrder[] {
  const bought = UNCLEAR_KINDS.flatMap((orders) =>
    orders.map((order) => ({ ...order, count: most, rate: unclear / UNCLEAR_KINDS.length / orders.length })),
  );
  return [
    ...bought,
    { route: "create", kind: "drop-before-read", count: most, rate: unclear / 10 },
    { route: "get", kind: "drop-before-read", count: null, rate: 0.01 },
    { route: "get", kind: "status", status: 503, count: null, rate: 0.01 },
    { route: "file", kind: "half-body", count: null, rate: 0.02 },
    { route: "webhook", kind: "drop", count: null, rate: 0.5 },
    { route: "webhook", kind: "late", delayMs: 4_000, count: null, rate: 0.1 },
    { route: "webhook", kind: "repeat", times: 5, count: null, rate: 0.1 },
    { route: "webhook", kind: "forge", count: null, rate: 0.05 },
  ];
}

/**
 * A list that comes late with holes in it, and shows predictions otherwise than they were asked for, but leaves enough to
 * tell them apart. A hostile one empties some inputs.
 */
export function listRules({ lagMs, hostile }: { readonly lagMs: number; readonly hostile: boolean }): ListRules {
  return {
    lagMs,
    lagging: 0.9,
    emptiedInputs: hostile ? 0.1 : 0,
    changedUrls: 0.5,
    reorderedKeys: 0.5,
    modelAlias: 0.3,
    shuffled: true,
  };
}
