"""A small tracker: the same number for the same object from frame to frame.

Boxes are matched by overlap (intersection over union), greedily, the best pair first. That is
enough for objects that move less than their own size between two frames; the tracker of the Rust
SDK predicts their motion besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

from .boxes import Box, Scored


@dataclass
class Track:
    """An object. `number` is the same in all frames and never given again."""

    number: int
    class_: int
    box: Box
    score: float
    first_seen: float
    last_seen: float
    hits: int = 1
    announced: bool = False


@dataclass
class Update:
    """What a frame changed."""

    tracks: list[Track | None]
    """The track of each of the given boxes; none where it is not confirmed yet."""
    began: list[Track]
    ended: list[Track]


class Tracker:
    """Tracks of one camera.

    `iou`: least overlap of an object with itself a frame later. `hits`: frames until a track is
    confirmed. `lost_s`: how long it may be out of sight.
    """

    def __init__(self, iou: float = 0.3, hits: int = 2, lost_s: float = 1.0) -> None:
        self.iou, self.hits, self.lost_s = iou, hits, lost_s
        self._tracks: list[Track] = []
        self._next = 1

    @property
    def tracks(self) -> list[Track]:
        """The confirmed ones."""
        return [track for track in self._tracks if track.announced]

    def update(self, found: Sequence[Scored], seconds: float) -> Update:
        """Matches the boxes of a frame with the tracks. `seconds` is `frame.seconds`."""
        pairs = [
            (overlap, place, track)
            for place, one in enumerate(found)
            for track in self._tracks
            if track.class_ == one.class_ and (overlap := track.box.iou(one.box)) >= self.iou
        ]
        pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2].number))
        matched: dict[int, Track] = {}
        taken: set[int] = set()
        for _, place, track in pairs:
            if place not in matched and track.number not in taken:
                matched[place] = track
                taken.add(track.number)
        began = []
        for place, one in enumerate(found):
            known = matched.get(place)
            if known is None:
                track = Track(self._next, one.class_, one.box, one.score, seconds, seconds)
                self._next += 1
                self._tracks.append(track)
                matched[place] = track
            else:
                track = known
                track.box, track.score, track.last_seen = one.box, one.score, seconds
                track.hits += 1
            if track.hits >= self.hits and not track.announced:
                track.announced = True
                began.append(track)
        # Seen later than now: the source has begun anew since, and counts its time from 0.
        over = [
            track
            for track in self._tracks
            if not 0 <= seconds - track.last_seen <= self.lost_s
        ]
        self._tracks = [track for track in self._tracks if track not in over]
        places = [matched[place] for place in range(len(found))]
        shown = [track if track.announced else None for track in places]
        return Update(shown, began, [track for track in over if track.announced])

    def state(self) -> Any:
        """The tracks as JSON, for a snapshot."""
        rows = [
            [t.number, t.class_, [t.box.left, t.box.top, t.box.right, t.box.bottom], t.score]
            + [t.first_seen, t.last_seen, t.hits, t.announced]
            for t in self._tracks
        ]
        return {"next": self._next, "tracks": rows}

    def restore(self, state: Any) -> None:
        """Takes over what `state()` gave; anything else is a `ValueError` or `TypeError`."""
        tracks = []
        for number, class_, edges, score, first_seen, last_seen, hits, announced in state["tracks"]:
            box = Box(*map(float, edges))
            if not box.proper:
                raise ValueError(f"track {number} has no area")
            times = float(first_seen), float(last_seen)
            rest = *times, int(hits), bool(announced)
            tracks.append(Track(int(number), int(class_), box, float(score), *rest))
        following = int(state["next"])
        if any(not 0 < track.number < following for track in tracks):
            raise ValueError("a track's number is not below the next one")
        self._tracks, self._next = tracks, following
