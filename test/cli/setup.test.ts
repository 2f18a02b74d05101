/**
 * `npm run setup` as a real process, on a PATH of one folder whose small scripts stand for the package managers.
 * They write down how they were called, and "install" a redis-server into the folder; the machine stays as it is.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const SETUP = fileURLToPath(new URL("../../src/cli/setup.ts", import.meta.url));
const isRoot = process.getuid?.() === 0;

let folder: string;
let bin: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "outlast-setup-test-"));
  bin = join(folder, "bin");
  await mkdir(bin);
  await writeFile(join(folder, "calls"), "");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe("setup", () => {
  test("has nothing to do where there is a Redis that is new enough, and says so in one line", async () => {
    await server("redis-server", "Redis server v=7.0.15 sha=0");
    await manager("apt-get");
    expect(await setup()).toEqual({
      code: 0,
      stdout: "",
      stderr: `nothing to do: Redis 7.0.15 is there (${bin}/redis-server)\n`,
      calls: [],
    });
  });

  test("is content with Valkey", async () => {
    await server("valkey-server", "Valkey server v=8.0.1 sha=0");
    expect((await setup()).stderr).toBe(`nothing to do: Valkey 8.0.1 is there (${bin}/valkey-server)\n`);
  });

  test.skipIf(!isRoot).each([
    ["apt-get", ["apt-get update", "apt-get install -y --no-install-recommends redis-server"]],
    ["dnf", ["dnf install -y valkey"]],
    ["apk", ["apk add --no-cache redis"]],
    ["brew", ["brew install redis"]],
  ])("installs by %s, and says each command before it runs it", async (name, calls) => {
    await manager(name);
    const result = await setup();
    expect(result).toMatchObject({ code: 0, stdout: "", calls });
    expect(result.stderr).toBe(
      [
        `no Redis on PATH: installing it with ${name}`,
        ...calls.map((call) => `$ ${bin}/${call}`),
        `done: Redis 7.2.4 is installed (${bin}/redis-server)`,
        "",
      ].join("\n"),
    );
  });

  test.skipIf(!isRoot)(
    "by apt-get keeps the package's service from starting, and clears up, also when it fails",
    async () => {
      const policy = expect.stringMatching(/^install -m 755 \/.*policy-rc\.d \/usr\/sbin\/policy-rc\.d$/) as string;
      const install = "apt-get install -y --no-install-recommends redis-server";
      await script("install", "");
      await script("rm", "");
      await manager("apt-get");
      const good = await setup({ node: NO_POLICY });
      expect(good).toMatchObject({
        code: 0,
        calls: ["apt-get update", policy, install, "rm -f /usr/sbin/policy-rc.d"],
      });
      expect(good.stderr).toContain("the package's own service was not started");

      await rm(join(bin, "redis-server"));
      await writeFile(join(folder, "calls"), "");
      await script("apt-get", 'if [ "$1" = install ]; then exit 100; fi');
      const bad = await setup({ node: NO_POLICY });
      expect(bad).toMatchObject({ code: 1, calls: ["apt-get update", policy, install, "rm -f /usr/sbin/policy-rc.d"] });
    },
  );

  test.skipIf(!isRoot)("installs where the Redis that is there is too old", async () => {
    await server("redis-server", "Redis server v=6.0.16 sha=0");
    await manager("apk");
    const result = await setup();
    expect(result.code).toBe(0);
    expect(result.stderr).toMatch(/redis-server is Redis 6\.0\.16, too old: installing it with apk\n/);
  });

  test.skipIf(!isRoot)("takes Redis where dnf knows no Valkey", async () => {
    await script("dnf", `if [ "$3" = valkey ]; then echo "No match for argument: valkey" >&2; exit 1; fi\n${INSTALLS}`);
    const result = await setup();
    expect(result).toMatchObject({ code: 0, calls: ["dnf install -y valkey", "dnf install -y redis"] });
    expect(result.stderr).toContain("No match for argument: valkey");
  });

  test.skipIf(!isRoot)("that fails tells the last lines of the command, and exits 1", async () => {
    await script("apt-get", 'for n in 1 2 3 4 5 6 7 8 9; do echo "line $n"; done; echo "E: no network" >&2; exit 100');
    const result = await setup();
    expect(result).toMatchObject({ code: 1, calls: ["apt-get update"] });
    const lines = result.stderr.trimEnd().split("\n");
    expect(lines.slice(0, 2)).toEqual(["no Redis on PATH: installing it with apt-get", `$ ${bin}/apt-get update`]);
    expect(lines).not.toContain("line 1");
    expect(lines).toContain("E: no network");
    expect(lines.at(-1)).toBe(`\`${bin}/apt-get update\` failed (exit code 100)`);
  });

  test.skipIf(!isRoot)("that brought too old a server says so, and exits 1", async () => {
    await script("apk", INSTALLS.replace("7.2.4", "6.2.1"));
    const result = await setup();
    expect(result.code).toBe(1);
    expect(result.stderr).toContain(
      "the package brought Redis 6.2.1, which is too old: install Redis 7 or Valkey 8 by hand",
    );
  });

  test("without any package manager says in one line what to install, and exits 1", async () => {
    expect(await setup()).toEqual({
      code: 1,
      stdout: "",
      stderr:
        "no Redis on PATH, nor any of apt-get, dnf, apk, brew: install Redis 7 or Valkey 8 by hand, or set OUTLAST_REDIS_URL to a Redis of your own\n",
      calls: [],
    });
  });

  test("uses sudo where it isn't root, and says so if there is none", async () => {
    await manager("apk");
    const without = await setup({ node: AS_NOBODY });
    expect(without).toMatchObject({ code: 1, calls: [] });
    expect(without.stderr).toContain(
      "no Redis on PATH, apk needs root and there is no sudo: run this as root, or install Redis 7",
    );

    await script("sudo", 'exec "$@"');
    const withSudo = await setup({ node: AS_NOBODY });
    expect(withSudo).toMatchObject({
      code: 0,
      calls: [`sudo ${bin}/apk add --no-cache redis`, "apk add --no-cache redis"],
    });
    expect(withSudo.stderr).toContain(`$ ${bin}/sudo ${bin}/apk add --no-cache redis\n`);
  });
});

/** Node's arguments for a process that takes itself for another user's: the project's folder may be closed to others. */
const AS_NOBODY = ["--import", "data:text/javascript,process.getuid = () => 65534"];

/** Node's arguments for a machine without a policy-rc.d, whatever this one has. */
const NO_POLICY = [
  "--import",
  `data:text/javascript,${encodeURIComponent(`
    import fs from "node:fs";
    import { syncBuiltinESMExports } from "node:module";
    fs.existsSync = () => false;
    syncBuiltinESMExports();`)}`,
];

/** What a package manager does that works: it puts a server beside itself. */
const INSTALLS = `
  case "$*" in *update*) exit 0;; esac
  bin="\${0%/*}"
  printf '#!/bin/sh\\necho "Redis server v=7.2.4 sha=0"\\n' > "$bin/redis-server"
  /bin/chmod 755 "$bin/redis-server"`;

const manager = (name: string): Promise<void> => script(name, INSTALLS);
const server = (name: string, version: string): Promise<void> => write(name, `echo '${version}'`);

/** A command that notes its call and goes on with `body`. */
const script = (name: string, body: string): Promise<void> =>
  write(name, `echo "${name} $*" >> '${join(folder, "calls")}'\n${body}`);

async function write(name: string, body: string): Promise<void> {
  await writeFile(join(bin, name), `#!/bin/sh\n${body}\n`);
  await chmod(join(bin, name), 0o755);
}

async function setup({ node = [] }: { readonly node?: readonly string[] } = {}): Promise<{
  code: unknown;
  stdout: string;
  stderr: string;
  calls: readonly string[];
}> {
  const child = spawn(process.execPath, [...node, SETUP], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: bin },
  });
  const [[code], stdout, stderr] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  const calls = (await readFile(join(folder, "calls"), "utf8")).split("\n").filter((line) => line !== "");
  return { code: code as unknown, stdout, stderr, calls };
}
