import { expect, it } from "vitest";
import type { KeptData } from "../api/types";
import { forecast, sinkFigures, threshold } from "./words";

const MIB = 1 << 20;
const kept = (more: Partial<KeptData>): KeptData => ({
  bytes: 100 * MIB,
  limit: 2048 * MIB,
  keep_hours: 168,
  growth_per_hour: 12 * MIB,
  full_in_hours: null,
  ...more,
});

it("tells how long events and pictures last", () => {
  const cases: [Partial<KeptData>, string][] = [
    [{}, "The oldest go after 7 d: room for that long (12.0 MiB more in an hour of late)."],
    [{ growth_per_hour: 0 }, "The oldest go after 7 d: room for that long (no growth of late)."],
    [
      { full_in_hours: 7.5 },
      "Full in 7 h 30 min, then the oldest go before their time " +
        "(12.0 MiB more in an hour of late).",
    ],
    [
      { full_in_hours: 0, growth_per_hour: MIB },
      "The room is used up: the oldest make way for new ones (1.0 MiB more in an hour of late).",
    ],
    [{ growth_per_hour: null }, "The oldest go after 7 d; how fast they grow is not known yet."],
    [{ limit: 0 }, "None are kept."],
  ];
  for (const [more, text] of cases) expect(forecast(kept(more))).toBe(text);
});

it("tells when each alert is raised, and which key changes that", () => {
  const config = { memory_percent: 90, no_results_s: 0, overload_percent: 50 };
  expect(threshold("memory", config)).toEqual({
    text: "from 90 % of the limit on",
    key: "memory_percent",
  });
  expect(threshold("no_results", config)).toEqual({ text: "off", key: "no_results_s" });
  expect(threshold("host_overload", config).key).toBe("overload_percent");
  expect(threshold("clock", config)).toEqual({
    text: "when it jumps by more than a minute",
    key: null,
  });
  expect(threshold("from a later host", config)).toEqual({ text: "", key: null });
});

it("tells how far a sink has come, and what went wrong only where it did", () => {
  const well = { behind: 0, written: 7, errors: 0, gaps: 0, refused: 0 };
  expect(sinkFigures(well)).toBe("0 behind, 7 written");
  expect(sinkFigures({ behind: 5, written: 7, errors: 2, gaps: 1, refused: 3 })).toBe(
    "5 behind, 7 written, 2 errors, 1 times events were deleted before it had them, " +
      "3 left out, since it never takes them",
  );
});
