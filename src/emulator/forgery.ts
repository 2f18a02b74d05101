/**
 * A webhook that isn't the provider's: its body claims an end that the prediction hasn't had, with nothing true in its
 * output. It is either signed with another secret, or carries the signature of the true body.
 */

import { draw, drawFraction, drawName } from "./chance.ts";
import { signedHeaders } from "./signature.ts";

export type Forgery = { readonly headers: Readonly<Record<string, string>>; readonly body: string };

type Shown = Readonly<Record<string, unknown>> & { readonly id: string };

/** `shown` is the prediction as it is. */
export function forge(shown: Shown, seed: string, webhookSecret: string): Forgery {
  const { id } = shown;
  const claim =
    drawFraction(seed, `forged claim ${id}`) < 0.5
      ? { status: "succeeded", output: "https://replicate.delivery/xezq/forged/out-0.png", error: null }
      : { status: "failed", output: null, error: "forged" };
  const body = JSON.stringify({ ...shown, ...claim, completed_at: new Date().toISOString() });
  const messageId = `msg_${drawName(seed, `forged webhook ${id}`, 27)}`;
  const headers =
    drawFraction(seed, `forged signature ${id}`) < 0.5
      ? signedHeaders(`whsec_${draw(seed, "forger's secret").toString("base64")}`, messageId, body)
      : signedHeaders(webhookSecret, messageId, JSON.stringify(shown));
  return { headers, body };
}
