/**
 * Which hosts may be asked where a URL comes from outside, and which addresses such a host may have. Decisions only,
 * no I/O.
 *
 * The URL of an output, or of a client's webhook, could point at a machine of ours, at a cloud's metadata service, or
 * at a name that resolves to one. A URL is therefore judged by name, against a list, and every address that the name
 * resolves to is judged again when a connection is made.
 */

import ipaddr from "ipaddr.js";

/**
 * One entry of the list: `host`, `*.host` (its subdomains, not itself), each with an optional `:port`; or `*`, every
 * public host.
 *
 * Without a port the entry means https on 443; for a loopback host any port, and http too. With a port it means that
 * port, https or http. Private addresses are allowed to an entry that names one, a loopback or local name
 * (`localhost`, `minio`, `files.internal`), or an exact host with a port: who writes that means that machine.
 */
export type HostRule = {
  /** As a URL spells it: lower case, punycode, IPv6 in brackets, no dot at the end. */
  readonly host: string;
  readonly subdomains: boolean;
  readonly port: number | null;
};

export type UrlVerdict =
  | { readonly kind: "allowed"; readonly privateToo: boolean }
  /** `told`: the reason for somebody who can't change the settings. */
  | { readonly kind: "refused"; readonly reason: string; readonly told: string };

/** Reads one entry of the list. Throws a TypeError that says what to write. */
export function parseHostRule(text: string): HostRule {
  const trimmed = text.trim();
  if (trimmed === "*") return { host: "*", subdomains: true, port: null };
  const bare = ipaddr.IPv6.isValid(trimmed) ? `[${trimmed}]` : trimmed;
  const match = /^(\*\.)?(\[[^\]]+\]|[^:[\]/@?#%*\\\s]+)(?::(\d{1,5}))?$/.exec(bare);
  const hostname = match?.[2] === undefined ? undefined : URL.parse(`http://${match[2]}/`)?.hostname;
  const port = match?.[3] === undefined ? null : Number(match[3]);
  if (match === null || hostname === undefined || (port !== null && (port < 1 || port > 65_535))) {
    throw new TypeError(`${JSON.stringify(text)} is no host to allow: write host, *.host, host:port or *.host:port`);
  }
  const subdomains = match[1] !== undefined;
  const host = withoutLastDot(hostname);
  if (subdomains && addressOf(host) !== null) {
    throw new TypeError(`${JSON.stringify(text)} is no host to allow: an address has no subdomains`);
  }
  return { host, subdomains, port };
}

/** Whether a URL may be asked, as far as its text tells. `setting`: where a person can name more hosts. */
export function judgeUrl(url: URL, rules: readonly HostRule[], setting: string): UrlVerdict {
  const refused = (told: string, advice = ""): UrlVerdict => ({ kind: "refused", reason: `${told}${advice}`, told });
  if (url.protocol !== "https:" && url.protocol !== "http:") return refused(`${url.protocol} isn't https`);
  if (url.username !== "" || url.password !== "") return refused("it carries a user name or password");

  const host = withoutLastDot(url.hostname);
  const shown = url.port === "" ? host : `${host}:${url.port}`;
  const matching = rules.filter((rule) => matchesHost(rule, host) && matchesPort(rule, url, host));
  if (matching.length === 0) return refused(`${shown} isn't in the list of allowed hosts`, ` (${setting})`);

  const privateToo = matching.some(meansMachinesNearby);
  const address = addressOf(host);
  if (address === null && !privateToo && isNameNearby(host))
    return refused(`${host} is the name of a machine nearby`, NAMED);
  const fault = address === null ? null : faultOf(address, privateToo);
  if (fault !== null) return refused(fault.told, fault.advice);
  if (url.protocol === "http:" && !isLoopback(host) && !matching.some((rule) => rule.port !== null)) {
    return refused(`${shown} is allowed over https only`, "; name it with its port to allow http");
  }
  return { kind: "allowed", privateToo };
}

const NEARBY = /(^|\.)(localhost|local|internal|lan|home\.arpa)$/;
const NAMED = ", which only a host named for it may have";

/** Says why an address mustn't be connected to, or null. `privateToo` comes from the verdict on the URL's host. */
export function addressFault(address: string, privateToo: boolean): string | null {
  const fault = faultOf(address, privateToo);
  return fault === null ? null : `${fault.told}${fault.advice}`;
}

function faultOf(address: string, privateToo: boolean): { readonly told: string; readonly advice: string } | null {
  if (!ipaddr.isValid(address)) return { told: `${JSON.stringify(address)} isn't an address`, advice: "" };
  const ip = unwrapped(ipaddr.process(address));
  const range = rangeOf(ip);
  if (METADATA.has(ip.toString())) return { told: `${address} is a cloud's metadata service`, advice: "" };
  if (range === "unicast") return null;
  const told = `${address} is a ${range} address`;
  if (!PRIVATE.has(range)) return { told, advice: "" };
  return privateToo ? null : { told, advice: NAMED };
}

/** Whether a URL's host and port are in the list, over https: what the provider's token may be sent to. */
export function isHttpsTo(url: URL, rules: readonly HostRule[]): boolean {
  const host = withoutLastDot(url.hostname);
  return url.protocol === "https:" && rules.some((rule) => matchesHost(rule, host) && matchesPort(rule, url, host));
}

const PRIVATE: ReadonlySet<string> = new Set(["private", "loopback", "uniqueLocal", "carrierGradeNat"]);

/** Those that no range gives away: Azure's is public, Alibaba's and the IPv6 ones would pass where private ones may. */
const METADATA: ReadonlySet<string> = new Set(["168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"]);

/**
 * ipaddr.js calls unicast whatever no registry names. Of IPv6 only 2000::/3 is given out, and what is left may lead
 * somewhere all the same: `::a00:1` is how 10.0.0.1 was once written.
 */
function rangeOf(ip: ipaddr.IPv4 | ipaddr.IPv6): string {
  const range = ip.range();
  return range === "unicast" && ip instanceof ipaddr.IPv6 && !ip.match(GIVEN_OUT, 3) ? "reserved" : range;
}

const GIVEN_OUT = ipaddr.IPv6.parse("2000::");

/** An IPv4 address behind a network's NAT64 prefix reaches the IPv4 address. */
function unwrapped(ip: ipaddr.IPv4 | ipaddr.IPv6): ipaddr.IPv4 | ipaddr.IPv6 {
  if (ip.kind() === "ipv4" || ip.range() !== "rfc6052") return ip;
  return ipaddr.fromByteArray(ip.toByteArray().slice(12));
}

function matchesHost(rule: HostRule, host: string): boolean {
  if (rule.host === "*") return true;
  return rule.subdomains ? host.endsWith(`.${rule.host}`) : host === rule.host;
}

function matchesPort(rule: HostRule, url: URL, host: string): boolean {
  if (rule.port === null) return url.port === "" || isLoopback(host);
  return rule.port === Number(url.port === "" ? (url.protocol === "https:" ? 443 : 80) : url.port);
}

/** The address that a URL's host is written as, if it is one; WHATWG URLs have made 0x7f.1 into 127.0.0.1 by now. */
function addressOf(host: string): string | null {
  const bare = host.startsWith("[") ? host.slice(1, -1) : host;
  return ipaddr.isValid(bare) ? bare : null;
}

function isLoopback(host: string): boolean {
  if (host === "localhost" || host.endsWith(".localhost")) return true;
  const address = addressOf(host);
  return address !== null && ipaddr.process(address).range() === "loopback";
}

/** Whoever wrote this entry meant machines of their own: private addresses are no surprise behind it. */
function meansMachinesNearby({ host, subdomains, port }: HostRule): boolean {
  const address = addressOf(host);
  if (address !== null) return PRIVATE.has(ipaddr.process(address).range());
  if (NEARBY.test(host)) return true;
  return !subdomains && (port !== null || !host.includes("."));
}

/** No public host is called so; one word alone is a name in a network of one's own. */
function isNameNearby(host: string): boolean {
  return !host.includes(".") || NEARBY.test(host);
}

function withoutLastDot(host: string): string {
  return host.endsWith(".") ? host.slice(0, -1) : host;
}
