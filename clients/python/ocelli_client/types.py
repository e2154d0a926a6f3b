"""The host's JSON, by the names that its documents have. `docs/subscriber.md` explains each member.

What is not always there is `NotRequired`; a member of a newer host comes through undeclared.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, TypedDict, Union

if sys.version_info >= (3, 11):
    from typing import NotRequired
else:
    from typing_extensions import NotRequired

Json = Any
"""What JSON can be."""

SessionState = Literal["starting", "running", "degraded", "restarting", "failed", "stopped"]
Clock = Literal["camera", "host"]


class Attribute(TypedDict):
    """The result of a further model."""

    value: str
    score: float


class Detection(TypedDict):
    """An object in a frame."""

    label: str
    score: float
    box: list[float]
    """Left, top, width, height in frame pixels."""
    track: NotRequired[int]
    attributes: dict[str, Attribute]
    embedding: NotRequired[list[float]]


class Attachment(TypedDict):
    """A picture of an event: `Client.attachment` has it."""

    digest: str
    type: str
    bytes: int


class PipelineEvent(TypedDict):
    """An event as a pipeline gives it for a single picture."""

    kind: str
    detections: list[Detection]
    data: dict[str, Json]
    attachments: NotRequired[list[Attachment]]


class Event(TypedDict):
    """Something happened. `seq` counts the session's events, without gaps."""

    type: Literal["event"]
    session: str
    seq: int
    position: NotRequired[int]
    """Its number among the events of all sessions, where all are subscribed to."""
    time: str
    clock: Clock
    kind: str
    deployment: str
    frame: NotRequired[int]
    detections: list[Detection]
    data: dict[str, Json]
    attachments: NotRequired[list[Attachment]]
    clip: NotRequired[Literal[True]]
    """A clip of it was begun: `Client.clip` has it, soon and until it is deleted."""


class Detections(TypedDict):
    """What a frame shows; the list may be empty."""

    type: Literal["detections"]
    session: str
    frame: int
    presentation_ns: int
    time: str
    clock: Clock
    deployment: str
    width: int
    height: int
    detections: list[Detection]
    source: NotRequired[Literal["model", "flow", "predicted"]]
    model_age_ms: NotRequired[int]
    latency_ms: dict[str, float]


class State(TypedDict):
    """The session has another state."""

    type: Literal["session"]
    session: str
    state: SessionState
    reason: str | None


class Subscribed(TypedDict):
    """The subscription has begun, again after each connection."""

    type: Literal["subscribed"]
    session: str
    state: SessionState


class Lagged(TypedDict):
    """This program reads too slowly: so many detections are lost."""

    type: Literal["lagged"]
    session: str
    missed: int


class HostPart(TypedDict):
    """How a part of the host is."""

    state: Literal["ok", "degraded", "failed"]
    reason: str | None
    since: str


class HostStatus(TypedDict):
    """How the host is: when that changes, and at first where it is not well."""

    type: Literal["host"]
    storage: HostPart
    clock: HostPart
    config: HostPart
    inference: HostPart
    events_waiting: int
    events_lost: int
    pictures_lost: int


class Refusal(TypedDict):
    """The host tells of something that the subscriber misses: `events_gone`."""

    type: Literal["error"]
    code: str
    message: str
    session: NotRequired[str]
    after: NotRequired[int]
    oldest: NotRequired[int]
    newest: NotRequired[int]


Message = Union[Event, Detections, State, Subscribed, Lagged, HostStatus, Refusal]
"""What a subscription brings; `type` says which."""


class Session(TypedDict):
    """A session. A dozen figures more are there than are declared."""

    id: str
    state: SessionState
    reason: str | None
    pid: int | None
    source: str
    codec: str | None
    size: list[int] | None
    pipeline: str
    deployment: str
    uptime_s: float
    restarts: int
    last_error: str | None
    results: int
    events: int
    alerts: list[str]


# `from` is a word of Python.
Gone = TypedDict("Gone", {"from": int, "to": int})
"""The first and the last number of events that were asked for and are no longer stored."""


class EventPage(TypedDict):
    """A page of a session's events, oldest first."""

    session: str
    events: list[Event]
    oldest: int
    newest: int
    next: int | None
    """The `after` of the next page; None after the last."""
    gone: NotRequired[Gone]


class Deployment(TypedDict):
    """The record of a deployment."""

    number: int
    session: str
    deployment: str
    digest: str
    pipeline: str
    name: str | None
    version: str | None
    before: str | None
    cause: str
    by: str
    step: str
    state: str
    """`pending`, `probation`, or the outcome: `healthy`, `aborted`, ..."""
    reason: str | None
    requested: str
    ended: str | None
    probation_ends: str | None


class Pipeline(TypedDict):
    """A pipeline that has a name on the host."""

    name: str
    file: str
    size: int
    digest: str
    sessions: list[str]


class Analysis(TypedDict):
    """What a single picture shows."""

    pipeline: str
    deployment: str
    width: int
    height: int
    detections: list[Detection]
    events: list[PipelineEvent]
    latency_ms: dict[str, float]


class AnalysisFailure(TypedDict):
    """Why one picture of several has no result."""

    index: int
    filename: NotRequired[str]
    error: dict[str, Json]
