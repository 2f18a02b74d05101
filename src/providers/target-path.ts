/**
 * Where the three create forms of Replicate's API are posted, below the base; CometAPI has copied one of them.
 */

import type { Target } from "../core/prediction.ts";
import { ProviderError } from "./provider.ts";

/** For messages. */
export function nameOfTarget(target: Target): string {
  return target.kind === "version" ? `version ${target.version}` : `${target.kind} ${target.owner}/${target.name}`;
}

/** Where each create form is posted. */
export function pathOfTarget(target: Target): string {
  switch (target.kind) {
    case "version":
      return "/predictions";
    case "model":
      return `/models/${segment(target.owner)}/${segment(target.name)}/predictions`;
    case "deployment":
      return `/deployments/${segment(target.owner)}/${segment(target.name)}/predictions`;
    default:
      return target satisfies never;
  }
}

/** A name that would make another path of it is no name; nothing is sent. */
function segment(name: string): string {
  if (/^\.{0,2}$/.test(name)) {
    const detail = `${JSON.stringify(name)} is no name of a model, deployment or owner`;
    throw new ProviderError(`could not create a prediction: ${detail}`, { kind: "refused", detail });
  }
  return encodeURIComponent(name);
}
