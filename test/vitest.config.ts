import { defineConfig } from "vitest/config";

/**
 * pure: decisions, in milliseconds. integration: a real Redis, real sockets, real S3 servers, one part at a time.
 * e2e: whole runs by real processes, which are also killed.
 */
export default defineConfig({
  test: {
    root: new URL("..", import.meta.url).pathname,
    // What is waited for comes by itself, however busy the machine is; nothing waits longer for it than it takes.
    expect: { poll: { timeout: 15_000 } },
    // Most of their time they wait: for locks that run out, for predictions that run.
    maxWorkers: 3,
    projects: [
      { extends: true, test: { name: "pure", include: ["test/core/**/*.test.ts"], testTimeout: 30_000 } },
      {
        extends: true,
        test: {
          name: "integration",
          include: ["test/**/*.test.ts"],
          exclude: ["test/core/**", "test/e2e/**"],
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 240_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
