import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Me } from "../api/types";
import type { PictureSink } from "./live";

/** A WebSocket whose other end is the test. */
class FakeSocket {
  static readonly OPEN = 1;
  static made: FakeSocket[] = [];
  readyState = 0;
  binaryType = "";
  sent: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { reason: string }) => void) | null = null;

  constructor(readonly url: string) {
    FakeSocket.made.push(this);
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.readyState = 3;
  }

  open(): void {
    this.readyState = FakeSocket.OPEN;
    this.onopen?.();
  }

  says(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  shows(stream: number): void {
    const data = new ArrayBuffer(48);
    new DataView(data).setUint32(4, stream);
    this.onmessage?.({ data });
  }

  /** What was sent since the last look. */
  taken(): Record<string, unknown>[] {
    return this.sent.splice(0);
  }
}

vi.stubGlobal("WebSocket", FakeSocket);
vi.stubGlobal("location", { protocol: "http:", host: "127.0.0.1:8001" });
vi.stubGlobal("addEventListener", () => undefined);
vi.stubGlobal("removeEventListener", () => undefined);
const live = await import("./live");

const admin: Me = { name: "a", role: "admin", sessions: null, login: true };
const viewer: Me = { name: "v", role: "viewer", sessions: ["gate"], login: true };

function connected(who: Me): FakeSocket {
  live.connect(who);
  const socket = FakeSocket.made.at(-1) as FakeSocket;
  socket.open();
  return socket;
}

function sink(pictures: "all" | "key" | "none"): PictureSink & { units: number; told: number[] } {
  const own = {
    pictures,
    units: 0,
    told: [] as number[],
    watching: ({ stream }: { stream: number }) => void own.told.push(stream),
    refused: () => undefined,
    unit: () => void (own.units += 1),
  };
  return own;
}

const watching = (stream: number, pictures = "all") => ({
  type: "watching",
  session: "gate",
  pictures,
  codec: "h264",
  stream,
});

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  live.disconnect();
  vi.useRealTimers();
});

it("subscribes to all sessions, without detections, or to those that the user sees", () => {
  expect(connected(admin).taken()).toEqual([
    { type: "subscribe", session: "*", detections: false, after: {} },
  ]);
  expect(connected(viewer).taken()).toEqual([
    { type: "subscribe", session: "gate", detections: false },
  ]);
});

it("goes on after the last event of each session when the connection was lost", () => {
  const first = connected(admin);
  first.says({ type: "event", session: "gate", seq: 41 });
  first.says({ type: "event", session: "yard", seq: 7 });
  first.onclose?.({ reason: "gone" });
  expect(live.connection.value).toMatchObject({ state: "waiting", reason: "gone" });
  vi.advanceTimersByTime(1000);
  const second = FakeSocket.made.at(-1) as FakeSocket;
  expect(second).not.toBe(first);
  second.open();
  expect(second.taken()[0]).toMatchObject({ session: "*", after: { gate: 41, yard: 7 } });
  expect(live.connection.value).toEqual({ state: "open" });
});

it("tries again and again, each time later, and at once when it is told to", () => {
  connected(admin).onclose?.({ reason: "" });
  const tries = () => FakeSocket.made.length;
  const before = tries();
  for (let again = 0; again < 20; again += 1) {
    vi.advanceTimersByTime(13_000);
    expect(tries()).toBe(before + again + 1);
    FakeSocket.made.at(-1)?.onclose?.({ reason: "" });
  }
  live.retryNow();
  expect(tries()).toBe(before + 21);
});

it("leaves a connection that says nothing, not even pong", () => {
  const socket = connected(admin);
  socket.taken();
  vi.advanceTimersByTime(15_000);
  expect(socket.taken()).toEqual([{ type: "ping" }]);
  vi.advanceTimersByTime(15_000);
  expect(live.connection.value.state).toBe("waiting");
});

it("asks for detections while somebody wants them", () => {
  const socket = connected(admin);
  socket.taken();
  const [one, other] = [live.wantDetections("gate"), live.wantDetections("gate")];
  expect(socket.taken()).toEqual([{ type: "subscribe", session: "gate", detections: true }]);
  one();
  one();
  expect(socket.taken()).toEqual([]);
  other();
  expect(socket.taken()).toEqual([{ type: "subscribe", session: "gate", detections: false }]);
});

it("asks for the most pictures that a sink needs, and gives each what comes", () => {
  const socket = connected(admin);
  socket.taken();
  const [tile, page] = [sink("key"), sink("all")];
  const first = live.watch("gate", tile);
  const second = live.watch("gate", page);
  expect(socket.taken()).toEqual([
    { type: "watch", session: "gate", pictures: "key" },
    { type: "watch", session: "gate", pictures: "all" },
  ]);
  socket.says(watching(3));
  socket.shows(3);
  socket.shows(4);
  expect([tile.units, page.units, page.told]).toEqual([1, 1, [3]]);
  second.end();
  first.end();
  expect(socket.taken()).toEqual([
    { type: "watch", session: "gate", pictures: "key" },
    { type: "watch", session: "gate", pictures: "none" },
  ]);
});

it("watches again after a lost connection, and when a session of the name is made again", () => {
  const socket = connected(admin);
  const end = live.watch("gate", sink("all"));
  socket.says(watching(1));
  socket.taken();
  socket.says(watching(1, "none"));
  socket.says({ type: "subscribed", session: "gate", state: "starting" });
  expect(socket.taken()).toEqual([{ type: "watch", session: "gate", pictures: "all" }]);
  socket.onclose?.({ reason: "" });
  vi.advanceTimersByTime(1000);
  const next = FakeSocket.made.at(-1) as FakeSocket;
  next.open();
  expect(next.taken()).toContainEqual({ type: "watch", session: "gate", pictures: "all" });
  end.end();
});

it("begins a stream anew without taking its own end for the session's", () => {
  const socket = connected(admin);
  const own = sink("all");
  const watch = live.watch("gate", own);
  socket.says(watching(1));
  socket.taken();
  watch.again();
  expect(socket.taken().map(({ pictures }) => pictures)).toEqual(["none", "all"]);
  socket.says(watching(1, "none"));
  socket.says(watching(2));
  socket.shows(2);
  expect(own.units).toBe(1);
  watch.end();
  expect(socket.taken()).toEqual([{ type: "watch", session: "gate", pictures: "none" }]);
});
