// Which units a decoder gets: a page that cannot keep up skips pictures instead of falling behind.

/** More units than this in the decoder: it is slower than the camera. */
const MOST_WAITING = 8;
/** A picture older than this is not live. */
const OLDEST_MS = 500;
/** So many skips within so long: this way of decoding is too slow here. */
const TRIPS = 3;
const TRIPS_MS = 10_000;
/** A joiner's first units are old: the GOP from its key unit on. So long they may take. */
const JOINING_MS = 4000;

/** `alone`: to be decoded, but none after it up to the next key unit. */
type Verdict = "decode" | "alone" | "skip";

export class DropRule {
  /** Nothing is decoded before the next key unit. */
  #skipping = true;
  #joinedAt: number | null = null;
  #caughtUp = false;
  #trips: number[] = [];
  /** Units left out by this rule. */
  skipped = 0;

  /** A new stream begins: the host sends the GOP that it keeps. */
  restart(): void {
    this.#skipping = true;
    this.#joinedAt = null;
    this.#caughtUp = false;
  }

  /** A decoder failed: the next needs a key unit. */
  needKey(): void {
    this.#skipping = true;
  }

  /** What becomes of a unit; `waiting` is the decoder's queue, `late` of `Lateness`. */
  judge(key: boolean, waiting: number, late: number, now: number): Verdict {
    if (this.#joinedAt === null && key) this.#joinedAt = now;
    if (late < OLDEST_MS && waiting <= MOST_WAITING) this.#caughtUp ||= this.#joinedAt !== null;
    const joining = !this.#caughtUp && this.#joinedAt !== null && now - this.#joinedAt < JOINING_MS;
    const swamped = !joining && waiting > MOST_WAITING;
    const old = !joining && late > OLDEST_MS;
    if (key && !swamped) {
      // An old key unit is still the newest picture that there is: a slow link brings no other.
      this.#skipping = old;
      return old ? "alone" : "decode";
    }
    // One that has not taken what it had by the next key unit is too slow once more. What comes
    // late says nothing of the decoder.
    if (swamped && !old && (key || !this.#skipping)) this.#trips.push(now);
    if (swamped || old) this.#skipping = true;
    if (!this.#skipping) return "decode";
    this.skipped += 1;
    return "skip";
  }

  /** Whether it has skipped so often that a simpler way of decoding is due; asking clears that. */
  tooSlow(now: number): boolean {
    this.#trips = this.#trips.filter(at => now - at < TRIPS_MS);
    if (this.#trips.length < TRIPS) return false;
    this.#trips = [];
    return true;
  }
}
