// Requests to the host's API. An error is always an `ApiError`, whose message a person can read.
import { below } from "../base";
import type { Problem } from "./types";

/** Milliseconds until a request without an answer counts as failed, unless it says otherwise. */
const LIMIT_MS = 15_000;

/** A request that failed: the host's own problem details, or why there is no answer. */
export class ApiError extends Error {
  constructor(
    /** 0: no answer came. */
    readonly status: number,
    /** The stable code of docs/subscriber.md; `unreachable` and `timed_out` are the page's own. */
    readonly code: string,
    message: string,
    /** All that the host said; a failed deployment's `problems`, a refused change's `toml`. */
    readonly problem: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export interface RequestOptions {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  /** Sent as JSON, unless it is a Blob, which goes as it is. */
  body?: unknown;
  /** Members that are undefined are left out. */
  query?: Readonly<Record<string, string | number | boolean | undefined>>;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  /** Milliseconds; 0: none. A deployment takes as long as it takes. */
  limitMs?: number;
}

/** Gets when the refused request was begun: of `performance.now()`. */
type Unauthorized = (begun: number) => void;
let onUnauthorized: Unauthorized = () => undefined;

/** Calls `handler` whenever the host does not know the caller (any more). */
export function whenUnauthorized(handler: Unauthorized): void {
  onUnauthorized = handler;
}

/** The address of `/v1/sessions/gate/events` for `("sessions", "gate", "events")`, each encoded. */
export function path(...parts: string[]): string {
  return below(`/v1/${parts.map(encodeURIComponent).join("/")}`);
}

/** Asks the host, and returns its JSON; undefined for an answer without a body. */
export async function request<T>(where: string, options: RequestOptions = {}): Promise<T> {
  const { method = "GET", body, query = {}, signal, limitMs = LIMIT_MS } = options;
  const begun = performance.now();
  const headers: Record<string, string> = { Accept: "application/json", ...options.headers };
  // A page of another origin cannot send this header without asking the host first.
  if (method !== "GET") headers["X-Ocelli"] = "1";
  const raw = body instanceof Blob;
  if (body !== undefined && !raw) headers["Content-Type"] = "application/json";
  if (raw) headers["Content-Type"] = "application/wasm";
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given.map(([key, value]) => [key, String(value)]));
  const url = given.length > 0 ? `${where}?${search}` : where;

  const ending = new AbortController();
  const timer = limitMs > 0 ? setTimeout(() => ending.abort("timed_out"), limitMs) : undefined;
  const abort = () => ending.abort("given_up");
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  try {
    const answer = await fetch(url, {
      method,
      headers,
      credentials: "same-origin",
      signal: ending.signal,
      body: body === undefined ? null : raw ? body : JSON.stringify(body),
    });
    if (!answer.ok) throw await failure(answer, begun);
    if (answer.status === 204) return undefined as T;
    const text = await answer.text();
    return (text === "" ? undefined : JSON.parse(text)) as T;
  } catch (error) {
    if (error instanceof ApiError) throw error;
    if (ending.signal.aborted) {
      if (signal?.aborted) throw new ApiError(0, "given_up", "The request was given up.");
      const message = `The host did not answer within ${limitMs / 1000} s. Try again.`;
      throw new ApiError(0, "timed_out", message);
    }
    const message = "The host cannot be reached. Check that it runs and that the network is up.";
    throw new ApiError(0, "unreachable", message);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** Tells of an answer by which the host does not know the caller, to what was asked at `begun`. */
export function noteUnauthorized(answer: Response, begun: number): void {
  if (answer.status === 401) onUnauthorized(begun);
}

/** The error of an answer that is none, to what was asked at `begun`. */
export async function failure(answer: Response, begun: number): Promise<ApiError> {
  noteUnauthorized(answer, begun);
  const type = answer.headers.get("content-type") ?? "";
  const text = await answer.text().catch(() => "");
  if (type.includes("json")) {
    try {
      const problem = JSON.parse(text) as Partial<Problem> & Record<string, unknown>;
      const message = String(problem.detail ?? problem.title ?? answer.statusText);
      return new ApiError(answer.status, String(problem.code ?? "unknown"), message, problem);
    } catch {
      // Not what its header says: told like any other answer.
    }
  }
  const message = `The host answered ${answer.status} ${answer.statusText}.`;
  return new ApiError(answer.status, "unknown", message);
}

/** Any error as one of a request. */
export function apiError(cause: unknown): ApiError {
  return cause instanceof ApiError ? cause : new ApiError(0, "unknown", said(cause));
}

/** An error as a sentence for people. */
export function said(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
