// How late a picture is: what waited in the host, and what the network added.

/** Milliseconds over which the quickest unit is remembered, in two halves. */
const WINDOW_MS = 10_000;
/** A step of the source's clock beyond this is another clock, not lateness. */
const STEP_MS = 3000;

/**
 * Between host and page no clock is common. The difference between a picture's time and its arrival
 * is constant but for what it waited on the way: what exceeds the least difference of the last
 * seconds is waiting. Pictures that come out of order (B frames) are late by that, which is none.
 */
export class Lateness {
  #newest = Number.NEGATIVE_INFINITY;
  #arrived = 0;
  #reorder = 0;
  /** Least difference of the half that runs, and of the one before. */
  #least = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY] as [number, number];
  #halfBegan = 0;

  /** Milliseconds by which a unit is late on its arrival; all times in milliseconds. */
  of(unit: { pts: number; age: number; arrived: number }): number {
    const pts = unit.pts / 1e6;
    const received = unit.arrived - unit.age;
    const step = pts - this.#newest - (received - this.#arrived);
    if (Math.abs(step) > STEP_MS) this.#forget(pts, received);
    this.#reorder = Math.max(this.#reorder * 0.99, this.#newest - pts);
    this.#newest = Math.max(this.#newest, pts);
    this.#arrived = received;
    const difference = received - this.#newest;
    if (unit.arrived - this.#halfBegan > WINDOW_MS / 2) {
      this.#least = [Number.POSITIVE_INFINITY, this.#least[0]];
      this.#halfBegan = unit.arrived;
    }
    this.#least[0] = Math.min(this.#least[0], difference);
    const waited = difference - Math.min(...this.#least) - this.#reorder;
    return unit.age + Math.max(0, waited);
  }

  #forget(pts: number, received: number): void {
    this.#newest = pts;
    this.#arrived = received;
    this.#reorder = 0;
    this.#least = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  }
}
