/**
 * A small tracker: the same number for the same object from frame to frame.
 *
 * Boxes are matched by overlap, greedily, the best pair first. That is enough for objects that
 * move less than their own size between two frames; the tracker of the Rust SDK predicts their
 * motion besides.
 */

import { Box } from './boxes.js';

/** Tracks of one camera. */
export class Tracker {
  #tracks = [];
  #next = 1;

  constructor({ iou = 0.3, hits = 2, lostS = 1 } = {}) {
    Object.assign(this, { iou, hits, lostS });
  }

  /** The confirmed ones. */
  get tracks() {
    return this.#tracks.filter((track) => track.announced);
  }

  /** Matches the boxes of a frame with the tracks. `seconds` is `frame.seconds`. */
  update(found, seconds) {
    const matched = this.#match(found);
    const began = [];
    found.forEach(({ box, score, class: number = 0 }, place) => {
      let track = matched.get(place);
      if (track === undefined) {
        track = { number: this.#next++, class: number, firstSeen: seconds, hits: 0 };
        track.announced = false;
        this.#tracks.push(track);
        matched.set(place, track);
      }
      Object.assign(track, { box, score, lastSeen: seconds, hits: track.hits + 1 });
      if (track.hits >= this.hits && !track.announced) {
        track.announced = true;
        began.push(track);
      }
    });
    // Seen later than now: the source has begun anew since, and counts its time from 0.
    const isOver = ({ lastSeen }) => lastSeen > seconds || seconds - lastSeen > this.lostS;
    const ended = this.#tracks.filter((track) => isOver(track) && track.announced);
    this.#tracks = this.#tracks.filter((track) => !isOver(track));
    const tracks = found.map((_, place) => {
      const track = matched.get(place);
      return track.announced ? track : undefined;
    });
    return { tracks, began, ended };
  }

  #match(found) {
    const pairs = [];
    found.forEach((one, place) => {
      for (const track of this.#tracks) {
        if (track.class !== (one.class ?? 0)) continue;
        const overlap = track.box.iou(one.box);
        if (overlap >= this.iou) pairs.push([overlap, place, track]);
      }
    });
    pairs.sort((a, b) => b[0] - a[0] || a[1] - b[1] || a[2].number - b[2].number);
    const matched = new Map();
    const numbers = new Set();
    for (const [, place, track] of pairs) {
      if (matched.has(place) || numbers.has(track.number)) continue;
      matched.set(place, track);
      numbers.add(track.number);
    }
    return matched;
  }

  /** The tracks as JSON, for a snapshot. */
  state() {
    const tracks = this.#tracks.map(({ box, ...track }) => ({
      ...track,
      box: [box.left, box.top, box.right, box.bottom],
    }));
    return { next: this.#next, tracks };
  }

  /** Takes over what `state()` gave; anything else is thrown at and changes nothing. */
  restore(state) {
    const whole = (value) => Number.isSafeInteger(value) && value >= 0;
    const tracks = state.tracks.map((held) => {
      const box = new Box(...held.box);
      const times = [held.firstSeen, held.lastSeen, held.score];
      const right = whole(held.class) && whole(held.hits) && times.every(Number.isFinite);
      if (!right || !box.proper || !(held.number > 0 && held.number < state.next)) {
        throw new TypeError(`track ${held.number} makes no sense`);
      }
      const { number, class: kind, firstSeen, lastSeen, score, hits } = held;
      const announced = held.announced === true;
      return { number, class: kind, firstSeen, lastSeen, score, hits, announced, box };
    });
    if (!whole(state.next)) throw new TypeError('the next number makes no sense');
    this.#tracks = tracks;
    this.#next = state.next;
  }
}
