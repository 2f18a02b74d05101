/**
 * A stand-in for the image `node:24` where none can be pulled: a Debian image with the Node and the npm that run this, and
 * with what that npm knows of its registry and of whom to trust. As in the real one there is a user `node`.
 */

import { execFile } from "node:child_process";
import { copyFile, cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

const BUILD_MS = 120_000;

/** `base` needs the libraries that Node links to. */
export async function buildNodeImage(base: string, name: string): Promise<void> {
  const npm = process.env["npm_execpath"];
  if (npm === undefined) throw new Error("the stand-in for the image of Node copies npm: run this by npm or npx");
  const settingOf = async (key: string) => (await run(process.execPath, [npm, "config", "get", key])).stdout.trim();
  const cafile = await settingOf("cafile");
  const certificates = cafile === "null" ? process.env["NODE_EXTRA_CA_CERTS"] : cafile;

  const folder = await mkdtemp(path.join(tmpdir(), "outlast-node-image-"));
  try {
    await copyFile(process.execPath, path.join(folder, "node"));
    await cp(path.resolve(npm, "../.."), path.join(folder, "npm"), { recursive: true });
    await writeFile(path.join(folder, "npmrc"), `registry=${await settingOf("registry")}\n`);
    await copyFile(certificates ?? "/dev/null", path.join(folder, "certificates.pem"));
    await writeFile(path.join(folder, "Dockerfile"), dockerfile(base));
    await run("docker", ["build", "--quiet", "--tag", name, folder], { timeout: BUILD_MS });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function dockerfile(base: string): string {
  return `FROM ${base}
RUN useradd --uid 1000 --create-home node
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY npmrc /usr/local/etc/npmrc
COPY certificates.pem /usr/local/etc/certificates.pem
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ENV NODE_EXTRA_CA_CERTS=/usr/local/etc/certificates.pem
`;
}
