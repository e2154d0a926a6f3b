"""The host's interfaces: the generated bindings in a component, stand-ins elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._native import (
        Err,
        atomics,
        boxes,
        description,
        frames,
        graph,
        logging,
        models,
        results,
        store,
        tensor,
    )
else:
    try:
        from componentize_py_types import Err
        from wit_world.exports import pipeline as description
        from wit_world.imports import (
            atomics,
            boxes,
            frames,
            graph,
            logging,
            models,
            results,
            tensor,
        )
        from wit_world.imports import wasi_keyvalue_store as store
    except ImportError:
        from ._native import (
            Err,
            atomics,
            boxes,
            description,
            frames,
            graph,
            logging,
            models,
            results,
            store,
            tensor,
        )

__all__ = [
    "Err",
    "atomics",
    "boxes",
    "description",
    "frames",
    "graph",
    "logging",
    "models",
    "results",
    "store",
    "tensor",
]
