import { useEffect } from "preact/hooks";
import { addressOf, close, placeOf } from "../events/address";
import { FilterBar } from "../events/bar";
import { EventDetail } from "../events/detail";
import { type Filters, NONE, isEmpty, read } from "../events/filters";
import { keyOf } from "../events/items";
import { EventList, ROW } from "../events/list";
import { alertName } from "../events/words";
import { navigate, query, setQuery } from "../router";
import * as events from "../state/events";
import { mayAdmin } from "../state/me";
import { sessions } from "../state/sessions";
import { Empty } from "../ui/empty";
import { Failure } from "../ui/failure";
import { Link } from "../ui/link";
import { zoneName } from "../ui/time";
import "./events.css";

/** What the pipelines and the host reported, with pictures: one list of all cameras. */
export default function EventsPage() {
  const filters = read(query.value);
  const place = placeOf(query.value);
  const key = JSON.stringify(filters);
  useEffect(() => events.begin(filters), [key]);
  useEffect(() => events.end, []);
  useEffect(() => {
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
  const all = events.items.value;
  return (
    <div class={place ? "events with-detail" : "events"}>
      <div class="events-main">
        <div class="bar">
          <h1>Events</h1>
          <span class="quiet">Times are local: {zoneName()}.</span>
          <span class="quiet keys">
            <kbd>j</kbd> older, <kbd>k</kbd> newer, <kbd>Enter</kbd> opens, <kbd>Esc</kbd> closes
          </span>
        </div>
        <FilterBar />
        {events.notices.value.map(text => (
          <p key={text} class="banner warn" role="status">
            {text}
          </p>
        ))}
        <OpenAlerts filters={filters} />
        <Fresh />
        {all.length > 0 && <EventList items={all} open={place} />}
        <Foot filters={filters} />
      </div>
      {place && <EventDetail key={keyOf(place)} place={place} />}
    </div>
  );
}

/** The alerts that are raised now: they matter wherever in the list they began. */
function OpenAlerts({ filters }: { filters: Filters }) {
  if (filters.kind !== null && filters.kind !== "alert") return null;
  const open = [...sessions.value.values()]
    .filter(session => filters.camera === null || session.id === filters.camera)
    .flatMap(session => session.alerts.map(alert => ({ session: session.id, alert })));
  if (open.length === 0) return null;
  return (
    <section class="open-alerts" aria-labelledby="open-alerts">
      <h2 id="open-alerts">Raised now</h2>
      <ul>
        {open.map(({ session, alert }) => {
          const item = events.items.value.find(
            one =>
              one.type === "alert" &&
              one.open &&
              one.alert === alert &&
              one.event.session === session,
          );
          const href = item
            ? addressOf(item.event, query.value)
            : `/events?${new URLSearchParams({ camera: session, kind: "alert" })}`;
          return (
            <li key={`${session} ${alert}`}>
              <Link href={href}>{session}</Link>: {alertName(alert)}
            </li>
          );
        })}
      </ul>
    </section>
  );
}

/** What has come since. The list moves when the user wants it to. */
function Fresh() {
  const count = events.freshCount.value;
  const text =
    count === Infinity ? "Many new events" : count === 1 ? "1 new event" : `${count} new`;
  return (
    <div class="fresh" role="status">
      {count > 0 && (
        <button
          type="button"
          class="primary"
          onClick={() => {
            events.showFresh();
            scrollTo(0, 0);
          }}
        >
          {text}: show
        </button>
      )}
    </div>
  );
}

/** How the list ends: more, nothing more, or why it cannot be shown. */
function Foot({ filters }: { filters: Filters }) {
  const progress = events.progress.value;
  const count = events.items.value.length;
  if (progress.state === "failed") {
    const { error } = progress;
    return <Failure what="The events cannot be read" error={error} retry={events.reload} />;
  }
  if (progress.state === "loading") return <p class="quiet">Loading …</p>;
  if (count === 0 && progress.end === "all") return <Nothing filters={filters} />;
  return (
    <footer class="events-foot">
      {progress.end === "more" && (
        <>
          {count === 0 && <p>None of the newer events passes the filters.</p>}
          <button type="button" onClick={() => void events.load()}>
            {count === 0 ? "Search further back" : "Load older events"}
          </button>
        </>
      )}
      {progress.end === "full" && (
        <p>The list is full. Older events are found with the filters, of which Time is one.</p>
      )}
      {progress.end === "all" && <Gone />}
    </footer>
  );
}

/** Where the journals begin. */
function Gone() {
  const gone = [...events.gone.value];
  const [first] = gone;
  if (!first) return <p class="quiet">These are all.</p>;
  const [session, to] = first;
  return (
    <p class="quiet">
      {gone.length === 1
        ? `Events 1 to ${to} of ${session} are no longer stored: `
        : `The first events of ${gone.length} cameras are no longer stored: `}
      they became too old or too many, as <code>[events]</code> in the config says, or the disk had
      no room.
    </p>
  );
}

function Nothing({ filters }: { filters: Filters }) {
  if (!isEmpty(filters)) {
    return (
      <Empty title="No event passes these filters">
        <p>Events that come from now on and pass them appear here by themselves.</p>
        <button type="button" onClick={() => setQuery(NONE)}>
          Clear filters
        </button>
      </Empty>
    );
  }
  if (sessions.value.size === 0) {
    return (
      <Empty title="No cameras, so no events">
        <p>Events are what the pipelines of cameras report.</p>
        {mayAdmin.value && <Link href="/add">Add a camera</Link>}
      </Empty>
    );
  }
  return (
    <Empty title="No events yet">
      <p>
        Pipelines report events: <code>object-detect</code> tells when an object enters or leaves
        the picture, and when it enters or leaves a zone. Draw a zone on a camera's page. The host
        adds alerts and deployments. What comes appears here by itself.
      </p>
    </Empty>
  );
}

function pressed(event: KeyboardEvent): void {
  if (event.metaKey || event.ctrlKey || event.altKey || event.defaultPrevented) return;
  const { target } = event;
  const typing = target instanceof Element && target.closest("input, select, textarea, dialog");
  if (typing) return;
  if (event.key === "Escape") leave();
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else return;
  event.preventDefault();
}

function rows(): HTMLElement[] {
  return [...document.querySelectorAll<HTMLElement>(`.${ROW}`)];
}

/** Closes the open event; the focus goes to its row. */
function leave(): void {
  const place = placeOf(query.peek());
  if (!place) return;
  close();
  // The row may be hidden until the detail is gone.
  requestAnimationFrame(() => {
    rows()
      .find(row => row.dataset["key"] === keyOf(place))
      ?.focus();
  });
}

/** Goes down or up in the list, with the open event if there is one. */
function move(by: 1 | -1): void {
  const all = rows();
  const place = placeOf(query.peek());
  const at = place
    ? all.findIndex(row => row.dataset["key"] === keyOf(place))
    : all.findIndex(row => row === document.activeElement);
  const next = all[at < 0 ? 0 : at + by];
  if (!next) {
    const { value } = events.progress;
    if (by > 0 && value.state === "ready" && value.end === "more") void events.load();
    return;
  }
  next.scrollIntoView({ block: "nearest" });
  if (place) navigate(next instanceof HTMLAnchorElement ? next.href : "/events", true);
  else next.focus();
}
