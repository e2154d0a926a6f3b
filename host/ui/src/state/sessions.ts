// The sessions that the user sees, and the last result of each.
import { type Signal, effect, signal } from "@preact/signals";
import { path, request, said } from "../api/client";
import type { DetectionsMessage, Session } from "../api/types";
import { connection, on } from "./live";
import { me, stillThere, whenUserGoes } from "./me";

/** Milliseconds between two looks at the counters; changes of state come at once by themselves. */
const EVERY_MS = 2000;

type Listing =
  { state: "loading" } | { state: "ready"; at: number } | { state: "failed"; reason: string };

/** By name, in the order of the names. */
export const sessions = signal<ReadonlyMap<string, Session>>(new Map());
export const listing = signal<Listing>({ state: "loading" });

interface LastResult {
  message: DetectionsMessage;
  /** Of `Date.now()`. */
  at: number;
}

const results = new Map<string, Signal<LastResult | null>>();

/** The last result of a session whose detections are wanted (`wantDetections`). */
export function lastResult(session: string): Signal<LastResult | null> {
  const known = results.get(session) ?? signal<LastResult | null>(null);
  results.set(session, known);
  return known;
}

/** Asks the host for all sessions now. */
export async function refreshSessions(): Promise<void> {
  const isMine = stillThere();
  try {
    const answer = await request<{ sessions: Session[] }>(path("sessions"));
    if (!isMine()) return;
    sessions.value = new Map(answer.sessions.map(session => [session.id, session]));
    listing.value = { state: "ready", at: Date.now() };
    for (const name of results.keys()) if (!sessions.value.has(name)) results.delete(name);
  } catch (error) {
    if (isMine()) listing.value = { state: "failed", reason: said(error) };
  }
}

whenUserGoes(() => {
  sessions.value = new Map();
  listing.value = { state: "loading" };
  results.clear();
});

on("detections", message => {
  lastResult(message.session).value = { message, at: Date.now() };
});
on("session", message => {
  const known = sessions.value.get(message.session);
  if (known === undefined) return void refreshSessions();
  const next = new Map(sessions.value);
  next.set(message.session, { ...known, state: message.state, reason: message.reason });
  sessions.value = next;
});
on("subscribed", message => {
  if (message.session !== "*" && !sessions.value.has(message.session)) void refreshSessions();
});

let timer: ReturnType<typeof setTimeout> | undefined;

/** Looks again and again, while there is a user and the page can be seen. */
async function look(): Promise<void> {
  clearTimeout(timer);
  if (!me.peek() || document.visibilityState === "hidden") return;
  await refreshSessions();
  clearTimeout(timer);
  timer = setTimeout(() => void look(), EVERY_MS);
}

/** Begins; called once, by the page. */
export function startSessions(): void {
  document.addEventListener("visibilitychange", () => void look());
  effect(() => {
    if (me.value) void look();
  });
  effect(() => {
    // After a lost connection all may be different.
    if (connection.value.state === "open") void look();
  });
}
