// What the list shows: events, and alerts as intervals from being raised to being cleared.
import type { StoredEvent } from "../api/types";

interface Plain {
  type: "event";
  event: StoredEvent;
}

/** An alert. Of one that has no end yet and is not `open`, the end was not stored. */
export interface Interval {
  type: "alert";
  /** Where it stands in the list, and its link: where it was raised, if that is known. */
  event: StoredEvent;
  alert: string;
  raised: StoredEvent | null;
  cleared: StoredEvent | null;
  open: boolean;
}

export type Item = Plain | Interval;

/** Identifies an event everywhere. */
export function keyOf(event: { session: string; seq: number }): string {
  return `${event.seq} ${event.session}`;
}

/** Whether the host tells of an alert; a pipeline may have a kind of that name, too. */
export function isAlert(event: StoredEvent): boolean {
  return event.kind === "alert" && event.frame === undefined;
}

export function alertOf(event: StoredEvent): { alert: string; raised: boolean } {
  const { alert, raised }: Record<string, unknown> = event.data;
  return { alert: String(alert), raised: raised === true };
}

/** Puts the two events of an alert together. The order is that of `events`: newest first. */
export function fold(events: readonly StoredEvent[]): Item[] {
  const intervals = new Map<StoredEvent, Interval>();
  const ends = new Set<StoredEvent>();
  const running = new Map<string, Interval>();
  const alerts = events.filter(isAlert).sort((one, other) => one.seq - other.seq);
  for (const event of alerts) {
    const { alert, raised } = alertOf(event);
    const key = `${alert} ${event.session}`;
    const before = running.get(key);
    if (raised) {
      // Raised twice: the event between them was lost.
      if (before) before.open = false;
      const interval: Interval = {
        type: "alert",
        event,
        alert,
        raised: event,
        cleared: null,
        open: true,
      };
      intervals.set(event, interval);
      running.set(key, interval);
    } else if (before) {
      before.cleared = event;
      before.open = false;
      running.delete(key);
      ends.add(event);
    } else {
      intervals.set(event, {
        type: "alert",
        event,
        alert,
        raised: null,
        cleared: event,
        open: false,
      });
    }
  }
  return events
    .filter(event => !ends.has(event))
    .map(event => intervals.get(event) ?? { type: "event", event });
}
