// Times and amounts as people read them, in the browser's language and time zone.
import { computed, signal } from "@preact/signals";

/** `Date.now()`, once a second: what shows an age reads it, and is drawn again. */
export const now = signal(Date.now());
setInterval(() => {
  // A test has no page, and may take longer than a second.
  if (typeof document !== "undefined" && document.visibilityState === "visible") {
    now.value = Date.now();
  }
}, 1000);

/** What shows a date is drawn again at midnight, not each second. */
const today = computed(() => new Date(now.value).toDateString());

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Local time; with the date unless it is today. */
export function local(time: string | number | Date): string {
  const date = new Date(time);
  return (date.toDateString() === today.value ? clock : day).format(date);
}

/** "3 s", "5 min", "2 h", "4 d". */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** A length of time to the second: "0.7 s", "12 s", "4 min 10 s", "3 h 5 min", "2 d 4 h". */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds / 1000);
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const pair = (large: number, one: string, small: number, other: string) => {
    const rest = Math.floor((seconds % large) / small);
    return `${Math.floor(seconds / large)} ${one}${rest > 0 ? ` ${rest} ${other}` : ""}`;
  };
  if (seconds < 3600) return pair(60, "min", 1, "s");
  if (seconds < 86_400) return pair(3600, "h", 60, "min");
  return pair(86_400, "d", 3600, "h");
}

/** The times of a file's events count from 1970: no camera delivers pictures of that year. */
const FILES_END_MS = Date.UTC(1971, 0);

/** When an event was: local time, or for a file the place in it ("0:01:12 in the file"). */
export function when(time: string): string {
  const at = Date.parse(time);
  if (at >= FILES_END_MS) return local(time);
  const two = (count: number) => String(Math.floor(count)).padStart(2, "0");
  const seconds = at / 1000;
  const [hours, minutes] = [Math.floor(seconds / 3600), (seconds / 60) % 60];
  return `${hours}:${two(minutes)}:${two(seconds % 60)} in the file`;
}

/** The zone of all times shown: "Europe/Berlin, GMT+1". */
export function zoneName(at: Date = new Date()): string {
  const { timeZone } = clock.resolvedOptions();
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts(at);
  const offset = parts.find(part => part.type === "timeZoneName")?.value ?? "";
  return offset === "" || offset === timeZone ? timeZone : `${timeZone}, ${offset}`;
}

/** "1.4 MiB". */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
