"""Tests without a host: a pipeline, scripted frames and scripted models.

    frames = [FakeFrame(index=n, luma=picture(n)) for n in range(40)]
    with FakeHost():
        outputs = play(Darkness, frames, {"below": 30})
"""

from __future__ import annotations

import json
from array import array
from typing import Any, Callable, Iterable, Mapping, Sequence
from unittest import mock

from . import _host, frames
from .boxes import Box
from .errors import HostError, PipelineError
from .pipeline import CameraPipeline, export


class FakeFrame:
    """A frame of a script, at 10 a second. `luma` is a grey picture as bytes, or a function of
    width and height that gives one; `moving` are the boxes in which something changes, or None
    where the whole picture does; `flow` says where a point of the frame before is, or that it is
    lost: without it, all points stay."""

    def __init__(
        self,
        index: int = 0,
        width: int = 640,
        height: int = 360,
        luma: bytes | Callable[[int, int], bytes] = b"",
        seconds: float | None = None,
        skipped: int = 0,
        moving: Sequence[Box] | None = (),
        flow: Callable[[float, float], tuple[float, float] | None] | None = None,
    ) -> None:
        self._index, self._width, self._height = index, width, height
        self._luma, self._skipped = luma, skipped
        self._moving, self._flow = moving, flow
        self._time = int((index / 10 if seconds is None else seconds) * 1e9)

    def index(self) -> int:
        return self._index

    def capture_time(self) -> int:
        return self._time

    def presentation_time(self) -> int:
        return self._time

    def width(self) -> int:
        return self._width

    def height(self) -> int:
        return self._height

    def skipped(self) -> int:
        return self._skipped

    def luma(self, width: int, height: int) -> bytes:
        picture = self._luma(width, height) if callable(self._luma) else self._luma
        if len(picture) != width * height:
            raise ValueError(f"the script has {len(picture)} pixels for {width} x {height}")
        return picture

    def motion(self) -> Any:
        if self._moving is None:
            return _host.frames.Motion([], 1.0, True)
        area = sum(box.area() for box in self._moving)
        share = min(1.0, area / (self._width * self._height))
        boxes = sorted(self._moving, key=Box.area, reverse=True)
        return _host.frames.Motion([box.rect() for box in boxes[:32]], share, False)

    def flow(self, points: Any) -> list[Any]:
        found = [(p.x, p.y) if self._flow is None else self._flow(p.x, p.y) for p in points]
        return [None if one is None else _host.frames.Point(*one) for one in found]

    def tensor(self, region: Any, spec: Any) -> tuple[FakeTensor, Any]:
        width, height = (self._width, self._height) if region is None else (
            region.width,
            region.height,
        )
        if spec.fit.name == "LETTERBOX":
            scale = min(spec.width / width, spec.height / height)
            sizes = [max(1, round(width * scale)), max(1, round(height * scale))]
        else:
            sizes = [spec.width, spec.height]
        left, top = (spec.width - sizes[0]) // 2, (spec.height - sizes[1]) // 2
        x, y = (0.0, 0.0) if region is None else (region.x, region.y)
        sx, sy = sizes[0] / width, sizes[1] / height
        place = _host.frames.Placement(sx, sy, left - x * sx, top - y * sy)
        shape = [1, 3, spec.height, spec.width]
        return FakeTensor(shape, array("f", bytes(4 * 3 * spec.height * spec.width))), place

    def image(self, region: Any, quality: int) -> FakeImage:
        return FakeImage()

    def image_within(self, region: Any, longest: int, quality: int) -> FakeImage:
        if not (isinstance(longest, int) and 1 <= quality <= 100):
            raise TypeError(f"a picture of at most {longest} pixels, of quality {quality}")
        return FakeImage()


class FakeHandle:
    """Something that is to be given back; `FakeHost` counts."""

    open = 0

    def __init__(self) -> None:
        FakeHandle.open += 1
        self.closed = False

    def __enter__(self) -> FakeHandle:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.closed:
            raise RuntimeError("a handle was given back twice")
        self.closed = True
        FakeHandle.open -= 1


class FakeImage(FakeHandle):
    """A picture."""

    def size(self) -> int:
        return 1000


ELEMENTS = {"FP32": "f", "I64": "q", "I32": "i", "U8": "B"}
"""The types of a fake tensor's elements, and what Python's `array` calls them."""


class FakeTensor(FakeHandle):
    """A tensor of f32, or of another type by its name in the contract, such as `I64`."""

    def __init__(
        self, shape: Sequence[int], values: Iterable[float], type: str = "FP32"
    ) -> None:
        super().__init__()
        self.shape, self.type = list(shape), type
        self.values: array[Any] = array(ELEMENTS[type], values)

    @staticmethod
    def of_bytes(dimensions: Sequence[int], ty: Any, data: bytes) -> FakeTensor:
        """As the contract makes one."""
        values: array[Any] = array(ELEMENTS[ty.name])
        values.frombytes(data)
        return FakeTensor(dimensions, values, ty.name)

    def dimensions(self) -> list[int]:
        return self.shape

    def ty(self) -> Any:
        return _host.tensor.TensorType[self.type]

    def data(self) -> bytes:
        return self.values.tobytes()

    def table(self, axes: Any) -> list[list[float]]:
        """Its rows."""
        height, width = self.shape[-2:]
        rows = [list(self.values[i * width : (i + 1) * width]) for i in range(height)]
        return rows if axes.name == "ROWS_COLUMNS" else [list(row) for row in zip(*rows)]


class _Bucket(dict[str, bytes]):
    """A bucket of the store, by the names that the bindings use."""

    def set(self, key: str, value: bytes) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)

    def exists(self, key: str) -> bool:
        return key in self


def _increment(bucket: _Bucket, key: str, by: int) -> int:
    total = int(bucket.get(key) or b"0") + by
    bucket[key] = str(total).encode()
    return total


Script = Callable[[Mapping[str, FakeTensor]], Mapping[str, "tuple[Any, ...]"]]


def described(
    decoder: Mapping[str, Any] | None = None,
    spec: Any = None,
    labels: Sequence[str] = (),
    input: str = "input",
) -> Any:
    """What the host says of a model: `decoder` is the table `[decoder]` of its `model.toml`, `spec`
    is what its `input` takes, by `tensor_spec`."""
    known = _host.models
    return known.ModelDescription(
        inputs=[],
        outputs=[],
        picture=None if spec is None else known.PictureInput(input, spec),
        decoder=known.Decoder(decoder["family"], json.dumps(dict(decoder))) if decoder else None,
        labels=list(labels),
    )


class FakeHost:
    """Stands in for the host: `models` maps names to functions of the named inputs, which give
    each output's shape and numbers, and its type where that is not `FP32`; `descriptions` says
    what the host knows of them, by `described`; `budget` are the next answers to `budget.ask`, and
    after the last one it is yes, as with a file. `wants` is what was asked with. At its end no
    handle may be open."""

    def __init__(
        self,
        models: Mapping[str, Script] | None = None,
        descriptions: Mapping[str, Any] | None = None,
        budget: Iterable[bool] = (),
    ) -> None:
        self.models, self.descriptions = dict(models or {}), dict(descriptions or {})
        self._answers, self.wants = iter(budget), list[float]()
        self._patches: list[Any] = [
            mock.patch.object(_host.models, "describe", self._describe),
            mock.patch.object(_host.tensor, "Tensor", FakeTensor.of_bytes),
            mock.patch.object(_host.budget, "ask", self._ask),
            mock.patch.object(_host.boxes, "best", _best),
            mock.patch.object(_host.boxes, "rows", _rows),
            mock.patch.object(_host.boxes, "suppress", _suppress),
            mock.patch.object(_host.graph, "load_by_name", self._load),
            mock.patch.object(_host.logging, "log", self._log),
            mock.patch.object(_host.store, "open", self._open),
            mock.patch.object(_host.atomics, "increment", _increment),
        ]
        self.buckets: dict[str, _Bucket] = {}
        self.lines: list[tuple[str, str]] = []

    def _open(self, name: str) -> _Bucket:
        return self.buckets.setdefault(name, _Bucket())

    def __enter__(self) -> FakeHost:
        FakeHandle.open = 0
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for patch in self._patches:
            patch.stop()
        if kind is None and FakeHandle.open:
            raise AssertionError(f"{FakeHandle.open} handles were not given back")

    def _log(self, level: Any, context: str, message: str) -> None:
        self.lines.append((level.name.lower(), message))

    def _ask(self, want: float) -> bool:
        self.wants.append(want)
        return next(self._answers, True)

    def _describe(self, name: str) -> Any:
        if name in self.descriptions:
            return self.descriptions[name]
        if name in self.models:
            return described()
        raise _host.Err(f"the host has no model {name!r}; it has: {', '.join(self.models)}")

    def _load(self, name: str) -> Any:
        if name not in self.models:
            raise _host.Err(f"not-found: no model {name!r}")
        return _Graph(self.models[name])


class _Graph:
    def __init__(self, script: Script) -> None:
        self.script = script

    def init_execution_context(self) -> _Graph:
        return self

    def compute(self, inputs: list[tuple[str, FakeTensor]]) -> list[tuple[str, FakeTensor]]:
        outputs = self.script(dict(inputs))
        for _, tensor in inputs:
            tensor.__exit__()
        return [(name, FakeTensor(*output)) for name, output in outputs.items()]


def _best(table: FakeTensor, axes: Any, columns: Any, threshold: float, limit: int) -> list[Any]:
    found = []
    for place, row in enumerate(table.table(axes)):
        looked = row if columns is None else row[columns.first : columns.first + columns.count]
        score = max(looked)
        if score >= threshold:
            found.append(_host.boxes.Candidate(place, looked.index(score), score))
    return sorted(found, key=lambda one: -one.score)[:limit]


def _rows(table: FakeTensor, axes: Any, rows: list[int]) -> list[float]:
    all_rows = table.table(axes)
    return [value for row in rows for value in all_rows[row]]


def _suppress(scored: list[Any], iou: float) -> list[int]:
    from .boxes import Box

    def box(place: int) -> Box:
        rect = scored[place].box
        return Box.of(rect.x, rect.y, rect.width, rect.height)

    stand: list[int] = []
    for place in sorted(range(len(scored)), key=lambda place: -scored[place].score):
        rivals = [other for other in stand if scored[other].class_ == scored[place].class_]
        if all(box(place).iou(box(other)) <= iou for other in rivals):
            stand.append(place)
    return stand


class Played:
    """A pipeline as the host has it, called through its exports. An error is a `PipelineError`."""

    def __init__(self, cls: type[CameraPipeline], settings: Any = None) -> None:
        self._exports = export(cls)()
        self.describe = self._exports.describe()
        self._call(self._exports.init, json.dumps(settings or {}))

    @staticmethod
    def _call(method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except _host.Err as error:
            # Not in its context: `Err` is frozen, and unittest sets the traceback of all errors.
            failure = PipelineError(error.value)
        raise failure

    def process(self, frame: FakeFrame) -> Any:
        """The contract's output of a frame; its pictures are given back."""
        output = self._call(self._exports.process, frame)
        for event in output.events:
            for image in event.attachments:
                image.__exit__()
        return output

    def query(self, request: Any = None) -> Any:
        """The answer to a question."""
        return json.loads(self._call(self._exports.query, json.dumps(request)))

    def command(self, request: Any = None) -> Any:
        """The answer to a command."""
        return json.loads(self._call(self._exports.command, json.dumps(request)))

    def snapshot(self) -> bytes:
        """The state."""
        return self._exports.snapshot()

    def restore(self, state: bytes, version: str = "0.0.1") -> None:
        """Takes over a state."""
        self._call(self._exports.restore, version, state)


def play(
    cls: type[CameraPipeline], script: Iterable[FakeFrame], settings: Any = None
) -> list[Any]:
    """The contract's outputs of all frames of a script."""
    pipeline = Played(cls, settings)
    return [pipeline.process(frame) for frame in script]


__all__ = [
    "FakeFrame",
    "FakeHandle",
    "FakeHost",
    "FakeImage",
    "FakeTensor",
    "HostError",
    "Played",
    "described",
    "frames",
    "play",
]
