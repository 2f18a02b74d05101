/** A process that is started, measured and ended by the bench: ours, with the probe in it. */

import { type ChildProcess, fork } from "node:child_process";
import { on, once } from "node:events";
import type { Usage } from "./probe.ts";

export type ChildOptions = {
  readonly args?: readonly string[];
  readonly execArgv?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
};

export type Message = { readonly kind: string };

const PROJECT = new URL("../..", import.meta.url);
const PROBE = new URL("probe.ts", import.meta.url).href;
/** A busy process answers between two pieces of work; longer means it hangs. */
const ANSWER_MS = 30_000;

export class Child implements AsyncDisposable {
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #gone = new AbortController();
  #log = "";
  #endedByUs = false;

  /** `module`: from the project's folder. */
  constructor(module: string, options: ChildOptions = {}) {
    this.#name = module;
    this.#process = fork(new URL(module, PROJECT), options.args ?? [], {
      cwd: PROJECT,
      env: { PATH: process.env["PATH"] ?? "", ...options.env },
      execArgv: ["--import", PROBE, ...(options.execArgv ?? [])],
      serialization: "advanced", // messages may hold Infinity
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#process.once("exit", () => this.#gone.abort());
    this.#process.stderr?.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-20_000);
    });
  }

  send(message: Message): void {
    this.assertAlive();
    this.#process.send(message);
  }

  listen(heard: (message: Message) => void): void {
    this.#process.on("message", (message) => heard(message as Message));
  }

  /** Resolves with the next message of a kind; throws if the process ends first. */
  async next<Wanted extends Message>(kind: Wanted["kind"], timeoutMs: number = ANSWER_MS): Promise<Wanted> {
    const signal = AbortSignal.any([AbortSignal.timeout(timeoutMs), this.#gone.signal]);
    try {
      for await (const [message] of on(this.#process, "message", { signal })) {
        if ((message as Message).kind === kind) return message as Wanted;
      }
    } catch (error) {
      this.assertAlive();
      throw new Error(`${this.#name} sent no ${kind} within ${timeoutMs} ms: ${this.#log}`, { cause: error });
    }
    throw new Error(`${this.#name} sends nothing any more`);
  }

  /** Resolves with what matches in what it has written to stderr, when something does. */
  async says(pattern: RegExp, timeoutMs: number = ANSWER_MS): Promise<RegExpExecArray> {
    const signal = AbortSignal.any([AbortSignal.timeout(timeoutMs), this.#gone.signal]);
    for (;;) {
      const match = pattern.exec(this.#log);
      if (match !== null) return match;
      this.assertAlive();
      await once(this.#process.stderr ?? this.#process, "data", { signal }).catch((error: unknown) => {
        this.assertAlive();
        throw new Error(`${this.#name} didn't say ${pattern} within ${timeoutMs} ms: ${this.#log}`, { cause: error });
      });
    }
  }

  async measure({ collect = false } = {}): Promise<Usage> {
    const usage = this.next<Usage>("usage");
    this.send({ kind: "measure", collect } as Message);
    return usage;
  }

  /** Throws where the process has ended by itself. */
  assertAlive(): void {
    if (this.#endedByUs) return;
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) {
      throw new Error(`${this.#name} ended by itself (${signalCode ?? exitCode}): ${this.#log}`);
    }
  }

  /** SIGTERM, or SIGKILL where nothing is left to be kept. */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#endedByUs = true;
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    this.#process.kill(signal);
    await exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}
