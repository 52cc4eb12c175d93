/**
 * The one kind of error that this package throws on purpose. `code` is for
 * programs, `message` is for people and says what to do.
 */
export class PMPError extends Error {
  /**
   * @param {"aborted"|"network"|"integrity"|"format"|"out-of-memory"|"device-lost"|"bad-input"|"unsupported"|"internal"} code
   * @param {string} message
   * @param {{cause?: unknown}} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
    // Code that handles aborted fetches looks for this name.
    this.name = code === "aborted" ? "AbortError" : "PMPError";
  }
}

/** Throws a PMPError with code "aborted" if the signal says so. */
export function checkAborted(signal) {
  if (signal?.aborted) throw aborted(signal);
}

/** The error for work that the page itself stopped. */
export function aborted(signal) {
  return new PMPError("aborted", "stopped, as the page asked", { cause: signal?.reason });
}
