/** Why there is no embedded Redis: one line that says what to do. */
export class RedisServerError extends Error {
  override readonly name = "RedisServerError";
}

/** The system's short word for what went wrong (`EACCES`), else the message. */
export function errorCode(error: unknown): string {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return error instanceof Error ? error.message : String(error);
}
