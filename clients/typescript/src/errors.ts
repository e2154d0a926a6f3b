/** The ancestor of all errors of this package. */
export class OcelliError extends Error {
  override name = "OcelliError";
}

/** The host does not answer, or the connection broke. The same request may succeed later. */
export class Disconnected extends OcelliError {
  override name = "Disconnected";
}

/** The host refused a request (RFC 9457). */
export class Problem extends OcelliError {
  override name = "Problem";

  constructor(
    /** The HTTP status. */
    readonly status: number,
    /** A stable code for programs: `unknown_session`, ... Empty where a proxy has answered. */
    readonly code: string,
    /** The reason, for a person. */
    readonly detail: string,
    /** Further members, such as the record of a failed deployment. */
    readonly more: Readonly<Record<string, unknown>>,
    /** The id with which the host's log has the request; null if none was answered with. */
    readonly requestId: string | null = null,
  ) {
    const text = code === "" ? `${status} ${detail}` : `${status} ${code}: ${detail}`;
    // A person looks into the host's log for the host's own faults alone.
    super(requestId !== null && status >= 500 ? `${text} (request ${requestId})` : text);
  }

  /** Whether the same request may succeed later. */
  get isTransient(): boolean {
    return this.status >= 500 || this.status === 429;
  }

  /** The problem in an answer, with its `X-Request-Id`. */
  static of(
    status: number,
    reason: string,
    body: string,
    requestId: string | null = null,
  ): Problem {
    let members: Record<string, unknown> = {};
    try {
      const read: unknown = JSON.parse(body);
      if (typeof read === "object" && read !== null) members = read as Record<string, unknown>;
    } catch {
      // The page of a proxy.
    }
    const { status: _, title: __, request_id: ___, code = "", detail, ...more } = members;
    return new Problem(status, String(code), String(detail ?? reason), more, requestId);
  }
}
