"""NanoDet, the detector that comes with the host: boxes of the 80 COCO classes."""

from __future__ import annotations

import math
from typing import Container, Sequence

from .boxes import Box, Scored, suppress
from .frames import Channels, Frame, tensor_spec
from .models import Model

BINS = 11
"""Bins of a side: distances of 0 to 10 strides."""

STRIDES = (8, 16, 32)
"""Strides of the three output levels in input pixels."""

CELLS_READ = 300
"""Cells of one level that are decoded, the best first: a crowd has a few per person."""


class Detector:
    """A NanoDet by its name, such as `nanodet-g-416`. `size` is the side of its input."""

    def __init__(self, name: str = "nanodet-g-416", size: int = 416) -> None:
        self.size = size
        self._model = Model(name)
        # ImageNet's means and deviations in BGR, as NanoDet was trained with.
        self._spec = tensor_spec(
            size,
            size,
            channels=Channels.BGR,
            mean=(103.53, 116.28, 123.675),
            std=(57.375, 57.12, 58.395),
        )

    def detect(
        self,
        frame: Frame,
        score: float = 0.4,
        iou: float = 0.5,
        classes: Container[int] | None = None,
    ) -> list[Scored]:
        """What is in the frame, best first, boxes in frame pixels."""
        tensor, letterbox = frame.tensor(self._spec)
        outputs = self._model.run({"input": tensor})
        found = []
        for stride in STRIDES:
            hits = outputs[f"cls_s{stride}"].best(score, CELLS_READ)
            hits = [hit for hit in hits if classes is None or hit.class_ in classes]
            rows = outputs[f"reg_s{stride}"].rows([hit.row for hit in hits]) if hits else []
            for hit, row in zip(hits, rows):
                box = letterbox.in_frame(_box(row, hit.row, self.size // stride, stride))
                if box.proper:
                    found.append(Scored(box, hit.score, hit.class_))
        return suppress(found, iou) if found else []


def _box(row: Sequence[float], cell: int, columns: int, stride: int) -> Box:
    """A cell's box: distances from its centre to the sides, in strides, are expected bins."""
    sides = [_expected(row[i : i + BINS]) * stride for i in range(0, 4 * BINS, BINS)]
    left, top, right, bottom = sides
    x, y = (cell % columns + 0.5) * stride, (cell // columns + 0.5) * stride
    return Box(x - left, y - top, x + right, y + bottom)


def _expected(logits: Sequence[float]) -> float:
    """The mean of 0 to 10 under the softmax of the logits."""
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    return sum(place * weight for place, weight in enumerate(weights)) / sum(weights)


LABELS = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant "
    "stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat "
    "baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork knife spoon "
    "bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave "
    "oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
LABELS = tuple(label.replace("_", " ") for label in LABELS.split())
"""The label of each class."""
