"""Zones: parts of the picture, which tracks are in them, and for how long.

A track is where its foot point is. A detector's boxes tremble, so a track enters when a second
frame in a row finds it inside and leaves when a second one finds it outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Sequence

from .tracker import Track


def contains(polygon: Sequence[Sequence[float]], x: float, y: float) -> bool:
    """Whether a point lies in a polygon, by the even-odd rule."""
    inside = False
    bx, by = polygon[-1]
    for ax, ay in polygon:
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            inside = not inside
        bx, by = ax, ay
    return inside


@dataclass
class Change:
    """A track that has entered (`dwell` is none) or left a zone after `dwell` seconds."""

    zone: str
    track: Track
    dwell: float | None = None


@dataclass
class _Presence:
    since: float
    inside: bool = False
    out_since: float | None = None


class Zone:
    """A polygon with a name. Corners are parts of the picture, 0 to 1."""

    def __init__(self, name: str, polygon: Sequence[Sequence[float]]) -> None:
        if len(polygon) < 3:
            raise ValueError(f"zone {name!r} has {len(polygon)} corners, 3 are the least")
        self.name, self.polygon = name, [tuple(corner) for corner in polygon]
        self._present: dict[int, _Presence] = {}

    def update(
        self,
        tracks: Iterable[Track],
        ended: Iterable[Track],
        seconds: float,
        width: int,
        height: int,
    ) -> list[Change]:
        """What the frame at `seconds`, of `width` x `height` pixels, changes."""
        changes = [change for track in ended if (change := self._leave(track, track.last_seen))]
        for track in tracks:
            if track.last_seen != seconds:
                continue
            x, y = track.box.foot
            # An object that the picture's edge cuts off stands on the edge.
            y = min(y / height, 1 - 1e-5)
            there = contains(self.polygon, x / width, y)
            presence = self._present.get(track.number)
            if presence is None:
                if there:
                    self._present[track.number] = _Presence(seconds)
            elif there:
                presence.out_since = None
                # Later than now: the source has begun anew, and counts its time from 0.
                presence.since = min(presence.since, seconds)
                if not presence.inside:
                    presence.inside = True
                    changes.append(Change(self.name, track))
            elif presence.inside and presence.out_since is None:
                presence.out_since = seconds
            else:
                change = self._leave(track, seconds)
                changes += [change] if change else []
        return changes

    def dwell(self, track: Track, seconds: float) -> float:
        """Seconds that a track has been inside; 0 for one that is not."""
        presence = self._present.get(track.number)
        return seconds - presence.since if presence and presence.inside else 0.0

    def _leave(self, track: Track, seconds: float) -> Change | None:
        presence = self._present.pop(track.number, None)
        if presence is None or not presence.inside:
            return None
        until = seconds if presence.out_since is None else presence.out_since
        return Change(self.name, track, max(0.0, until - presence.since))

    def state(self) -> Any:
        """Who is inside, as JSON, for a snapshot."""
        return [[number, p.since, p.inside, p.out_since] for number, p in self._present.items()]

    def restore(self, state: Any) -> None:
        """Takes over what `state()` gave."""
        self._present = {
            int(number): _Presence(float(since), bool(inside), None if out is None else float(out))
            for number, since, inside, out in state
        }
