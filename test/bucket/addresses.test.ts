import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressFault, isHttpsTo, judgeUrl, parseHostRule } from "../../src/bucket/addresses.ts";

const rules = (...texts: string[]) => texts.map(parseHostRule);
const judge = (url: string | URL, ...list: string[]) => judgeUrl(new URL(url), rules(...list), "OUTLAST_OUTPUT_HOSTS");
const allowed = (url: string | URL, ...list: string[]): boolean => judge(url, ...list).kind === "allowed";

describe("an entry of the list of hosts", () => {
  test.each([
    ["replicate.delivery", { host: "replicate.delivery", subdomains: false, port: null }],
    [" *.Replicate.Delivery ", { host: "replicate.delivery", subdomains: true, port: null }],
    ["files.example:9000", { host: "files.example", subdomains: false, port: 9_000 }],
    ["bücher.example.", { host: "xn--bcher-kva.example", subdomains: false, port: null }],
    ["127.0.0.1:8080", { host: "127.0.0.1", subdomains: false, port: 8_080 }],
    ["::1", { host: "[::1]", subdomains: false, port: null }],
    ["[::1]:8080", { host: "[::1]", subdomains: false, port: 8_080 }],
    ["0x7f.1", { host: "127.0.0.1", subdomains: false, port: null }],
    [" * ", { host: "*", subdomains: true, port: null }],
  ])("%j is read", (text, rule) => {
    expect(parseHostRule(text)).toEqual(rule);
  });

  test.each([
    "",
    "*:8443",
    "**",
    "*.",
    "https://a.example",
    "a.example/path",
    "a.example:0",
    "a.example:99999",
    "a b",
    "u@a",
    "*.127.0.0.1",
    "a.*.example",
    "a:b",
    "[::1",
  ])("%j is refused with a word on how to write it", (text) => {
    expect(() => parseHostRule(text)).toThrow(/is no host to allow/);
  });
});

describe("a URL", () => {
  test.each([
    ["https://replicate.delivery/a.png", ["replicate.delivery"]],
    ["https://replicate.delivery./a.png", ["replicate.delivery"]],
    ["https://REPLICATE.delivery:443/a.png", ["replicate.delivery"]],
    ["https://pbxt.replicate.delivery/a.png", ["*.replicate.delivery"]],
    ["https://a.b.replicate.delivery/a.png", ["*.replicate.delivery"]],
    ["https://files.example:8443/a", ["files.example:8443"]],
    ["http://files.example:8080/a", ["files.example:8080"]],
    ["http://files.example/a", ["files.example:80"]],
    ["http://127.0.0.1:4567/a", ["127.0.0.1"]],
    ["http://127.0.0.1:4567/a", ["127.0.0.1:4567"]],
    ["http://2130706433:4567/a", ["127.0.0.1:4567"]],
    ["http://localhost:4567/a", ["localhost"]],
    ["http://[::1]:4567/a", ["::1"]],
    ["https://10.1.2.3/a", ["10.1.2.3"]],
    ["http://minio:9000/a", ["minio:9000"]],
    ["https://8.8.8.8/a", ["8.8.8.8"]],
    ["https://anything.example/a", ["*"]],
    ["https://8.8.8.8/a", ["*"]],
    ["https://anything.example:8443/a", ["*", "anything.example:8443"]],
    ["http://127.0.0.1:4567/a", ["*", "127.0.0.1:4567"]],
    ["http://localhost:7939/x", ["*", "localhost"]],
    ["http://localhost:7939/x", ["*", "localhost:7939"]],
    ["https://files.internal/x", ["*", "*.internal"]],
    ["https://minio/x", ["*", "minio"]],
    ["https://local.example/x", ["*"]],
    ["https://internal.example.com/x", ["*"]],
  ])("%s is allowed by %j", (url, list) => {
    expect(allowed(url, ...list)).toBe(true);
  });

  test.each([
    ["https://evil.example/a.png", ["replicate.delivery", "*.replicate.delivery"]],
    ["https://replicate.delivery.evil.example/", ["replicate.delivery", "*.replicate.delivery"]],
    ["https://evilreplicate.delivery/", ["replicate.delivery", "*.replicate.delivery"]],
    ["https://replicate.delivery/", ["*.replicate.delivery"]],
    ["https://a.replicate.delivery/", ["replicate.delivery"]],
    ["https://replicate.delivery:8443/", ["replicate.delivery"]],
    ["http://replicate.delivery/", ["replicate.delivery"]],
    ["http://replicate.delivery:443/", ["replicate.delivery"]],
    ["https://user:word@replicate.delivery/", ["replicate.delivery"]],
    ["ftp://replicate.delivery/", ["replicate.delivery"]],
    ["file:///etc/passwd", ["replicate.delivery"]],
    ["https://127.0.0.1/", ["*.example"]],
    ["http://127.0.0.1:1/", ["127.0.0.1:2"]],
    ["http://10.1.2.3/", ["10.1.2.3"]],
    ["https://169.254.169.254/", ["169.254.169.254"]],
    ["http://169.254.169.254:80/", ["169.254.169.254:80"]],
    ["https://0.0.0.0/", ["0.0.0.0"]],
    ["https://[fe80::1]/", ["fe80::1"]],
    ["https://100.100.100.200/", ["100.100.100.200"]],
    ["http://anything.example/", ["*"]],
    ["https://anything.example:8443/", ["*"]],
    ["http://127.0.0.1:4567/", ["*"]],
    ["https://169.254.169.254/", ["*"]],
    ["https://[fd00:ec2::254]/", ["*"]],
    ["http://localhost:7939/x", ["*"]],
    ["https://localhost/x", ["*"]],
    ["https://LOCALHOST./x", ["*"]],
    ["https://app.localhost/x", ["*"]],
    ["https://printer.local/x", ["*"]],
    ["https://metadata.google.internal/x", ["*"]],
    ["https://router.lan/x", ["*"]],
    ["https://minio/x", ["*"]],
    ["https://localhost:7939/x", ["*", "localhost:7940"]],
  ])("%s is refused by %j", (url, list) => {
    expect(allowed(url, ...list)).toBe(false);
  });

  test("may lead to a private address only where its entry means one machine", () => {
    const privateToo = (url: string, rule: string): boolean => {
      const verdict = judge(url, rule);
      return verdict.kind === "allowed" && verdict.privateToo;
    };
    expect(privateToo("https://replicate.delivery/", "replicate.delivery")).toBe(false);
    expect(privateToo("https://a.replicate.delivery/", "*.replicate.delivery")).toBe(false);
    expect(privateToo("https://a.replicate.delivery:8443/", "*.replicate.delivery:8443")).toBe(false);
    expect(privateToo("https://files.example/", "*.example")).toBe(false);
    expect(privateToo("http://files.example:8080/", "files.example:8080")).toBe(true);
    expect(privateToo("http://minio:9000/", "minio:9000")).toBe(true);
    expect(privateToo("https://files.internal/", "*.internal")).toBe(true);
    expect(privateToo("https://minio/", "minio")).toBe(true);
    expect(privateToo("https://files.example/", "files.example")).toBe(false);
    expect(privateToo("https://files.example/", "*")).toBe(false);
    expect(privateToo("http://localhost:4567/", "*")).toBe(false);
  });

  test("that isn't in the list is refused with the setting that names more", () => {
    const verdict = judgeUrl(new URL("https://a.example:8443/"), rules("*"), "OUTLAST_WEBHOOK_HOSTS");
    expect(verdict).toEqual({
      kind: "refused",
      reason: "a.example:8443 isn't in the list of allowed hosts (OUTLAST_WEBHOOK_HOSTS)",
      told: "a.example:8443 isn't in the list of allowed hosts",
    });
  });

  test.each([
    ["http://10.1.2.3/", ["*"], "10.1.2.3 is a private address"],
    ["https://10.1.2.3/", ["*"], "10.1.2.3 is a private address"],
    ["http://localhost:7939/", ["*"], "localhost is the name of a machine nearby"],
    ["http://a.example/", ["*"], "a.example is allowed over https only"],
    ["http://10.1.2.3/", ["10.1.2.3"], "10.1.2.3 is allowed over https only"],
    ["https://a.example:8443/", ["*"], "a.example:8443 isn't in the list of allowed hosts"],
    ["https://169.254.169.254/", ["*"], "169.254.169.254 is a linkLocal address"],
    ["https://a:b@a.example/", ["*"], "it carries a user name or password"],
  ])("%s is refused by %j, and a client is told without advice on settings: %s", (url, list, told) => {
    expect(judge(url, ...list)).toMatchObject({ kind: "refused", told });
  });

  test("gets the token only over https and only at its own hosts", () => {
    const list = rules("*.replicate.delivery", "replicate.delivery");
    expect(isHttpsTo(new URL("https://a.replicate.delivery/x"), list)).toBe(true);
    expect(isHttpsTo(new URL("http://a.replicate.delivery/x"), list)).toBe(false);
    expect(isHttpsTo(new URL("https://a.replicate.delivery:8443/x"), list)).toBe(false);
    expect(isHttpsTo(new URL("https://evil.example/x"), list)).toBe(false);
    expect(isHttpsTo(new URL("https://replicate.delivery/x"), [])).toBe(false);
  });
});

describe("an address", () => {
  test.each([
    "127.0.0.1",
    "127.8.9.1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1",
  ])("%s is private", (address) => {
    expect(addressFault(address, false)).not.toBeNull();
    expect(addressFault(address, true)).toBeNull();
  });

  test.each([
    "169.254.169.254",
    "169.254.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "255.255.255.255",
    "224.0.0.1",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "fec0::1",
    "::a00:1",
    "::7f00:1",
    "::a9fe:a9fe",
    "4000::1",
    "not an address",
    "",
  ])("%j is never connected to", (address) => {
    expect(addressFault(address, false)).not.toBeNull();
    expect(addressFault(address, true)).not.toBeNull();
  });

  test.each(["8.8.8.8", "104.16.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])(
    "%s is public",
    (address) => {
      expect(addressFault(address, false)).toBeNull();
    },
  );

  test("of a private IPv4 network is refused in every spelling of it", () => {
    const octet = fc.integer({ min: 0, max: 255 });
    const privateAddress = fc.oneof(
      fc.tuple(fc.constant(10), octet, octet, octet),
      fc.tuple(fc.constant(127), octet, octet, octet),
      fc.tuple(fc.constant(192), fc.constant(168), octet, octet),
      fc.tuple(fc.constant(172), fc.integer({ min: 16, max: 31 }), octet, octet),
      fc.tuple(fc.constant(169), fc.constant(254), octet, octet),
    );
    fc.assert(
      fc.property(privateAddress, ([a, b, c, d]) => {
        const number = ((a * 256 + b) * 256 + c) * 256 + d;
        const spellings = [
          `${a}.${b}.${c}.${d}`,
          `${number}`,
          `0x${number.toString(16)}`,
          `${a}.${(b * 256 + c) * 256 + d}`,
          `[::ffff:${a}.${b}.${c}.${d}]`,
          `[::${a}.${b}.${c}.${d}]`,
        ];
        for (const host of spellings) {
          const url = new URL(`https://${host}/`);
          expect(addressFault(url.hostname.replace(/[[\]]/g, ""), false)).not.toBeNull();
          expect(allowed(url, "*.example", "replicate.delivery")).toBe(false);
          expect(allowed(url, "*")).toBe(false);
        }
      }),
    );
  });
});
