/** A connection to a server, byte by byte: what is sent goes out as it is, and what comes back is kept. */

import { once } from "node:events";
import { connect } from "node:net";

export type RawAnswer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

export type RawClient = Disposable & {
  /** Resolves when the system has taken all of it, or the connection is gone. */
  send(bytes: string | Uint8Array): Promise<void>;
  /** So many whole answers, without interim ones, in order; throws if the connection ends before they are there. */
  answers(count: number): Promise<readonly RawAnswer[]>;
  /** Everything that has come so far. */
  received(): string;
  /** Resolves when that matches. */
  shows(pattern: RegExp): Promise<void>;
  /** Resolves when the connection is over. */
  ended(): Promise<"in order" | "reset">;
  /** Sends the end of what this side has to say. */
  end(): void;
  /** Breaks the connection off. */
  reset(): void;
};

export async function openRawClient(port: number): Promise<RawClient> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  const pieces: Buffer[] = [];
  let broken = null as Error | null;
  let over = false;
  let changed = Promise.withResolvers<void>();
  const tell = () => {
    changed.resolve();
    changed = Promise.withResolvers();
  };
  socket.on("data", (piece) => {
    pieces.push(piece);
    tell();
  });
  socket.on("error", (error) => {
    broken = error;
  });
  for (const event of ["end", "close"]) {
    socket.on(event, () => {
      over = true;
      tell();
    });
  }
  const received = () => Buffer.concat(pieces).toString("latin1");

  async function until<T>(find: (text: string) => T | null): Promise<T> {
    for (;;) {
      const found = find(received());
      if (found !== null) return found;
      if (over) throw new Error(`the connection ended (${broken?.message ?? "in order"}) after: ${received()}`);
      await changed.promise;
    }
  }

  return {
    async send(bytes) {
      if (!socket.writable) return;
      await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
    },
    answers: (count) =>
      until((text) => {
        const answers = answersIn(text);
        return answers.length >= count ? answers : null;
      }),
    received,
    shows: (pattern) => until((text) => (pattern.test(text) ? undefined : null)) as Promise<void>,
    async ended() {
      while (!over) await changed.promise;
      return broken === null ? "in order" : "reset";
    },
    end: () => socket.end(),
    reset: () => socket.resetAndDestroy(),
    [Symbol.dispose]: () => socket.destroy(),
  };
}

/** The whole answers in what came; those of 1xx aside. */
function answersIn(text: string): RawAnswer[] {
  const answers: RawAnswer[] = [];
  for (let rest = text; ; ) {
    const headEnd = rest.indexOf("\r\n\r\n");
    if (headEnd === -1) return answers;
    const [line = "", ...lines] = rest.slice(0, headEnd).split("\r\n");
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(line)?.[1]);
    const headers = Object.fromEntries(
      lines.map((header) => {
        const colon = header.indexOf(":");
        return [header.slice(0, colon).toLowerCase(), header.slice(colon + 1).trim()];
      }),
    );
    const length = status < 200 || status === 204 ? 0 : Number(headers["content-length"] ?? 0);
    const end = headEnd + 4 + length;
    if (rest.length < end) return answers;
    if (status >= 200) answers.push({ status, headers, body: rest.slice(headEnd + 4, end) });
    rest = rest.slice(end);
  }
}

/** The head of a request; `headers` in lines. */
export function head(line: string, ...headers: readonly string[]): string {
  return [`${line} HTTP/1.1`, "Host: localhost", ...headers, "", ""].join("\r\n");
}
