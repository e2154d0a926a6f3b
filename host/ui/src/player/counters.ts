// What the players have done, for tests and for a look from the browser's console:
// `__ocelli.players.gate`.
import type { RungName } from "./ladder";

/** Samples that are kept of each kind: a page that is open for a week does not grow. */
const SAMPLES = 600;

interface DrawnBoxes {
  /** The picture that was drawn, and the one whose result the boxes are. */
  picture: number;
  result: number;
  exact: boolean;
  followed: boolean;
  boxes: { label: string; track: number | null; box: [number, number, number, number] }[];
}

export interface Counters {
  rung: RungName | null;
  reason: string;
  received: number;
  drawn: number;
  /** Left out by the page's own rule. */
  dropped: number;
  /** Times that the host left pictures out. */
  discontinuities: number;
  /** `presentation_ns` of the picture drawn last. */
  last: number | null;
  /** Milliseconds from receipt by the host to the decoded picture, and to the drawn one. */
  decodeMs: number[];
  drawMs: number[];
  /** Milliseconds from `watch` to the first picture. */
  joinMs: number | null;
  /** The newest drawn pictures, with the boxes that were drawn on them. */
  boxes: DrawnBoxes[];
}

interface Shown {
  players: Record<string, Counters>;
}

const shown: Shown = { players: {} };
Object.assign(globalThis, { __ocelli: shown });

/** The counters of a session's player; new ones take the place of those of a player before. */
export function counters(session: string): Counters {
  const fresh: Counters = {
    rung: null,
    reason: "",
    received: 0,
    drawn: 0,
    dropped: 0,
    discontinuities: 0,
    last: null,
    decodeMs: [],
    drawMs: [],
    joinMs: null,
    boxes: [],
  };
  shown.players[session] = fresh;
  return fresh;
}

/** Ends them, unless a newer player has the name. */
export function forget(session: string, own: Counters): void {
  if (shown.players[session] === own) delete shown.players[session];
}

/** Appends a sample, and lets the oldest go. */
export function sample<T>(samples: T[], value: T): void {
  samples.push(value);
  if (samples.length > SAMPLES) samples.shift();
}
