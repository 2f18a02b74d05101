/**
 * A file couldn't be fetched. `transient`: try again, from the start. The others stay as they are:
 *
 * - `gone`: the address doesn't give the file (any more): 404, 410, expired, not for us.
 * - `refused-host`: its host, or one it led to, isn't allowed or has an address that isn't.
 * - `too-large`: over the cap.
 * - `bad-body`: empty, encoded, of unknowable length, or not what a file's answer looks like.
 *
 * Messages name the URL without its query, because signed queries are secrets.
 */
export type DownloadErrorKind = "gone" | "refused-host" | "too-large" | "bad-body" | "transient";

export class DownloadError extends Error {
  override readonly name = "DownloadError";
  readonly kind: DownloadErrorKind;

  constructor(kind: DownloadErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}

/** A URL as it may be shown: no query, no fragment, no password, not endless. */
export function shownUrl(url: URL): string {
  const text = `${url.protocol}//${url.host}${url.pathname}`;
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
