/** The server can't listen; the message is one line that says what to do. */
export class ListenError extends Error {
  override readonly name = "ListenError";
}
