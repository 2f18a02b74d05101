/**
 * Signatures of the webhooks that we send, as Replicate's and Svix's are (standardwebhooks.com): HMAC-SHA256 over the
 * call's id, its time and its body. A receiver knows a repetition by the id, which stays the same.
 */

import { Webhook } from "standardwebhooks";

export type SignedCall = { readonly headers: Readonly<Record<string, string>>; readonly body: string };

/** As `GET /v1/webhooks/default/secret` shows it to whoever has to verify. */
export function shownSecret(secret: Buffer): string {
  return `whsec_${secret.toString("base64")}`;
}

export function signCall(
  { id, body }: { readonly id: string; readonly body: string },
  secret: Buffer,
  nowMs: number,
): SignedCall {
  const signature = new Webhook(secret, { format: "raw" }).sign(id, new Date(nowMs), body);
  return {
    headers: {
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(nowMs / 1_000)),
      "webhook-signature": signature,
    },
    body,
  };
}
