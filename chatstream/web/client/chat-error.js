/** The one error class, made from a problem document, an `error` event or a network failure. */

// Statuses after which the same request may succeed; every other 4xx will fail again.
const TRANSIENT = new Set([408, 425, 429]);

export class ChatError extends Error {
  /** @param {{code: string, retryable: boolean} & Record<string, unknown>} details */
  constructor(
    message,
    {
      code,
      retryable,
      status = null,
      detail = null,
      fields = null,
      retryAfterMs = null,
      requestId = null,
      messageId = null,
      cause,
    },
  ) {
    super(message, { cause });
    this.name = "ChatError";
    this.code = code;
    this.retryable = retryable;
    this.status = status;
    this.detail = detail;
    this.fields = fields;
    this.retryAfterMs = retryAfterMs;
    this.requestId = requestId;
    this.messageId = messageId;
  }

  /** From an error response, whose body should be a problem document (RFC 9457). */
  static async fromResponse(response) {
    const { status, headers } = response;
    const problem = (await response.json().catch(() => null)) ?? {}; // a proxy's error response may be HTML
    const seconds = Number(headers.get("Retry-After") ?? NaN);
    return new ChatError(problem.detail ?? `The server answered ${status}.`, {
      code: problem.code ?? `http_${status}`,
      retryable: status >= 500 || TRANSIENT.has(status),
      status,
      detail: problem.detail,
      fields: problem.errors,
      retryAfterMs: seconds >= 0 ? seconds * 1000 : null,
      requestId: problem.requestId ?? headers.get("X-Request-Id"),
    });
  }

  /** From an `error` event. */
  static fromEvent({ message, error: code, retryable, retryAfterMs, requestId, messageId }) {
    return new ChatError(message, { code, retryable, retryAfterMs, requestId, messageId });
  }

  /** From any thrown value. */
  static from(cause) {
    if (cause instanceof ChatError) return cause;
    return new ChatError("The connection failed.", { code: "connection_failed", retryable: true, cause });
  }
}
