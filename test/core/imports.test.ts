/** Who may import whom (DESIGN section 10): read from the import lines of `src` and `workers`. */

import { readdir, readFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { describe, expect, test } from "vitest";

const ROOT = new URL("../..", import.meta.url).pathname;

type Import = { readonly from: string; readonly to: string; readonly line: number };

/** Files as `src/core/item.ts`; imports inside the project likewise, packages as they are written. */
async function readImports(): Promise<{
  readonly files: ReadonlyMap<string, string>;
  readonly imports: readonly Import[];
}> {
  const names = (await Promise.all(["src", "workers"].map(filesIn))).flat().toSorted();
  const files = new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(join(ROOT, name), "utf8")] as const)),
  );
  const imports = [...files].flatMap(([from, text]) =>
    Array.from(
      text.matchAll(
        /^(?:import|export)\b[^;"']*?\bfrom\s*["']([^"']+)["']|^import\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/gm,
      ),
      (found) => {
        const wanted = found[1] ?? found[2] ?? found[3] ?? "";
        const to = wanted.startsWith(".") ? posix.join(posix.dirname(from), wanted) : wanted;
        return { from, to, line: text.slice(0, found.index).split("\n").length };
      },
    ),
  );
  return { files, imports };
}

async function filesIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(join(ROOT, folder), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => posix.join(entry.parentPath.slice(ROOT.length), entry.name));
}

const { files, imports } = await readImports();

const BULLMQ = /^(bullmq|ioredis)(\/|$)/;
const ADAPTERS = /^src\/providers\/(?!provider\.ts$)/;
/** The wiring of the stages, and what starts processes; the other files of `workers` are the stages. */
const IS_STAGE = (file: string) => /^workers\/(?!main\.ts$|stages\.ts$|\w+-consumers\.ts$)/.test(file);
const IS_ENTRY = (file: string) =>
  /^(src\/(cli|embedded)\/|workers\/(main|stages|\w+-consumers)\.ts$|src\/index\.ts$|src\/server\/main\.ts$)/.test(
    file,
  );

type Zone = {
  readonly zone: string;
  /** Whose imports are looked at. */
  readonly of: (file: string) => boolean;
  /** What they may not name. */
  readonly never: (to: string) => boolean;
};

const inFolder =
  (...folders: readonly string[]) =>
  (path: string) =>
    folders.some((folder) => path.startsWith(`${folder}/`));
const isPackage =
  (...names: readonly string[]) =>
  (to: string) =>
    names.some((name) => to === name || to.startsWith(`${name}/`));

/** What is asked for by whichever protocol. */
const IS_ASKED_FOR = inFolder("src/gates", "src/batches", "src/audit");

const ZONES: readonly Zone[] = [
  { zone: "core imports only core", of: inFolder("src/core"), never: (to) => !inFolder("src/core")(to) },
  {
    zone: "BullMQ is spoken in src/queues alone, the dashboard's adapter aside",
    of: (file) => !inFolder("src/queues", "src/dashboard")(file),
    never: isPackage("bullmq"),
  },
  {
    zone: "the emulator knows the providers' documents, not our reading of them",
    of: inFolder("src/emulator"),
    never: (to) => to.startsWith("src/") && !inFolder("src/emulator")(to) && to !== "src/core/time.ts",
  },
  {
    zone: "the emulator is part of no other part, but of what starts it",
    of: (file) => !inFolder("src/emulator", "src/embedded", "src/cli")(file),
    never: inFolder("src/emulator"),
  },
  {
    zone: "a provider knows no batches, queues, buckets or Redis",
    of: inFolder("src/providers"),
    never: (to) => inFolder("src/batches", "src/queues", "src/bucket", "src/ledger", "workers")(to) || BULLMQ.test(to),
  },
  {
    zone: "the ledger knows no BullMQ and no providers",
    of: inFolder("src/ledger"),
    never: (to) => isPackage("bullmq")(to) || inFolder("src/providers", "src/queues", "src/bucket", "src/batches")(to),
  },
  {
    zone: "the bucket knows no queues, no Redis and no providers",
    of: inFolder("src/bucket"),
    never: (to) => BULLMQ.test(to) || inFolder("src/providers", "src/queues", "src/ledger", "src/batches")(to),
  },
  {
    zone: "the queues know no providers, no bucket and no HTTP",
    of: inFolder("src/queues"),
    never: (to) =>
      isPackage("undici", "fastify", "@aws-sdk")(to) ||
      inFolder("src/providers", "src/bucket", "src/batches", "src/ledger")(to),
  },
  {
    zone: "the webhooks know how a call is signed and made, not what it tells: no queues, no Redis, no providers",
    of: inFolder("src/webhooks"),
    never: (to) => BULLMQ.test(to) || inFolder("src/providers", "src/queues", "src/ledger", "src/batches")(to),
  },
  {
    zone: "a stage knows the order of its effects: no BullMQ, no Redis, no provider's adapter, no wiring",
    of: IS_STAGE,
    never: (to) =>
      BULLMQ.test(to) ||
      ADAPTERS.test(to) ||
      isPackage("undici", "@aws-sdk")(to) ||
      to === "src/wiring.ts" ||
      to === "src/config.ts",
  },
  {
    zone: "rows are read by core's rules alone",
    of: inFolder("src/rows"),
    never: (to) => to.startsWith("src/") && !inFolder("src/rows", "src/core")(to),
  },
  {
    zone: "a gate lets through whatever comes: it knows no batches",
    of: inFolder("src/gates"),
    never: inFolder("src/batches", "src/audit"),
  },
  {
    zone: "an audit looks at everything, and nothing that it looks at knows of it",
    of: inFolder("src/batches"),
    never: inFolder("src/audit"),
  },
  {
    zone: "what a person can ask for knows no protocol: no server, no command line, no stage",
    of: IS_ASKED_FOR,
    never: (to) =>
      inFolder("src/server", "src/cli", "src/dashboard", "src/emulator", "workers")(to) ||
      isPackage("fastify", "commander")(to),
  },
  {
    zone: "whoever has no business with Redis knows no ioredis",
    of: (file) =>
      inFolder("src/core", "src/rows", "src/bucket", "src/providers", "src/emulator", "src/webhooks")(file) ||
      IS_ASKED_FOR(file),
    never: isPackage("ioredis"),
  },
  { zone: "only entry points see the wiring", of: (file) => !IS_ENTRY(file), never: (to) => to === "src/wiring.ts" },
  {
    zone: "nothing that is built on stands on its builders",
    of: (file) =>
      inFolder(
        "src/core",
        "src/rows",
        "src/providers",
        "src/queues",
        "src/ledger",
        "src/bucket",
        "src/webhooks",
      )(file) || IS_ASKED_FOR(file),
    never: (to) =>
      inFolder("src/server", "src/cli", "src/dashboard", "src/embedded", "workers")(to) || to === "src/index.ts",
  },
  { zone: "the product imports no tests", of: () => true, never: inFolder("test") },
];

test.for(ZONES)("$zone", ({ of, never }) => {
  const found = imports.filter(({ from, to }) => of(from) && never(to));
  expect(found.map(({ from, to, line }) => `${from}:${line} imports ${to}`)).toEqual([]);
});

describe("the rules", () => {
  test("look at something: every zone has files, and imports were found", () => {
    expect(files.size).toBeGreaterThan(60);
    expect(imports.length).toBeGreaterThan(files.size);
    expect(ZONES.filter(({ of }) => ![...files.keys()].some(of)).map(({ zone }) => zone)).toEqual([]);
    expect(imports.filter(({ to }) => to.endsWith(".ts") && !files.has(to))).toEqual([]);
  });

  test("see an import in any of its forms", () => {
    const forms = [
      ["src/queues/consume.ts", "bullmq"],
      ["src/wiring.ts", "src/providers/replicate.ts"],
      ["workers/create-prediction.ts", "src/providers/provider.ts"],
      ["src/queues/queues.ts", "src/core/naming.ts"],
      ["src/index.ts", "src/core/naming.ts"],
    ] as const;
    const seen = new Set(imports.map(({ from, to }) => `${from} → ${to}`));
    expect(forms.map(([from, to]) => `${from} → ${to}`).filter((form) => !seen.has(form))).toEqual([]);
  });
});

test("the environment is read in src/config.ts, and handed on by entry points only", () => {
  const reads = [...files].flatMap(([file, text]) =>
    text.split("\n").flatMap((line, at) => {
      const code = line.replace(/^\s*(\*|\/\/|\/\*).*/, "");
      return /\bprocess\.env\b|\bprocess\[|\bimport\.meta\.env\b/.test(code) ? [`${file}:${at + 1}`] : [];
    }),
  );
  const allowed = (place: string) =>
    place.startsWith("src/config.ts:") || IS_ENTRY(place.slice(0, place.lastIndexOf(":")));
  expect(reads.filter((place) => !allowed(place))).toEqual([]);
  expect(reads.length).toBeGreaterThan(0);
});

test("core reads no clock, no chance and no environment", () => {
  const found = [...files].flatMap(([file, text]) =>
    file.startsWith("src/core/")
      ? text.split("\n").flatMap((line, at) => {
          const code = line.replace(/^\s*(\*|\/\/|\/\*).*/, "");
          const reads =
            /Date\.now\(|new Date\(\)|Math\.random\(|performance\.|process\.|\bfetch\(|setTimeout\(|randomUUID|crypto\./;
          return reads.test(code) ? [`${file}:${at + 1}: ${line.trim()}`] : [];
        })
      : [],
  );
  expect(found).toEqual([]);
});
