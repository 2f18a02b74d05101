import diagnostics from "node:diagnostics_channel";
import type { ServerResponse } from "node:http";
import { inspect } from "node:util";
import { test as base, describe, expect } from "vitest";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import { deliver, openWebhookAgent, type WebhookAgentOptions, WebhookError } from "../../src/webhooks/deliver.ts";
import { shownSecret, signCall } from "../../src/webhooks/sign.ts";
import { misbehavingServers } from "../bucket/misbehaving-server.ts";
import { selfSigned } from "../bucket/self-signed.ts";
import { type Answer, isValid, openReceiver, type Receiver } from "./receiver.ts";

type Calling = Omit<WebhookAgentOptions, "hosts"> & {
  /** Beside every public one. */
  readonly hosts?: readonly string[];
  readonly signal?: AbortSignal;
};

const SECRET = Buffer.alloc(32, "a secret");
const TOKEN = "token-of-the-client";
const BODY = '{"id":"abc"}';
const NEVER = new AbortController().signal;

const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("serve", async ({}, { onCleanup }) => {
    const servers = misbehavingServers();
    onCleanup(() => servers.close());
    return servers;
  })
  // oxlint-disable-next-line no-empty-pattern -- as above
  .extend("receive", async ({}, { onCleanup }) => {
    const receivers = new AsyncDisposableStack();
    onCleanup(() => receivers.disposeAsync());
    return async (...answers: (number | Answer)[]): Promise<Receiver> => receivers.use(await openReceiver(...answers));
  })
  // oxlint-disable-next-line no-empty-pattern -- as above
  .extend("call", async ({}, { onCleanup }) => {
    const agents = new AsyncDisposableStack();
    onCleanup(() => agents.disposeAsync());
    return async (url: string, { hosts = [], signal = NEVER, ...options }: Calling = {}): Promise<void> => {
      const agent = openWebhookAgent({ ...options, hosts: ["*", ...hosts].map(parseHostRule) });
      agents.defer(() => agent.close());
      await deliver(url, signCall({ id: "msg_1", body: BODY }, SECRET, Date.now()), agent, signal);
    };
  })
  .extend("failure", async ({ call }) => {
    /** The error of a call that must fail, without a word of what its address holds behind the host. */
    return async (url: string, options: Calling = {}): Promise<WebhookError> => {
      const ended = await call(url, options).catch((error: unknown) => error);
      if (!(ended instanceof WebhookError)) throw new Error("no WebhookError", { cause: ended });
      expect(ended.message).toMatch(/^[^\n]+$/);
      expect(inspect(ended, { depth: 10, showHidden: true })).not.toContain(TOKEN);
      return ended;
    };
  });

const secretly = (origin: string): string => `${origin}/hooks/${TOKEN}?token=${TOKEN}#${TOKEN}`;

describe("a call", () => {
  test("arrives as it was signed, and the official client takes it", async ({ receive, call }) => {
    const { url, host, calls } = await receive(204);
    await call(`${url}/hook?token=x`, { hosts: [host] });
    const [received, ...more] = calls;
    expect(more).toEqual([]);
    expect(received).toMatchObject({ method: "POST", path: "/hook?token=x", body: BODY });
    expect(received?.headers).toMatchObject({ "content-type": "application/json", "content-length": "12", host });
    expect(received && (await isValid(received, shownSecret(SECRET)))).toBe(true);
    expect(received && (await isValid(received, shownSecret(Buffer.alloc(32, "another"))))).toBe(false);
  });

  test("speaks https, and to nobody whose certificate is another's", async ({ serve, call, failure }) => {
    const { port, requests } = await serve.https(selfSigned(["elsewhere.test"]), (_request, response) =>
      response.end(),
    );
    const certificate = selfSigned(["hooks.test"]);
    const right = await serve.https(certificate, (_request, response) => response.end());
    const resolve = async () => [{ address: "127.0.0.1", family: 4 }];
    await call(`https://hooks.test:${right.port}/`, {
      hosts: [`hooks.test:${right.port}`],
      resolve,
      ca: certificate.cert,
    });
    expect(right.requests).toHaveLength(1);
    const error = await failure(secretly(`https://hooks.test:${port}`), { hosts: [`hooks.test:${port}`], resolve });
    expect(error).toMatchObject({ kind: "transient", message: expect.stringContaining("got no answer") });
    expect(requests).toEqual([]);
  });

  test("has arrived with the status, and its answer is read no further than to let go of it", async ({
    receive,
    call,
  }) => {
    const closed = Promise.withResolvers<void>();
    let written = 0;
    const { url, host } = await receive((response) => {
      const pour = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536))) written += 65_536;
      };
      response.on("drain", pour).on("close", closed.resolve);
      pour();
    });
    await call(url, { hosts: [host] });
    await closed.promise;
    expect(written).toBeLessThan(50_000_000);
  });

  test("has arrived, and an answer that drips for ever is given up", async ({ receive, call }) => {
    const closed = Promise.withResolvers<void>();
    const { url, host } = await receive((response) => {
      response.write("x");
      response.on("close", closed.resolve);
    });
    await call(url, { hosts: [host], answerMs: 200 });
    await closed.promise;
  });
});

describe("a call that isn't taken", () => {
  test.for([400, 401, 404, 413, 429, 500, 503])(
    "because of a %i is tried again",
    async (status, { receive, failure }) => {
      const { url, host, calls } = await receive(status);
      const error = await failure(secretly(url), { hosts: [host] });
      expect(error).toMatchObject({
        kind: "transient",
        message: `the webhook at ${url} was answered ${status}, and not 2xx`,
      });
      expect(calls, "here it is called once").toHaveLength(1);
    },
  );

  test.for([301, 302, 303, 307, 308])(
    "because of a redirect, %i, isn't led elsewhere",
    async (status, { receive, failure }) => {
      const elsewhere = await receive(200);
      const redirect = (response: ServerResponse): void => {
        response.writeHead(status, { location: secretly(elsewhere.url) }).end();
      };
      const { url, host, calls } = await receive(redirect);
      const error = await failure(secretly(url), { hosts: [host, elsewhere.host] });
      expect(error).toMatchObject({
        kind: "transient",
        message: expect.stringMatching(/redirect, which isn't followed/),
      });
      expect([calls.length, elsewhere.calls.length]).toEqual([1, 0]);
    },
  );

  test("because its receiver is gone isn't tried again", async ({ receive, failure }) => {
    const { url, host } = await receive(410);
    expect((await failure(secretly(url), { hosts: [host] })).kind).toBe("gone");
  });

  test("in time is hung up on", async ({ receive, failure }) => {
    const closed = Promise.withResolvers<void>();
    const { url, host } = await receive((response) => response.on("close", closed.resolve));
    const error = await failure(secretly(url), { hosts: [host], answerMs: 200 });
    expect(error).toMatchObject({ kind: "transient", message: `the webhook at ${url} wasn't answered within 0.2 s` });
    await closed.promise;
  });

  test("because the connection broke says so", async ({ receive, failure }) => {
    const { url, host } = await receive((response) => response.destroy());
    const error = await failure(secretly(url), { hosts: [host] });
    expect(error).toMatchObject({ kind: "transient", message: expect.stringMatching(/got no answer \(\w+\)$/) });
  });

  test("because nobody listens says so", async ({ receive, failure }) => {
    const { url, host, ...receiver } = await receive(200);
    await receiver[Symbol.asyncDispose]();
    const error = await failure(secretly(url), { hosts: [host] });
    expect(error).toMatchObject({ kind: "transient", message: expect.stringContaining("ECONNREFUSED") });
  });

  test("because its worker stops ends with the worker's reason", async ({ receive, call }) => {
    const stop = new AbortController();
    const { url, host } = await receive(() => stop.abort(new Error("the process is stopping")));
    await expect(call(url, { hosts: [host], signal: stop.signal })).rejects.toThrow("the process is stopping");
    await expect(call(url, { hosts: [host], signal: stop.signal })).rejects.toThrow("the process is stopping");
  });
});

describe("an address that may not be called is refused, and nothing is connected to:", () => {
  /** Connections that undici made while this ran. */
  async function connectionsDuring(run: () => Promise<unknown>): Promise<number> {
    let connections = 0;
    const count = (): void => {
      connections++;
    };
    diagnostics.subscribe("undici:client:connected", count);
    try {
      await run();
    } finally {
      diagnostics.unsubscribe("undici:client:connected", count);
    }
    return connections;
  }

  test("connections are counted where there are any", async ({ receive, call }) => {
    const { url, host } = await receive(200);
    expect(await connectionsDuring(() => call(url, { hosts: [host] }))).toBe(1);
  });

  test.for([
    "http://127.0.0.1:PORT",
    "https://127.0.0.1:PORT",
    "https://127.0.0.1",
    "http://2130706433:PORT",
    "http://[::ffff:127.0.0.1]:PORT",
    "http://localhost:PORT",
    "http://hooks.localhost:PORT",
    "https://10.1.2.3",
    "https://192.168.0.1",
    "https://[fd00::1]",
    "https://169.254.169.254",
    "http://169.254.169.254",
    "https://168.63.129.16",
    "https://[fe80::1]",
    "https://0.0.0.0",
    "http://hooks.example",
    "https://hooks.example:8443",
    "https://user:word@hooks.example",
    "ftp://hooks.example",
  ])("%s", async (place, { receive, failure }) => {
    const { host, calls } = await receive(200);
    const url = secretly(place.replace("PORT", host.split(":")[1] ?? ""));
    const connections = await connectionsDuring(async () => {
      const resolve = async () => [{ address: "127.0.0.1", family: 4 }];
      expect((await failure(url, { resolve })).kind).toBe("refused-host");
    });
    expect([connections, calls]).toEqual([0, []]);
  });

  test.for([
    ["10.1.2.3"],
    ["127.0.0.1"],
    ["169.254.169.254"],
    ["::1"],
    ["fd00:ec2::254"],
    ["::ffff:192.168.0.1"],
    ["64:ff9b::a00:1"],
    ["93.184.216.34", "10.1.2.3"],
  ])("a name that leads to %j", async (addresses, { failure }) => {
    const resolve = async () => addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
    const connections = await connectionsDuring(async () => {
      const error = await failure(secretly("https://hooks.example"), { resolve });
      expect(error).toMatchObject({
        kind: "refused-host",
        message: expect.stringContaining("hooks.example leads to a place that isn't allowed"),
      });
    });
    expect(connections).toBe(0);
  });

  test("what isn't a URL", async ({ failure }) => {
    expect((await failure(`hooks/${TOKEN}`)).kind).toBe("refused-host");
  });

  test("a refused port is told with the setting that would allow it", async ({ failure }) => {
    expect((await failure(secretly("https://hooks.example:8443"))).message).toBe(
      "the webhook at https://hooks.example:8443 is refused: hooks.example:8443 isn't in the list of allowed hosts (OUTLAST_WEBHOOK_HOSTS)",
    );
  });
});
