"""A pipeline is one class; `export` makes the component's exports of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

from . import errors, frames, log
from . import settings as typed
from ._host import Err, description, results
from .boxes import Box

Attribute = results.Attribute
Basis = results.Basis
Source = results.Source


@dataclass
class Detection:
    """An object in the frame. `score` is 0 to 1, `box` in frame pixels."""

    label: str
    score: float
    box: Box
    track: int | None = None
    attributes: Sequence[Attribute] = ()
    embedding: Sequence[float] | None = None


@dataclass
class Event:
    """Something that happened. `data` is a JSON object with what else there is to say."""

    kind: str
    detections: Sequence[Detection] = ()
    data: dict[str, Any] | None = None
    attachments: Sequence[frames.Image] = ()


@dataclass
class Output:
    """The result of a frame. No detections at all (`None`): the frame was not looked at. `basis`
    says what they rest on, where the model does not run on every frame."""

    detections: Sequence[Detection] | None = None
    events: Sequence[Event] = field(default_factory=list)
    basis: Basis | None = None


class CameraPipeline:
    """What a pipeline inherits from; one instance serves one camera.

    An exception in any method becomes an error with its text and its traceback in the session's
    log. `PipelineError` is shown without the traceback: use it for what an operator can cure.
    """

    name = ""
    """The pipeline's name: lowercase words with hyphens."""
    version = ""
    """Semantic version."""
    models: Sequence[str | tuple[str, Sequence[tuple[str, Sequence[int]]]]] = ()
    """Models that are loaded by name: names, or names with inputs and their shapes (-1: open)."""
    Settings: type | None = None
    """The settings: a dataclass with `setting` fields. None: a dict, with no rules."""
    state_formats: Sequence[int] = (1,)
    """Formats that `restore` reads. The last one is what `snapshot` gives."""

    def init(self, settings: Any) -> None:
        """Called once, before the first frame; a deployment calls it on two or three instances."""

    def process(self, frame: frames.Frame) -> Output | Sequence[Detection] | None:
        """Looks at a frame. A list is an output without events; None: it was not looked at."""
        raise NotImplementedError

    def query(self, request: Any) -> Any:
        """Answers a question of anyone who sees the session: JSON in, JSON out."""
        raise errors.PipelineError(f"{self.name} answers no queries")

    def command(self, request: Any) -> Any:
        """Does what an operator asks: JSON in, JSON out."""
        raise errors.PipelineError(f"{self.name} takes no commands")

    def snapshot(self) -> Any:
        """The state that a following version goes on from, as JSON. None: there is none."""
        return None

    def restore(self, state: Any, format: int) -> None:
        """Takes over what a `snapshot` gave, in one of `state_formats`."""


def export(cls: type[CameraPipeline]) -> type:
    """The component's exports: `Pipeline = export(MyPipeline)` in `app.py`.

    The component calls a new object each time; the pipeline itself is kept here.
    """
    told = _description(cls)
    place: list[CameraPipeline] = []

    def instance(call: str) -> CameraPipeline:
        if not place:
            raise errors.PipelineError(f"{call} was called before init")
        return place[0]

    class Exported:
        """What the bindings call."""

        author = cls

        def describe(self) -> Any:
            return told

        def init(self, settings: str) -> None:
            def work() -> None:
                place.clear()
                made = cls()
                given = json.loads(settings or "{}")
                made.init(given if cls.Settings is None else typed.read(cls.Settings, given))
                place.append(made)

            _guard(work)

        def process(self, frame: Any) -> Any:
            return _guard(lambda: lower(instance("process").process(frames.Frame(frame))))

        def query(self, request: str) -> str:
            return _guard(lambda: _answer(instance("query").query, request))

        def command(self, request: str) -> str:
            return _guard(lambda: _answer(instance("command").command, request))

        def snapshot(self) -> bytes:
            try:
                return _guard(lambda: _snapshot(place[0]) if place else b"")
            except Err as error:
                # The contract gives a snapshot no error: without one, the next version begins
                # without state, and the log says why.
                log.error(f"no snapshot: {error.value}")
                return b""

        def restore(self, version: str, state: bytes) -> None:
            def work() -> None:
                _restore(instance("restore"), version, bytes(state))

            _guard(work)

    return Exported


def _guard(work: Callable[[], Any]) -> Any:
    """Does the work of one call; what it throws becomes the contract's error."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001
        text = errors.text(error)
    finally:
        frames.close_all()
    raise Err(text)


def _description(cls: type[CameraPipeline]) -> Any:
    for word in ("name", "version"):
        if not getattr(cls, word):
            raise TypeError(f"{cls.__name__}.{word} is not set")
    models = []
    for model in cls.models:
        name, inputs = (model, ()) if isinstance(model, str) else model
        shapes = [(tensor, list(shape)) for tensor, shape in inputs]
        models.append(description.ModelNeed(name, shapes))
    rules = {"type": "object"} if cls.Settings is None else typed.schema(cls.Settings)
    return description.Description(cls.name, cls.version, models, json.dumps(rules))


def _answer(method: Callable[[Any], Any], request: str) -> str:
    try:
        asked = json.loads(request or "null")
    except ValueError as error:
        raise errors.PipelineError(f"the request is no JSON: {error}") from None
    return json.dumps(method(asked), allow_nan=False)


def _snapshot(pipeline: CameraPipeline) -> bytes:
    state = pipeline.snapshot()
    if state is None:
        return b""
    held = {"format": pipeline.state_formats[-1], "state": state}
    return json.dumps(held, allow_nan=False).encode()


def _restore(pipeline: CameraPipeline, version: str, state: bytes) -> None:
    try:
        held = json.loads(state)
        number, inner = held["format"], held["state"]
    except (ValueError, KeyError, TypeError):
        raise errors.PipelineError(f"the state of version {version} is of another kind") from None
    if number not in pipeline.state_formats:
        known = ", ".join(map(str, pipeline.state_formats))
        raise errors.PipelineError(
            f"the state of version {version} has format {number}; this one reads {known}"
        )
    pipeline.restore(inner, number)


def lower(output: Output | Sequence[Detection] | None) -> Any:
    """The result as the contract has it, checked: the host ends an instance for numbers that are
    not finite, which here are an error."""
    if output is None:
        return results.Output(None, [], None)
    if not isinstance(output, Output):
        output = Output(output)
    found = output.detections
    detections = None if found is None else [_detection(one) for one in found]
    events = [_event(event) for event in output.events]
    # Last: after an error above they go back to the host.
    for made, event in zip(events, output.events):
        made.attachments = [image._give_away() for image in event.attachments]
    return results.Output(detections, events, output.basis)


def _detection(one: Detection) -> Any:
    rect = one.box.rect()
    embedding = None if one.embedding is None else [float(value) for value in one.embedding]
    numbers = [one.score, rect.x, rect.y, rect.width, rect.height, *(embedding or ())]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a number of this detection is not finite: {one}")
    attributes = list(one.attributes)
    return results.Detection(one.label, one.score, rect, one.track, attributes, embedding)


def _event(event: Event) -> Any:
    data = "" if event.data is None else json.dumps(event.data, allow_nan=False)
    detections = [_detection(one) for one in event.detections]
    return results.Event(event.kind, detections, data, [])
