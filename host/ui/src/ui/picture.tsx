import { useEffect, useState } from "preact/hooks";
import { path, request } from "../api/client";
import type { EventPage } from "../api/types";

interface Props {
  session: string;
  /** A picture is asked for anew when this changes. */
  at: number;
  /** Width by height, where there is no picture that says. */
  ratio?: number | undefined;
}

type Shown = { kind: "loading" } | { kind: "latest" | "event"; url: string } | { kind: "none" };

/** Events among which one with a picture is looked for. */
const LOOKED_AT = 50;
/** Pixels: as wide as most pages show it. */
const WIDTH = 1280;

const ALT = { latest: "The latest picture", event: "The picture of the last event" };

/** The latest picture of a session; else that of its last event; else a grid. */
export function Picture({ session, at, ratio = 16 / 9 }: Props) {
  const [shown, setShown] = useState<Shown>({ kind: "loading" });
  useEffect(() => {
    const ending = new AbortController();
    let url: string | undefined;
    const show = (next: Shown) => {
      if (ending.signal.aborted) return;
      if ("url" in next) url = next.url;
      setShown(next);
    };
    find(session, ending.signal).then(show, () => show({ kind: "none" }));
    return () => {
      ending.abort();
      if (url !== undefined) URL.revokeObjectURL(url);
    };
  }, [session, at]);
  if ("url" in shown) {
    return <img class="still" src={shown.url} alt={ALT[shown.kind]} draggable={false} />;
  }
  const [width, height] = [Math.round(1000 * ratio), 1000];
  return (
    <svg class="still no-picture" viewBox={`0 0 ${width} ${height}`} role="img">
      <title>{shown.kind === "loading" ? "The picture is being loaded" : "No picture yet"}</title>
      {[1, 2, 3].map(n => (
        <path key={n} d={`M0 ${(n * height) / 4}H${width}M${(n * width) / 4} 0V${height}`} />
      ))}
    </svg>
  );
}

async function find(session: string, signal: AbortSignal): Promise<Shown> {
  const latest = await file(`${path("sessions", session, "frame.jpg")}?width=${WIDTH}`, signal);
  if (latest !== null) return { kind: "latest", url: latest };
  const where = path("sessions", session, "events");
  const { newest } = await request<EventPage>(where, { query: { limit: 1 }, signal });
  const query = { limit: LOOKED_AT, after: Math.max(0, newest - LOOKED_AT) };
  const page = await request<EventPage>(where, { query, signal });
  const last = page.events.flatMap(event => event.attachments ?? []).at(-1);
  const stored = last ? await file(path("attachments", last.digest), signal) : null;
  return stored === null ? { kind: "none" } : { kind: "event", url: stored };
}

async function file(where: string, signal: AbortSignal): Promise<string | null> {
  const answer = await fetch(where, { credentials: "same-origin", cache: "no-store", signal });
  return answer.ok ? URL.createObjectURL(await answer.blob()) : null;
}
