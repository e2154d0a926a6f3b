import type { HostPart, SessionState } from "../api/types";

/** Kinds of states, each with a shape of its own. */
export type MarkKind = "good" | "busy" | "warn" | "bad" | "off";

/** How a state looks: each kind has a shape of its own beside its colour. */
const KINDS: Record<SessionState | HostPart["state"], MarkKind> = {
  starting: "busy",
  restarting: "busy",
  running: "good",
  ok: "good",
  degraded: "warn",
  failed: "bad",
  stopped: "off",
};

const SHAPES: Record<MarkKind, string> = {
  // A disc, a ring, a triangle, a cross, a dash.
  good: "M6 1.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9z",
  busy: "M6 1a5 5 0 1 0 5 5H9a3 3 0 1 1-3-3z",
  warn: "M6 .8 11.6 11H.4z",
  bad: "M2.6 1 6 4.4 9.4 1 11 2.6 7.6 6 11 9.4 9.4 11 6 7.6 2.6 11 1 9.4 4.4 6 1 2.6z",
  off: "M1 4.8h10v2.4H1z",
};

/** A state by shape, colour and, unless `bare`, its word. Bare ones name it to screen readers. */
export function Status({ state, bare = false }: { state: keyof typeof KINDS; bare?: boolean }) {
  return <Mark kind={KINDS[state]} label={state} bare={bare} />;
}

/** Any state of a kind, by its word. */
export function Mark(props: { kind: MarkKind; label: string; bare?: boolean }) {
  const { kind, label: word, bare = false } = props;
  const label = bare ? { role: "img" as const, "aria-label": word } : { "aria-hidden": true };
  return (
    <span class={`status status-${kind}`}>
      <svg viewBox="0 0 12 12" width="12" height="12" {...label}>
        <path d={SHAPES[kind]} />
      </svg>
      {!bare && <span>{word}</span>}
    </span>
  );
}
