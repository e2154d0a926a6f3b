import { signal } from "@preact/signals";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { EventPage, StoredEvent } from "../api/types";
import { NONE } from "../events/filters";
import { keyOf } from "../events/items";

/** The handlers that the store gives to the connection. */
const handlers = vi.hoisted(() => new Map<string, (message: unknown) => void>());
const connection = signal({ state: "open" });
const sessions = signal<ReadonlyMap<string, object>>(new Map());
vi.mock("./live", () => ({
  connection,
  on: (type: string, handler: (message: unknown) => void) => handlers.set(type, handler),
}));
vi.mock("./sessions", () => ({ sessions, listing: signal({ state: "ready" }) }));

/** What the host stores, by session. */
const journals = new Map<string, StoredEvent[]>();
vi.stubGlobal("fetch", async (url: string) => {
  const { pathname, searchParams } = new URL(url, "http://127.0.0.1");
  const session = pathname.split("/")[3] ?? "";
  const [after, limit] = [Number(searchParams.get("after")), Number(searchParams.get("limit"))];
  const kind = searchParams.get("kind");
  const stored = journals.get(session) ?? [];
  const wanted = stored.filter(one => one.seq > after && (kind === null || one.kind === kind));
  const events = wanted.slice(0, limit);
  const page: EventPage = {
    session,
    events,
    oldest: 1,
    newest: stored.length,
    next: wanted.length > limit ? (events.at(-1)?.seq ?? null) : null,
  };
  return Response.json(page);
});
const store = await import("./events");

function happen(session: string, kind = "entered", data: object = {}): StoredEvent {
  const stored = journals.get(session) ?? [];
  journals.set(session, stored);
  const event: StoredEvent = {
    type: "event",
    session,
    seq: stored.length + 1,
    time: new Date(Date.UTC(2026, 0) + stored.length * 1000).toISOString(),
    clock: "host",
    kind,
    deployment: "c2247ebd57c7",
    detections: [],
    data: data as StoredEvent["data"],
  };
  stored.push(event);
  return event;
}

/** The host tells of an event as it happens. */
const live = (event: StoredEvent) => handlers.get("event")?.(event);
const shown = () => store.items.value.map(item => keyOf(item.event));
const settle = () => vi.advanceTimersByTimeAsync(1000);
const cameras = (...names: string[]) => new Map(names.map(name => [name, {}]));

beforeEach(() => {
  vi.useFakeTimers();
  journals.clear();
  sessions.value = cameras("gate");
});
afterEach(() => {
  store.end();
  vi.useRealTimers();
});

it("puts what comes aside until it is wanted", async () => {
  happen("gate");
  store.begin(NONE);
  await settle();
  live(happen("gate"));
  live(happen("gate"));
  await settle();
  expect(shown()).toEqual(["1 gate"]);
  expect(store.freshCount.value).toBe(2);
  store.showFresh();
  expect(shown()).toEqual(["3 gate", "2 gate", "1 gate"]);
  expect(store.freshCount.value).toBe(0);
});

it("shows what comes into an empty list at once", async () => {
  store.begin(NONE);
  await settle();
  expect(store.progress.value).toEqual({ state: "ready", end: "all" });
  live(happen("gate"));
  await settle();
  expect(shown()).toEqual(["1 gate"]);
});

it("ends an alert where it stands, which is nothing new", async () => {
  happen("gate", "alert", { alert: "disk", raised: true });
  store.begin(NONE);
  await settle();
  expect(store.items.value).toMatchObject([{ type: "alert", open: true }]);
  live(happen("gate", "alert", { alert: "disk", raised: false }));
  await settle();
  expect(store.items.value).toMatchObject([{ type: "alert", open: false, cleared: { seq: 2 } }]);
  expect(store.freshCount.value).toBe(0);
});

it("counts only what passes the filters", async () => {
  happen("gate", "left");
  store.begin({ ...NONE, kind: "left" });
  await settle();
  live(happen("gate", "entered"));
  live(happen("gate", "left"));
  await settle();
  expect(store.freshCount.value).toBe(1);
});

it("finds what came while there was no connection", async () => {
  happen("gate");
  store.begin(NONE);
  await settle();
  connection.value = { state: "waiting" };
  happen("gate");
  happen("gate");
  connection.value = { state: "open" };
  await settle();
  expect(store.freshCount.value).toBe(2);
});

it("reads the list anew where more came than it keeps", async () => {
  happen("gate");
  store.begin(NONE);
  await settle();
  for (let n = 0; n < 600; n++) live(happen("gate"));
  await settle();
  expect(store.freshCount.value).toBe(Infinity);
  store.showFresh();
  await settle();
  expect(shown()[0]).toBe("601 gate");
  expect(store.freshCount.value).toBe(0);
});

it("takes a session that is made later into the list", async () => {
  happen("gate");
  store.begin(NONE);
  await settle();
  happen("yard");
  sessions.value = cameras("gate", "yard");
  await settle();
  expect(shown().sort()).toEqual(["1 gate", "1 yard"]);
});

it("reads further back on request, to the end", async () => {
  for (let n = 0; n < 250; n++) happen("gate");
  store.begin(NONE);
  await settle();
  expect(store.progress.value).toEqual({ state: "ready", end: "more" });
  const first = shown().length;
  while (store.progress.value.state === "ready" && store.progress.value.end === "more") {
    await store.load();
  }
  expect(first).toBeLessThan(250);
  expect(shown()).toHaveLength(250);
});

it("finds the end of an alert by the beginning, and none where it goes on", async () => {
  const raised = happen("gate", "alert", { alert: "disk", raised: true });
  happen("gate", "alert", { alert: "memory", raised: true });
  expect(await store.readEnd(raised)).toBeNull();
  const cleared = happen("gate", "alert", { alert: "disk", raised: false });
  expect(await store.readEnd(raised)).toEqual(cleared);
});
