/**
 * How many-th of its kind something is, from 0, so that chance can be drawn for "the second create of this input"
 * instead of for "the 4,711th request", which is another one in every run. A turn that is given back is taken again
 * before a new one.
 */

type Count = { next: number; readonly returned: number[] };

export class Turns {
  readonly #counts = new Map<string, Count>();

  take(subject: string): number {
    const count = this.#counts.get(subject) ?? { next: 0, returned: [] };
    this.#counts.set(subject, count);
    return count.returned.pop() ?? count.next++;
  }

  giveBack(subject: string, turn: number): void {
    this.#counts.get(subject)?.returned.push(turn);
  }
}
