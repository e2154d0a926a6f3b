"""Any detector that the host can describe: by the family of its outputs, these become boxes.

    detector = Detector("my-detector")
    for one in detector.detect(frame, 0.4):
        log.info(f"{detector.label(one.class_)} {one.box}")
"""

from __future__ import annotations

from typing import Container, Iterable

from . import families, models
from .boxes import Box, Scored, suppress
from .errors import PipelineError, SettingsError
from .frames import Frame, Tensor, TensorSpec
from .models import Model


class Detector:
    """A model of the host's catalogue that finds boxes, by its name. Load it in `init`.

    An error names what its `model.toml` lacks.
    """

    def __init__(self, name: str) -> None:
        described = models.describe(name)
        if described.family is None:
            raise _lacks(name, "its model.toml has no [decoder], so its outputs mean nothing")
        if described.family == "classifier":
            raise PipelineError(f"model {name}: it is a classifier, which finds no boxes")
        if described.family not in families.FAMILIES:
            known = ", ".join(families.FAMILIES)
            raise PipelineError(
                f"model {name}: its decoder is of the family {described.family!r}; this SDK knows "
                f"{known}"
            )
        if described.picture is None:
            raise _lacks(name, "its model.toml has no [preprocessing] for an input of one size")
        self.name, self.family = name, described.family
        self.input: str = described.picture.name
        self.spec: TensorSpec = described.picture.spec
        self.labels = described.labels
        self._form = families.Form(described.decoder)
        self._model = Model(name)

    def detect(
        self,
        frame: Frame,
        score: float = 0.4,
        iou: float = 0.5,
        classes: Container[int] | None = None,
        region: Box | None = None,
    ) -> list[Scored]:
        """What is in the frame, or in a region of it; best first, boxes in frame pixels.

        `classes` are those that are looked for, all unless said. Of two boxes of a class that
        overlap by more than `iou` the better one stands.
        """
        tensor, letterbox = frame.tensor(self.spec, region)
        inputs = {self.input: tensor}
        if self._form.get("sizes") is not None:
            inputs[self._form["sizes"]] = self._sizes()
        search = families.Search((self.spec.width, self.spec.height), score, classes)
        try:
            decoded = families.FAMILIES[self.family](self._model.run(inputs), self._form, search)
        except PipelineError as error:
            raise PipelineError(f"model {self.name}: {error}") from None
        found = []
        for one in decoded:
            # What lies outside of the frame altogether, in a letterbox's bars, is left out.
            box = letterbox.in_frame(one.box)
            if box.proper:
                found.append(Scored(box, one.score, one.class_))
        return suppress(found, iou) if found else []

    def label(self, class_: int) -> str:
        """The name of a class: "class 3" where the model has none for it."""
        return self.labels[class_] if class_ < len(self.labels) else f"class {class_}"

    def classes(self, labels: Iterable[str], at: str = "settings.labels") -> set[int] | None:
        """The classes of these names; None, which is all, without one. `at` is the setting that
        has the names: the error begins with it."""
        wanted = list(labels)
        for place, label in enumerate(wanted):
            if label not in self.labels:
                known = ", ".join(self.labels) or "none"
                raise SettingsError(f"{at}[{place}]: no label {label!r}; there are {known}")
        return {self.labels.index(label) for label in wanted} or None

    def _sizes(self) -> Tensor:
        """Width and height of the input's picture."""
        return Tensor.of_integers([1, 2], [self.spec.width, self.spec.height])


def _lacks(name: str, what: str) -> PipelineError:
    return PipelineError(f"model {name}: {what}; a pipeline of its own can run it")
