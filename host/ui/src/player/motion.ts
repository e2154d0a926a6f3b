// Where the boxes of a result are in a later picture, by the way that their tracks moved.
import type { Detection } from "../api/types";

/** Nanoseconds beyond which a movement is a guess: boxes stay where they were then. */
const FURTHEST_NS = 500e6;
/** Two results further apart than this tell nothing of a speed. */
const APART_NS = 2e9;

export interface Result {
  /** Of its picture, in nanoseconds. */
  pts: number;
  width: number;
  height: number;
  detections: readonly Detection[];
  /** No model ran on its picture: boxes were followed or extrapolated since one did. */
  followed: boolean;
}

type Box = readonly [number, number, number, number];

/** A detection's box as four numbers. */
function boxOf(detection: Detection): Box {
  const [x = 0, y = 0, width = 0, height = 0] = detection.box;
  return [x, y, width, height];
}

/** The boxes of `result` at another time, from how they moved since `before`. */
export function moved(result: Result, before: Result | null, pts: number): Box[] {
  const ahead = Math.max(-FURTHEST_NS, Math.min(FURTHEST_NS, pts - result.pts));
  const apart = before === null ? 0 : result.pts - before.pts;
  return result.detections.map(detection => {
    const now = boxOf(detection);
    const { track } = detection;
    if (track === undefined || apart <= 0 || apart > APART_NS) return now;
    const then = before?.detections.find(one => one.track === track);
    if (then === undefined) return now;
    const past = boxOf(then);
    const at = (index: 0 | 1 | 2 | 3) => now[index] + ((now[index] - past[index]) * ahead) / apart;
    return [at(0), at(1), Math.max(1, at(2)), Math.max(1, at(3))];
  });
}
