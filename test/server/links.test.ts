/** Addresses of kept files, as two servers of one fleet sign and open them. */

import { describe, expect } from "vitest";
import { batchIdFrom, itemId } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import { type Links, openLinks } from "../../src/server/links.ts";
import { type Line, test } from "../support/stages.ts";

const ITEM = itemId(batchIdFrom(Buffer.alloc(32)), 0);
const HERE = { protocol: "http" as const, host: "here" };

function serverOn({ ledger, clock }: Line): Links {
  return openLinks({ ledger, publicUrl: null, publicBucketUrl: null, clock });
}

/** Whether one server opens what another has signed. */
async function opens(of: Links, signer: Links): Promise<boolean> {
  const { fileUrl } = await signer.of(HERE);
  const { pathname, searchParams } = new URL(fileUrl(ITEM, "items/output-0.png"));
  const { expires, signature } = Object.fromEntries(searchParams);
  return of.opens(ITEM, pathname.slice(pathname.lastIndexOf("/") + 1), { expires, signature });
}

describe("a server that has signed before Redis was lost", () => {
  test("soon signs and opens as those do that started since", async ({ line }) => {
    await line.clear();
    const old = serverOn(line);
    const before = await old.of(HERE);
    expect(await opens(old, serverOn(line))).toBe(true);
    await line.redis.flushall();
    const fresh = serverOn(line);
    await fresh.of(HERE);
    line.clock.forward(10 * SECOND);
    expect([await opens(old, fresh), await opens(fresh, old)]).toEqual([true, true]);
    expect((await old.of(HERE)).sameWhile, "what was made with the old addresses isn't told any more").not.toBe(
      before.sameWhile,
    );
  });

  test("asks Redis for the secret no more than once in a while", async ({ line }) => {
    await line.clear();
    let asked = 0;
    const secretFor: Line["ledger"]["secretFor"] = (use) => {
      asked++;
      return line.ledger.secretFor(use);
    };
    const links = openLinks({ ledger: { secretFor }, publicUrl: null, publicBucketUrl: null, clock: line.clock });
    for (let second = 0; second < 20; second++) {
      await Promise.all([links.of(HERE), links.paths()]);
      line.clock.forward(SECOND);
    }
    expect(asked).toBe(2);
  });
});
