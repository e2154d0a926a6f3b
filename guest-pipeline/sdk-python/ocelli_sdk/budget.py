"""Whether a model may run for a frame: the host shares its time for models between its cameras, and
gives it to those that need it most."""

from __future__ import annotations

from ._host import budget as _host_budget


def ask(want: float) -> bool:
    """Asks, once a frame, whether models may run for it. `want`, 0 to 1: how much of the picture
    the results no longer describe. `False`: go on without, and ask again at the next frame.

    Of a file, in a dry run and for a single picture it is always `True`.
    """
    return bool(_host_budget.ask(float(want)))
