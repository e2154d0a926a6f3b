// The host's figures as sentences.
import type { KeptData, SystemSink } from "../api/types";
import { bytes, duration } from "../ui/time";

const HOUR_MS = 3_600_000;

/** How long what is kept will last. */
export function forecast(kept: KeptData): string {
  const { growth_per_hour: growth, full_in_hours: full, keep_hours: keep } = kept;
  if (kept.limit === 0 || keep === 0) return "None are kept.";
  const age = `The oldest go after ${duration(keep * HOUR_MS)}`;
  if (growth === null) return `${age}; how fast they grow is not known yet.`;
  const grows = growth === 0 ? "no growth of late" : `${bytes(growth)} more in an hour of late`;
  if (full === null) return `${age}: room for that long (${grows}).`;
  if (full === 0) return `The room is used up: the oldest make way for new ones (${grows}).`;
  return `Full in ${duration(full * HOUR_MS)}, then the oldest go before their time (${grows}).`;
}

/** The key of `[alerts]` of each alert, and how its value reads. */
const THRESHOLDS: Readonly<Record<string, readonly [key: string, words: (n: number) => string]>> = {
  memory: ["memory_percent", n => `from ${n} % of the limit on`],
  no_results: ["no_results_s", n => `after ${duration(n * 1000)} without a result`],
  source_down: ["source_down_s", n => `after ${duration(n * 1000)} without pictures`],
  restarts: ["restarts_per_hour", n => `from ${n} lost workers in an hour on`],
  disk: ["disk_free_percent", n => `below ${n} % free`],
  overload: ["overload_percent", n => `from ${n} % skipped frames of a minute on`],
  host_overload: ["overload_percent", n => `from ${n} % skipped frames of all cameras on`],
};

/** When an alert is raised, and the key that says so; null: the config does not change that. */
export function threshold(
  alert: string,
  thresholds: Readonly<Record<string, unknown>>,
): { text: string; key: string | null } {
  const [key, words] = THRESHOLDS[alert] ?? [];
  const value = key === undefined ? undefined : thresholds[key];
  if (key === undefined || !words || typeof value !== "number") {
    return { text: alert === "clock" ? "when it jumps by more than a minute" : "", key: null };
  }
  return { text: value === 0 ? "off" : words(value), key };
}

type SinkFigures = Pick<SystemSink, "behind" | "written" | "errors" | "gaps" | "refused">;

/** How far a sink has come. What never happened is left out. */
export function sinkFigures({ behind, written, errors, gaps, refused }: SinkFigures): string {
  const facts = [`${behind} behind`, `${written} written`];
  if (errors > 0) facts.push(`${errors} errors`);
  if (gaps > 0) facts.push(`${gaps} times events were deleted before it had them`);
  if (refused > 0) facts.push(`${refused} left out, since it never takes them`);
  return facts.join(", ");
}
