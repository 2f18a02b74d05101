/** The headers of a signed webhook, by the Svix scheme: HMAC-SHA256 over id, timestamp and body. */

import { createHmac } from "node:crypto";

export function signedHeaders(secret: string, id: string, body: string): Readonly<Record<string, string>> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  return {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": `v1,${sign(secret, `${id}.${timestamp}.${body}`)}`,
  };
}

/** Base64, by the key that the secret holds behind its prefix. */
function sign(secret: string, text: string): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  return createHmac("sha256", key).update(text).digest("base64");
}
