"""Models of the host's catalogue."""

from __future__ import annotations

from typing import Mapping

from . import errors
from ._host import Err, graph
from .frames import Tensor


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
