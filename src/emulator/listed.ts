/**
 * How the list of predictions may differ from what they are: the list comes late, and shows things otherwise. A get by
 * id always shows what is. Which predictions it happens to is drawn from the seed, once for each. No I/O in here.
 */

import { draw, drawName, isDrawn } from "./chance.ts";
import type { Prediction } from "./prediction.ts";

/** Shares are in [0, 1]. Default: none of it. */
export type ListRules = {
  /** How long after its creation a prediction is shown first. */
  readonly lagMs: number;
  /** The share of predictions that lag; the others are shown at once, so the list has holes. Default, with a lag: 1. */
  readonly lagging: number;
  /** The share of predictions whose input is shown as `{}`. */
  readonly emptiedInputs: number;
  /** The share of predictions in whose input every URL and data URL is replaced by an address of the provider's. */
  readonly changedUrls: number;
  /** The share of predictions whose input's objects have their keys in another order. */
  readonly reorderedKeys: number;
  /** The share of predictions whose model is shown by an internal name, and whose version is another. */
  readonly modelAlias: number;
  /** Whether the predictions of a page come in no order; the pages still do. */
  readonly shuffled: boolean;
};

type Shown = Readonly<Record<string, unknown>> & {
  readonly id: string;
  readonly model: string;
  readonly input: Readonly<Record<string, unknown>>;
};

export function settleRules(rules: Partial<ListRules>): ListRules {
  return {
    lagMs: rules.lagMs ?? 0,
    lagging: rules.lagging ?? 1,
    emptiedInputs: rules.emptiedInputs ?? 0,
    changedUrls: rules.changedUrls ?? 0,
    reorderedKeys: rules.reorderedKeys ?? 0,
    modelAlias: rules.modelAlias ?? 0,
    shuffled: rules.shuffled ?? false,
  };
}

/** Those that the list holds by now; `created` is in order of creation, and so is the answer. */
export function listable(
  created: readonly Prediction[],
  rules: ListRules,
  seed: string,
  nowMs: number,
): readonly Prediction[] {
  if (rules.lagMs === 0) return created;
  const shownUntilUs = (nowMs - rules.lagMs) * 1_000;
  const old = created.findLastIndex(({ createdAtUs }) => createdAtUs <= shownUntilUs) + 1;
  const early = created.slice(old).filter(({ id }) => !isDrawn(seed, `lagging ${id}`, rules.lagging));
  return [...created.slice(0, old), ...early];
}

/** A page as the list shows it. */
export function asListed(page: readonly Shown[], rules: ListRules, seed: string): readonly Shown[] {
  const shown = page.map((prediction) => distort(prediction, rules, seed));
  if (!rules.shuffled) return shown;
  return shown.toSorted((a, b) => Buffer.compare(draw(seed, `place ${a.id}`), draw(seed, `place ${b.id}`)));
}

function distort(shown: Shown, rules: ListRules, seed: string): Shown {
  const { id } = shown;
  const happens = (what: string, share: number): boolean => isDrawn(seed, `${what} ${id}`, share);
  let { input } = shown;
  if (happens("changed urls", rules.changedUrls)) input = withOtherUrls(input, seed) as typeof input;
  if (happens("reordered keys", rules.reorderedKeys)) input = withKeysReversed(input) as typeof input;
  if (happens("emptied input", rules.emptiedInputs)) input = {};
  // Both were recorded: an internal name of an official model, and a version that is no version's id.
  const alias = happens("model alias", rules.modelAlias) && {
    model: `replicate-internal/${shown.model.replace("/", "-")}`,
    version: `dp-${draw(seed, `alias ${shown.model}`).toString("hex").slice(0, 32)}`,
  };
  return { ...shown, input, ...alias };
}

function withOtherUrls(value: unknown, seed: string): unknown {
  if (typeof value === "string") {
    return /^(https?|data):/i.test(value)
      ? `https://replicate.delivery/pbxt/${drawName(seed, value, 32)}/input`
      : value;
  }
  return mapMembers(value, (member) => withOtherUrls(member, seed), "kept");
}

function withKeysReversed(value: unknown): unknown {
  return mapMembers(value, withKeysReversed, "reversed");
}

function mapMembers(value: unknown, change: (member: unknown) => unknown, order: "kept" | "reversed"): unknown {
  if (Array.isArray(value)) return value.map(change);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).map(([name, member]) => [name, change(member)] as const);
  return Object.fromEntries(order === "kept" ? members : members.reverse());
}
