import { useEffect, useState } from "preact/hooks";
import { on } from "../../state/live";

/** Messages that are shown: more scroll by faster than anybody reads. */
const MOST = 20;
/** Milliseconds between two looks at what has come. */
const EVERY_MS = 500;

/** What subscribers of the session get, as it is on the wire. */
export function RawMessages({ session }: { session: string }) {
  const [shown, setShown] = useState<readonly string[]>([]);
  const [paused, setPaused] = useState(false);
  useEffect(() => {
    if (paused) return;
    let newest: string[] = [];
    let fresh = false;
    const keep = (message: { session?: string }) => {
      if (message.session !== session) return;
      newest = [...newest, JSON.stringify(message)].slice(-MOST);
      fresh = true;
    };
    const ends = [
      on("detections", keep),
      on("event", keep),
      on("session", keep),
      on("lagged", keep),
      on("error", keep),
    ];
    const timer = setInterval(() => {
      if (fresh) setShown(newest);
      fresh = false;
    }, EVERY_MS);
    return () => {
      clearInterval(timer);
      for (const end of ends) end();
    };
  }, [session, paused]);
  return (
    <>
      <p>
        <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? "Go on" : "Pause"}
        </button>
      </p>
      <pre class="camera-text" role="region" tabIndex={0} aria-label={`Messages of ${session}`}>
        {shown.length === 0 ? "No message yet." : shown.join("\n")}
      </pre>
    </>
  );
}
