"""YOLO detectors whose form is said here. `ocelli_sdk.Detector` takes it from the host's
description of the model, and knows more families."""

from __future__ import annotations

from typing import Any, Container

from . import families
from .boxes import Box, Scored, suppress
from .frames import Frame, tensor_spec
from .models import Model


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
        self.input = input
        self._decode = _FORMS[form]
        self._form = families.Form(output=output, classes=classes)
        self._finished = form == "yolov10"
        width, height = self._size = (size, size) if isinstance(size, int) else size
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
        outputs = self._model.run({self.input: tensor})
        found = []
        for one in self._decode(outputs, self._form, families.Search(self._size, score, classes)):
            box = letterbox.in_frame(one.box)
            if box.proper:
                found.append(Scored(box, one.score, one.class_))
        return found if self._finished or not found else suppress(found, iou)


_FORMS = {"yolov8": families.yolov8, "yolov5": families.yolov5, "yolov10": families.yolov10}
