/**
 * Who is asking: an API key, as `Authorization: Bearer …`, or in a browser as the password of Basic authentication (the
 * user's name is free). A key acts for its tenant, within its role:
 *
 *   viewer     looks at what its tenant has
 *   producer   also creates, pauses, resumes and cancels it
 *   operator   also opens the board of queues where there are several tenants, whose jobs all stand there
 *
 * Without any keys everybody is the operator of the tenant `default`; the server then listens on loopback alone.
 */

import { createHash, timingSafeEqual } from "node:crypto";
import type { ApiKey, Role } from "../config.ts";
import { type AccountName, DEFAULT_TENANT } from "../core/naming.ts";

export type Client = {
  readonly tenant: string;
  readonly role: Role;
  readonly account: AccountName | null;
  /** Tells keys apart, and isn't one. */
  readonly id: string;
};

export type Clients = {
  /** Null: nobody we know. */
  readonly identify: (authorization: string | undefined) => Client | null;
  /** Whether everybody may ask. */
  readonly open: boolean;
  /** Whether there is work of more than one: what comes without a key is the tenant `default`'s. */
  readonly severalTenants: boolean;
};

const ANYBODY: Client = { tenant: DEFAULT_TENANT, role: "operator", account: null, id: "anybody" };

export function openClients(keys: readonly ApiKey[]): Clients {
  const known = keys.map(({ tenant, key, role, account }) => {
    const digest = digestOf(key.reveal());
    return { digest, client: { tenant, role, account, id: digest.toString("hex", 0, 8) } };
  });
  return {
    open: keys.length === 0,
    severalTenants: new Set([DEFAULT_TENANT, ...keys.map(({ tenant }) => tenant)]).size > 1,
    identify(authorization) {
      if (keys.length === 0) return ANYBODY;
      const given = keyIn(authorization);
      if (given === null) return null;
      const digest = digestOf(given);
      let found: Client | null = null;
      // Every one is compared, in constant time: how long it takes tells nothing about any of them.
      for (const { digest: right, client } of known) if (timingSafeEqual(digest, right)) found = client;
      return found;
    },
  };
}

/** `Token` is how older clients of Replicate's API put it. */
function keyIn(authorization = ""): string | null {
  const [, scheme, value = ""] = /^(Bearer|Token|Basic) +(\S+)$/i.exec(authorization) ?? [];
  if (scheme === undefined) return null;
  if (scheme.toLowerCase() !== "basic") return value;
  const pair = Buffer.from(value, "base64").toString("utf8");
  return pair.slice(pair.indexOf(":") + 1);
}

function digestOf(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
