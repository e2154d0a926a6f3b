import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { path } from "../api/client";
import type { Detection, StoredEvent } from "../api/types";
import { pathOf, query } from "../router";
import { items, readEnd, readEvent, saidOfEvent } from "../state/events";
import { Copy } from "../ui/copy";
import { Link } from "../ui/link";
import { type Column, Table } from "../ui/table";
import { now, when, zoneName } from "../ui/time";
import { type Place, addressOf, close, linkTo } from "./address";
import { Clip } from "./clip";
import { labelsOf, zoneOf } from "./filters";
import { type Interval, alertOf, isAlert, keyOf } from "./items";
import { detail, held, title } from "./words";

type Loaded =
  | { state: "loading" }
  | { state: "ready"; event: StoredEvent; end: StoredEvent | null }
  | { state: "gone" }
  | { state: "failed"; reason: string };

/** One event: its pictures and all that is known of it. */
export function EventDetail({ place }: { place: Place }) {
  const loaded = useSignal<Loaded>({ state: "loading" });
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    let left = false;
    const set = (value: Loaded) => {
      if (!left) loaded.value = value;
    };
    load(place).then(set, error =>
      set({ state: "failed", reason: saidOfEvent(error, place.session, place.seq) }),
    );
    heading.current?.focus({ preventScroll: true });
    return () => void (left = true);
  }, [place.session, place.seq]);

  const shown = loaded.value;
  return (
    <article class="event-detail-pane panel" aria-label="Event">
      <header class="bar">
        <h2 ref={heading} tabIndex={-1}>
          {shown.state === "ready" ? title(shown.event) : `Event ${place.seq} of ${place.session}`}
        </h2>
        <span class="actions">
          <Step by={-1} place={place} />
          <Step by={1} place={place} />
          <button type="button" onClick={close}>
            Close <kbd>Esc</kbd>
          </button>
        </span>
      </header>
      {shown.state === "loading" && <p class="quiet">Loading …</p>}
      {shown.state === "failed" && <p role="alert">{shown.reason}</p>}
      {shown.state === "gone" && (
        <p>
          The host no longer stores this event: it became too old, or its disk had no room.{" "}
          <code>[events]</code> in the config says how long events are kept.
        </p>
      )}
      {shown.state === "ready" && <Body event={shown.event} end={shown.end} />}
    </article>
  );
}

async function load(place: Place): Promise<Loaded> {
  const event = await readEvent(place.session, place.seq);
  if (event === null) return { state: "gone" };
  const raised = isAlert(event) && alertOf(event).raised;
  return { state: "ready", event, end: raised ? await readEnd(event) : null };
}

/** The event before or after this one in the list. */
function Step({ by, place }: { by: 1 | -1; place: Place }) {
  const all = items.value;
  const index = all.findIndex(item => keyOf(item.event) === keyOf(place));
  const next = index < 0 ? undefined : all[index + by]?.event;
  const [name, key] = by > 0 ? ["Older", "j"] : ["Newer", "k"];
  if (!next) return null;
  return (
    <Link class="button" href={addressOf(next, query.value)}>
      {name} <kbd>{key}</kbd>
    </Link>
  );
}

const DETECTIONS: Column<Detection>[] = [
  { title: "Label", cell: one => one.label },
  { title: "Score", cell: one => one.score.toFixed(2), numeric: true },
  { title: "Track", cell: one => one.track ?? "–", numeric: true },
  { title: "Box (left, top, width, height)", cell: one => one.box.map(Math.round).join(", ") },
  {
    title: "Attributes",
    cell: one =>
      Object.entries(one.attributes)
        .map(([name, { value }]) => `${name}: ${value}`)
        .join(", ") || "–",
  },
];

function Body({ event, end }: { event: StoredEvent; end: StoredEvent | null }) {
  const more = detail(event);
  const zone = zoneOf(event);
  const labels = labelsOf(event);
  return (
    <>
      {event.clip && <Clip event={event} />}
      <Pictures event={event} />
      {more && <p>{more}</p>}
      <dl>
        <dt>Camera</dt>
        <dd>
          <Link href={pathOf("cameras", event.session)}>{event.session}</Link>
        </dd>
        <dt>Time</dt>
        <dd>
          <time dateTime={event.time}>{when(event.time)}</time>{" "}
          <span class="quiet">
            {zoneName(new Date(event.time))}, by the {event.clock}'s clock
          </span>
        </dd>
        <dt>UTC</dt>
        <dd>{event.time}</dd>
        {isAlert(event) && <AlertTimes event={event} end={end} />}
        <dt>Kind</dt>
        <dd>{event.kind}</dd>
        {labels.length > 0 && <dt>Label</dt>}
        {labels.length > 0 && <dd>{labels.join(", ")}</dd>}
        {zone !== null && <dt>Zone</dt>}
        {zone !== null && <dd>{zone}</dd>}
        {event.frame !== undefined && <dt>Frame</dt>}
        {event.frame !== undefined && <dd>{event.frame}</dd>}
        <dt>Deployment</dt>
        <dd>
          <code>{event.deployment}</code>
        </dd>
        <dt>Number</dt>
        <dd>{event.seq}</dd>
      </dl>
      {event.detections.length > 0 && (
        <Table
          caption="Detections of this event"
          columns={DETECTIONS}
          rows={event.detections}
          keyOf={one => `${one.label} ${one.track} ${one.box.join()}`}
        />
      )}
      <Copy label="Link to this event" text={linkTo(event)} />
      <details>
        <summary>As the pipeline or the host wrote it</summary>
        <pre tabIndex={0}>{JSON.stringify(event, null, 2)}</pre>
      </details>
    </>
  );
}

function AlertTimes({ event, end }: { event: StoredEvent; end: StoredEvent | null }) {
  const { alert, raised } = alertOf(event);
  const interval: Interval = {
    type: "alert",
    event,
    alert,
    raised: raised ? event : null,
    cleared: raised ? end : event,
    open: raised && end === null,
  };
  return (
    <>
      <dt>Held</dt>
      <dd>{held(interval, now.value)}</dd>
      {end && <dt>Cleared</dt>}
      {end && (
        <dd>
          <time dateTime={end.time}>{when(end.time)}</time>
        </dd>
      )}
    </>
  );
}

function Pictures({ event }: { event: StoredEvent }) {
  const lost = useSignal<readonly string[]>([]);
  const all = event.attachments ?? [];
  if (all.length === 0) return null;
  return (
    <div class="event-pictures">
      {all.map(({ digest }, index) =>
        lost.value.includes(digest) ? (
          <p key={digest} class="quiet">
            Picture {index + 1} is no longer stored; <code>attachments_hours</code> and{" "}
            <code>attachments_mb</code> say how long pictures are kept.
          </p>
        ) : (
          <img
            key={digest}
            src={path("attachments", digest)}
            alt={`Picture ${index + 1} of ${all.length}: ${title(event)}`}
            onError={() => (lost.value = [...lost.value, digest])}
          />
        ),
      )}
    </div>
  );
}
