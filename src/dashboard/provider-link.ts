/** A prediction at its provider. */

import type { AccountName } from "../core/naming.ts";
import { type Html, html } from "./html.ts";

export type ProviderAccount = { readonly name: AccountName; readonly baseUrl: string };

/** Replicate has a page for people; of anything else only the address of its API is known, which asks for the token. */
export function predictionUrl(
  account: AccountName,
  prediction: string,
  accounts: readonly ProviderAccount[],
): { readonly url: string; readonly isPage: boolean } | null {
  const baseUrl = accounts.find(({ name }) => name === account)?.baseUrl;
  if (baseUrl === undefined) return null;
  const { origin, hostname, pathname } = new URL(baseUrl);
  const id = encodeURIComponent(prediction);
  return hostname === "api.replicate.com"
    ? { url: `https://replicate.com/p/${id}`, isPage: true }
    : { url: `${origin}${pathname}/predictions/${id}`, isPage: false };
}

export function predictionLink(account: AccountName, prediction: string, accounts: readonly ProviderAccount[]): Html {
  const found = predictionUrl(account, prediction, accounts);
  if (found?.isPage === true) return html`<a href="${found.url}" rel="noreferrer">${prediction}</a>`;
  return html`<code>${prediction}</code>${found === null ? null : html` <span class="quiet">${found.url}</span>`}`;
}
