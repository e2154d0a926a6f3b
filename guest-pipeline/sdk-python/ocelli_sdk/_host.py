"""The host's interfaces: the generated bindings in a component, stand-ins elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The types of all interfaces are in one module.
    from . import _native as atomics
    from . import _native as boxes
    from . import _native as budget
    from . import _native as description
    from . import _native as frames
    from . import _native as graph
    from . import _native as logging
    from . import _native as models
    from . import _native as results
    from . import _native as store
    from . import _native as tensor
    from ._native import Err
else:
    try:
        from componentize_py_types import Err
        from wit_world.exports import pipeline as description
        from wit_world.imports import (
            atomics,
            boxes,
            budget,
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
            budget,
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
    "budget",
    "description",
    "frames",
    "graph",
    "logging",
    "models",
    "results",
    "store",
    "tensor",
]
