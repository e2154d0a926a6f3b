// The clip of an event: it is asked for until it is recorded, and then played.
import { useEffect } from "preact/hooks";
import { useSignal } from "@preact/signals";
import { noteUnauthorized, path } from "../api/client";
import type { StoredEvent } from "../api/types";
import { title } from "./words";

/** Milliseconds to the next question where the host does not say. */
const ASK_AGAIN_MS = 2000;
/** Questions: a clip that events share is whole some three minutes after the first of them. */
const MOST_QUESTIONS = 120;

type Shown = "asking" | "recording" | "ready" | "none" | "failed" | "unplayable";

/** Where the clip of an event is. */
function clipPath({ session, seq }: { session: string; seq: number }): string {
  return path("events", `${session}:${seq}`, "clip.mp4");
}

export function Clip({ event }: { event: StoredEvent }) {
  const shown = useSignal<Shown>("asking");
  const where = clipPath(event);
  useEffect(() => {
    const leaving = new AbortController();
    shown.value = "asking";
    void follow(where, leaving.signal, state => (shown.value = state));
    return () => leaving.abort();
  }, [where]);

  switch (shown.value) {
    case "asking":
      return null;
    case "recording":
      return (
        <p class="quiet" role="status">
          The clip is being recorded …
        </p>
      );
    case "none":
      return (
        <p class="quiet">
          The clip is no longer stored, or was not recorded; <code>clips_hours</code> and{" "}
          <code>clips_mb</code> say how long clips are kept.
        </p>
      );
    case "failed":
      return <p class="quiet">The host did not answer when it was asked for the clip.</p>;
    case "unplayable":
      return (
        <p>
          This browser does not play the clip.{" "}
          <a href={where} download={`${event.session}-${event.seq}.mp4`}>
            Download it
          </a>
        </p>
      );
    case "ready":
      return (
        <video
          class="event-clip"
          src={where}
          controls
          muted
          playsInline
          preload="metadata"
          aria-label={`Clip: ${title(event)}`}
          onError={() => (shown.value = "unplayable")}
        />
      );
  }
}

/** Asks for a clip until it is there, or it is clear that it never is. */
async function follow(
  where: string,
  signal: AbortSignal,
  show: (state: Shown) => void,
): Promise<void> {
  for (let question = 0; question < MOST_QUESTIONS; question += 1) {
    const begun = performance.now();
    let answer: Response;
    try {
      answer = await fetch(where, { method: "HEAD", credentials: "same-origin", signal });
    } catch {
      if (!signal.aborted) show("failed");
      return;
    }
    noteUnauthorized(answer, begun);
    if (answer.ok) return show("ready");
    const seconds = answer.headers.get("retry-after");
    if (answer.status !== 404) return show("failed");
    if (seconds === null) return show("none");
    show("recording");
    await pause(Number(seconds) * 1000 || ASK_AGAIN_MS, signal);
    if (signal.aborted) return;
  }
  show("none");
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
