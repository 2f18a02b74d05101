/**
 * A provider's signing secret, kept in memory and asked for again when a signature doesn't hold: it may have been
 * rotated. Forgeries can't make us ask often: between two requests there is a pause, also after one that failed.
 */

export type SecretCache = {
  /** Throws what `read` threw, where nothing is known yet. */
  readonly current: () => Promise<string>;
  /** The same, asked for again unless that was done lately. */
  readonly renewed: () => Promise<string>;
};

export function openSecretCache(
  read: () => Promise<string>,
  { pauseMs, clock }: { readonly pauseMs: number; readonly clock: () => number },
): SecretCache {
  let known: string | null = null;
  let asked: { readonly atMs: number; readonly answer: Promise<string> } | null = null;

  /** Whoever comes within the pause shares the answer. */
  function ask(): Promise<string> {
    if (asked !== null && Math.abs(clock() - asked.atMs) < pauseMs) return asked.answer;
    const answer = read().then((secret) => {
      known = secret;
      return secret;
    });
    asked = { atMs: clock(), answer };
    return answer;
  }
  return {
    current: async () => known ?? ask(),
    renewed: ask,
  };
}
