"""Classifiers that the host can describe, and vectors that say how alike two things are."""

from __future__ import annotations

import math
from typing import Sequence

from . import models
from .boxes import Box
from .errors import PipelineError
from .frames import Frame, TensorSpec
from .models import Model


class Classifier:
    """A classifier of the host's catalogue, by its name. Load it in `init`."""

    def __init__(self, name: str) -> None:
        described = models.describe(name)
        if described.family != "classifier":
            raise PipelineError(f"model {name}: its [decoder] is no classifier's")
        if described.picture is None:
            raise PipelineError(
                f"model {name}: its model.toml has no [preprocessing] for an input of one size"
            )
        self.name, self.labels = name, described.labels
        self.input: str = described.picture.name
        self.spec: TensorSpec = described.picture.spec
        self._output = described.decoder["output"]
        self._activation = described.decoder["activation"]
        self._model = Model(name)

    def classify(
        self, frame: Frame, region: Box | None = None, count: int = 1
    ) -> list[tuple[str, float]]:
        """The best `count` classes of the frame, or of a region of it, with their scores."""
        tensor, _ = frame.tensor(self.spec, region)
        numbers = self._model.run({self.input: tensor})[self._output].floats()
        best = classes(numbers, self._activation)[:count]
        return [(self.label(class_), score) for class_, score in best]

    def label(self, class_: int) -> str:
        """The name of a class: "class 3" where the model has none for it."""
        return self.labels[class_] if class_ < len(self.labels) else f"class {class_}"


def classes(numbers: Sequence[float], activation: str = "softmax") -> list[tuple[int, float]]:
    """The classes of a classifier's output and their scores, best first, of equals the first.

    `softmax`: one class applies; `sigmoid`: each applies or not; `none`: the numbers are scores.
    """
    if not all(map(math.isfinite, numbers)):
        raise PipelineError("the classifier's output is not finite")
    scores = list(numbers)
    if activation == "softmax" and scores:
        largest = max(scores)
        weights = [math.exp(number - largest) for number in scores]
        total = sum(weights)
        scores = [weight / total for weight in weights]
    elif activation == "sigmoid":
        scores = [1 / (1 + math.exp(-max(number, -700.0))) for number in scores]
    return sorted(enumerate(scores), key=lambda one: -one[1])


def unit(vector: Sequence[float]) -> list[float]:
    """The vector at length 1. One without a direction is an error: it resembles nothing."""
    length = math.hypot(*vector)
    if not (length > 0 and math.isfinite(length)):
        raise PipelineError(f"an embedding of {len(vector)} numbers is zero or not finite")
    return [number / length for number in vector]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """How alike two vectors are: the cosine of the angle between them, -1 to 1."""
    if len(one) != len(other):
        raise PipelineError(f"embeddings of {len(one)} and {len(other)} numbers")
    product = sum(a * b for a, b in zip(unit(one), unit(other)))
    return min(max(product, -1.0), 1.0)
