import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { Webhook } from "standardwebhooks";
import { expect, test } from "vitest";
import { shownSecret, signCall } from "../../src/webhooks/sign.ts";
import { isValid } from "./receiver.ts";

const SECRET = Buffer.alloc(32, "a secret");
const CALL = { id: "msg_1", body: '{"id":"abc","output":"naïve 🦊"}' };
const NOW = Date.UTC(2026, 10, 20, 12, 0, 0, 999);

test("a secret is shown as Svix shows it, and as its library takes it", () => {
  expect(shownSecret(SECRET)).toBe(`whsec_${SECRET.toString("base64")}`);
  const { headers, body } = signCall(CALL, SECRET, Date.now());
  expect(new Webhook(shownSecret(SECRET)).verify(body, headers)).toEqual({ id: "abc", output: "naïve 🦊" });
});

test("a call names itself and its time in whole seconds, and its body is left as it is", () => {
  const { headers, body } = signCall(CALL, SECRET, NOW);
  expect(Object.keys(headers).toSorted()).toEqual(["webhook-id", "webhook-signature", "webhook-timestamp"]);
  expect(headers).toMatchObject({ "webhook-id": "msg_1", "webhook-timestamp": String(Math.floor(NOW / 1_000)) });
  expect(headers["webhook-signature"]).toMatch(/^v1,[A-Za-z0-9+/]{43}=$/);
  expect(body).toBe(CALL.body);
});

test("the official client takes any call signed with its secret", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.json({ stringUnit: "binary" }),
      async (bytes, body) => {
        const secret = Buffer.from(bytes);
        expect(await isValid(signCall({ id: "msg_1", body }, secret, NOW), shownSecret(secret))).toBe(true);
      },
    ),
  );
});

test("the official client refuses another's secret, another body, another id and another time", async () => {
  const call = signCall(CALL, SECRET, NOW);
  const secret = shownSecret(SECRET);
  const changed = (name: string, value: string) => ({ ...call, headers: { ...call.headers, [name]: value } });
  expect(await isValid(call, secret)).toBe(true);
  expect(await isValid(call, shownSecret(randomBytes(32)))).toBe(false);
  expect(await isValid({ ...call, body: `${call.body} ` }, secret)).toBe(false);
  expect(await isValid(changed("webhook-id", "msg_2"), secret)).toBe(false);
  expect(await isValid(changed("webhook-timestamp", "1"), secret)).toBe(false);
});
