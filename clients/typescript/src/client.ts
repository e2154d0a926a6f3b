import { Disconnected, OcelliError, Problem } from "./errors.js";
import { Backoff, pause, received } from "./stream.js";
import type {
  Analysis,
  AnalysisFailure,
  Deployment,
  Event,
  EventPage,
  Message,
  Pipeline,
  Session,
} from "./types.js";

const DEFAULT_URL = "http://127.0.0.1:8001";

/** Milliseconds for the answer of a request that takes no work. */
const ANSWER = 30_000;

/** Milliseconds without a byte after which a stream is lost: the host writes every 15 s. */
const SILENCE = 60_000;

/** Milliseconds between two looks at a deployment on probation. */
const LOOK = 1000;

/** Errors with which the host ends a stream that may be opened again. */
const ENDINGS = ["shutting_down", "slow_subscriber"];

/** Outcomes of a deployment after which the new version does not run, or not as it was meant to. */
const FAILED = ["refused", "aborted", "rolled_back", "unverified", "interrupted"];

export interface ClientOptions {
  /** Sent with every request. Left out: none, or in a page of the host the cookie of its login. */
  token?: string;
  /** Instead of the global one. */
  fetch?: typeof fetch;
  /** Is told why a subscription has lost its connection, and in how many milliseconds the next is
   * tried. Left out: `console.warn`. */
  onRetry?: (reason: string, milliseconds: number) => void;
}

export interface SubscribeOptions {
  /**
   * The number of the last event that is known, its `seq`, or of all sessions together its
   * `position`; 0: all that are stored. Left out: from now on.
   */
  after?: number;
  /** False: events and states alone. */
  detections?: boolean;
  /** Ends the subscription: the loop over it throws the signal's reason. */
  signal?: AbortSignal;
}

export interface EventFilter {
  /** The number of the last event before the first that is wanted. */
  after?: number;
  kind?: string;
  /** The first moment, RFC 3339. */
  from?: string;
  /** The moment after the last. */
  to?: string;
}

/** `active`: until the new version is; `healthy`: until it has passed its probation. */
export type Wait = "active" | "healthy";

export interface DeployOptions {
  settings?: Record<string, unknown>;
  state?: "keep" | "fresh";
  /** Frames on which both versions are compared before the change. */
  shadow?: number;
  /** The comparison is all: the running version stays. */
  shadowOnly?: boolean;
  /** The agreement, 0 to 1, below which the new version is given up. */
  threshold?: number;
  /** The name of a component that is sent, in the history. */
  name?: string;
  wait?: Wait;
}

export interface AnalyzeOptions {
  settings?: Record<string, unknown>;
}

type Query = Record<string, string | number | boolean | undefined>;
type Body = Blob | ArrayBuffer | Uint8Array | FormData;

interface Request {
  query?: Query;
  body?: Body;
  /** Null: as long as it takes. */
  limit?: number | null;
}

/** A host with the credentials for it. */
export class Client {
  /** Where the host is, without a slash at its end. */
  readonly url: string;
  readonly #headers: Record<string, string> = {};
  readonly #fetch: typeof fetch;
  readonly #onRetry: (reason: string, milliseconds: number) => void;

  constructor(url: string = DEFAULT_URL, options: ClientOptions = {}) {
    this.url = url.replace(/\/+$/, "");
    const { token } = options;
    if (token !== undefined && token !== "") this.#headers["Authorization"] = `Bearer ${token}`;
    // The global one is called without an owner.
    this.#fetch = options.fetch ?? ((...given) => fetch(...given));
    this.#onRetry =
      options.onRetry ??
      ((reason, milliseconds) => {
        console.warn(`${this.url}: ${reason}; trying again in ${Math.round(milliseconds)} ms`);
      });
  }

  /** The sessions that the token sees, sorted by name. */
  async sessions(): Promise<Session[]> {
    return (await this.#json<{ sessions: Session[] }>("GET", ["sessions"])).sessions;
  }

  /** One session. */
  session(session: string): Promise<Session> {
    return this.#json("GET", ["sessions", session]);
  }

  /** Restarts a session's worker, whatever its state; the session as it was. */
  restart(session: string): Promise<Session> {
    return this.#json("POST", ["sessions", session, "restart"]);
  }

  /** Ends a session. Returns when its process is gone. */
  async end(session: string): Promise<void> {
    await this.#bytes("DELETE", ["sessions", session], { limit: null });
  }

  /**
   * A session's messages, or with null those of all that the token sees, for ever: events after
   * number `after` and then live ones, in order and each once; detections and states as they come.
   *
   * A connection that is lost, or cannot be made, is made again after 0.1 to 10 s, and events go on
   * after the last that came. Detections of the time without a connection are lost. Throws a
   * `Problem` for what waiting does not help: no such session, no right, `after` beyond the newest
   * event.
   */
  async *subscribe(
    session: string | null = null,
    options: SubscribeOptions = {},
  ): AsyncGenerator<Message, never, undefined> {
    let last = options.after;
    const backoff = new Backoff();
    for (;;) {
      let reason = "the host has closed the stream";
      try {
        if (session !== null) last ??= (await this.eventsPage(session, {}, 1)).newest;
        for await (const { id, message } of this.#messages(session, last, options)) {
          backoff.reset();
          if (id !== null) {
            if (last !== undefined && id <= last && message !== null) continue;
            last = id;
          }
          if (message !== null) yield message;
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        const passes =
          error instanceof Disconnected || (error instanceof Problem && error.isTransient);
        if (!passes) throw error;
        reason = error.message;
      }
      const wait = backoff.next();
      this.#onRetry(reason, wait);
      await pause(wait, options.signal);
    }
  }

  /** The stored events that a filter lets pass, oldest first. */
  async *events(
    session: string,
    filter: EventFilter = {},
  ): AsyncGenerator<Event, void, undefined> {
    for (let after: number | null = filter.after ?? 0; after !== null; ) {
      const page: EventPage = await this.eventsPage(session, { ...filter, after });
      yield* page.events;
      after = page.next;
    }
  }

  /** One page of stored events, of 1 to 1000; `next` leads to the one after. */
  eventsPage(session: string, filter: EventFilter = {}, limit = 100): Promise<EventPage> {
    const query = { after: 0, ...filter, limit };
    return this.#json("GET", ["sessions", session, "events"], { query });
  }

  /** Asks a session's pipeline a question, which changes nothing; the pipeline's answer. */
  query(session: string, query: unknown): Promise<unknown> {
    return this.#ask(session, "query", query);
  }

  /**
   * Gives a session's pipeline a command, which may change its state; its answer. Takes an
   * operator's token.
   */
  command(session: string, command: unknown): Promise<unknown> {
    return this.#ask(session, "command", command);
  }

  async #ask(session: string, what: string, content: unknown): Promise<unknown> {
    const body = new Blob([JSON.stringify(content)], { type: "application/json" });
    // The host has a limit for the pipeline.
    const request: Request = { body, limit: null };
    return (await this.#json<{ answer: unknown }>("POST", ["sessions", session, what], request))
      .answer;
  }

  /** The pipelines that have a name on the host. */
  async pipelines(): Promise<Pipeline[]> {
    return (await this.#json<{ pipelines: Pipeline[] }>("GET", ["pipelines"])).pipelines;
  }

  /**
   * Changes the pipeline of a session: to a component that is sent, or to one that the host has by
   * name or fetches by an `oci://` reference (a string).
   *
   * Returns its record when the new version is active; with `wait: "healthy"`, when it has passed
   * its probation. Throws a `Problem` if it fails: `more` has the step and all that is wrong.
   */
  async deploy(
    session: string,
    pipeline: string | Blob | ArrayBuffer | Uint8Array,
    options: DeployOptions = {},
  ): Promise<Deployment> {
    const { settings, state, shadow, shadowOnly, threshold, name, wait } = options;
    const named = typeof pipeline === "string";
    const query: Query = {
      settings: settings && JSON.stringify(settings),
      state,
      shadow,
      shadow_only: shadowOnly === true ? true : undefined,
      threshold,
      ...(named ? { pipeline } : { name }),
    };
    const request: Request = { query, limit: null };
    if (!named) request.body = pipeline;
    const record = await this.#json<Deployment>("PUT", ["sessions", session, "pipeline"], request);
    return this.#deployed(session, record, wait);
  }

  /** Goes back to the version before, as `deploy`. */
  async rollback(session: string, options: { wait?: Wait } = {}): Promise<Deployment> {
    const path = ["sessions", session, "rollback"];
    const record = await this.#json<Deployment>("POST", path, { limit: null });
    return this.#deployed(session, record, options.wait);
  }

  /** The deployments of a session, the newest first. */
  async deployments(session: string, limit = 20): Promise<Deployment[]> {
    const path = ["sessions", session, "deployments"];
    const answer = await this.#json<{ deployments: Deployment[] }>("GET", path, {
      query: { limit },
    });
    return answer.deployments;
  }

  /** The newest picture of a session, a JPEG; with the boxes of what was found in it. */
  picture(session: string, options: { boxes?: boolean; width?: number } = {}): Promise<Blob> {
    const query = { boxes: options.boxes === true ? 1 : undefined, width: options.width };
    return this.#bytes("GET", ["sessions", session, "frame.jpg"], { query });
  }

  /** The picture of an event, a JPEG. */
  attachment(digest: string): Promise<Blob> {
    return this.#bytes("GET", ["attachments", digest]);
  }

  /**
   * The seconds of video around an event, an MP4 file. `clip_pending` is the code of the refusal
   * while it is being recorded.
   */
  clip(session: string, seq: number): Promise<Blob> {
    return this.#bytes("GET", ["events", `${session}:${seq}`, "clip.mp4"]);
  }

  /** What a pipeline finds in one picture, the content of a JPEG or PNG file. */
  analyze(
    pipeline: string,
    image: Blob | ArrayBuffer | Uint8Array,
    options: AnalyzeOptions = {},
  ): Promise<Analysis> {
    const query = { settings: options.settings && JSON.stringify(options.settings) };
    // Without a type of its own a blob has none that could be wrong.
    const body = new Blob([image as BlobPart]);
    return this.#json("POST", ["analyze", pipeline], { query, body, limit: null });
  }

  /**
   * As `analyze`, for several pictures in one request; results in their order. One that cannot be
   * analysed has an `error` in its place.
   */
  async analyzeAll(
    pipeline: string,
    images: Iterable<Blob | ArrayBuffer | Uint8Array>,
    options: AnalyzeOptions = {},
  ): Promise<(Analysis | AnalysisFailure)[]> {
    const body = new FormData();
    if (options.settings) body.append("settings", JSON.stringify(options.settings));
    let number = 0;
    for (const image of images) {
      body.append("image", new Blob([image as BlobPart]), String(number));
      number += 1;
    }
    const answer = await this.#json<{ results: (Analysis | AnalysisFailure)[] }>(
      "POST",
      ["analyze", pipeline],
      { body, limit: null },
    );
    return answer.results;
  }

  async #deployed(
    session: string,
    record: Deployment,
    wait: Wait | undefined,
  ): Promise<Deployment> {
    let now = record;
    while (wait === "healthy" && now.state === "probation") {
      await pause(LOOK, undefined);
      const newest = await this.deployments(session, 10);
      const same = newest.find(found => found.number === record.number);
      // So many have followed that it is superseded.
      if (same === undefined) break;
      now = same;
    }
    if (FAILED.includes(now.state)) {
      const reason = now.reason ?? `the deployment is ${now.state}`;
      throw new Problem(409, now.state, reason, { deployment: now });
    }
    return now;
  }

  /** Messages with their numbers; a number alone says where a stream of all sessions is. */
  async *#messages(
    session: string | null,
    after: number | undefined,
    options: SubscribeOptions,
  ): AsyncGenerator<{ id: number | null; message: Message | null }, void, undefined> {
    const abort = new AbortController();
    const stop = (): void => {
      abort.abort();
    };
    options.signal?.throwIfAborted();
    options.signal?.addEventListener("abort", stop);
    let silence = setTimeout(stop, SILENCE);
    try {
      const query = { after, detections: options.detections === false ? false : undefined };
      const path = session === null ? ["stream"] : ["sessions", session, "stream"];
      const answer = await this.#send("GET", path, { query }, abort.signal);
      if (answer.body === null) return;
      const heard = (): void => {
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE);
      };
      for await (const { id, data } of received(answer.body, heard)) {
        const message = data === "" ? null : (JSON.parse(data) as Message);
        if (message?.type === "error") {
          if (ENDINGS.includes(message.code)) throw new Disconnected(message.message);
          if (message.code === "token_revoked") {
            throw new Problem(401, message.code, message.message, {});
          }
        }
        if (message?.type === "event" && session === null && id !== null) message.position = id;
        yield { id, message };
      }
    } catch (error) {
      throw disconnected(error);
    } finally {
      clearTimeout(silence);
      options.signal?.removeEventListener("abort", stop);
      // Left by `break`: the connection goes, too.
      abort.abort();
    }
  }

  async #json<T>(method: string, path: string[], request: Request = {}): Promise<T> {
    const answer = await this.#bytes(method, path, request);
    try {
      return JSON.parse(await answer.text()) as T;
    } catch {
      throw new OcelliError(`${this.url} does not answer as an Ocelli host does`);
    }
  }

  async #bytes(method: string, path: string[], request: Request = {}): Promise<Blob> {
    const { limit = ANSWER } = request;
    const signal = limit === null ? undefined : AbortSignal.timeout(limit);
    try {
      return await (await this.#send(method, path, request, signal)).blob();
    } catch (error) {
      throw disconnected(error);
    }
  }

  /** The answer to a request, unless it is a refusal. */
  async #send(
    method: string,
    path: string[],
    { query = {}, body }: Request,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const given = Object.entries(query).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, String(value)]],
    );
    const tail = given.length === 0 ? "" : `?${new URLSearchParams(given).toString()}`;
    const url = `${this.url}/v1/${path.map(encodeURIComponent).join("/")}${tail}`;
    const headers = { ...this.#headers };
    // A host requires it of pages that are logged in by its cookie.
    const own = this.#headers["Authorization"] === undefined && isOwn(url);
    if (own && method !== "GET") headers["X-Ocelli"] = "1";
    const init: RequestInit = { method, headers, redirect: "error", cache: "no-store" };
    if (body !== undefined) init.body = body as BodyInit;
    if (signal !== undefined) init.signal = signal;
    const answer = await this.#fetch(url, init);
    if (!answer.ok) {
      const id = answer.headers.get("X-Request-Id");
      throw Problem.of(answer.status, answer.statusText, await answer.text(), id);
    }
    return answer;
  }
}

/** Whether this is a page of the host at `url`. */
function isOwn(url: string): boolean {
  const { location } = globalThis as { location?: { origin: string } };
  return location !== undefined && new URL(url).origin === location.origin;
}

/** What `fetch` throws, as one of this package's errors. */
function disconnected(error: unknown): unknown {
  if (error instanceof OcelliError || !(error instanceof Error)) return error;
  const { cause } = error as { cause?: unknown };
  const why = cause instanceof Error ? `${error.message}: ${cause.message}` : error.message;
  return new Disconnected(why);
}
