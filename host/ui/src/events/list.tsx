import { useSignal } from "@preact/signals";
import type { StoredEvent } from "../api/types";
import { path } from "../api/client";
import { query } from "../router";
import { Link } from "../ui/link";
import { now, when } from "../ui/time";
import { type Place, addressOf } from "./address";
import { type Item, isAlert, keyOf } from "./items";
import { detail, held, title } from "./words";

/** Of a row; the page moves the focus over them by it. */
export const ROW = "event-row";

/** The events, newest first. */
export function EventList({ items, open }: { items: readonly Item[]; open: Place | null }) {
  const pictures = items.some(item => (item.event.attachments?.length ?? 0) > 0);
  const current = open ? keyOf(open) : null;
  return (
    <ol class={pictures ? "event-list pictured" : "event-list"}>
      {items.map(item => {
        const key = keyOf(item.event);
        return (
          <li key={key}>
            <Row item={item} current={key === current} />
          </li>
        );
      })}
    </ol>
  );
}

function Row({ item, current }: { item: Item; current: boolean }) {
  const { event } = item;
  const open = item.type === "alert" && item.open;
  return (
    <Link
      class={open ? `${ROW} open-alert` : ROW}
      href={addressOf(event, query.value)}
      aria-current={current ? "true" : undefined}
      data-key={keyOf(event)}
    >
      <Thumb event={event} />
      <span class="event-what">
        <strong>{title(event)}</strong>
        {item.type === "alert" && (
          <span class={open ? "held open" : "held"}>
            {open ? held(item, now.value) : held(item, 0)}
          </span>
        )}
        <span class="quiet">
          {event.session} · {event.kind}
        </span>
        {detail(event) && <span class="quiet event-detail">{detail(event)}</span>}
      </span>
      <time dateTime={event.time} class="event-time">
        {when(event.time)}
      </time>
    </Link>
  );
}

/** Of a kind without a picture: its shape alone. */
const SHAPES = {
  in: "M3 8h7M7.5 4.5 11 8l-3.5 3.5M13.5 2v12",
  out: "M2.5 2v12M5 8h8M10 4.5 13.5 8 10 11.5",
  alert: "M8 2.5 14.5 13.5h-13zM8 7v3M8 11.7v.3",
  change: "M3 6a5.2 5.2 0 0 1 9.5-1M13 10a5.2 5.2 0 0 1-9.5 1M12.8 2v3.2H9.6M3.2 14v-3.2h3.2",
  other: "M8 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z",
} as const;

function shapeOf(event: StoredEvent): string {
  if (isAlert(event) || event.kind === "events_lost") return SHAPES.alert;
  if (event.kind === "deployment") return SHAPES.change;
  if (event.kind.endsWith("entered")) return SHAPES.in;
  return event.kind.endsWith("left") ? SHAPES.out : SHAPES.other;
}

function Thumb({ event }: { event: StoredEvent }) {
  const [first, ...others] = event.attachments ?? [];
  const lost = useSignal(false);
  if (!first || lost.value) {
    return (
      <span class="event-shape" aria-hidden="true">
        <svg viewBox="0 0 16 16" width="16" height="16">
          <path d={shapeOf(event)} />
        </svg>
      </span>
    );
  }
  return (
    <span class="event-thumb">
      <img
        src={path("attachments", first.digest)}
        alt=""
        loading="lazy"
        onError={() => (lost.value = true)}
      />
      {others.length > 0 && <span class="event-count">{others.length + 1} pictures</span>}
    </span>
  );
}
