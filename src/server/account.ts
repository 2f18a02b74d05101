/** What a key may know of itself, where official clients ask for it: whose it is, and what our webhooks are signed with. */

import type { FastifyReply, FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { Ledger } from "../ledger/ledger.ts";
import { shownSecret } from "../webhooks/sign.ts";
import { sendProblem } from "./problems.ts";
import * as schemas from "./schemas.ts";

export type AccountDeps = { readonly ledger: Pick<Ledger, "secretFor"> };

export function accountRoutes({ ledger }: AccountDeps): FastifyPluginAsyncZod {
  return async (app) => {
    app.get(
      "/account",
      {
        schema: {
          operationId: "account.get",
          summary: "Whose key this is",
          tags: ["account"],
          response: { 200: schemas.account },
        },
      },
      async ({ client }) => ({ type: "organization", username: client.tenant, name: client.tenant }) as const,
    );

    app.get(
      "/webhooks/default/secret",
      {
        config: { writes: true }, // it would let a viewer sign
        schema: {
          operationId: "webhooks.default.secret.get",
          summary: "What webhooks to this tenant are signed with",
          tags: ["account"],
          response: { 200: schemas.webhookSecret },
        },
      },
      async ({ client }) => ({ key: shownSecret(await ledger.secretFor(`webhooks:${client.tenant}`)) }),
    );

    // Official clients that get a 5xx here put the file into the input as a data URL, which is what they should do.
    // Answered before its body is looked at, which is of a type that nothing here reads.
    app.post("/files", { config: { writes: true }, schema: { hide: true }, onRequest: refuseFile }, refuseFile);
  };
}

async function refuseFile(_request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  return sendProblem(reply, 501, "no files are kept here for inputs: give a URL, or a data URL");
}
