import { expect, it } from "vitest";
import type { StoredEvent } from "../api/types";
import { fold } from "./items";

let seq = 0;

function event(kind: string, data: object, more: Partial<StoredEvent> = {}): StoredEvent {
  seq += 1;
  return {
    type: "event",
    session: "gate",
    seq,
    time: new Date(Date.UTC(2026, 0) + seq * 1000).toISOString(),
    clock: "host",
    kind,
    deployment: "c2247ebd57c7",
    detections: [],
    data: data as StoredEvent["data"],
    ...more,
  };
}

const alert = (name: string, raised: boolean, session = "gate") =>
  event("alert", { alert: name, raised }, { session });

/** What `fold` makes of events in the order in which they came. */
const folded = (...events: StoredEvent[]) => fold(events.reverse());

it("makes one interval of an alert's two events, where it was raised", () => {
  const [raised, between, cleared] = [
    alert("disk", true),
    event("entered", {}),
    alert("disk", false),
  ];
  expect(folded(raised, between, cleared)).toEqual([
    { type: "event", event: between },
    { type: "alert", event: raised, alert: "disk", raised, cleared, open: false },
  ]);
});

it("leaves an alert open that was not cleared", () => {
  const raised = alert("source_down", true);
  expect(folded(raised)).toMatchObject([{ raised, cleared: null, open: true }]);
});

it("shows the end of an alert whose beginning is not there", () => {
  const cleared = alert("memory", false);
  expect(folded(cleared)).toMatchObject([{ event: cleared, raised: null, cleared, open: false }]);
});

it("keeps alerts of other names and other sessions apart", () => {
  const events = [
    alert("disk", true),
    alert("memory", true),
    alert("disk", true, "yard"),
    alert("disk", false),
  ];
  expect(folded(...events).map(item => "open" in item && item.open)).toEqual([true, true, false]);
});

it("has two intervals of an alert that came back, and no end for one whose end was lost", () => {
  const events = [
    alert("disk", true),
    alert("disk", false),
    alert("disk", true),
    alert("disk", true),
  ];
  expect(folded(...events)).toMatchObject([
    { open: true, cleared: null },
    { open: false, cleared: null },
    { open: false, cleared: events[1] },
  ]);
});

it("takes a pipeline's own kind `alert` as any other event", () => {
  const own = event("alert", { alert: "disk", raised: true }, { frame: 3 });
  expect(folded(own)).toEqual([{ type: "event", event: own }]);
});
