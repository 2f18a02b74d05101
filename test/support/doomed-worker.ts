/**
 * A worker that stops dead at a named point: killed or frozen by itself, just before or just after one of its effects.
 *
 * The points are the methods of what a worker is given (`ledger`, `bucket`, `queues`, the provider), wrapped here, so that
 * the program itself needs no hooks: `ledger.move claim after` is the moment after the claim, `provider.create before` the
 * one between check and send. Run as a program: `OUTLAST_TEST_POINT` names the point, `OUTLAST_TEST_SIGNAL` what
 * befalls it. Killed, no handler runs and nothing is flushed; frozen, it goes on where it stood when it is continued.
 */

import { readConfig } from "../../src/config.ts";
import { openLog } from "../../src/log.ts";
import { openServices, type Services } from "../../src/wiring.ts";
import { STAGES, startStages } from "../../workers/stages.ts";

export type Moment = "before" | "after";

/** `<object>.<method>[ <first word of its arguments>] <before|after>`. */
export type PointName = `${"ledger" | "bucket" | "queues" | "provider"}.${string} ${Moment}`;

/** A test's own process is told by one line on stderr that the worker stands at its point. */
export const AT_THE_POINT = "at the point";

/** Wraps every method: `meet` is called before and after each call of one. */
function watched<T extends object>(object: T, name: string, meet: (point: string) => void): T {
  return new Proxy(object, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function" || typeof key !== "string") return value;
      return (...args: unknown[]): unknown => {
        const point = `${name}.${key}${wordOf(key, args)}`;
        meet(`${point} before`);
        const answer: unknown = Reflect.apply(value, target, args);
        if (!(answer instanceof Promise)) return answer;
        return answer.then((result: unknown) => {
          meet(`${point} after`);
          return result;
        });
      };
    },
  });
}

/** Which step, or which kind of object: a method alone says too little. */
function wordOf(method: string, [first, second]: readonly unknown[]): string {
  if (method === "move") return ` ${String(second)}`;
  if (typeof first !== "string") return "";
  const [, kind] = /\/(receipt|output|window)s?[-./]/.exec(first) ?? [];
  return kind === undefined ? "" : ` ${kind}`;
}

function doomed(services: Services, meet: (point: string) => void): Services {
  return {
    ...services,
    ledger: watched(services.ledger, "ledger", meet),
    bucket: watched(services.bucket, "bucket", meet),
    queues: watched(services.queues, "queues", meet),
    accounts: services.accounts.map((account) => ({ ...account, speak: watched(account.speak, "provider", meet) })),
  };
}

if (import.meta.main) {
  const { OUTLAST_TEST_POINT: wanted, OUTLAST_TEST_SIGNAL: signal = "SIGKILL", ...env } = process.env;
  let met = false;
  const meet = (point: string) => {
    if (met || point !== wanted) return;
    met = true;
    process.stderr.write(`${AT_THE_POINT}: ${point}\n`);
    process.kill(process.pid, signal);
  };
  const config = readConfig(env);
  await using services = await openServices(config, "worker");
  const running = await startStages(doomed(services, meet), STAGES, openLog(config.logLevel));
  await new Promise((resolve) => process.once("SIGTERM", resolve));
  await running.drain();
}
