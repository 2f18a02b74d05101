/** Items as a person names them on the command line: `0,5-9,20-`. */

import { InvalidArgumentError } from "commander";
import { type MultiIntegerRange, parse } from "multi-integer-range";

export function parseIndexes(text: string): MultiIntegerRange {
  try {
    const indexes = parse(text, { parseUnbounded: true });
    if (indexes.length > 0 && indexes.every(([from]) => from >= 0)) return indexes;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
  }
  throw new InvalidArgumentError("It is a list of indexes, as results shows them: 0,5-9,20-");
}
