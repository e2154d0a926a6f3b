"""The contract's types for a Python without a host: tests, type checkers and editors.

In a component the generated bindings (`wit_world`) stand in their place; a test holds the fields
of these records to the WIT.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any


@dataclass(frozen=True)
class Err(Exception):
    """How the bindings carry the error of a call."""

    value: Any


@dataclass
class Rect:
    """A rectangle in frame pixels; `x` and `y` are its left and upper edge."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class Point:
    """A point of the picture, in frame pixels from its left and upper edge."""

    x: float
    y: float


@dataclass
class Motion:
    """What changes in the picture."""

    regions: list[Rect]
    share: float
    calibrating: bool


class Fit(enum.Enum):
    """How a region of another aspect ratio is brought to the tensor's size."""

    LETTERBOX = 0
    STRETCH = 1


class Channels(enum.Enum):
    """The order of the colour channels."""

    RGB = 0
    BGR = 1


class Layout(enum.Enum):
    """The order of the axes."""

    NCHW = 0
    NHWC = 1


class Element(enum.Enum):
    """The type of an element."""

    F32 = 0
    U8 = 1


@dataclass
class TensorSpec:
    """The tensor that a model takes; see `ocelli_sdk.tensor_spec` for one with defaults."""

    width: int
    height: int
    fit: Fit
    channels: Channels
    layout: Layout
    element: Element
    fill: tuple[float, float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass
class Placement:
    """Where a picture lies in a tensor: tensor x = (frame x) * scale_x + offset_x, y alike."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


@dataclass
class Affine:
    """Takes tensor coordinates to the frame: frame x = a * x + b * y + c, y = d * x + e * y + f."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float


class Axes(enum.Enum):
    """The order of the last two axes of a tensor that holds a table."""

    ROWS_COLUMNS = 0
    COLUMNS_ROWS = 1


@dataclass
class Columns:
    """Neighbouring columns of a table."""

    first: int
    count: int


@dataclass
class Candidate:
    """A row of a table whose score is high enough."""

    row: int
    class_: int
    score: float


@dataclass
class ScoredBox:
    """A box that competes with others."""

    box: Rect
    score: float
    class_: int


@dataclass
class Attribute:
    """A property of an object, `score` 0 to 1."""

    name: str
    value: str
    score: float


@dataclass
class Detection:
    """What is found in a frame, as the contract has it."""

    label: str
    score: float
    box: Rect
    track: int | None
    attributes: list[Attribute]
    embedding: list[float] | None


@dataclass
class Event:
    """What happened, as the contract has it."""

    kind: str
    detections: list[Detection]
    data: str
    attachments: list[Any]


class Source(enum.Enum):
    """What boxes rest on: a model's run, pixels followed since, or extrapolation."""

    MODEL = 0
    FLOW = 1
    PREDICTED = 2


@dataclass
class Basis:
    """What a frame's detections rest on: the least certain of them, and the presentation time since
    the frame on which a model ran last, in nanoseconds."""

    source: Source
    model_age: int


@dataclass
class Output:
    """The result of a frame, as the contract has it."""

    detections: list[Detection] | None
    events: list[Event]
    basis: Basis | None


@dataclass
class ModelNeed:
    """A model that the pipeline loads by name."""

    name: str
    inputs: list[tuple[str, list[int]]]


@dataclass
class Description:
    """What a component says of itself."""

    name: str
    version: str
    models: list[ModelNeed]
    settings_schema: str


@dataclass
class TensorDescription:
    """An input or output of a model; -1 stands for a dimension that is known at run time alone."""

    name: str
    ty: TensorType
    shape: list[int]


@dataclass
class PictureInput:
    """The input of a model that takes a picture, and what a frame is to be asked for."""

    name: str
    spec: TensorSpec


@dataclass
class Decoder:
    """How a model's outputs become boxes or classes; `parameters` is JSON."""

    family: str
    parameters: str


@dataclass
class ModelDescription:
    """What the host knows of a model, as the contract has it."""

    inputs: list[TensorDescription]
    outputs: list[TensorDescription]
    picture: PictureInput | None
    decoder: Decoder | None
    labels: list[str]


class TensorType(enum.Enum):
    """The type of the elements of a tensor."""

    FP16 = 0
    FP32 = 1
    FP64 = 2
    BF16 = 3
    U8 = 4
    I32 = 5
    I64 = 6


class Level(enum.Enum):
    """Severity of a line in the log."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5


if TYPE_CHECKING:
    # The functions and the resource of the interfaces below, for type checkers.
    Tensor: Any
    ask: Any
    best: Any
    describe: Any
    increment: Any
    load_by_name: Any
    log: Any
    open: Any
    rows: Any
    suppress: Any


def _absent(name: str) -> Any:
    def call(*_: Any) -> Any:
        raise RuntimeError(f"{name} is the host's: it is not there in a test")

    return call


frames = SimpleNamespace(
    Rect=Rect,
    Point=Point,
    Motion=Motion,
    Fit=Fit,
    Channels=Channels,
    Layout=Layout,
    Element=Element,
    TensorSpec=TensorSpec,
    Placement=Placement,
    Affine=Affine,
)
boxes = SimpleNamespace(
    Axes=Axes,
    Columns=Columns,
    Candidate=Candidate,
    ScoredBox=ScoredBox,
    best=_absent("boxes.best"),
    rows=_absent("boxes.rows"),
    suppress=_absent("boxes.suppress"),
)
budget = SimpleNamespace(ask=_absent("budget.ask"))
models = SimpleNamespace(
    TensorDescription=TensorDescription,
    PictureInput=PictureInput,
    Decoder=Decoder,
    ModelDescription=ModelDescription,
    describe=_absent("models.describe"),
)
results = SimpleNamespace(
    Attribute=Attribute,
    Basis=Basis,
    Detection=Detection,
    Event=Event,
    Output=Output,
    Source=Source,
)
description = SimpleNamespace(ModelNeed=ModelNeed, Description=Description)
tensor = SimpleNamespace(TensorType=TensorType, Tensor=_absent("the constructor of a tensor"))
graph = SimpleNamespace(load_by_name=_absent("graph.load_by_name"))
logging = SimpleNamespace(Level=Level, log=lambda level, context, message: None)
store = SimpleNamespace(open=_absent("store.open"))
atomics = SimpleNamespace(increment=_absent("atomics.increment"))
