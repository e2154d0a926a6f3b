// All that comes over the page's WebSocket, given to those who asked for it. It owns the
// subscriptions and the numbers from which events go on after a lost connection.
import { signal } from "@preact/signals";
import { Socket } from "../api/socket";
import type { HostSays, Me, Pictures, WatchingMessage } from "../api/types";
import { below } from "../base";

type Connection =
  | { state: "idle" }
  | { state: "connecting" }
  | { state: "open" }
  | { state: "waiting"; reason: string; retryAt: number };

/** How the connection to the host is. */
export const connection = signal<Connection>({ state: "idle" });

type Type = HostSays["type"];
type Of<T extends Type> = Extract<HostSays, { type: T }>;
type Handler = (message: HostSays) => void;

/** Receives a session's pictures. */
export interface PictureSink {
  /** How many it needs now; call `Watch.changed` when that differs. */
  readonly pictures: Pictures;
  /** The host's answer: codec and stream of what follows. Comes again after a lost connection. */
  watching(message: WatchingMessage): void;
  /** The host refuses, in words for people. */
  refused(reason: string): void;
  /** One binary message; the header is at its beginning. */
  unit(message: ArrayBuffer): void;
}

export interface Watch {
  changed(): void;
  /** Begins anew, with a key unit. */
  again(): void;
  end(): void;
}

const handlers = new Map<Type, Set<Handler>>();
/** Sessions whose detections somebody wants, and how many do. */
const detectionUsers = new Map<string, number>();
const sinks = new Map<string, Set<PictureSink>>();
const asked = new Map<string, Pictures>();
const answers = new Map<string, WatchingMessage>();
/** How many requests to end a session's pictures have no answer yet. */
const ending = new Map<string, number>();
const streams = new Map<number, string>();
const lastSeq = new Map<string, number>();
/** Sessions subscribed to by name on this connection, and whether with detections. */
const named = new Map<string, boolean>();
let socket: Socket | null = null;
let sees: string[] | null = null;

/** Calls `handler` for each message of a type; returns what ends that. */
export function on<T extends Type>(type: T, handler: (message: Of<T>) => void): () => void {
  const all = handlers.get(type) ?? new Set();
  handlers.set(type, all);
  // A handler is called with messages of its type alone: `told` looks it up by that.
  const one = handler as Handler;
  all.add(one);
  return () => void all.delete(one);
}

/** Connects as `who`, and stays connected. */
export function connect(who: Me): void {
  disconnect();
  sees = who.sessions;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new Socket(`${scheme}//${location.host}${below("/v1/ws")}`, {
    opened,
    closed: (reason, retryAt) => {
      forget();
      connection.value = { state: "waiting", reason, retryAt };
    },
    text: told,
    binary: shown,
  });
  connection.value = { state: "connecting" };
  socket.start();
}

/** Ends the connection, and forgets what belongs to its user. */
export function disconnect(): void {
  socket?.stop();
  socket = null;
  forget();
  lastSeq.clear();
  connection.value = { state: "idle" };
}

export function retryNow(): void {
  socket?.retryNow();
}

/** A session's detections come from now on, until the returned function is called. */
export function wantDetections(session: string): () => void {
  detectionUsers.set(session, (detectionUsers.get(session) ?? 0) + 1);
  subscribe(session);
  let ended = false;
  return () => {
    if (ended) return;
    ended = true;
    const left = (detectionUsers.get(session) ?? 1) - 1;
    if (left > 0) detectionUsers.set(session, left);
    else detectionUsers.delete(session);
    subscribe(session);
  };
}

/** Pictures of a session for a sink. All sinks of a session share what the host sends. */
export function watch(session: string, sink: PictureSink): Watch {
  const all = sinks.get(session) ?? new Set();
  sinks.set(session, all);
  all.add(sink);
  const answer = answers.get(session);
  if (answer !== undefined) sink.watching(answer);
  ask(session);
  return {
    changed: () => ask(session),
    again: () => {
      if ((asked.get(session) ?? "none") === "none") return;
      tell(session, "none");
      ask(session);
    },
    end: () => {
      all.delete(sink);
      if (all.size === 0) sinks.delete(session);
      ask(session);
    },
  };
}

/** Sends a message; false without a connection. */
export function say(message: object): boolean {
  return socket?.send(message) ?? false;
}

function opened(): void {
  connection.value = { state: "open" };
  if (sees === null) {
    const after = Object.fromEntries(lastSeq);
    say({ type: "subscribe", session: "*", detections: false, after });
  } else {
    // A viewer of some sessions may not subscribe to all.
    for (const session of sees) subscribe(session);
  }
  for (const session of detectionUsers.keys()) subscribe(session);
  for (const session of sinks.keys()) ask(session);
}

/** What the host knows of this page ends with the connection. */
function forget(): void {
  asked.clear();
  ending.clear();
  answers.clear();
  streams.clear();
  named.clear();
}

/** Tells the host whether detections of a session are wanted; nothing if it knows that. */
function subscribe(session: string): void {
  const detections = detectionUsers.has(session);
  const before = named.get(session);
  const needed = detections || before !== undefined || sees !== null;
  if (!needed || before === detections) return;
  const after = before === undefined ? lastSeq.get(session) : undefined;
  const message = {
    type: "subscribe",
    session,
    detections,
    ...(after === undefined ? {} : { after }),
  };
  if (say(message)) named.set(session, detections);
}

const RANK: Record<Pictures, number> = { none: 0, key: 1, all: 2 };

/** Asks for the most that one of a session's sinks needs. */
function ask(session: string): void {
  let most: Pictures = "none";
  for (const sink of sinks.get(session) ?? []) {
    if (RANK[sink.pictures] > RANK[most]) most = sink.pictures;
  }
  const before = asked.get(session) ?? "none";
  if (most !== before) tell(session, most);
}

function tell(session: string, pictures: Pictures): void {
  if (!say({ type: "watch", session, pictures })) return;
  asked.set(session, pictures);
  if (pictures === "none") ending.set(session, (ending.get(session) ?? 0) + 1);
}

function told(message: HostSays): void {
  switch (message.type) {
    case "event":
      lastSeq.set(message.session, message.seq);
      break;
    case "subscribed":
      // It may be another session of the same name, made after the first had ended.
      ask(message.session);
      break;
    case "watching":
      if (message.pictures === "none") {
        ended(message);
        break;
      }
      answers.set(message.session, message);
      streams.set(message.stream, message.session);
      for (const sink of sinks.get(message.session) ?? []) sink.watching(message);
      break;
    case "error":
      refusal(message);
      break;
  }
  for (const handler of handlers.get(message.type) ?? []) handler(message);
}

/** Pictures have ended: as this page asked, or with their session. */
function ended({ session, stream }: WatchingMessage): void {
  streams.delete(stream);
  if (answers.get(session)?.stream === stream) answers.delete(session);
  const own = ending.get(session) ?? 0;
  if (own > 1) ending.set(session, own - 1);
  else ending.delete(session);
  if (own === 0) asked.delete(session);
}

function refusal(message: Of<"error">): void {
  const { session } = message;
  if (session === undefined) return;
  if (message.code === "after_ahead") {
    // The host's journal begins anew: so do its numbers.
    lastSeq.delete(session);
    named.delete(session);
    subscribe(session);
    return;
  }
  // Of events, too: it refuses no pictures.
  if (message.code === "events_gone") return;
  if (!asked.has(session) || answers.has(session)) return;
  asked.delete(session);
  for (const sink of sinks.get(session) ?? []) sink.refused(message.message);
}

/** Offset of the stream's number in a binary message. */
const STREAM_OFFSET = 4;

function shown(message: ArrayBuffer): void {
  if (message.byteLength < STREAM_OFFSET + 4) return;
  const session = streams.get(new DataView(message).getUint32(STREAM_OFFSET));
  if (session === undefined) return;
  for (const sink of sinks.get(session) ?? []) sink.unit(message);
}
