/**
 * What the emulator answers about itself: a page for people, the books, the faults, the strangers. No auth: it is a
 * tool.
 */

import { ZodError } from "zod";
import { type Answer, json, problem, whole } from "./answer.ts";
import type { Books } from "./books.ts";
import type { Buying } from "./buying.ts";
import type { Faults } from "./faults.ts";
import { MODELS } from "./models.ts";
import { parseObject } from "./order.ts";
import type { Call, Exchange } from "./serve.ts";

const ROWS_A_CHUNK = 500;

export type OwnDeps = {
  readonly books: Books;
  readonly faults: Faults;
  readonly buying: Buying;
  readonly seed: string;
  readonly addresses: { readonly apiUrl: string; readonly cometUrl: string; readonly filesUrl: string };
};

/** Null where the path is none of its own. */
export function ownRoute(method: string, pathname: string, deps: OwnDeps): Exchange | null {
  const exchange = (route: string, answer: Exchange["answer"]): Exchange => ({
    surface: "emulator",
    route,
    answer,
    refuse: (status) => problem({ detail: "Refused", status }),
  });
  switch (`${method} ${pathname}`) {
    case "GET /":
      return exchange("page", () => whole(200, "text/plain; charset=utf-8", page(deps)));
    case "GET /__audit":
      return exchange("audit", (call) => audit(call, deps.books));
    case "GET /__faults":
      return exchange("faults", () => json(200, deps.faults.report()));
    case "POST /__faults":
      return exchange("faults", (call) => obey(call, "No such fault", (order) => deps.faults.arm(order)));
    case "DELETE /__faults":
      return exchange("faults", () => {
        deps.faults.disarm();
        return json(200, []);
      });
    case "POST /__foreign":
      return exchange("foreign", (call) =>
        obey(call, "No such prediction", (order) => ({ ids: deps.buying.buyForeign(order).map(({ id }) => id) })),
      );
    default:
      return null;
  }
}

function audit(call: Call, books: Books): Answer {
  const query = call.url.searchParams;
  return {
    status: 200,
    headers: { "content-type": "application/json" },
    body: {
      kind: "stream",
      sizeBytes: null,
      chunks: auditJson(books, (list) => query.get(list) === "1"),
    },
  };
}

/** The totals as one object, with the lists of rows as its last members, written as they are read. */
function* auditJson(books: Books, isWanted: (list: string) => boolean): Generator<Buffer> {
  yield Buffer.from(JSON.stringify(books.audit()).slice(0, -1));
  if (isWanted("predictions")) yield* rows("prediction_list", books.predictionRows());
  if (isWanted("files")) yield* rows("file_list", books.fileRows());
  if (isWanted("inputs")) yield* rows("input_list", books.inputRows());
  yield Buffer.from("}\n");
}

function* rows(name: string, items: Iterable<unknown>): Generator<Buffer> {
  let lines: string[] = [];
  let separator = `,"${name}":[\n`;
  for (const item of items) {
    lines.push(JSON.stringify(item));
    if (lines.length < ROWS_A_CHUNK) continue;
    yield Buffer.from(separator + lines.join(",\n"));
    separator = ",\n";
    lines = [];
  }
  if (lines.length > 0 || separator !== ",\n") yield Buffer.from(separator + lines.join(",\n"));
  yield Buffer.from("\n]");
}

async function obey(call: Call, title: string, carryOut: (order: unknown) => unknown): Promise<Answer> {
  try {
    return json(201, carryOut(parseObject(await call.text())));
  } catch (error) {
    if (!(error instanceof ZodError)) throw error;
    const detail = error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ");
    return problem({ title, detail, status: 422 });
  }
}

function page({ addresses, seed }: OwnDeps): string {
  const models = [...MODELS.values()].map((model) => `  ${model.fullName.padEnd(20)} ${model.description}`);
  return [
    "An emulator of hosted predictions. Nothing here costs anything.",
    "",
    `  Replicate's API      ${addresses.apiUrl}`,
    `  CometAPI's route     ${addresses.cometUrl}`,
    `  output files         ${addresses.filesUrl}`,
    `  seed                 ${seed}`,
    "",
    "Models (any deployment of the same name runs them, too):",
    "",
    ...models,
    "",
    "GET /__audit            the books; ?predictions=1, ?files=1 and ?inputs=1 list what is behind the totals",
    "POST, DELETE /__faults  make things go wrong, and stop it",
    "POST /__foreign         somebody else buys predictions on the account",
    "",
  ].join("\n");
}
