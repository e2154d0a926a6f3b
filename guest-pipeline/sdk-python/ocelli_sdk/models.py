"""Models of the host's catalogue, and what the host knows of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

from . import errors
from ._host import Err, graph
from ._host import models as host
from .frames import Tensor

PictureInput = host.PictureInput
TensorDescription = host.TensorDescription


@dataclass(frozen=True)
class ModelDescription:
    """What the host knows of a model, by its `model.toml`."""

    inputs: list[TensorDescription]
    outputs: list[TensorDescription]
    picture: PictureInput | None
    """The input that takes a picture: its `name`, and as `spec` what a frame is to be asked for.
    None where there is no table `[preprocessing]`."""
    family: str | None
    """The form of the outputs, such as `yolov8`. None where there is no table `[decoder]`."""
    decoder: dict[str, Any]
    """The whole table `[decoder]`: the names of the outputs, and what else the family needs."""
    labels: list[str]
    """Names of the classes by their index. Empty where they are unknown."""


def describe(name: str) -> ModelDescription:
    """Describes a model. An error names the models that there are."""
    try:
        raw = host.describe(name)
    except Err as error:
        refused = str(error.value)
    else:
        family = None if raw.decoder is None else raw.decoder.family
        table = {} if raw.decoder is None else json.loads(raw.decoder.parameters)
        return ModelDescription(raw.inputs, raw.outputs, raw.picture, family, table, raw.labels)
    raise errors.PipelineError(refused)


class Model:
    """A model by its name. Load it in `init`: the first use of it on this host takes a while."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._context = graph.load_by_name(name).init_execution_context()
            return
        except Err as error:
            failure = errors.host_error(error.value)
        raise errors.PipelineError(f"model {name!r}: {failure}")

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs it on named tensors, which it consumes; gives its outputs by name."""
        named = [(name, tensor._give_away()) for name, tensor in inputs.items()]
        outputs = errors.call(self._context.compute, named)
        return {name: Tensor(raw) for name, raw in outputs}
