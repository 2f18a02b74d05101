/**
 * A fleet as clients of the queue API meet it: `outlast serve` behind TLS, a key for each tenant, a receiver of their
 * webhooks, and Replicate's own published client, which shares no code with us.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import Replicate from "replicate";
import { digestOf } from "../../src/emulator/canonical.ts";
import type { Model } from "../../src/emulator/model.ts";
import { MODELS } from "../../src/emulator/models.ts";
import { openReceiver, type Receiver } from "../webhooks/receiver.ts";
import { type Fleet, type FleetOptions, type ServerProcess, startFleet } from "./fleet.ts";
import { openTlsFront, type TlsFront } from "./tls-front.ts";

export type ApiFleet = Fleet & {
  /** Behind the front; what it hands out leads through it. */
  readonly server: ServerProcess;
  readonly front: TlsFront;
  readonly receiver: Receiver;
  /** Of a tenant, over TLS unless `own` says otherwise. */
  client(tenant: string, own?: ClientOptions): Replicate;
};

export type ApiFleetOptions = Omit<FleetOptions, "provider"> & {
  /** Who may ask, and by which account each pays: `replicate`, or one of `accounts`. */
  readonly tenants: Readonly<Record<string, string>>;
  /** More accounts at the emulator, by how many creates a minute they may. */
  readonly accounts?: Readonly<Record<string, number>>;
};

type ClientOptions = NonNullable<ConstructorParameters<typeof Replicate>[0]>;

export async function startApiFleet({ tenants, accounts = {}, ...options }: ApiFleetOptions): Promise<ApiFleet> {
  await using opened = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-api-fleet-"));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const receiver = opened.use(await openReceiver(200));
  const front = opened.use(await openTlsFront());
  const accountsFile = path.join(folder, "accounts.json");
  const tokens = Object.keys(accounts).map((name) => `r8_${name}`);
  await writeFile(
    accountsFile,
    JSON.stringify(
      Object.fromEntries(
        Object.entries(accounts).map(([name, creates]) => [
          name,
          { provider: "replicate", token: `r8_${name}`, creates_per_minute: creates, reads_per_minute: 60_000 },
        ]),
      ),
    ),
  );
  const fleet = opened.use(
    await startFleet({
      ...options,
      emulator: { tokens: ["r8_emulator", ...tokens], ...options.emulator },
      env: {
        OUTLAST_ACCOUNTS: accountsFile,
        OUTLAST_API_KEYS: Object.entries(tenants)
          .map(([tenant, account]) => `${tenant}:${keyOf(tenant)}:producer:${account}`)
          .join(","),
        OUTLAST_WEBHOOK_HOSTS: receiver.host,
        ...options.env,
      },
    }),
  );
  const server = await fleet.startServer({ OUTLAST_PUBLIC_URL: front.url });
  front.leadTo(server.url);
  const held = opened.move();
  return {
    ...fleet,
    server,
    front,
    receiver,
    client: (tenant, own = {}) =>
      new Replicate({ auth: keyOf(tenant), baseUrl: `${front.url}/v1`, fetch: front.fetch, ...own }),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

export function keyOf(tenant: string): string {
  return `${tenant}-has-a-key-of-its-own`;
}

// -- what the emulator makes, and what it has in its books -------------------------------------------------------------

export type Input = Readonly<Record<string, unknown>>;

/** `name`: without its owner. */
export function modelOf(name: string): Model {
  const model = MODELS.get(`outlast/${name}`);
  if (model === undefined) throw new Error(`the emulator has no model ${name}`);
  return model;
}

/** The output of a model that makes no files. */
export function outputOf(name: string, input: Input): unknown {
  return modelOf(name).output(input, [], digest(name, input));
}

/** The bytes of each file that a model makes. */
export function filesOf(name: string, input: Input): Buffer[] {
  return modelOf(name)
    .files(input, digest(name, input))
    .map(({ content }) =>
      content.kind === "whole" ? content.make() : Buffer.concat([...content.read(0, content.sizeBytes)]),
    );
}

/** How each prediction that was bought of this input stands at the provider, in order of purchase. */
export function bought({ emulator }: Pick<Fleet, "emulator">, name: string, input: Input): string[] {
  const wanted = digest(name, input);
  return [...emulator.predictionRows()].filter((row) => row.digest === wanted).map(({ status }) => status);
}

/** By which the books tell inputs apart. */
export function digest(name: string, input: Input): string {
  return digestOf({ model: modelOf(name).fullName, input });
}
