/** Again and again, until it is told to stop. */
export async function every(until: AbortSignal, act: (turn: number) => Promise<void>): Promise<void> {
  for (let turn = 0; !until.aborted; turn++) {
    try {
      await act(turn);
    } catch (error) {
      if (!until.aborted) throw error;
    }
  }
}
