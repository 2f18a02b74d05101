/** Signatures of calls that come in: what our own signer signs holds, and nothing else does. */

import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { shownSecret, signCall } from "../../src/webhooks/sign.ts";
import { signatureFault } from "../../src/webhooks/verify.ts";

const SECRET = randomBytes(24);
const SHOWN = shownSecret(SECRET);
const BODY = `{"id":"p1","text":"ä, \\u00e4"}`;
const MINUTE = 60_000;

const signed = (over: { readonly body?: string; readonly agoMs?: number; readonly secret?: Buffer } = {}) =>
  signCall({ id: "msg_1", body: over.body ?? BODY }, over.secret ?? SECRET, Date.now() - (over.agoMs ?? 0)).headers;

describe("a signature", () => {
  test("holds over the body as it came, and over no other", () => {
    expect(signatureFault({ headers: signed(), body: BODY }, SHOWN)).toBeNull();
    expect(signatureFault({ headers: signed(), body: `${BODY} ` }, SHOWN)).toBe("signature");
    expect(signatureFault({ headers: signed(), body: "" }, SHOWN)).toBe("signature");
    expect(signatureFault({ headers: { ...signed(), "webhook-id": "msg_2" }, body: BODY }, SHOWN)).toBe("signature");
  });

  test("made with another secret doesn't hold, unless one made with ours stands beside it", () => {
    const other = signed({ secret: randomBytes(24) });
    expect(signatureFault({ headers: other, body: BODY }, SHOWN)).toBe("signature");
    const both = [other, signed()].map((headers) => headers["webhook-signature"]).join(" ");
    expect(signatureFault({ headers: { ...signed(), "webhook-signature": both }, body: BODY }, SHOWN)).toBeNull();
  });

  test("is worth nothing more than five minutes before or after it was made", () => {
    for (const agoMs of [4 * MINUTE, -4 * MINUTE]) {
      expect(signatureFault({ headers: signed({ agoMs }), body: BODY }, SHOWN)).toBeNull();
    }
    for (const agoMs of [6 * MINUTE, -6 * MINUTE]) {
      expect(signatureFault({ headers: signed({ agoMs }), body: BODY }, SHOWN)).toBe("timestamp");
    }
  });

  test("that is missing in part, or is none, is a fault and no crash", () => {
    for (const name of ["webhook-id", "webhook-timestamp", "webhook-signature"]) {
      for (const value of [undefined, "", ["a", "b"]]) {
        expect(signatureFault({ headers: { ...signed(), [name]: value }, body: BODY }, SHOWN)).toBe("unsigned");
      }
    }
    expect(signatureFault({ headers: { ...signed(), "webhook-timestamp": "soon" }, body: BODY }, SHOWN)).toBe(
      "timestamp",
    );
    for (const signature of ["v1", "v1,", "v1,AAAA", "v2,AAAA", " ", ",,,", "v1,\u00ff"]) {
      const headers = { ...signed(), "webhook-signature": signature };
      expect(signatureFault({ headers, body: BODY }, SHOWN)).toBe("signature");
    }
  });
});
