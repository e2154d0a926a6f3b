import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Session } from "../api/types";
import type { Mode } from "../player/joiner";
import type { Player } from "../player/player";
import { PlayerView } from "../player/view";
import { pathOf, query, setQuery } from "../router";
import { mayOperate } from "../state/me";
import { listing, sessions } from "../state/sessions";
import { visible } from "../state/visible";
import { NoCamera } from "../ui/empty";
import { Link } from "../ui/link";
import { Status } from "../ui/status";
import { Actions } from "./camera/actions";
import Charts from "./camera/charts";
import { Figures, Restarts, Skips } from "./camera/figures";
import { LogTail } from "./camera/log";
import { RawMessages } from "./camera/messages";
import { StatsHistory } from "./camera/stats";
import "./camera.css";

/** Live pictures, rates and latencies of one camera. */
export default function CameraPage({ id }: { id: string }) {
  const session = sessions.value.get(id);
  if (session !== undefined) return <Camera session={session} />;
  if (listing.value.state === "loading") return <p class="quiet">Loading …</p>;
  return <NoCamera id={id} />;
}

function Camera({ session }: { session: Session }) {
  const { id, state, reason } = session;
  const mode: Mode = query.value.get("boxes") === "live" ? "live" : "exact";
  const [player, setPlayer] = useState<Player | null>(null);
  const [history, setHistory] = useState<StatsHistory | null>(null);
  useEffect(() => {
    const made = new StatsHistory(id);
    setHistory(made);
    return () => made.close();
  }, [id]);
  const looks = history?.looks.value ?? [];
  const stats = looks.at(-1)?.stats ?? null;
  return (
    <>
      <div class="bar">
        <h1>{id}</h1>
        <Status state={state} />
        <nav class="actions" aria-label={`Pages of ${id}`}>
          <Link class="button" href={`/events?camera=${encodeURIComponent(id)}`}>
            Events
          </Link>
          <Link class="button" href={pathOf("deployments", id)}>
            Deployments
          </Link>
          {mayOperate.value && (
            <Link class="button" href={pathOf("zones", id)}>
              Zones and settings
            </Link>
          )}
        </nav>
        <Actions session={id} />
      </div>
      {reason !== null && (
        <p class={state === "failed" ? "banner bad" : "banner warn"} role="status">
          {reason}
        </p>
      )}
      <div class="camera">
        <div>
          <PlayerView
            session={id}
            pictures={visible.value ? "all" : "none"}
            mode={mode}
            label={`Picture of ${id}`}
            onPlayer={setPlayer}
          />
          <Modes mode={mode} />
        </div>
        <aside class="panel" aria-label="Figures">
          <Figures session={session} stats={stats} player={player} />
          {history?.failure.value && <p class="quiet">{history.failure.value}</p>}
        </aside>
      </div>
      {looks.length > 0 && <Charts looks={looks} />}
      <div class="camera-more">
        <More title="Skipped frames">{() => <Skips session={session} stats={stats} />}</More>
        <More title="Restarts">{() => <Restarts stats={stats} />}</More>
        {mayOperate.value && <More title="Log">{() => <LogTail session={id} />}</More>}
        <More title="Raw messages">{() => <RawMessages session={id} />}</More>
      </div>
    </>
  );
}

function Modes({ mode }: { mode: Mode }) {
  const choose = (to: Mode) => setQuery({ boxes: to === "exact" ? null : to });
  return (
    <div class="camera-modes" role="group" aria-label="How boxes are drawn">
      <button type="button" aria-pressed={mode === "exact"} onClick={() => choose("exact")}>
        Exact
      </button>
      <button type="button" aria-pressed={mode === "live"} onClick={() => choose("live")}>
        Live
      </button>
      <span class="quiet">
        {mode === "exact"
          ? "Each picture waits for its own boxes, 300 ms at most."
          : "Pictures come at once; boxes follow, dimmed and dashed, by their tracks' speed."}
      </span>
    </div>
  );
}

/** A section that is made only while it is open. */
function More({ title, children }: { title: string; children: () => ComponentChildren }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="panel" onToggle={event => setOpen(event.currentTarget.open)}>
      <summary>{title}</summary>
      {open && children()}
    </details>
  );
}
