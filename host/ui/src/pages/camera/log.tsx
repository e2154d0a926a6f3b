import { useEffect, useRef, useState } from "preact/hooks";
import { path, request } from "../../api/client";
import { visible } from "../../state/visible";
import { Failure } from "../../ui/failure";

const LINES = 200;
const EVERY_MS = 3000;

/** The end of the session's log, which goes on while it is open. */
export function LogTail({ session }: { session: string }) {
  const [lines, setLines] = useState<readonly string[] | null>(null);
  const [failure, setFailure] = useState<unknown>(null);
  const text = useRef<HTMLPreElement>(null);
  useEffect(() => {
    const ending = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      try {
        if (visible.peek()) {
          const where = path("sessions", session, "log");
          const options = { query: { lines: LINES }, signal: ending.signal };
          setLines((await request<{ lines: string[] }>(where, options)).lines);
          setFailure(null);
        }
      } catch (error) {
        if (!ending.signal.aborted) setFailure(error);
      }
      if (!ending.signal.aborted) timer = setTimeout(() => void look(), EVERY_MS);
    };
    void look();
    return () => {
      clearTimeout(timer);
      ending.abort();
    };
  }, [session]);
  useEffect(() => {
    // The newest line is the last.
    if (text.current !== null) text.current.scrollTop = text.current.scrollHeight;
  }, [lines?.at(-1)]);
  if (failure !== null) return <Failure what="The log cannot be shown" error={failure} />;
  if (lines === null) return <p class="quiet">Loading …</p>;
  if (lines.length === 0) return <p class="quiet">The log has no line of this session yet.</p>;
  return (
    <pre ref={text} class="camera-text" role="region" tabIndex={0} aria-label={`Log of ${session}`}>
      {lines.join("\n")}
    </pre>
  );
}
