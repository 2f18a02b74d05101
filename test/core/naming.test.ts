import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { keyFault } from "../../src/bucket/keys.ts";
import {
  type AccountName,
  type BatchId,
  batchIdFrom,
  errandId,
  isOwnQueue,
  isTenantName,
  itemId,
  MAX_INDEX,
  type NotifyEvent,
  notifyJobId,
  OBJECT_KEYS,
  parseAccountName,
  parseBatchId,
  parseErrandId,
  parseItemId,
  parseItemKey,
  parseNotifyJobId,
  QUEUE_NAMES,
  REDIS_KEYS,
} from "../../src/core/naming.ts";

const anyBatch: fc.Arbitrary<BatchId> = fc.uint8Array({ minLength: 13, maxLength: 32 }).map(batchIdFrom);
const anyIndex = fc.oneof(fc.integer({ min: 0, max: MAX_INDEX }), fc.constantFrom(0, 1, 31, 32, MAX_INDEX));
const anyAttempt = fc.integer({ min: 1, max: 15 });
const anyAccount: fc.Arbitrary<AccountName> = fc
  .stringMatching(/^[a-z0-9][a-z0-9-]{0,30}$/)
  .map((text) => text as AccountName);
const anyErrand = fc.record({ batch: anyBatch, index: anyIndex, attempt: anyAttempt });

describe("a batch's id", () => {
  test("is 20 characters of Crockford's base 32: the first 100 bits of a digest", () => {
    expect(batchIdFrom(new Uint8Array(13))).toBe("0".repeat(20));
    expect(batchIdFrom(new Uint8Array(13).fill(255))).toBe("z".repeat(20));
    const digest = createHash("sha256").update("a batch").digest();
    const bits = Array.from(digest, (byte) => byte.toString(2).padStart(8, "0"))
      .join("")
      .slice(0, 100);
    const expected = bits.match(/.{5}/g)?.map((five) => "0123456789abcdefghjkmnpqrstvwxyz"[Number.parseInt(five, 2)]);
    expect(batchIdFrom(digest)).toBe(expected?.join(""));
    expect(() => batchIdFrom(new Uint8Array(12))).toThrow(RangeError);
  });

  test("is read back, and nothing else is", () => {
    fc.assert(
      fc.property(anyBatch, (batch) => {
        expect(parseBatchId(batch)).toBe(batch);
      }),
    );
    for (const text of [
      "",
      "0".repeat(19),
      "0".repeat(21),
      "i".repeat(20),
      "L".repeat(20),
      `${"0".repeat(19)}u`,
      `${"0".repeat(20)}\n`,
    ]) {
      expect(parseBatchId(text), JSON.stringify(text)).toBeNull();
    }
  });

  test("differs where the first 100 bits do", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 13, maxLength: 13 }), fc.nat(99), (digest, bit) => {
        const other = Uint8Array.from(digest);
        other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7));
        expect(batchIdFrom(other)).not.toBe(batchIdFrom(digest));
      }),
    );
  });
});

describe("an item's id", () => {
  test("is 26 characters that tell batch and index", () => {
    fc.assert(
      fc.property(anyBatch, anyIndex, (batch, index) => {
        const id = itemId(batch, index);
        expect(id).toMatch(/^[0-9a-hjkmnp-tv-z]{26}$/);
        expect(parseItemId(id)).toEqual({ batch, index });
      }),
    );
  });

  test("sorts as its index does", () => {
    fc.assert(
      fc.property(anyBatch, anyIndex, anyIndex, (batch, a, b) => {
        expect(itemId(batch, a) < itemId(batch, b)).toBe(a < b);
      }),
    );
  });

  test("of an impossible index is neither made nor read", () => {
    const batch = batchIdFrom(new Uint8Array(13));
    for (const index of [-1, 0.5, MAX_INDEX + 1, Number.NaN]) expect(() => itemId(batch, index)).toThrow(RangeError);
    expect(parseItemId(`${batch}zzzzzz`)).toBeNull();
    expect(parseItemId(batch)).toBeNull();
    expect(parseItemId(`${batch}00000u`)).toBeNull();
  });
});

describe("an errand's id", () => {
  test("is read back", () => {
    fc.assert(
      fc.property(anyErrand, (errand) => {
        expect(parseErrandId(errandId(errand))).toEqual(errand);
      }),
    );
  });

  test("is another for another errand", () => {
    fc.assert(
      fc.property(anyErrand, anyErrand, (one, other) => {
        const same = one.batch === other.batch && one.index === other.index && one.attempt === other.attempt;
        expect(errandId(one) === errandId(other)).toBe(same);
      }),
    );
  });

  test("is one that BullMQ takes: no colon, not an integer, not 0", () => {
    fc.assert(
      fc.property(anyErrand, (errand) => {
        const id = errandId(errand);
        expect(id).not.toContain(":");
        expect(String(Number.parseInt(id, 10))).not.toBe(id);
        expect(id.startsWith("0:")).toBe(false);
      }),
    );
  });

  test("that was made elsewhere isn't guessed at", () => {
    const batch = "0".repeat(20);
    const wrong = [
      "",
      batch,
      `${batch}-1`,
      `${batch}-1-0`,
      `${batch}-1-16`,
      `${batch}-01-1`,
      `${batch}--1-1`,
      `${batch}-1-1-1`,
      `${batch}-1e3-1`,
      `${batch}-123456789-1`,
      ` ${batch}-1-1`,
    ];
    for (const text of wrong) expect(parseErrandId(text), JSON.stringify(text)).toBeNull();
    fc.assert(
      fc.property(fc.string(), (text) => {
        const errand = parseErrandId(text);
        if (errand !== null) expect(errandId(errand)).toBe(text);
      }),
    );
  });
});

describe("the id of a webhook's call", () => {
  const anyCall = fc.record({ errand: anyErrand, event: fc.constantFrom<NotifyEvent>("start", "end") });

  test("is read back, is another for another call, and is one that BullMQ takes", () => {
    fc.assert(
      fc.property(anyCall, anyCall, (one, other) => {
        const id = notifyJobId(one.errand, one.event);
        expect(parseNotifyJobId(id)).toEqual({ ...one.errand, event: one.event });
        expect(id === notifyJobId(other.errand, other.event)).toBe(
          errandId(one.errand) === errandId(other.errand) && one.event === other.event,
        );
        expect(id).not.toContain(":");
        expect(String(Number.parseInt(id, 10))).not.toBe(id);
      }),
    );
  });

  test("that was made elsewhere isn't guessed at", () => {
    const errand = `${"0".repeat(20)}-1-1`;
    for (const text of [
      "",
      errand,
      `${errand}-`,
      `${errand}-middle`,
      `${errand}-end\n`,
      `${errand}-start-end`,
      "-end",
    ]) {
      expect(parseNotifyJobId(text), JSON.stringify(text)).toBeNull();
    }
    expect(parseErrandId(`${errand}-end`), "no errand either").toBeNull();
    fc.assert(
      fc.property(fc.string(), (text) => {
        const call = parseNotifyJobId(text);
        if (call !== null) expect(notifyJobId(call, call.event)).toBe(text);
      }),
    );
  });
});

test("a tenant's name is short, lower case, and safe in keys", () => {
  const safe = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,30}$/);
  fc.assert(
    fc.property(safe, (name) => {
      expect(isTenantName(name)).toBe(true);
      expect(keyFault(OBJECT_KEYS.identity(name, "ab"))).toBeNull();
    }),
  );
  for (const text of ["", "-a", "A", "a b", "a".repeat(32), "a:b", "a/b", "..", "ä", "a\n"]) {
    expect(isTenantName(text), JSON.stringify(text)).toBe(false);
  }
});

test("an account's name is short, lower case, and safe in keys and queue names", () => {
  fc.assert(
    fc.property(fc.oneof(anyAccount, fc.string()), (text) => {
      const name = parseAccountName(text);
      if (name === null) return;
      expect(name).toBe(text);
      expect(QUEUE_NAMES.create(name)).not.toMatch(/[:\s{}]/);
      expect(isOwnQueue(QUEUE_NAMES.create(name)) && isOwnQueue(QUEUE_NAMES.follow(name))).toBe(true);
    }),
  );
  for (const text of ["", "-a", "A", "a b", "a".repeat(32), "a:b", "ä"]) expect(parseAccountName(text)).toBeNull();
  expect(isOwnQueue("my-outlast-results")).toBe(false);
});

test("no two things share a key in Redis, and all of an account's stand in its slot", () => {
  const place = fc.record({ account: anyAccount, batch: anyBatch, index: anyIndex });
  const keysOf = ({ account, batch, index }: { account: AccountName; batch: BatchId; index: number }) => [
    REDIS_KEYS.account(account),
    REDIS_KEYS.unfed(account),
    REDIS_KEYS.unfinished(account),
    REDIS_KEYS.canceling(account),
    REDIS_KEYS.open(account),
    REDIS_KEYS.unclear(account),
    REDIS_KEYS.batch(account, batch),
    REDIS_KEYS.bytes(account, batch),
    REDIS_KEYS.returned(account, batch),
    REDIS_KEYS.failures(account, batch),
    REDIS_KEYS.latest(account, batch),
    REDIS_KEYS.parts(account, batch),
    REDIS_KEYS.item(account, batch, index),
  ];
  fc.assert(
    fc.property(place, place, (one, other) => {
      const keys = keysOf(one);
      expect(new Set([...keys, REDIS_KEYS.batchAccounts, REDIS_KEYS.batches]).size).toBe(keys.length + 2);
      for (const key of keys) expect(/\{(.*?)\}/.exec(key)?.[1]).toBe(one.account);
      if (one.account !== other.account) expect(keys.filter((key) => keysOf(other).includes(key))).toEqual([]);
    }),
  );
});

describe("an object's key", () => {
  const keysOf = (batch: BatchId, index: number, attempt: number, n: number) => [
    OBJECT_KEYS.batch(batch),
    OBJECT_KEYS.input(batch, n),
    OBJECT_KEYS.inputIndex(batch, n),
    OBJECT_KEYS.receipt(batch, index, attempt),
    OBJECT_KEYS.answer(batch, index, attempt),
    OBJECT_KEYS.copied(batch, index, attempt),
    OBJECT_KEYS.output(batch, index, attempt, n, "png"),
    OBJECT_KEYS.results(batch),
    OBJECT_KEYS.manifest(batch),
  ];

  test("is as the design says", () => {
    const batch = batchIdFrom(new Uint8Array(13));
    const folder = `batches/${batch}`;
    expect(keysOf(batch, 42, 1, 3)).toEqual([
      `${folder}/batch.json`,
      `${folder}/input-3.jsonl`,
      `${folder}/input-3.idx`,
      `${folder}/items/00000042/receipt.json`,
      `${folder}/items/00000042/answer.1.json`,
      `${folder}/items/00000042/copied.1.json`,
      `${folder}/items/00000042/output-3.png`,
      `${folder}/results.jsonl`,
      `${folder}/manifest.json`,
    ]);
    expect(OBJECT_KEYS.receipt(batch, 42, 2)).toBe(`${folder}/items/00000042/receipt.2.json`);
    expect(OBJECT_KEYS.output(batch, 42, 2, 0, "png")).toBe(`${folder}/items/00000042/a2-output-0.png`);
    expect(OBJECT_KEYS.accountAct("replicate" as AccountName, 7)).toBe("accounts/replicate/acts/7.json");
    expect(OBJECT_KEYS.batchAct(batch, 7)).toBe(`${folder}/acts/7.json`);
    expect(OBJECT_KEYS.identity("default", "ab")).toBe("keys/default/ab.json");
  });

  test("is one that every bucket takes, its batch's own, and nobody else's", () => {
    const place = fc.tuple(anyBatch, anyIndex, anyAttempt, fc.nat(9_999));
    fc.assert(
      fc.property(place, place, (one, other) => {
        const keys = keysOf(...one);
        for (const key of keys) {
          expect(keyFault(key)).toBeNull();
          expect(key.startsWith(`batches/${one[0]}/`)).toBe(true);
        }
        expect(new Set(keys).size).toBe(keys.length);
        const [mine, theirs] = [one, other].map(([batch, index, attempt, n]) =>
          OBJECT_KEYS.output(batch, index, attempt, n, "png"),
        );
        expect(mine === theirs).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
    );
  });

  test("takes no extension that could lead elsewhere", () => {
    const batch = batchIdFrom(new Uint8Array(13));
    fc.assert(
      fc.property(fc.string(), (extension) => {
        fc.pre(!/^[a-z0-9]{1,8}$/.test(extension));
        expect(() => OBJECT_KEYS.output(batch, 0, 1, 0, extension)).toThrow(TypeError);
      }),
    );
    for (const extension of ["../x", "a/b", "", "PNG", "a.b", "png\n"]) {
      expect(() => OBJECT_KEYS.output(batch, 0, 1, 0, extension)).toThrow(TypeError);
    }
  });
});

test("an object of an item is read back from its key, and what isn't an item's is nothing", () => {
  fc.assert(
    fc.property(
      anyBatch,
      anyIndex,
      anyAttempt,
      fc.stringMatching(/^[A-Za-z0-9_-]{1,30}$/),
      (batch, index, attempt, id) => {
        expect(OBJECT_KEYS.receipt(batch, index, attempt).startsWith(OBJECT_KEYS.items(batch))).toBe(true);
        expect(parseItemKey(OBJECT_KEYS.receipt(batch, index, attempt))).toEqual({ index, kind: "receipt", attempt });
        expect(parseItemKey(OBJECT_KEYS.duplicate(batch, index, id))).toEqual({
          index,
          kind: "duplicate",
          prediction: id,
        });
        expect(parseItemKey(OBJECT_KEYS.output(batch, index, attempt, 0, "png"))).toEqual({ index, kind: "file" });
        expect(parseItemKey(OBJECT_KEYS.answer(batch, index, attempt))).toEqual({ index, kind: "file" });
        for (const key of [OBJECT_KEYS.results(batch), OBJECT_KEYS.window(batch, 1)])
          expect(parseItemKey(key)).toBeNull();
      },
    ),
  );
});
