"""Frames, tensors and pictures. Pixels stay with the host; these are handles.

What a call takes from the host is given back when the call ends: there is nothing to close. What
has to live longer is said so with `keep()`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Sequence

from . import errors
from ._host import boxes as host_boxes
from ._host import frames, tensor
from .boxes import Axes, Box, Candidate

Placement = frames.Placement
TensorSpec = frames.TensorSpec
Fit = frames.Fit
Channels = frames.Channels
Layout = frames.Layout
Element = frames.Element

# Handles that the call in progress has taken. A component runs on one thread, one call at a time.
_taken: list[_Handle] = []


class _Handle:
    """A handle of the host's, given back once."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        _taken.append(self)

    def _use(self) -> Any:
        if self._raw is None:
            raise ValueError(f"this {type(self).__name__.lower()} has been given back to the host")
        return self._raw

    def _give_away(self) -> Any:
        """The handle for a call that consumes it."""
        raw = self._use()
        self._raw = None
        return raw

    def close(self) -> None:
        """Gives it back now instead of at the end of the call."""
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.__exit__(None, None, None)

    def keep(self) -> Any:
        """Keeps it beyond the call; `close()` is up to you then."""
        _taken[:] = [other for other in _taken if other is not self]
        return self


def close_all() -> None:
    """Gives back all that was taken; the glue calls it after each call."""
    while _taken:
        _taken.pop().close()


class Tensor(_Handle):
    """A tensor in the session's shared memory: of a frame, or a model's output."""

    @staticmethod
    def of_floats(dimensions: Sequence[int], values: Sequence[float]) -> Tensor:
        """A tensor of f32 of these numbers."""
        data = array("f", values).tobytes()
        return Tensor(tensor.Tensor(list(dimensions), tensor.TensorType.FP32, data))

    @staticmethod
    def of_integers(dimensions: Sequence[int], values: Sequence[int]) -> Tensor:
        """A tensor of i64 of these numbers."""
        data = array("q", values).tobytes()
        return Tensor(tensor.Tensor(list(dimensions), tensor.TensorType.I64, data))

    @property
    def dimensions(self) -> list[int]:
        """Its shape."""
        return list(self._use().dimensions())

    @property
    def type(self) -> tensor.TensorType:
        """The type of its elements."""
        return self._use().ty()

    def bytes(self) -> bytes:
        """A copy of the data."""
        return self._use().data()

    def floats(self) -> array[float]:
        """A copy of the numbers of a tensor of f32. Millions of them take a while to look at."""
        if self.type.name != "FP32":
            raise ValueError(f"the tensor is of {self.type.name}, not of FP32")
        values = array("f")
        values.frombytes(self.bytes())
        return values

    def best(
        self,
        threshold: float,
        limit: int = 300,
        axes: Any = Axes.ROWS_COLUMNS,
        classes: tuple[int, int] | None = None,
    ) -> list[Candidate]:
        """The rows whose largest value is at least `threshold`, the largest first.

        `classes` are the first of the columns to look at and their count, all unless said. `row`,
        `class_` (counted from the first of those columns) and `score` say what was found.
        """
        columns = None if classes is None else host_boxes.Columns(*classes)
        return errors.call(host_boxes.best, self._use(), axes, columns, threshold, limit)

    def rows(self, rows: Sequence[int], axes: Any = Axes.ROWS_COLUMNS) -> list[Sequence[float]]:
        """These rows with all their columns."""
        numbers = errors.call(host_boxes.rows, self._use(), axes, list(rows))
        width = len(numbers) // len(rows) if rows else 0
        return [numbers[i * width : (i + 1) * width] for i in range(len(rows))]


class Image(_Handle):
    """A JPEG on the host's side, to attach to an event."""

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._use().size()


def tensor_spec(width: int, height: int, **other: Any) -> TensorSpec:
    """A letterboxed f32 NCHW tensor in RGB with black borders, pixels left in 0 to 255.

    What differs is said by name: `fit`, `channels`, `layout`, `element`, `fill`, `mean`, `std`.
    """
    plain = {
        "fit": Fit.LETTERBOX,
        "channels": Channels.RGB,
        "layout": Layout.NCHW,
        "element": Element.F32,
        "fill": (0.0, 0.0, 0.0),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return TensorSpec(width=width, height=height, **{**plain, **other})


class Letterbox:
    """Where a frame lies in a tensor, and back from there."""

    def __init__(self, width: int, height: int, placement: Placement) -> None:
        self.width, self.height, self.placement = width, height, placement

    def in_frame(self, box: Box) -> Box:
        """A box of the tensor in frame pixels, clipped to the frame."""
        at = self.placement
        return Box(
            (box.left - at.offset_x) / at.scale_x,
            (box.top - at.offset_y) / at.scale_y,
            (box.right - at.offset_x) / at.scale_x,
            (box.bottom - at.offset_y) / at.scale_y,
        ).clip(self.width, self.height)

    def in_tensor(self, box: Box) -> Box:
        """A box of the frame in tensor pixels."""
        at = self.placement
        return Box(
            box.left * at.scale_x + at.offset_x,
            box.top * at.scale_y + at.offset_y,
            box.right * at.scale_x + at.offset_x,
            box.bottom * at.scale_y + at.offset_y,
        )


@dataclass(frozen=True)
class Motion:
    """What changes in a frame, beside a background that follows the camera."""

    regions: list[Box]
    """Boxes around what changes, the largest first; at most 32, none while `calibrating`."""
    share: float
    """Of the picture's area, 0 to 1."""
    calibrating: bool
    """Most of the picture changed at once, or it is not known yet: what moves is not said."""


class Frame:
    """One decoded picture of the camera; it is there until `process` returns."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    @cached_property
    def index(self) -> int:
        """The frame's number in the source. Skipped frames leave gaps."""
        return self._raw.index()

    @cached_property
    def capture_time(self) -> int:
        """Nanoseconds since 1970 at which the camera took the picture."""
        return self._raw.capture_time()

    @cached_property
    def presentation_time(self) -> int:
        """Nanoseconds since the source began; it never runs backwards."""
        return self._raw.presentation_time()

    @cached_property
    def seconds(self) -> float:
        """`presentation_time` in seconds."""
        return self.presentation_time / 1e9

    @cached_property
    def width(self) -> int:
        """Pixels."""
        return self._raw.width()

    @cached_property
    def height(self) -> int:
        """Pixels."""
        return self._raw.height()

    @cached_property
    def skipped(self) -> int:
        """Frames of the source between the one before and this one."""
        return self._raw.skipped()

    def tensor(self, spec: TensorSpec, region: Box | None = None) -> tuple[Tensor, Letterbox]:
        """The frame, or a region of it, as the tensor that a model takes, and its place there."""
        rect = None if region is None else region.rect()
        raw, placement = errors.call(self._raw.tensor, rect, spec)
        return Tensor(raw), Letterbox(self.width, self.height, placement)

    def tensors(
        self, spec: TensorSpec, regions: Sequence[Box]
    ) -> tuple[Tensor, list[Letterbox]]:
        """A batch of up to 64 regions, for a second stage."""
        rects = [region.rect() for region in regions]
        raw, places = errors.call(self._raw.tensors, rects, spec)
        return Tensor(raw), [Letterbox(self.width, self.height, place) for place in places]

    def warp(self, to_frame: frames.Affine, spec: TensorSpec) -> Tensor:
        """An affine warp: an aligned face, say."""
        return Tensor(errors.call(self._raw.warp, to_frame, spec))

    def luma(self, width: int, height: int) -> bytes:
        """A small grey picture, one byte a pixel, row by row. At most 640 x 640."""
        return bytes(errors.call(self._raw.luma, width, height))

    def motion(self) -> Motion:
        """What changes in this frame. The first call of a pipeline begins to look."""
        found = errors.call(self._raw.motion)
        regions = [Box.of(one.x, one.y, one.width, one.height) for one in found.regions]
        return Motion(regions, found.share, found.calibrating)

    def flow(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float] | None]:
        """Where points of the frame for which this was called last are in this one; None for one
        that is lost. Call it with no points too, for a frame that is to be followed from."""
        found = errors.call(self._raw.flow, [frames.Point(x, y) for x, y in points])
        return [None if point is None else (point.x, point.y) for point in found]

    def image(
        self, region: Box | None = None, quality: int = 80, longest: int | None = None
    ) -> Image:
        """A JPEG of the frame or of a region, for the `attachments` of an event.

        It is made smaller where a side is longer than `longest` pixels.
        """
        rect = None if region is None else region.rect()
        if longest is not None:
            return Image(errors.call(self._raw.image_within, rect, longest, quality))
        return Image(errors.call(self._raw.image, rect, quality))
