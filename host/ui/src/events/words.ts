// Events as sentences.
import type { StoredEvent } from "../api/types";
import { duration } from "../ui/time";
import { type Interval, alertOf, isAlert } from "./items";
import { labelsOf } from "./filters";

/** What each alert of docs/operator-reference.md says. */
export const ALERTS: Readonly<Record<string, string>> = {
  memory: "Memory near its limit",
  no_results: "No results",
  restarts: "Worker keeps being lost",
  source_down: "No pictures from the camera",
  disk: "Disk nearly full",
  clock: "The host's clock jumped",
  overload: "Too slow for its camera",
  host_overload: "The host is overloaded",
};

export function alertName(alert: string): string {
  return ALERTS[alert] ?? alert;
}

/** What happened, in a line. */
export function title(event: StoredEvent): string {
  const data: Record<string, unknown> = event.data;
  const what = labelsOf(event).join(", ") || "something";
  if (isAlert(event)) return alertName(alertOf(event).alert);
  switch (event.kind) {
    case "entered":
      return `${what} entered`;
    case "left":
      return `${what} left${after(data["duration_s"])}`;
    case "zone_entered":
      return `${what} entered zone ${String(data["zone"])}`;
    case "zone_left":
      return `${what} left zone ${String(data["zone"])}${after(data["dwell_s"])}`;
    case "line_crossed":
      return `${what} crossed line ${String(data["line"])}${side(data["direction"])}`;
    case "tracking":
      return data["tracking"] === "unreliable"
        ? "Tracks became unreliable"
        : "Tracks are reliable again";
    case "deployment":
      return `Deployment ${String(data["number"])}: ${String(data["state"])}`;
    case "events_lost":
      return `${String(data["events"])} events could not be stored here: the disk was full`;
    default: {
      const labels = labelsOf(event);
      return labels.length > 0 ? `${event.kind}: ${labels.join(", ")}` : event.kind;
    }
  }
}

function side(direction: unknown): string {
  if (direction === "to_left") return " to the left";
  return direction === "to_right" ? " to the right" : "";
}

function after(seconds: unknown): string {
  return typeof seconds === "number" ? ` after ${duration(seconds * 1000)}` : "";
}

/** What else there is to say of an event, or null. */
export function detail(event: StoredEvent): string | null {
  const data: Record<string, unknown> = event.data;
  if (isAlert(event)) return typeof data["message"] === "string" ? data["message"] : null;
  if (event.kind === "deployment") {
    const parts = [data["pipeline"], data["by"] && `by ${String(data["by"])}`, data["reason"]];
    return parts.filter(part => typeof part === "string" && part !== "").join(", ") || null;
  }
  return null;
}

/** How long an alert held, or holds. */
export function held(interval: Interval, now: number): string {
  const { raised, cleared, open } = interval;
  if (raised && cleared) return duration(Date.parse(cleared.time) - Date.parse(raised.time));
  if (raised && open) return `open for ${duration(now - Date.parse(raised.time))}`;
  return raised ? "its end was not stored" : "its beginning is not in this list";
}
