// Joins pictures with the results of their frames, by the time that both carry.
import { type Result, moved } from "./motion";
import type { Detection } from "../api/types";

/** `exact` holds a picture until its boxes are there; `live` draws it at once. */
export type Mode = "exact" | "live";

/** A decoded picture. Whoever has it closes it: its pixels are outside of the page's own memory. */
export interface Picture {
  pts: number;
  /** When its unit arrived: of `performance.now()`. */
  arrived: number;
  /** It was old when it arrived, as the units of a joiner's first GOP are: drawn only if last. */
  stale: boolean;
  /** Its pixels change by themselves, as a video element's do: to be drawn at once. */
  fleeting: boolean;
  /** Milliseconds from its receipt by the host until it was decoded. */
  latency: number;
  /** An EXIF orientation less 1. */
  turn: number;
  /** Size before it is turned. */
  width: number;
  height: number;
  source: CanvasImageSource;
  close(): void;
}

export interface Joined {
  picture: Picture;
  boxes: Boxes | null;
}

export interface Boxes {
  /** The picture whose result this is, in nanoseconds. */
  pts: number;
  /** They were found in this very picture. */
  exact: boolean;
  /** No model ran on the picture that they are of: they were followed or extrapolated. */
  followed: boolean;
  /** Size of the frame in which the boxes are given. */
  width: number;
  height: number;
  items: { detection: Detection; box: readonly [number, number, number, number] }[];
}

/** Longest hold: beyond it a view is not live. */
const LONGEST_HOLD_MS = 300;
/** What comes on top of what 95 of 100 took: it costs nothing where the boxes do come. */
const MARGIN = 1.5;
const MARGIN_MS = 20;
/** Held pictures: decoders lend few, and stop when all are lent. */
const MOST_HELD = 8;
/** Results that wait for their pictures, and delays that tell how long a picture must wait. */
const RESULTS = 32;
const DELAYS = 100;
const DECODED = 128;
/** More due pictures than this: it draws the newest. Fewer are drawn one after the other. */
const MOST_DUE = 3;
/** Boxes older than this are not shown with a picture: the session may have ended. */
const BOXES_NS = 2e9;

export class Joiner {
  mode: Mode = "exact";
  #held: { picture: Picture; decoded: number }[] = [];
  #results: Result[] = [];
  #delays: number[] = [];
  /** When each of the last pictures was decoded: its result's delay counts from there. */
  #decoded = new Map<number, number>();

  /** A decoded picture; pictures come in the order of their times. */
  push(picture: Picture, now: number): void {
    // The source began anew: what is held belongs to its past.
    const newest = this.#held.at(-1)?.picture;
    if (newest !== undefined && picture.pts < newest.pts) this.#drop(this.#held.length);
    this.#held.push({ picture, decoded: now });
    if (this.#held.length > MOST_HELD) this.#drop(1);
    if (!picture.stale) this.#decoded.set(picture.pts, now);
    if (this.#decoded.size > DECODED) {
      const [oldest] = this.#decoded.keys();
      if (oldest !== undefined) this.#decoded.delete(oldest);
    }
  }

  result(result: Result, now: number): void {
    const newest = this.#results.at(-1);
    if (newest !== undefined && result.pts < newest.pts) this.#results = [];
    this.#results.push(result);
    if (this.#results.length > RESULTS) this.#results.shift();
    const decoded = this.#decoded.get(result.pts);
    if (decoded === undefined) return;
    this.#delays.push(now - decoded);
    if (this.#delays.length > DELAYS) this.#delays.shift();
  }

  /** Milliseconds that a picture waits for its boxes: somewhat longer than 95 of 100 took. */
  get hold(): number {
    if (this.mode === "live" || this.#delays.length === 0) return 0;
    const sorted = [...this.#delays].sort((one, other) => one - other);
    const rank = Math.ceil(sorted.length * 0.95) - 1;
    return Math.min((sorted[rank] ?? 0) * MARGIN + MARGIN_MS, LONGEST_HOLD_MS);
  }

  get holding(): number {
    return this.#held.length;
  }

  /**
   * The picture that is to be drawn now, if one is. A picture is due when its boxes are there, when
   * those of a later one are, since the pipeline has skipped it then, and when it has waited
   * enough. What comes before the picture is closed and never drawn.
   */
  take(now: number): Joined | null {
    const hold = this.hold;
    const newest = this.#results.at(-1)?.pts ?? Number.NEGATIVE_INFINITY;
    const due = this.#held.filter(
      ({ picture, decoded }) =>
        picture.stale || picture.fleeting || picture.pts <= newest || now - decoded >= hold,
    ).length;
    if (due === 0) return null;
    const fresh = this.#held.slice(0, due).findIndex(({ picture }) => !picture.stale);
    const late = fresh < 0 || due - fresh > MOST_DUE || this.mode === "live";
    this.#drop(late ? due - 1 : fresh);
    const picture = this.#held.shift()?.picture;
    return picture === undefined ? null : { picture, boxes: this.boxes(picture.pts) };
  }

  /** The boxes of a picture, by its own result or the last one before. */
  boxes(pts: number): Boxes | null {
    const found = this.#exact(pts) ?? this.#results.filter(result => result.pts <= pts).at(-1);
    if (found === undefined || pts - found.pts > BOXES_NS) return null;
    const before = this.#results.filter(result => result.pts < found.pts).at(-1) ?? null;
    const places = moved(found, before, pts);
    const items = found.detections.flatMap((detection, index) => {
      const box = places[index];
      return box === undefined ? [] : [{ detection, box }];
    });
    const { width, height, followed } = found;
    return { pts: found.pts, exact: found.pts === pts, followed, width, height, items };
  }

  /** Closes all that is held. */
  clear(): void {
    this.#drop(this.#held.length);
    this.#results = [];
    this.#decoded.clear();
  }

  #exact(pts: number): Result | null {
    return this.#results.find(result => result.pts === pts) ?? null;
  }

  #drop(count: number): void {
    for (const { picture } of this.#held.splice(0, count)) picture.close();
  }
}
