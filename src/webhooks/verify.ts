/**
 * Whether a call comes from whoever has the secret (standardwebhooks.com; Replicate's and Svix's signatures): HMAC-SHA256
 * over id, time and body as it came, compared in constant time, and signed within five minutes of now.
 */

import { Webhook, WebhookVerificationError } from "standardwebhooks";

export type SignatureFault =
  /** Its headers are missing. */
  | "unsigned"
  /** Too long ago, or in the future: repeated by somebody else, or a clock is wrong. */
  | "timestamp"
  /** Made with another secret, or over another body. */
  | "signature";

const HEADERS = ["webhook-id", "webhook-timestamp", "webhook-signature"] as const;

/** Null: it holds. `secret`: `whsec_` and base64. */
export function signatureFault(
  call: { readonly headers: Readonly<Record<string, unknown>>; readonly body: string },
  secret: string,
): SignatureFault | null {
  const signed = HEADERS.map((name) => [name, call.headers[name]] as const);
  if (signed.some(([, value]) => typeof value !== "string" || value === "")) return "unsigned";
  try {
    new Webhook(secret).verify(call.body, Object.fromEntries(signed) as Record<string, string>, { jsonParse: false });
    return null;
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    return error.message === "No matching signature found" ? "signature" : "timestamp";
  }
}
