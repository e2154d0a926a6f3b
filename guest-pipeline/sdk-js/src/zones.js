/**
 * Zones: parts of the picture, which tracks are in them, and for how long.
 *
 * A track is where its foot point is. A detector's boxes tremble, so a track enters when a second
 * frame in a row finds it inside and leaves when a second one finds it outside.
 */

/** Whether a point lies in a polygon, by the even-odd rule. */
export function contains(polygon, x, y) {
  let inside = false;
  let [bx, by] = polygon[polygon.length - 1];
  for (const [ax, ay] of polygon) {
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    [bx, by] = [ax, ay];
  }
  return inside;
}

/** A polygon with a name. Corners are parts of the picture, 0 to 1. */
export class Zone {
  #present = new Map();

  constructor(name, polygon) {
    if (polygon.length < 3) {
      throw new RangeError(`zone ${name} has ${polygon.length} corners, 3 are the least`);
    }
    this.name = name;
    this.polygon = polygon;
  }

  /** What the frame at `seconds`, of `width` x `height` pixels, changes. */
  update(tracks, ended, seconds, width, height) {
    const changes = ended.map((track) => this.#leave(track, track.lastSeen));
    for (const track of tracks) {
      if (track.lastSeen !== seconds) continue;
      const [x, y] = track.box.foot;
      // An object that the picture's edge cuts off stands on the edge.
      const there = contains(this.polygon, x / width, Math.min(y / height, 1 - 1e-5));
      const presence = this.#present.get(track.number);
      if (presence === undefined) {
        if (there) this.#present.set(track.number, { since: seconds, inside: false });
      } else if (there) {
        presence.outSince = undefined;
        // Later than now: the source has begun anew, and counts its time from 0.
        presence.since = Math.min(presence.since, seconds);
        if (!presence.inside) changes.push({ zone: this.name, track });
        presence.inside = true;
      } else if (presence.inside && presence.outSince === undefined) {
        presence.outSince = seconds;
      } else {
        changes.push(this.#leave(track, seconds));
      }
    }
    return changes.filter((change) => change !== undefined);
  }

  /** Seconds that a track has been inside; 0 for one that is not. */
  dwell(track, seconds) {
    const presence = this.#present.get(track.number);
    return presence?.inside ? seconds - presence.since : 0;
  }

  #leave(track, seconds) {
    const presence = this.#present.get(track.number);
    this.#present.delete(track.number);
    if (!presence?.inside) return undefined;
    const dwell = Math.max(0, (presence.outSince ?? seconds) - presence.since);
    return { zone: this.name, track, dwell };
  }

  /** Who is inside, as JSON, for a snapshot. */
  state() {
    return [...this.#present].map(([number, presence]) => ({ number, ...presence }));
  }

  /** Takes over what `state()` gave. */
  restore(state) {
    this.#present = new Map(
      state.map(({ number, since, inside, outSince }) => {
        if (!Number.isSafeInteger(number) || !Number.isFinite(since)) {
          throw new TypeError(`the presence of track ${number} makes no sense`);
        }
        return [number, { since, inside: inside === true, outSince }];
      }),
    );
  }
}
