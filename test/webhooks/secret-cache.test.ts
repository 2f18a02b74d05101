import { describe, expect, test } from "vitest";
import { openSecretCache } from "../../src/webhooks/secret-cache.ts";

const PAUSE_MS = 1_000;

/** A provider whose secret can be rotated, or which can be down. */
function openProvider() {
  const provider = { secret: "whsec_a", down: false, asked: 0, nowMs: 5 };
  const cache = openSecretCache(
    async () => {
      provider.asked++;
      if (provider.down) throw new Error("down");
      return provider.secret;
    },
    { pauseMs: PAUSE_MS, clock: () => provider.nowMs },
  );
  return { provider, cache };
}

describe("the secret", () => {
  test("is asked for once, whoever wants it at the same time", async () => {
    const { provider, cache } = openProvider();
    expect(await Promise.all([cache.current(), cache.current(), cache.current()])).toEqual(Array(3).fill("whsec_a"));
    provider.nowMs += 100 * PAUSE_MS;
    expect(await cache.current()).toBe("whsec_a");
    expect(provider.asked).toBe(1);
  });

  test("is asked for again when it was rotated, and as often as the pause allows", async () => {
    const { provider, cache } = openProvider();
    await cache.current();
    provider.secret = "whsec_b";
    for (let forged = 0; forged < 50; forged++) expect(await cache.renewed()).toBe("whsec_a");
    expect(provider.asked, "it was asked for just now").toBe(1);
    provider.nowMs += PAUSE_MS;
    expect(await Promise.all([cache.renewed(), cache.renewed()])).toEqual(["whsec_b", "whsec_b"]);
    expect(await cache.current()).toBe("whsec_b");
    expect(provider.asked).toBe(2);
  });

  test("that can't be had is asked for again after the pause, and the old one stays until then", async () => {
    const { provider, cache } = openProvider();
    provider.down = true;
    for (let call = 0; call < 20; call++) await expect(cache.current()).rejects.toThrow("down");
    expect(provider.asked).toBe(1);
    provider.down = false;
    provider.nowMs += PAUSE_MS;
    expect(await cache.current()).toBe("whsec_a");
    provider.down = true;
    provider.nowMs += PAUSE_MS;
    await expect(cache.renewed()).rejects.toThrow("down");
    expect(await cache.current()).toBe("whsec_a");
  });

  test("that couldn't be had is asked for again where the clock was set back meanwhile", async () => {
    const { provider, cache } = openProvider();
    provider.nowMs += 100 * PAUSE_MS;
    provider.down = true;
    await expect(cache.current()).rejects.toThrow("down");
    provider.down = false;
    provider.nowMs -= 50 * PAUSE_MS;
    expect(await cache.current()).toBe("whsec_a");
  });
});
