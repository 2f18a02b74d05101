/**
 * Preloaded into a measured process (`node --import`): says over IPC what the process has used so far. It costs
 * nothing until it is asked. With `--expose-gc` the heap can be collected first, so that only what is held is counted.
 */

export type Usage = {
  readonly kind: "usage";
  /** Of all threads, since the process began. */
  readonly cpuMs: number;
  readonly rssBytes: number;
  readonly heapBytes: number;
  /** Buffers and the like, outside the heap. */
  readonly externalBytes: number;
  /** The event loop's, since it began: how long it worked, and how long it waited. */
  readonly activeMs: number;
  readonly idleMs: number;
};

export type Ask = { readonly kind: "measure"; readonly collect: boolean };

process.on("message", (message: Ask | { readonly kind: string }) => {
  if (message.kind !== "measure") return;
  if ("collect" in message && message.collect) globalThis.gc?.();
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, external } = process.memoryUsage();
  const { active, idle } = performance.eventLoopUtilization();
  const usage: Usage = {
    kind: "usage",
    cpuMs: (user + system) / 1_000,
    rssBytes: rss,
    heapBytes: heapUsed,
    externalBytes: external,
    activeMs: active,
    idleMs: idle,
  };
  process.send?.(usage);
});
// The probe alone keeps no process alive.
process.channel?.unref();
