"""Boxes by their edges, and the host's search in the tables that detectors put out.

The host scans a table of thousands of rows in well under a millisecond; a loop in Python takes tens
of them. So let `Tensor.best` find the rows, read only these with `Tensor.rows`, and let `suppress`
remove the doubles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

from . import errors
from ._host import boxes as host
from ._host import frames

Axes = host.Axes
Candidate = host.Candidate


@dataclass(frozen=True)
class Box:
    """A box by its edges, in pixels of the frame or of a tensor. The y axis points down."""

    left: float
    top: float
    right: float
    bottom: float

    @staticmethod
    def of(x: float, y: float, width: float, height: float) -> Box:
        """A box by its left and upper edge and its size."""
        return Box(x, y, x + width, y + height)

    @staticmethod
    def about(x: float, y: float, width: float, height: float) -> Box:
        """A box by its middle and its size."""
        return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    @property
    def width(self) -> float:
        """Right minus left edge."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Lower minus upper edge."""
        return self.bottom - self.top

    @property
    def foot(self) -> tuple[float, float]:
        """The middle of the lower edge: where an object stands."""
        return (self.left + self.right) / 2, self.bottom

    @property
    def proper(self) -> bool:
        """Whether all edges are finite and the box has an area."""
        edges = (self.left, self.top, self.right, self.bottom)
        return all(map(math.isfinite, edges)) and self.width > 0 and self.height > 0

    def area(self) -> float:
        """Square pixels, never below 0."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    def iou(self, other: Box) -> float:
        """Intersection over union: 0 for boxes that do not overlap, 1 for equal ones."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.area() + other.area() - width * height)

    def clip(self, width: float, height: float) -> Box:
        """The part of the box within 0 to `width` and 0 to `height`."""
        return Box(
            min(max(self.left, 0.0), width),
            min(max(self.top, 0.0), height),
            min(max(self.right, 0.0), width),
            min(max(self.bottom, 0.0), height),
        )

    def expanded(self, factor: float) -> Box:
        """The box grown by `factor` about its middle."""
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        return Box.about(x, y, self.width * factor, self.height * factor)

    def rect(self) -> frames.Rect:
        """The box as the contract has it."""
        return frames.Rect(self.left, self.top, self.width, self.height)


@dataclass(frozen=True)
class Scored:
    """A box that competes with others of its class."""

    box: Box
    score: float
    class_: int = 0


def suppress(scored: Sequence[Scored], iou: float = 0.5) -> list[Scored]:
    """Non-maximum suppression within each class, by the host: the boxes that stand, best first."""
    records = [host.ScoredBox(one.box.rect(), one.score, one.class_) for one in scored]
    return [scored[place] for place in errors.call(host.suppress, records, iou)]
