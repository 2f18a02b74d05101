import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { test as base, describe, expect } from "vitest";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { BucketError } from "../../src/bucket/bucket.ts";
import { DownloadError, type DownloadOptions, openDownload } from "../../src/bucket/download.ts";
import { type DownloadAgent, type DownloadAgentOptions, openDownloadAgent } from "../../src/bucket/download-agent.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { LOOKED_AT_BYTES } from "../../src/bucket/file-types.ts";
import { type SavedFile, saveDownload } from "../../src/bucket/save-download.ts";
import { misbehavingServers } from "./misbehaving-server.ts";
import { selfSigned } from "./self-signed.ts";

type Fetching = Partial<Omit<DownloadAgentOptions, "hosts">> &
  Partial<Omit<DownloadOptions, "agent">> & { readonly hosts?: readonly string[]; readonly signal?: AbortSignal };

const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("serve", async ({}, { onCleanup }) => {
    const servers = misbehavingServers();
    onCleanup(() => servers.close());
    return servers;
  })
  // oxlint-disable-next-line no-empty-pattern -- as above
  .extend("bucket", async ({}, { onCleanup }): Promise<Bucket> => {
    const folder = await mkdtemp(join(tmpdir(), "outlast-download-"));
    onCleanup(() => rm(folder, { recursive: true, force: true }));
    return openFileBucket(folder);
  })
  // oxlint-disable-next-line no-empty-pattern -- as above
  .extend("agentFor", async ({}, { onCleanup }) => {
    const agents: DownloadAgent[] = [];
    onCleanup(async () => {
      await Promise.all(agents.map((agent) => agent.close()));
    });
    return (options: Fetching): DownloadAgent => {
      const agent = openDownloadAgent({ ...options, hosts: (options.hosts ?? ["127.0.0.1"]).map(parseHostRule) });
      agents.push(agent);
      return agent;
    };
  })
  .extend("save", async ({ bucket, agentFor }) => {
    /** Downloads and stores under `key`. */
    return async (url: string, options: Fetching = {}, key = "saved.bin"): Promise<SavedFile> => {
      const signal = options.signal ?? new AbortController().signal;
      const asked = { maxBytes: 1_000_000, ...options, agent: agentFor(options) };
      return saveDownload(bucket, key, await openDownload(url, asked, signal), signal);
    };
  })
  .extend("failure", async ({ save, bucket }) => {
    /** The error of a download that must fail and store nothing. */
    return async (url: string, options: Fetching = {}): Promise<DownloadError> => {
      const ended = await save(url, options).catch((error: unknown) => error);
      expect(await bucket.head("saved.bin")).toBeNull();
      if (!(ended instanceof DownloadError)) throw new Error("no DownloadError", { cause: ended });
      expect(ended.message).toMatch(/^[^\n]+$/);
      return ended;
    };
  });

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
/** Of no type that anybody knows, whatever chance says. */
const BODY = Buffer.concat([Buffer.alloc(16), randomBytes(99_984)]);
const START = BODY.subarray(0, LOOKED_AT_BYTES);

const JPEG = Buffer.concat([Buffer.from("ffd8ffe000104a46494600010100000100010000", "hex"), BODY]);

/** Writes part of a body and breaks the connection once it has gone out. */
function breakAfter(response: ServerResponse, bytes: Buffer): void {
  response.write(bytes, () => setImmediate(() => response.destroy()));
}

/** The client hung up, by whatever means. */
async function closing(request: IncomingMessage): Promise<void> {
  return new Promise((resolve) => request.socket.once("close", () => resolve()));
}

function rangeStart(request: IncomingMessage): number {
  return Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
}

function rest(request: IncomingMessage, response: ServerResponse, body: Buffer, etag = '"v1"', shift = 0): Buffer {
  const start = rangeStart(request) + shift;
  response.writeHead(206, {
    etag,
    "content-range": `bytes ${start}-${body.length - 1}/${body.length}`,
    "content-length": body.length - start,
  });
  return body.subarray(start);
}

describe("a file", () => {
  test("with a length is saved byte for byte, with its size and digest", async ({ serve, save, bucket }) => {
    const { url, requests } = await serve.http((_request, response) => {
      response.writeHead(200, { "content-length": BODY.length, "content-type": "Image/PNG; foo=bar" });
      response.end(BODY);
    });
    const saved = await save(`${url}/a.bin?signature=secret`);
    expect(saved).toEqual({ bytes: BODY.length, sha256: sha256(BODY), contentType: "image/png" });
    expect(await bucket.get("saved.bin", { maxBytes: BODY.length })).toEqual(BODY);
    expect(requests.map(({ url: path, headers }) => [path, headers["accept-encoding"]])).toEqual([
      ["/a.bin?signature=secret", "identity"],
    ]);
  });

  test("in chunks of unknown number is saved byte for byte", async ({ serve, save, bucket, agentFor }) => {
    const { url } = await serve.http((_request, response) => {
      for (let at = 0; at < BODY.length; at += 7_001) response.write(BODY.subarray(at, at + 7_001));
      response.end();
    });
    expect(await save(url)).toMatchObject({ bytes: BODY.length, sha256: sha256(BODY) });
    expect(await bucket.get("saved.bin", { maxBytes: BODY.length })).toEqual(BODY);
    const opened = await openDownload(url, { agent: agentFor({}), maxBytes: 1e6 }, new AbortController().signal);
    expect(opened.expectedBytes).toBeNull();
    opened.body.destroy();
  });

  test("in a data URL is saved like any other", async ({ save, bucket }) => {
    const saved = await save(`data:image/webp;base64,${BODY.toString("base64")}`);
    expect(saved).toEqual({ bytes: BODY.length, sha256: sha256(BODY), contentType: "image/webp" });
    expect(await bucket.get("saved.bin", { maxBytes: BODY.length })).toEqual(BODY);
  });

  test("whose server doesn't know its type gets one from its extension", async ({ serve, save }) => {
    const { url } = await serve.http((request, response) => {
      if (request.url?.startsWith("/octets")) response.setHeader("content-type", "binary/octet-stream");
      response.end("x");
    });
    expect((await save(`${url}/octets/a.webp?b=c.png`)).contentType).toBe("image/webp");
    expect((await save(`${url}/a.mp4`)).contentType).toBe("video/mp4");
    expect((await save(`${url}/octets/a`)).contentType).toBe("binary/octet-stream");
    expect((await save(`${url}/a`)).contentType).toBe("application/octet-stream");
  });

  test("is what its first bytes say, whatever its server or its name says", async ({ serve, agentFor, failure }) => {
    const { url } = await serve.http((request, response) => {
      response.setHeader("content-type", "image/png");
      response.end(request.url === "/page.png" ? "<!doctype html><title>502</title>" : JPEG);
    });
    const { signal } = new AbortController();
    const opened = await openDownload(`${url}/a.png`, { agent: agentFor({}), maxBytes: 1e6 }, signal);
    expect(opened).toMatchObject({ contentType: "image/jpeg", extension: "jpg", expectedBytes: JPEG.length });
    expect(await buffer(opened.body)).toEqual(JPEG);
    for (const wrong of [`${url}/page.png`, "data:image/png,%3Chtml%3E"]) {
      const fault = "it holds an HTML page, where image/png was to come";
      expect(await failure(wrong)).toMatchObject({ kind: "bad-body", message: expect.stringContaining(fault) });
    }
  });

  test("of another type than its name says is known as what it is after a redirect, too", async ({
    serve,
    agentFor,
  }) => {
    const { url } = await serve.http((request, response) => {
      if (request.url === "/named.png") return response.writeHead(302, { location: "/elsewhere" }).end();
      return response.end(JPEG);
    });
    const { signal } = new AbortController();
    const opened = await openDownload(`${url}/named.png`, { agent: agentFor({}), maxBytes: 1e6 }, signal);
    expect(opened).toMatchObject({ contentType: "image/jpeg", extension: "jpg" });
    opened.body.destroy();
  });

  test("ends at its announced length, whatever the server sends behind it", async ({ serve, save }) => {
    const { url } = await serve.raw((socket) => {
      socket.end("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmore");
    });
    expect(await save(url)).toMatchObject({ bytes: 5, sha256: sha256(Buffer.from("hello")) });
  });
});

describe("a body that isn't a whole file is never saved:", () => {
  test("one shorter than announced", async ({ serve, failure }) => {
    const { url } = await serve.http((_request, response) => {
      response.writeHead(200, { "content-length": BODY.length });
      breakAfter(response, BODY.subarray(0, 40_000));
    });
    const error = await failure(`${url}/a.png?token=secret`);
    expect(error.kind).toBe("transient");
    expect(error.message).toMatch(new RegExp(`^GET ${url}/a.png broke off after \\d+ of 100000 bytes`));
    expect(error.message).not.toContain("secret");
  });

  test("one whose chunks are cut", async ({ serve, failure }) => {
    const { url } = await serve.http((_request, response) => breakAfter(response, BODY.subarray(0, 40_000)));
    expect((await failure(url)).kind).toBe("transient");
  });

  test("one whose chunks are garbage", async ({ serve, failure }) => {
    const { url } = await serve.raw((socket) => {
      socket.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n");
    });
    expect((await failure(url)).kind).toBe("transient");
  });

  test("one that is empty, with a length or in chunks", async ({ serve, failure }) => {
    const { url } = await serve.http((request, response) => {
      if (request.url === "/length") response.setHeader("content-length", 0);
      else response.flushHeaders();
      response.end();
    });
    expect(await failure(`${url}/length`)).toMatchObject({
      kind: "bad-body",
      message: expect.stringContaining("empty"),
    });
    expect(await failure(`${url}/chunks`)).toMatchObject({
      kind: "bad-body",
      message: expect.stringContaining("empty"),
    });
    expect(await failure("data:,")).toMatchObject({ kind: "bad-body", message: expect.stringContaining("empty") });
  });

  test("one that ends when the connection does, so that a cut wouldn't show", async ({ serve, failure }) => {
    const { url } = await serve.raw((socket) => void socket.end("HTTP/1.1 200 OK\r\n\r\nhello"));
    expect((await failure(url)).kind).toBe("bad-body");
  });

  test.for([
    ["content-encoding", "gzip"],
    ["content-encoding", "br"],
    ["transfer-encoding", "gzip, chunked"],
  ] as const)("one with %s: %s, which nobody asked for", async ([name, value], { serve, failure }) => {
    const { url } = await serve.raw((socket) => {
      const length = name === "content-encoding" ? "content-length: 5\r\n" : "";
      socket.end(
        `HTTP/1.1 200 OK\r\n${name}: ${value}\r\n${length}\r\n${length ? "hello" : "5\r\nhello\r\n0\r\n\r\n"}`,
      );
    });
    expect((await failure(url)).kind).toBe("bad-body");
  });

  test("one that stalls, after the time for a pause", async ({ serve, failure }) => {
    const { url } = await serve.http((_request, response) => {
      response.writeHead(200, { "content-length": 10 });
      response.write("hello");
    });
    const error = await failure(url, { timeouts: { idleMs: 200 } });
    expect(error).toMatchObject({ kind: "transient", message: expect.stringContaining("UND_ERR_BODY_TIMEOUT") });
  });

  test("one that drips for ever, after the time for a download", async ({ serve, failure }) => {
    const { url } = await serve.http((_request, response) => {
      response.writeHead(200, { "content-length": 1_000_000 });
      const drip = setInterval(() => response.write("."), 20);
      response.on("close", () => clearInterval(drip));
    });
    const error = await failure(url, { timeouts: { totalMs: 400 } });
    expect(error).toMatchObject({ kind: "transient", message: expect.stringContaining("0.4 s") });
  });

  test("one that never begins, after the time for headers", async ({ serve, failure }) => {
    const { url } = await serve.http(() => {});
    expect((await failure(url, { timeouts: { headersMs: 200 } })).kind).toBe("transient");
  });

  test("one over the cap, whether its length says so or not", async ({ serve, failure, save }) => {
    const { url } = await serve.http((request, response) => {
      if (request.url === "/length") response.setHeader("content-length", 5_000);
      else response.flushHeaders();
      response.end(BODY.subarray(0, 5_000));
    });
    for (const path of ["/length", "/chunks"]) {
      expect((await failure(url + path, { maxBytes: 4_999 })).kind).toBe("too-large");
    }
    for (const path of ["/length", "/chunks"]) {
      expect((await save(url + path, { maxBytes: 5_000 })).bytes).toBe(5_000);
    }
  });
});

describe("an answer without a file", () => {
  test.for([
    [400, "gone"],
    [401, "gone"],
    [403, "gone"],
    [404, "gone"],
    [410, "gone"],
    [408, "transient"],
    [429, "transient"],
    [500, "transient"],
    [503, "transient"],
    [204, "bad-body"],
    [206, "bad-body"],
    [304, "bad-body"],
  ] as const)("%i is %s", async ([status, kind], { serve, failure }) => {
    const { url } = await serve.http((_request, response) => {
      response.writeHead(status);
      response.end(status === 204 || status === 304 ? undefined : "<html>no</html>");
    });
    const error = await failure(`${url}/a.png?signature=secret`);
    expect(error.kind).toBe(kind);
    expect(error.message).toContain(`GET ${url}/a.png answered ${status}`);
    expect(error.message).not.toContain("secret");
  });

  test("because nobody listens, or the connection breaks, is transient", async ({ serve, failure }) => {
    const { url } = await serve.raw((socket) => socket.resetAndDestroy());
    expect(await failure(url)).toMatchObject({ kind: "transient" });
    expect(await failure("http://127.0.0.1:1/a")).toMatchObject({
      kind: "transient",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("because the name has no address is transient", async ({ failure }) => {
    const resolve = async (): Promise<never> => {
      throw Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" });
    };
    const error = await failure("https://files.example/a", { hosts: ["files.example"], resolve });
    expect(error).toMatchObject({ kind: "transient", message: expect.stringContaining("ENOTFOUND") });
  });

  test("because it isn't a URL is a bad body", async ({ failure }) => {
    expect((await failure("not a url")).kind).toBe("bad-body");
    expect((await failure("/relative.png")).kind).toBe("bad-body");
  });
});

describe("a host", () => {
  test("outside the list is refused before anything is sent", async ({ serve, failure }) => {
    const { url, requests } = await serve.http((_request, response) => response.end("x"));
    const error = await failure(`${url}/a?b=secret`, { hosts: ["replicate.delivery"] });
    expect(error).toMatchObject({ kind: "refused-host", message: expect.stringContaining("OUTLAST_OUTPUT_HOSTS") });
    expect(error.message).not.toContain("secret");
    expect(requests).toEqual([]);
  });

  test("in the list whose name leads to a private address is refused", async ({ failure }) => {
    for (const address of ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:192.168.0.1"]) {
      const resolve = async () => [{ address, family: address.includes(":") ? 6 : 4 }];
      const error = await failure("https://files.example/a", { hosts: ["files.example"], resolve });
      expect(error).toMatchObject({ kind: "refused-host", message: expect.stringContaining(address) });
    }
  });

  test("with one private address among public ones is refused", async ({ failure }) => {
    const resolve = async () => [
      { address: "93.184.216.34", family: 4 },
      { address: "10.0.0.1", family: 4 },
    ];
    expect((await failure("https://files.example/a", { hosts: ["*.example"], resolve })).kind).toBe("refused-host");
  });

  test("is resolved once for a connection, so that a second answer can't lead elsewhere", async ({ serve, save }) => {
    const { port, requests } = await serve.http((_request, response) => response.end("x"));
    const asked: string[] = [];
    const resolve = async (hostname: string) => {
      asked.push(hostname);
      return [{ address: asked.length === 1 ? "127.0.0.1" : "169.254.169.254", family: 4 }];
    };
    await save(`http://files.example:${port}/a`, { hosts: [`files.example:${port}`], resolve });
    expect(asked).toEqual(["files.example"]);
    expect(requests.map(({ headers }) => headers.host)).toEqual([`files.example:${port}`]);
  });

  test("may be private where the list names it with its port", async ({ serve, save, failure }) => {
    const { port } = await serve.http((_request, response) => response.end("x"));
    const resolve = async () => [{ address: "127.0.0.1", family: 4 }];
    expect(
      (await save(`http://store.example:${port}/a`, { hosts: [`store.example:${port}`], resolve }, "b")).bytes,
    ).toBe(1);
    expect((await failure(`https://store.example/a`, { hosts: [`store.example:${port}`], resolve })).kind).toBe(
      "refused-host",
    );
  });
});

describe("a redirect", () => {
  test("is followed three times, and not four", async ({ serve, save, failure }) => {
    const { url, requests } = await serve.http((request, response) => {
      const left = Number(request.url?.slice(1));
      if (left === 0) response.end("there");
      else response.writeHead([301, 302, 303, 307, 308][left] ?? 302, { location: `/${left - 1}` }).end("go on");
    });
    const error = await failure(`${url}/4`);
    expect(error).toMatchObject({ kind: "refused-host", message: expect.stringContaining("3 redirects") });
    expect(requests).toHaveLength(4);
    expect((await save(`${url}/3`)).sha256).toBe(sha256(Buffer.from("there")));
  });

  test("in a circle ends", async ({ serve, failure }) => {
    const { url, requests } = await serve.http((_request, response) =>
      response.writeHead(302, { location: "/" }).end(),
    );
    expect((await failure(url)).kind).toBe("refused-host");
    expect(requests).toHaveLength(4);
  });

  test("without a place to go to is a bad body", async ({ serve, failure }) => {
    const { url } = await serve.http((_request, response) => response.writeHead(302).end());
    expect((await failure(url)).kind).toBe("bad-body");
  });

  test.for([
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "https://evil.example/",
    "file:///etc/passwd",
    "http://localhost:1/",
    "http://[::ffff:127.0.0.1]:1/",
  ])("to %s is refused", async (location, { serve, failure }) => {
    const { url } = await serve.http((_request, response) => response.writeHead(302, { location }).end());
    expect((await failure(url)).kind).toBe("refused-host");
  });

  test("to a listed name with a private address is refused", async ({ serve, failure }) => {
    const { url } = await serve.http((_request, response) => {
      response.writeHead(302, { location: "https://files.example/a?key=secret" }).end();
    });
    const resolve = async () => [{ address: "10.0.0.1", family: 4 }];
    const error = await failure(url, { hosts: ["127.0.0.1", "files.example"], resolve });
    expect(error).toMatchObject({ kind: "refused-host", message: expect.stringContaining("10.0.0.1") });
    expect(error.message).not.toContain("secret");
  });
});

describe("the provider's token", () => {
  const TOKEN = "r8_secret";
  const certificate = selfSigned(["delivery.test", "elsewhere.test"]);
  const resolve = async () => [{ address: "127.0.0.1", family: 4 }];
  const withToken = (port: number): Fetching => ({
    hosts: [`delivery.test:${port}`, `elsewhere.test:${port}`, "127.0.0.1"],
    ca: certificate.cert,
    resolve,
    token: TOKEN,
    tokenHosts: [parseHostRule(`delivery.test:${port}`)],
  });
  const guarded =
    (status: number) =>
    (request: IncomingMessage, response: ServerResponse): void => {
      const known = request.headers.authorization === `Bearer ${TOKEN}`;
      response.writeHead(known ? 200 : status).end(known ? "for you" : "who are you?");
    };
  const shown = (requests: readonly IncomingMessage[]): (string | undefined)[] =>
    requests.map(({ headers }) => headers.authorization);

  test("isn't shown to a host that doesn't ask for it", async ({ serve, save }) => {
    const { port, requests } = await serve.https(certificate, (_request, response) => response.end("x"));
    await save(`https://delivery.test:${port}/a`, withToken(port));
    expect(shown(requests)).toEqual([undefined]);
  });

  test.for([401, 403])("is shown after a %i", async (status, { serve, save }) => {
    const { port, requests } = await serve.https(certificate, guarded(status));
    const saved = await save(`https://delivery.test:${port}/a`, withToken(port));
    expect(saved.sha256).toBe(sha256(Buffer.from("for you")));
    expect(shown(requests)).toEqual([undefined, `Bearer ${TOKEN}`]);
  });

  test("that isn't accepted is shown once", async ({ serve, failure }) => {
    const { port, requests } = await serve.https(certificate, (_request, response) => response.writeHead(401).end());
    const error = await failure(`https://delivery.test:${port}/a`, withToken(port));
    expect(error.kind).toBe("gone");
    expect(`${error.stack} ${JSON.stringify(error)}`).not.toContain(TOKEN);
    expect(shown(requests)).toEqual([undefined, `Bearer ${TOKEN}`]);
  });

  test("isn't shown over http, nor to another allowed host", async ({ serve, failure }) => {
    const plain = await serve.http(guarded(401));
    const options = {
      ...withToken(plain.port),
      tokenHosts: ["127.0.0.1", `delivery.test:${plain.port}`].map(parseHostRule),
    };
    expect((await failure(`${plain.url}/a`, options)).kind).toBe("gone");
    expect((await failure(`http://delivery.test:${plain.port}/a`, options)).kind).toBe("gone");
    expect(shown(plain.requests)).toEqual([undefined, undefined]);

    const other = await serve.https(certificate, guarded(401));
    expect((await failure(`https://elsewhere.test:${other.port}/a`, withToken(other.port))).kind).toBe("gone");
    expect(shown(other.requests)).toEqual([undefined]);
  });

  test("isn't shown where a redirect led, even on its own host", async ({ serve, failure }) => {
    const { port, requests } = await serve.https(certificate, (request, response) => {
      if (request.url === "/first") response.writeHead(302, { location: "/second" }).end();
      else response.writeHead(401).end();
    });
    expect((await failure(`https://delivery.test:${port}/first`, withToken(port))).kind).toBe("gone");
    expect(shown(requests)).toEqual([undefined, undefined]);
  });

  test("doesn't follow a redirect that it was answered with", async ({ serve, save }) => {
    const { port, requests } = await serve.https(certificate, (request, response) => {
      if (request.url === "/stored") return void response.end("stored");
      if (request.headers.authorization === undefined) return void response.writeHead(401).end();
      response.writeHead(302, { location: `https://elsewhere.test:${port}/stored` }).end();
    });
    await save(`https://delivery.test:${port}/first`, withToken(port));
    expect(shown(requests)).toEqual([undefined, `Bearer ${TOKEN}`, undefined]);
  });

  test("is shown again to get the rest of a file that broke off", async ({ serve, save }) => {
    const { port, requests } = await serve.https(certificate, (request, response) => {
      if (request.headers.authorization === undefined) return void response.writeHead(401).end();
      if (request.headers.range !== undefined) return void response.end(rest(request, response, BODY));
      response.writeHead(200, { etag: '"v1"', "content-length": BODY.length });
      breakAfter(response, BODY.subarray(0, 1_000));
    });
    expect((await save(`https://delivery.test:${port}/a`, withToken(port))).sha256).toBe(sha256(BODY));
    expect(shown(requests)).toEqual([undefined, `Bearer ${TOKEN}`, `Bearer ${TOKEN}`]);
  });

  test("needs a certificate that is trusted", async ({ serve, failure }) => {
    const { port, requests } = await serve.https(certificate, guarded(401));
    const { ca: _none, ...distrusting } = withToken(port);
    expect((await failure(`https://delivery.test:${port}/a`, distrusting)).kind).toBe("transient");
    expect(requests).toEqual([]);
  });
});

describe("a download that breaks in the middle", () => {
  const start = (response: ServerResponse, etag = '"v1"'): void => {
    response.writeHead(200, { etag, "content-length": BODY.length });
  };

  test("goes on where it broke, again and again", async ({ serve, save, bucket }) => {
    const { url, requests } = await serve.http((request, response) => {
      if (request.headers.range === undefined) {
        start(response);
        return breakAfter(response, BODY.subarray(0, 10_000));
      }
      const missing = rest(request, response, BODY);
      if (rangeStart(request) < 50_000) return breakAfter(response, missing.subarray(0, 20_000));
      response.end(missing);
    });
    expect(await save(url)).toMatchObject({ bytes: BODY.length, sha256: sha256(BODY) });
    expect(await bucket.get("saved.bin", { maxBytes: BODY.length })).toEqual(BODY);
    // What had arrived but wasn't read yet when the connection broke is asked for again.
    const starts = requests.map(rangeStart);
    expect(starts).toEqual(starts.toSorted((a, b) => a - b));
    expect(starts.length).toBeGreaterThan(3);
    expect(new Set(requests.slice(1).map(({ headers }) => headers["if-range"]))).toEqual(new Set(['"v1"']));
  });

  test("goes on though the first answer came in chunks, and the first attempts at the rest met trouble", async ({
    serve,
    save,
  }) => {
    let trouble = 2;
    const { url } = await serve.http((request, response) => {
      if (request.headers.range === undefined) {
        response.setHeader("etag", '"v1"');
        return breakAfter(response, BODY.subarray(0, 10_000));
      }
      trouble--;
      if (trouble === 1) return void response.writeHead(503).end();
      if (trouble === 0) return void response.destroy();
      response.end(rest(request, response, BODY));
    });
    expect((await save(url)).sha256).toBe(sha256(BODY));
  });

  test.for([
    ["ignores the range", (_request: IncomingMessage, response: ServerResponse) => response.end(BODY)],
    [
      "has another version now",
      (request: IncomingMessage, response: ServerResponse) => response.end(rest(request, response, BODY, '"v2"')),
    ],
    [
      "answers another range",
      (request: IncomingMessage, response: ServerResponse) => {
        const at = rangeStart(request) + 1;
        response
          .writeHead(206, { "content-range": `bytes ${at}-${BODY.length - 1}/${BODY.length}` })
          .end(BODY.subarray(at));
      },
    ],
    [
      "answers only a part of the rest",
      (request: IncomingMessage, response: ServerResponse) => {
        const at = rangeStart(request);
        response
          .writeHead(206, { "content-range": `bytes ${at}-${at + 9}/${BODY.length}` })
          .end(BODY.subarray(at, at + 10));
      },
    ],
    [
      "has a longer file now",
      (request: IncomingMessage, response: ServerResponse) =>
        response.end(rest(request, response, Buffer.concat([BODY, BODY]))),
    ],
    ["says no range", (_request: IncomingMessage, response: ServerResponse) => response.writeHead(206).end(BODY)],
    ["has no file any more", (_request: IncomingMessage, response: ServerResponse) => response.writeHead(404).end()],
    [
      "sends it elsewhere",
      (_request: IncomingMessage, response: ServerResponse) => response.writeHead(302, { location: "/b" }).end(),
    ],
    [
      "encodes the rest",
      (request: IncomingMessage, response: ServerResponse) => {
        response.setHeader("content-encoding", "gzip");
        response.end(rest(request, response, BODY));
      },
    ],
  ] as const)("has to start again where the server %s", async ([, answer], { serve, failure }) => {
    const { url, requests } = await serve.http((request, response) => {
      if (request.headers.range !== undefined) return void answer(request, response);
      start(response);
      breakAfter(response, BODY.subarray(0, 10_000));
    });
    const error = await failure(url);
    expect(error).toMatchObject({ kind: "transient", message: expect.stringContaining("started again") });
    expect(requests).toHaveLength(2);
  });

  test.for([undefined, 'W/"v1"', '""', "v1"])(
    "has to start again where the ETag is %j",
    async (etag, { serve, failure }) => {
      const { url, requests } = await serve.http((_request, response) => {
        response.writeHead(200, { ...(etag === undefined ? {} : { etag }), "content-length": BODY.length });
        breakAfter(response, BODY.subarray(0, 10_000));
      });
      expect((await failure(url)).kind).toBe("transient");
      expect(requests).toHaveLength(1);
    },
  );

  test("has to start again when it breaks too often", async ({ serve, failure }) => {
    const { url, requests } = await serve.http((request, response) => {
      if (request.headers.range === undefined) {
        start(response);
        return breakAfter(response, BODY.subarray(0, 1_000));
      }
      breakAfter(response, rest(request, response, BODY).subarray(0, 1_000));
    });
    expect((await failure(url)).kind).toBe("transient");
    expect(requests).toHaveLength(7);
  });
});

describe("a download that is no longer wanted", () => {
  test("before it began throws the reason", async ({ save }) => {
    const reason = new Error("closing down");
    await expect(save("http://127.0.0.1:1/", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test("while it waits for headers or first bytes, or in the middle of the body, throws the reason and hangs up", async ({
    serve,
    save,
    bucket,
  }) => {
    for (const sent of [null, "hello", START]) {
      const stop = new AbortController();
      const reason = new Error("closing down");
      let hungUp: Promise<unknown> | undefined;
      const { url } = await serve.http((request, response) => {
        hungUp = closing(request);
        if (sent !== null) response.writeHead(200, { "content-length": BODY.length, etag: '"v1"' }).write(sent);
        setImmediate(() => stop.abort(reason));
      });
      await expect(save(url, { signal: stop.signal })).rejects.toBe(reason);
      await hungUp;
      expect(await bucket.head("saved.bin")).toBeNull();
    }
  });

  test("because its reader left hangs up", async ({ serve, agentFor }) => {
    let hungUp: Promise<unknown> | undefined;
    const { url } = await serve.http((request, response) => {
      hungUp = closing(request);
      response.writeHead(200, { "content-length": BODY.length }).write(START);
    });
    for (const readsFirst of [true, false]) {
      const options = { agent: agentFor({}), maxBytes: 1e6 };
      const { body } = await openDownload(url, options, new AbortController().signal);
      if (readsFirst) await once(body, "readable");
      body.destroy();
      await hungUp;
    }
  });

  test("because the bucket failed hangs up and throws the bucket's error", async ({ serve, agentFor }) => {
    let hungUp: Promise<unknown> | undefined;
    const { url } = await serve.http((request, response) => {
      hungUp = closing(request);
      response.writeHead(200, { "content-length": BODY.length }).write(START);
    });
    const full = new BucketError("failed", "the disk is full");
    const bucket = {
      putStream: async (_key: string, body: AsyncIterable<unknown>): Promise<{ sha256: null }> => {
        for await (const _chunk of body) throw full;
        return { sha256: null };
      },
    };
    const { signal } = new AbortController();
    const download = await openDownload(url, { agent: agentFor({}), maxBytes: 1e6 }, signal);
    await expect(saveDownload(bucket, "a", download, signal)).rejects.toBe(full);
    await hungUp;
  });

  test("and whose body nobody ever reads breaks without a sound", async ({ serve, agentFor }) => {
    const broken = Promise.withResolvers<void>();
    const { url } = await serve.http((_request, response) => {
      response.writeHead(200, { "content-length": BODY.length }).write(START, () => {
        setImmediate(() => {
          response.destroy();
          broken.resolve();
        });
      });
    });
    const download = await openDownload(url, { agent: agentFor({}), maxBytes: 1e6 }, new AbortController().signal);
    await broken.promise;
    await expect(buffer(download.body)).rejects.toMatchObject({ kind: "transient" });
  });
});

describe("for any chunking and any breaks", () => {
  test("the object has the right bytes or isn't there", async ({ serve, save, bucket }) => {
    type Scenario = {
      readonly body: Buffer;
      readonly chunked: boolean;
      readonly etag: string | null;
      readonly resuming: "honest" | "ignores" | "changed" | "shifted";
      readonly chunkSize: number;
      /** Of each answer in turn: how many bytes of it are sent before it breaks; beyond the list nothing breaks. */
      readonly breaks: readonly number[];
    };
    const scenario = fc.record<Scenario>({
      body: fc.uint8Array({ minLength: 1, maxLength: 4_000 }).map((array) => Buffer.from(array)),
      chunked: fc.boolean(),
      etag: fc.constantFrom('"v1"', '"v1"', 'W/"v1"', null),
      resuming: fc.constantFrom("honest", "honest", "ignores", "changed", "shifted"),
      chunkSize: fc.integer({ min: 1, max: 1_500 }),
      breaks: fc.array(fc.nat({ max: 4_500 }), { maxLength: 2 }),
    });

    let current: Scenario | undefined;
    let answers = 0;
    const { url } = await serve.http((request, response) => {
      if (current === undefined) return void response.destroy();
      const { body, chunked, etag, resuming, chunkSize, breaks } = current;
      const breakAt = breaks[answers++];
      if (etag !== null) response.setHeader("etag", etag);
      let sent = body;
      if (request.headers.range !== undefined && resuming !== "ignores") {
        const changed = resuming === "changed" ? Buffer.from(body.map((byte) => byte ^ 1)) : body;
        sent = rest(
          request,
          response,
          changed,
          resuming === "changed" ? '"v2"' : '"v1"',
          resuming === "shifted" ? 1 : 0,
        );
      } else if (!chunked) response.setHeader("content-length", body.length);
      const end = Math.min(sent.length, breakAt ?? Number.POSITIVE_INFINITY);
      response.flushHeaders();
      for (let at = 0; at < end; at += chunkSize) response.write(sent.subarray(at, Math.min(end, at + chunkSize)));
      if (breakAt === undefined) response.end();
      else response.write("", () => setImmediate(() => response.destroy()));
    });

    let saved = 0;
    let failed = 0;
    await fc.assert(
      fc.asyncProperty(scenario, async (given) => {
        current = given;
        answers = 0;
        await bucket.delete("any.bin");
        const ended = await save(url, {}, "any.bin").catch((error: unknown) => error);
        const object = await bucket.get("any.bin", { maxBytes: 10_000 });
        if (ended instanceof DownloadError) {
          failed++;
          expect(ended.kind).toBe("transient");
          expect(object).toBeNull();
        } else {
          saved++;
          expect(object).toEqual(given.body);
          expect(ended).toMatchObject({ bytes: given.body.length, sha256: sha256(given.body) });
        }
      }),
      { numRuns: 60 },
    );
    expect(Math.min(saved, failed)).toBeGreaterThan(5); // both halves of the claim were tried
  });
});
