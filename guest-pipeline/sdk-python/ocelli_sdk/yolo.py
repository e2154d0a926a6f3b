"""YOLO detectors by the form of their output: the host searches it, the hits alone are read."""

from __future__ import annotations

from typing import Any, Container

from .boxes import Axes, Box, Scored, suppress
from .frames import Frame, Tensor, tensor_spec
from .models import Model

ROWS_READ = 1000
"""Rows that are decoded, the best first: before suppression an object has some tens of them."""


class Detector:
    """A YOLO of the host's catalogue.

    `form` is that of its output: `yolov8` is [1, 4 + classes, N] (YOLOv8, v9, 11, 12), `yolov5` is
    [1, N, 5 + classes] (YOLOv5 to v7), `yolov10` is [1, N, 6] (YOLOv10, and exports with NMS).
    `size` is the side of its input, or width and height. `other` changes the tensor: letterboxed on
    grey, RGB, 0 to 1 unless said.
    """

    def __init__(
        self,
        name: str,
        size: int | tuple[int, int] = 640,
        form: str = "yolov8",
        classes: int = 80,
        input: str = "images",
        output: str = "output0",
        **other: Any,
    ) -> None:
        if form not in _FORMS:
            raise ValueError(f"form {form!r} is none of {', '.join(_FORMS)}")
        self.classes, self.input, self.output = classes, input, output
        self._read = _FORMS[form]
        self._finished = form == "yolov10"
        width, height = (size, size) if isinstance(size, int) else size
        plain = {"fill": (114.0, 114.0, 114.0), "std": (255.0, 255.0, 255.0)}
        self._spec = tensor_spec(width, height, **{**plain, **other})
        self._model = Model(name)

    def detect(
        self,
        frame: Frame,
        score: float = 0.4,
        iou: float = 0.5,
        classes: Container[int] | None = None,
        region: Box | None = None,
    ) -> list[Scored]:
        """What is in the frame, or in a region of it; best first, boxes in frame pixels."""
        tensor, letterbox = frame.tensor(self._spec, region)
        output = self._model.run({self.input: tensor})[self.output]
        found = []
        for one in self._read(output, self.classes, score):
            box = letterbox.in_frame(one.box)
            if box.proper and (classes is None or one.class_ in classes):
                found.append(Scored(box, one.score, one.class_))
        return found if self._finished or not found else suppress(found, iou)


def _yolov8(output: Tensor, classes: int, score: float) -> list[Scored]:
    axes = Axes.COLUMNS_ROWS
    hits = output.best(score, ROWS_READ, axes, (4, classes))
    rows = output.rows([hit.row for hit in hits], axes) if hits else []
    return [Scored(Box.about(*row[:4]), hit.score, hit.class_) for hit, row in zip(hits, rows)]


def _yolov5(output: Tensor, classes: int, score: float) -> list[Scored]:
    # The score is the objectness times a class's, which is at most 1: the objectness bounds it.
    hits = output.best(score, ROWS_READ, classes=(4, 1))
    found = []
    for row in output.rows([hit.row for hit in hits]) if hits else []:
        scores = row[5 : 5 + classes]
        best = max(scores)
        if best * row[4] >= score:
            found.append(Scored(Box.about(*row[:4]), best * row[4], scores.index(best)))
    return found


def _yolov10(output: Tensor, _: int, score: float) -> list[Scored]:
    hits = output.best(score, ROWS_READ, classes=(4, 1))
    rows = output.rows([hit.row for hit in hits]) if hits else []
    # Rows without a detection are filled with zeros, or with a class of -1.
    return [Scored(Box(*row[:4]), row[4], int(row[5])) for row in rows if row[5] >= 0]


_FORMS = {"yolov8": _yolov8, "yolov5": _yolov5, "yolov10": _yolov10}
