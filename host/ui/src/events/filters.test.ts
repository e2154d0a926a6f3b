import { expect, it } from "vitest";
import type { StoredEvent } from "../api/types";
import { NONE, bounds, isEmpty, passes, read } from "./filters";

const NOW = Date.UTC(2026, 0, 31, 12);

const event = (more: object = {}): StoredEvent => ({
  type: "event",
  session: "gate",
  seq: 1,
  time: "2026-01-31T11:30:00.000Z",
  clock: "camera",
  kind: "zone_entered",
  deployment: "c2247ebd57c7",
  frame: 7,
  detections: [{ label: "car", score: 0.9, box: [0, 0, 1, 1], attributes: {} }],
  data: { label: "truck", zone: "door" } as unknown as StoredEvent["data"],
  ...more,
});

const of = (query: string) => read(new URLSearchParams(query));

it("reads the filters of an address, and leaves out what it does not understand", () => {
  expect(of("")).toEqual(NONE);
  expect(isEmpty(of("session=gate&seq=4"))).toBe(true);
  expect(of("camera=a%2Fb&kind=left&label=&zone=door")).toEqual({
    ...NONE,
    camera: "a/b",
    kind: "left",
    zone: "door",
  });
  expect(of("last=soon&from=yesterday")).toEqual(NONE);
  expect(of("last=toString")).toEqual(NONE);
});

it("reads times in any zone, and prefers those that count from now", () => {
  const filters = of("from=2026-01-31T12:00:00%2B01:00");
  expect(filters.from).toBe("2026-01-31T11:00:00.000Z");
  expect(bounds(filters, NOW)).toEqual({ from: NOW - 3_600_000, to: Infinity });
  expect(bounds(of("last=24h&from=2020-01-01T00:00:00Z"), NOW).from).toBe(NOW - 86_400_000);
});

it("lets pass what each filter names, and nothing else", () => {
  const cases: [string, boolean][] = [
    ["", true],
    ["camera=gate", true],
    ["camera=yard", false],
    ["kind=zone_entered&zone=door", true],
    ["zone=drive", false],
    ["label=car", true],
    ["label=truck", true],
    ["label=person", false],
    ["last=1h", true],
    ["from=2026-01-31T11:30:00Z", true],
    ["to=2026-01-31T11:30:00Z", false],
    ["from=2026-01-31T11:31:00Z", false],
  ];
  for (const [query, expected] of cases) {
    expect(passes(event(), of(query), NOW), query).toBe(expected);
  }
  expect(passes(event({ time: "2026-01-31T10:59:59.999Z" }), of("last=1h"), NOW)).toBe(false);
});
