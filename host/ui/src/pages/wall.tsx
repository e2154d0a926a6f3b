import { useEffect, useRef, useState } from "preact/hooks";
import type { Pictures, Session } from "../api/types";
import type { Player } from "../player/player";
import { PlayerView } from "../player/view";
import { pathOf, query, setQuery } from "../router";
import { mayAdmin } from "../state/me";
import { lastResult, listing, refreshSessions, sessions } from "../state/sessions";
import { visible } from "../state/visible";
import { Empty } from "../ui/empty";
import { Failure } from "../ui/failure";
import { Link } from "../ui/link";
import { Status } from "../ui/status";
import { local, now, span } from "../ui/time";
import "./wall.css";

/** Pixels around the window within which a tile already gets pictures: scrolling finds it ready. */
const MARGIN = "200px";
/** Tiles of a wall that is not filtered; a filter is offered from here on. */
const MANY = 9;
/** A result older than this is told as old. */
const OLD_MS = 10_000;

/** All cameras: live pictures of those that are visible, and how each is. */
export default function WallPage() {
  const list = listing.value;
  const all = [...sessions.value.values()];
  const typed = query.value.get("find") ?? "";
  const wanted = typed.toLowerCase();
  const shown = all.filter(({ id }) => id.toLowerCase().includes(wanted));
  if (list.state === "failed" && all.length === 0) {
    const retry = () => void refreshSessions();
    return <Failure what="The cameras cannot be shown" error={list.reason} retry={retry} />;
  }
  if (list.state === "loading") return <p class="quiet">Loading …</p>;
  if (all.length === 0) return <NoCameras />;
  return (
    <>
      <div class="bar">
        <h1>Cameras</h1>
        <Summary all={all} />
        {(all.length >= MANY || wanted !== "") && (
          <input
            type="search"
            aria-label="Find a camera by its name"
            placeholder="Find"
            value={typed}
            onInput={event => setQuery({ find: event.currentTarget.value })}
          />
        )}
      </div>
      {shown.length === 0 && <p>No camera's name has “{wanted}” in it.</p>}
      <ul class="wall">
        {shown.map(session => (
          <Tile key={session.id} session={session} alone={all.length === 1} />
        ))}
      </ul>
    </>
  );
}

function NoCameras() {
  return (
    <Empty title="No camera yet">
      <p>
        A camera shows up here with its live picture, what its pipeline finds, and whether it is
        well.
      </p>
      {mayAdmin.value ? (
        <p>
          <Link class="button" href="/add">
            Add a camera
          </Link>
        </p>
      ) : (
        <p>Cameras that your token may see appear here. Ask the operator to add some.</p>
      )}
    </Empty>
  );
}

function Summary({ all }: { all: readonly Session[] }) {
  const bad = all.filter(({ state }) => state !== "running").length;
  const raised = all.filter(({ alerts }) => alerts.length > 0).length;
  return (
    <span class="quiet" role="status">
      {all.length - bad} of {all.length} running
      {raised > 0 && `, ${raised} with alerts`}
    </span>
  );
}

/** Whether an element is in the window, or close to it. */
function useNear(element: { current: Element | null }): boolean {
  const [near, setNear] = useState(false);
  useEffect(() => {
    if (element.current === null) return;
    const seen = new IntersectionObserver(
      entries => setNear(entries.at(-1)?.isIntersecting ?? false),
      { rootMargin: MARGIN },
    );
    seen.observe(element.current);
    return () => seen.disconnect();
  }, [element]);
  return near;
}

function Tile({ session, alone }: { session: Session; alone: boolean }) {
  const { id, state } = session;
  const item = useRef<HTMLLIElement>(null);
  const near = useNear(item);
  const [focused, setFocused] = useState(false);
  const [player, setPlayer] = useState<Player | null>(null);
  const seen = near && visible.value;
  // The one in focus moves; of the others each key picture is enough.
  const pictures: Pictures = !seen ? "none" : focused || alone ? "all" : "key";
  return (
    <li
      ref={item}
      class={`tile tile-${state}`}
      onPointerEnter={() => setFocused(true)}
      onPointerLeave={() => setFocused(false)}
      onFocusCapture={() => setFocused(true)}
      onBlurCapture={() => setFocused(false)}
    >
      <Link href={pathOf("cameras", id)}>
        {near || player !== null ? (
          <PlayerView
            session={id}
            pictures={pictures}
            mode="exact"
            label={`Picture of ${id}`}
            onPlayer={setPlayer}
          />
        ) : (
          <div class="player" />
        )}
        <Trouble session={session} player={player} />
        <span class="tile-foot">
          <strong>{id}</strong>
          <Status state={state} />
          <Age session={session} player={player} />
        </span>
      </Link>
      {session.alerts.length > 0 && (
        <Link
          class="tile-alerts"
          href={`/events?${new URLSearchParams({ camera: id, kind: "alert" })}`}
        >
          <Status state="degraded" bare /> {session.alerts.join(", ").replaceAll("_", " ")}
        </Link>
      )}
    </li>
  );
}

/** Since when this page knows of the state; the host's own time of an error is better. */
function useSince(state: Session["state"]): number {
  const since = useRef({ state, at: Date.now() });
  if (since.current.state !== state) since.current = { state, at: Date.now() };
  return since.current.at;
}

/** "offline since … because …", over the last picture. */
function Trouble({ session, player }: { session: Session; player: Player | null }) {
  const { state, reason, last_error: error, last_error_time: time } = session;
  const noticed = useSince(state);
  if (state === "running") {
    if (player === null || player.drawn.value !== null) return null;
    return <p class="tile-trouble quiet">Waiting for the first picture …</p>;
  }
  const since = time === null ? noticed : Math.min(Date.parse(time), noticed);
  const why = reason ?? error;
  const name = state === "degraded" ? "offline" : state;
  return (
    <p class="tile-trouble">
      <strong>
        {name} since {local(since)} ({span(now.value - since)})
      </strong>
      {why !== null && <span>because {why}</span>}
    </p>
  );
}

/** How old the last result is. */
function Age({ session, player }: { session: Session; player: Player | null }) {
  // Once a second is enough: results come more often.
  const time = now.value;
  const last = lastResult(session.id).peek();
  // A tile that gets no pictures gets no results.
  if (last === null || player === null) return null;
  const age = time - last.at;
  const count = last.message.detections.length;
  return (
    <span class={age > OLD_MS ? "tile-age old" : "tile-age"}>
      {count} found, {span(age)} ago
    </span>
  );
}
