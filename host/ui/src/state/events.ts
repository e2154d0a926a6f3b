// The list of events: what is loaded of each session's journal, and what has come since.
import { effect, signal } from "@preact/signals";
import { ApiError, path, request, said } from "../api/client";
import type { EventPage, StoredEvent } from "../api/types";
import { type Filters, bounds, labelsOf, passes, zoneOf } from "../events/filters";
import { type Item, fold, isAlert, keyOf } from "../events/items";
import { type Fetch, Pager, merge, newestFirst } from "../events/pager";
import { connection, on } from "./live";
import { whenUserGoes } from "./me";
import { listing, sessions } from "./sessions";

/** A load adds about so many items. */
const STEP = 60;
/** Windows that one load reads, so that a filter that nothing passes comes to an end. */
const MOST_WINDOWS = 60;
/** Windows that are read at the same time; the browser has six connections to a host. */
const AT_ONCE = 4;
/** Events in the list; more are found by time. */
const MOST_EVENTS = 3000;
/** New events that wait to be shown; with more, the list is read anew. */
const MOST_FRESH = 500;
/** Suggestions for each filter. */
const MOST_KNOWN = 200;
/** Milliseconds between two drawings of the list while events rain. */
const DRAW_MS = 150;

export type Progress =
  | { state: "loading" }
  /** `found`: how the last load ended. */
  | { state: "ready"; end: "all" | "more" | "full" }
  | { state: "failed"; error: unknown };

export const items = signal<readonly Item[]>([]);
export const progress = signal<Progress>({ state: "loading" });
/** Items that came since and wait to be shown; Infinity: more than are kept. */
export const freshCount = signal(0);
/** Up to which number the events of a session are no longer stored. */
export const gone = signal<ReadonlyMap<string, number>>(new Map());
/** What the host said about the list, as sentences. */
export const notices = signal<readonly string[]>([]);

/** Values that events were seen to have, for suggestions. */
export const known = {
  kinds: signal<readonly string[]>([]),
  labels: signal<readonly string[]>([]),
  zones: signal<readonly string[]>([]),
};

/** One list, from the choice of its filters to the next. */
interface List {
  filters: Filters;
  /** When it was asked for: "the last hour" is the one before. */
  now: number;
  pagers: Map<string, Pager>;
  fresh: StoredEvent[];
  overflown: boolean;
  loading: boolean;
}

let list: List | null = null;
let drawing: ReturnType<typeof setTimeout> | undefined;

const fetchPage: Fetch = (session, query) =>
  request<EventPage>(path("sessions", session, "events"), { query: { ...query } });

/** Begins a list with these filters. */
export function begin(filters: Filters): void {
  list = {
    filters,
    now: Date.now(),
    pagers: new Map(),
    fresh: [],
    overflown: false,
    loading: false,
  };
  items.value = [];
  gone.value = new Map();
  notices.value = [];
  freshCount.value = 0;
  progress.value = { state: "loading" };
  include();
}

/** The page is left: nothing is kept. */
export function end(): void {
  clearTimeout(drawing);
  drawing = undefined;
  list = null;
  items.value = [];
  gone.value = new Map();
  notices.value = [];
  freshCount.value = 0;
}

whenUserGoes(() => {
  end();
  for (const values of Object.values(known)) values.value = [];
});

/** Reads the list anew, with the same filters. */
export function reload(): void {
  if (list) begin(list.filters);
}

/** Takes the sessions into the list that belong there and are not yet. */
function include(): void {
  const current = list;
  if (!current) return;
  const { camera, kind } = current.filters;
  // An ended session is not among them, and still has events.
  const names = camera === null ? [...sessions.peek().keys()] : [camera];
  const { from, to } = bounds(current.filters, current.now);
  let added = false;
  for (const name of names) {
    if (current.pagers.has(name)) continue;
    current.pagers.set(name, new Pager(name, { kind, from, to }, fetchPage));
    added = true;
  }
  if (added) void load();
  else if (names.length === 0 && listing.peek().state === "ready") {
    progress.value = { state: "ready", end: "all" };
  }
}

/** Reads until the list has grown by a step, or until there is nothing more. */
export async function load(): Promise<void> {
  const current = list;
  if (!current || current.loading) return;
  current.loading = true;
  progress.value = { state: "loading" };
  const before = shown(current).length;
  try {
    for (let windows = 0; windows < MOST_WINDOWS;) {
      const open = [...current.pagers.values()]
        .filter(pager => !pager.done)
        .sort((one, other) => other.frontier - one.frontier)
        .slice(0, AT_ONCE);
      if (open.length === 0) break;
      await Promise.all(open.map(pager => older(pager)));
      if (list !== current) return;
      windows += open.length;
      const begun = [...current.pagers.values()].every(pager => pager.begun);
      if (begun && shown(current).length >= before + STEP) break;
    }
    progress.value = { state: "ready", end: ending(current) };
  } catch (error) {
    if (list === current) progress.value = { state: "failed", error };
  } finally {
    current.loading = false;
    if (list === current) draw();
  }
  // Sessions that were made meanwhile.
  const left = [...current.pagers.values()].some(pager => !pager.begun);
  if (left && list === current && progress.peek().state === "ready") void load();
}

async function older(pager: Pager): Promise<void> {
  try {
    await pager.older();
  } catch (error) {
    // It ended, and had no events: there is nothing to show of it.
    if (!(error instanceof ApiError) || error.code !== "unknown_session") throw error;
    if (list?.filters.camera === pager.session) throw error;
    list?.pagers.delete(pager.session);
  }
}

function ending(current: List): "all" | "more" | "full" {
  const pagers = [...current.pagers.values()];
  if (pagers.every(pager => pager.done)) return "all";
  return loaded(current) >= MOST_EVENTS ? "full" : "more";
}

function loaded(current: List): number {
  return [...current.pagers.values()].reduce((sum, pager) => sum + pager.events.length, 0);
}

/** The loaded events that the filters let pass, newest first. */
function shown(current: List): StoredEvent[] {
  const { filters, now } = current;
  return merge([...current.pagers.values()]).filter(event => passes(event, filters, now));
}

/** Shows what has come since. */
export function showFresh(): void {
  const current = list;
  if (!current) return;
  // A page that stays open does not grow without end: what was loaded before goes.
  if (current.overflown || loaded(current) > MOST_EVENTS) return reload();
  take(current);
  draw();
}

function take(current: List): void {
  for (const event of current.fresh) {
    const pager = current.pagers.get(event.session);
    if (pager) pager.events = [event, ...pager.events];
  }
  current.fresh = [];
}

function draw(): void {
  clearTimeout(drawing);
  drawing = undefined;
  const current = list;
  if (!current) return;
  // In an empty list nothing can jump.
  if (!current.loading && shown(current).length === 0) take(current);
  const { filters } = current;
  const waiting = [...current.fresh].reverse();
  if (filters.camera === null) waiting.sort(newestFirst);
  // The end of an alert that is shown is no new item: the alert ends where it stands.
  const all = fold([...waiting, ...shown(current)]);
  const news = new Set(waiting);
  items.value = all.filter(item => !news.has(item.event));
  freshCount.value = current.overflown ? Infinity : all.length - items.value.length;
  const lost = [...current.pagers.values()].filter(pager => pager.goneTo > 0);
  gone.value = new Map(lost.map(pager => [pager.session, pager.goneTo]));
  learn(current);
}

function drawSoon(): void {
  drawing ??= setTimeout(draw, DRAW_MS);
}

function learn(current: List): void {
  const events = [...current.pagers.values()].flatMap(pager => pager.events).concat(current.fresh);
  const add = (store: (typeof known)["kinds"], values: Iterable<string>) => {
    const all = new Set([...store.peek(), ...values]);
    if (all.size !== store.peek().length) store.value = [...all].sort().slice(0, MOST_KNOWN);
  };
  add(
    known.kinds,
    events.map(event => event.kind),
  );
  add(known.labels, events.flatMap(labelsOf));
  add(
    known.zones,
    events.flatMap(event => zoneOf(event) ?? []),
  );
}

/** Puts events that came since aside, until the user wants them. */
function keep(current: List, all: StoredEvent[] | null): void {
  if (list !== current) return;
  const { filters, now } = current;
  const events = all && all.filter(event => passes(event, filters, now));
  if (events?.length === 0) return;
  if (events === null || current.fresh.length + events.length > MOST_FRESH) {
    current.overflown = true;
    current.fresh = [];
  }
  if (events && !current.overflown) current.fresh.push(...events);
  drawSoon();
}

on("event", event => {
  const current = list;
  const pager = current?.pagers.get(event.session);
  if (!current || !pager) return;
  // A gap that cannot be read now is found again with the next event.
  pager.live(event).then(
    events => keep(current, events),
    () => undefined,
  );
});

on("error", error => {
  if (error.code !== "events_gone" || !list || error.session === undefined) return;
  if (!list.pagers.has(error.session)) return;
  const text =
    `${error.session}: the host no longer stores the events ${(error.after ?? 0) + 1} to ` +
    `${(error.oldest ?? 1) - 1}, which came while this page had no connection.`;
  notices.value = [...notices.value.filter(one => one !== text), text].slice(-4);
});

effect(() => {
  // A connection that was lost may have cost events of which the page does not know.
  if (connection.value.state !== "open" || !list) return;
  const current = list;
  for (const pager of current.pagers.values()) {
    pager.catchUp().then(
      events => keep(current, events),
      () => undefined,
    );
  }
});

effect(() => {
  const { value } = sessions;
  if (value.size > 0 || listing.value.state === "ready") include();
});

/** One event by its number; null if it is not stored (any more). */
export async function readEvent(session: string, seq: number): Promise<StoredEvent | null> {
  const key = keyOf({ session, seq });
  const here = items.peek().find(item => keyOf(item.event) === key);
  if (here) return here.event;
  const page = await fetchPage(session, { after: seq - 1, limit: 1 });
  const [event] = page.events;
  return event?.seq === seq ? event : null;
}

/** The end of an alert that was raised with `event`; null if it has none yet. */
export async function readEnd(event: StoredEvent): Promise<StoredEvent | null> {
  const { alert }: Record<string, unknown> = event.data;
  const page = await fetchPage(event.session, { after: event.seq, limit: 100, kind: "alert" });
  const next = page.events.find(
    one => isAlert(one) && (one.data as Record<string, unknown>)["alert"] === alert,
  );
  return next && (next.data as Record<string, unknown>)["raised"] === false ? next : null;
}

/** An error of `readEvent` in words: what a link to an event that is gone says. */
export function saidOfEvent(error: unknown, session: string, seq: number): string {
  if (error instanceof ApiError && error.code === "after_ahead") {
    return `${session} has had no event number ${seq} yet.`;
  }
  return said(error);
}
