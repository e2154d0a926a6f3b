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

/** A picture that is decoded, so that its place on the page has its size from the start. */
interface Loaded {
  url: string;
  width: number;
  height: number;
}

type Shown = { kind: "loading" } | (Loaded & { kind: "latest" | "event" }) | { kind: "none" };

const LOADING: Shown = { kind: "loading" };
const NONE: Shown = { kind: "none" };
/** Between two looks where the camera has no picture of now. */
const LOOK_AGAIN_MS = 5000;
/** Events among which one with a picture is looked for. */
const LOOKED_AT = 50;
/** Pixels: as wide as most pages show it. */
const WIDTH = 1280;

const ALT = { latest: "The latest picture", event: "The picture of the last event" };

/** The latest picture of a session; else that of its last event; else a grid. */
export function Picture({ session, at, ratio = 16 / 9 }: Props) {
  const [shown, setShown] = useState<Shown>(LOADING);
  useEffect(() => {
    const ending = new AbortController();
    let url: string | undefined;
    const show = (next: Shown) => {
      if ("url" in next) {
        if (ending.signal.aborted) return URL.revokeObjectURL(next.url);
        if (url !== undefined) URL.revokeObjectURL(url);
        url = next.url;
      }
      if (!ending.signal.aborted) setShown(next);
    };
    let again: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      const found = await find(session, ending.signal).catch(() => NONE);
      show(found);
      // A camera that starts has a picture soon, newer than its last event's.
      if (found.kind !== "latest" && !ending.signal.aborted)
        again = setTimeout(look, LOOK_AGAIN_MS);
    };
    void look();
    return () => {
      ending.abort();
      clearTimeout(again);
      if (url !== undefined) URL.revokeObjectURL(url);
    };
  }, [session, at]);
  if ("url" in shown) {
    const { kind, url, width, height } = shown;
    const size = { width, height };
    return <img class="still" src={url} {...size} alt={ALT[kind]} draggable={false} />;
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
  if (latest !== null) return { kind: "latest", ...latest };
  const where = path("sessions", session, "events");
  const { newest } = await request<EventPage>(where, { query: { limit: 1 }, signal });
  const query = { limit: LOOKED_AT, after: Math.max(0, newest - LOOKED_AT) };
  const page = await request<EventPage>(where, { query, signal });
  const last = page.events.flatMap(event => event.attachments ?? []).at(-1);
  const stored = last ? await file(path("attachments", last.digest), signal) : null;
  return stored === null ? NONE : { kind: "event", ...stored };
}

async function file(where: string, signal: AbortSignal): Promise<Loaded | null> {
  const answer = await fetch(where, { credentials: "same-origin", cache: "no-store", signal });
  if (!answer.ok) return null;
  const image = new Image();
  image.src = URL.createObjectURL(await answer.blob());
  try {
    await image.decode();
    return { url: image.src, width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    URL.revokeObjectURL(image.src);
    return null;
  }
}
