"""NanoDet, the detector that comes with the host: boxes of the 80 COCO classes.

`ocelli_sdk.Detector` runs it, too, by the host's description; this one needs none.
"""

from __future__ import annotations

from typing import Container

from . import families
from .boxes import Scored, suppress
from .frames import Channels, Frame, tensor_spec
from .models import Model

STRIDES = (8, 16, 32)
"""Strides of the three output levels in input pixels."""

_FORM = families.Form(
    scores=[f"cls_s{stride}" for stride in STRIDES],
    sides=[f"reg_s{stride}" for stride in STRIDES],
    classes=80,
    strides=STRIDES,
    bins=11,
    point=0.5,
)


class Detector:
    """A NanoDet by its name, such as `nanodet-g-320-int8`. `size` is the side of its input."""

    def __init__(self, name: str = "nanodet-g-320-int8", size: int = 320) -> None:
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
        search = families.Search((self.size, self.size), score, classes)
        found = []
        for one in families.nanodet(outputs, _FORM, search):
            box = letterbox.in_frame(one.box)
            if box.proper:
                found.append(Scored(box, one.score, one.class_))
        return suppress(found, iou) if found else []


_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant "
    "stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat "
    "baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork knife spoon "
    "bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave "
    "oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
LABELS = tuple(label.replace("_", " ") for label in _NAMES.split())
"""The label of each class."""
