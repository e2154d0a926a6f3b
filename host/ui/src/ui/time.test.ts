import { expect, it } from "vitest";
import { duration, when, zoneName } from "./time";

it("tells a length of time to its second unit", () => {
  const cases: [number, string][] = [
    [-5, "0 s"],
    [700, "0.7 s"],
    [12_900, "12 s"],
    [60_000, "1 min"],
    [250_000, "4 min 10 s"],
    [11_100_000, "3 h 5 min"],
    [187_200_000, "2 d 4 h"],
  ];
  for (const [milliseconds, text] of cases) expect(duration(milliseconds)).toBe(text);
});

it("tells the place in a file, whose times begin in 1970", () => {
  expect(when("1970-01-01T01:01:12.480Z")).toBe("1:01:12 in the file");
  expect(when("1970-01-01T00:00:00.000Z")).toBe("0:00:00 in the file");
});

it("has the date of any day but today", () => {
  expect(when("2001-02-03T04:05:06.000Z")).toContain("2001");
  expect(when(new Date().toISOString())).not.toContain(String(new Date().getFullYear()));
});

it("names the zone of all times, with its distance from UTC", () => {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  expect(zoneName().startsWith(timeZone)).toBe(true);
});
