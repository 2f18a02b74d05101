/** The file can't be read this way, whatever its rows hold; the message is one line for a person. */
export class RowsError extends Error {
  override readonly name = "RowsError";
}
