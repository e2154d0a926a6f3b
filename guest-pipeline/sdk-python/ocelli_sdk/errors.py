"""Errors of pipelines and of the host, and how they read in the operator's log."""

from __future__ import annotations

import re
import traceback
from typing import Any

from ._host import Err

FRAMES_SHOWN = 8
"""Of a deep traceback the innermost calls: the host cuts a message at 8 KiB."""


class PipelineError(Exception):
    """An error whose text says all that the operator needs: it is shown without a traceback."""


class SettingsError(PipelineError):
    """Settings that make no sense; the text begins with the setting's path."""


class HostError(Exception):
    """A call to the host that failed. `kind` is its code, such as `out-of-memory`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind


def call(function: Any, *arguments: Any) -> Any:
    """Calls the host; its error becomes a `HostError`."""
    try:
        return function(*arguments)
    except Err as error:
        # Not `from error`: the chain would keep the error's handle alive.
        failure = host_error(error.value)
    raise failure


def host_error(value: Any) -> HostError:
    """What the host says is wrong. An error of wasi:nn is a handle, which is given back."""
    if isinstance(value, str):
        return HostError("refused", value)
    if hasattr(value, "code") and hasattr(value, "data"):
        with value:
            return HostError(value.code().name.lower().replace("_", "-"), value.data())
    name = type(value).__name__.rpartition("_")[2]
    kind = "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")
    return HostError(kind, str(getattr(value, "value", "")))


def text(error: BaseException) -> str:
    """What the operator reads: what went wrong and, of a fault in the code, where."""
    if isinstance(error, PipelineError):
        return str(error)
    lines = [f"{type(error).__name__}: {error}" if str(error) else type(error).__name__]
    calls = [call for call in traceback.extract_tb(error.__traceback__) if not _is_glue(call)]
    for place in reversed(calls[-FRAMES_SHOWN:]):
        lines.append(f"  in {place.name}, {_file(place.filename)}:{place.lineno}")
    if len(calls) > FRAMES_SHOWN:
        lines.append(f"  in {len(calls) - FRAMES_SHOWN} more calls")
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines.append("after " + text(cause))
    return "\n".join(lines)


def _is_glue(place: traceback.FrameSummary) -> bool:
    return place.filename.endswith(("ocelli_sdk/pipeline.py", "ocelli_sdk/errors.py"))


def _file(name: str) -> str:
    """A module's file without the number that componentize-py gives to its folder."""
    return re.sub(r"^/\d+/", "", name)
