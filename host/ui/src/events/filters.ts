// Which events are shown. The address has the filters, so a link shows the same list elsewhere.
import type { StoredEvent } from "../api/types";

const HOUR_MS = 3_600_000;

/** Times that count back from now, by their name in the address. */
export const LAST = { "1h": HOUR_MS, "24h": 24 * HOUR_MS, "7d": 168 * HOUR_MS } as const;
export type Last = keyof typeof LAST;

export interface Filters {
  /** null: all, as for each of the others. */
  camera: string | null;
  kind: string | null;
  label: string | null;
  zone: string | null;
  last: Last | null;
  /** RFC 3339; they count if there is no `last`. */
  from: string | null;
  to: string | null;
}

/** The filters of an address; what cannot be understood is left out. */
export function read(query: URLSearchParams): Filters {
  const text = (name: string) => query.get(name) || null;
  const time = (name: string) => {
    const at = Date.parse(query.get(name) ?? "");
    return Number.isNaN(at) ? null : new Date(at).toISOString();
  };
  const last = query.get("last");
  const known = last !== null && Object.hasOwn(LAST, last) ? (last as Last) : null;
  return {
    camera: text("camera"),
    kind: text("kind"),
    label: text("label"),
    zone: text("zone"),
    last: known,
    from: known ? null : time("from"),
    to: known ? null : time("to"),
  };
}

/** Whether nothing is filtered. */
export function isEmpty(filters: Filters): boolean {
  return Object.values(filters).every(value => value === null);
}

/** No filter at all, as changes of the address. */
export const NONE: Readonly<Record<keyof Filters, null>> = {
  camera: null,
  kind: null,
  label: null,
  zone: null,
  last: null,
  from: null,
  to: null,
};

/** The first moment that is shown and the first that is not any more, in milliseconds. */
export function bounds(filters: Filters, now: number): { from: number; to: number } {
  if (filters.last) return { from: now - LAST[filters.last], to: Infinity };
  return {
    from: filters.from === null ? -Infinity : Date.parse(filters.from),
    to: filters.to === null ? Infinity : Date.parse(filters.to),
  };
}

/** The labels that an event is about. */
export function labelsOf(event: StoredEvent): string[] {
  const { label }: Record<string, unknown> = event.data;
  const labels = new Set(event.detections.map(detection => detection.label));
  if (typeof label === "string") labels.add(label);
  return [...labels];
}

export function zoneOf(event: StoredEvent): string | null {
  const { zone }: Record<string, unknown> = event.data;
  return typeof zone === "string" ? zone : null;
}

/** Whether the list has this event. */
export function passes(event: StoredEvent, filters: Filters, now: number): boolean {
  if (filters.camera !== null && event.session !== filters.camera) return false;
  if (filters.kind !== null && event.kind !== filters.kind) return false;
  if (filters.zone !== null && zoneOf(event) !== filters.zone) return false;
  if (filters.label !== null && !labelsOf(event).includes(filters.label)) return false;
  const { from, to } = bounds(filters, now);
  const at = Date.parse(event.time);
  return at >= from && at < to;
}
