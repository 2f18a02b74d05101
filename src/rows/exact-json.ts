/** JSON whose numbers are kept as they were written, or refused: a seed that changes silently is another prediction. */

/** Throws a SyntaxError, also for a whole number that JavaScript can't hold exactly, and for one too large for it. */
export function parseExactJson(text: string): unknown {
  return JSON.parse(text, (_key, value: unknown, context?: { readonly source?: string }) => {
    const changes =
      typeof value === "number" &&
      (!Number.isFinite(value) || (/^-?\d+$/.test(context?.source ?? "") && !Number.isSafeInteger(value)));
    if (changes) {
      throw new SyntaxError(
        `the number ${context?.source} can't be kept exactly: write it as text, if the model takes that`,
      );
    }
    return value;
  });
}
