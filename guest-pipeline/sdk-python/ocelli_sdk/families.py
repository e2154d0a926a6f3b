"""From a detector's outputs to boxes, by the family of their form.

A family is named in the table `[decoder]` of a `model.toml`, whose other keys say what the outputs
are called and how large they are. The host looks for the rows that score enough; these alone are
read and decoded. Boxes are in pixels of the model's input.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, Callable, Container, Iterator, Mapping, Sequence

from .boxes import Axes, Box, Candidate, Scored
from .errors import PipelineError
from .frames import Tensor

ROWS_READ = 1000
"""Rows of an output that are decoded, the best first: before suppression an object has some tens
of them, and the Rust SDK's suppression looks at as many."""

Outputs = Mapping[str, Tensor]
Level = tuple[int, int, int]


class Form(dict):
    """The table `[decoder]`, whose missing keys have a name."""

    def __missing__(self, key: str) -> Any:
        raise PipelineError(f"its [decoder] has no {key!r}")


class Search:
    """What is looked for: boxes of `score` and more, of some classes (None: of all), in a model
    whose input has this width and height."""

    def __init__(
        self, size: tuple[int, int], score: float, classes: Container[int] | None = None
    ) -> None:
        self.size, self.score, self.classes = size, score, classes

    def wants(self, class_: int) -> bool:
        """Whether boxes of the class are looked for."""
        return self.classes is None or class_ in self.classes

    def hits(
        self,
        table: Tensor,
        columns: tuple[int, int] | None = None,
        axes: Any = Axes.ROWS_COLUMNS,
        score: float | None = None,
    ) -> list[Candidate]:
        """The rows whose best of these columns, which are classes, is good enough."""
        least = self.score if score is None else score
        hits = table.best(least, ROWS_READ, axes, columns)
        return [hit for hit in hits if self.wants(hit.class_)]

    def objects(self, table: Tensor, classes: int) -> Iterator[tuple[int, Scored]]:
        """Rows of four numbers, an objectness and scores: their places, and what the first four
        are as edges."""
        # The score is the objectness times a class's, which is at most 1: the objectness bounds it.
        hits = table.best(self.score, ROWS_READ, classes=(4, 1))
        for hit, row in zip(hits, read(table, hits)):
            scores = row[5 : 5 + classes]
            if len(scores) < classes:
                raise PipelineError(f"its output has {len(row)} columns, not {5 + classes}")
            best = max(scores)
            class_ = scores.index(best)
            if best * row[4] >= self.score and self.wants(class_):
                yield hit.row, Scored(Box(*row[:4]), best * row[4], class_)

    def scaled(self, box: Box) -> Box:
        """A box in shares of the picture, in pixels."""
        width, height = self.size
        return Box(box.left * width, box.top * height, box.right * width, box.bottom * height)


def read(table: Tensor, hits: Sequence[Candidate], axes: Any = Axes.ROWS_COLUMNS) -> list[Any]:
    """The rows of some hits."""
    return table.rows([hit.row for hit in hits], axes) if hits else []


def output(outputs: Outputs, name: str) -> Tensor:
    """An output by its name."""
    if name not in outputs:
        raise PipelineError(f"it has no output {name!r}, but {', '.join(outputs)}")
    return outputs[name]


def yolov5(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """[1, N, 5 + classes]: middle, size, objectness, scores."""
    found = search.objects(output(outputs, form["output"]), form["classes"])
    return [Scored(_about(one.box), one.score, one.class_) for _, one in found]


def yolov8(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """[1, 4 + classes, N]: a row for each of the middle, the size and the scores of all boxes."""
    table = output(outputs, form["output"])
    hits = search.hits(table, (4, form["classes"]), Axes.COLUMNS_ROWS)
    rows = read(table, hits, Axes.COLUMNS_ROWS)
    return [Scored(Box.about(*row[:4]), hit.score, hit.class_) for hit, row in zip(hits, rows)]


def yolov10(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """[1, N, 6]: edges, score and class."""
    table = output(outputs, form["output"])
    rows = read(table, table.best(search.score, ROWS_READ, classes=(4, 1)))
    # Rows without a detection are filled with zeros, or with a class of -1.
    found = [Scored(Box(*row[:4]), row[4], int(row[5])) for row in rows if row[5] >= 0]
    return [one for one in found if search.wants(one.class_)]


def yolox(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """[1, N, 5 + classes]: the middle from the cell's corner, and the logarithm of the size, both
    in strides; objectness and scores."""
    table = output(outputs, form["output"])
    levels = _levels(search.size, form["strides"], table)
    found = []
    for place, one in search.objects(table, form["classes"]):
        stride, column, line = _cell(levels, place)
        (x, y), (width, height) = (one.box.left, one.box.top), (one.box.right, one.box.bottom)
        box = Box.about(
            (x + column) * stride,
            (y + line) * stride,
            _exp(width) * stride,
            _exp(height) * stride,
        )
        found.append(Scored(box, one.score, one.class_))
    return found


def nanodet(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """Scores, and the distances to the sides as distributions over bins; one output, or two for
    each level."""
    if form.get("output") is not None:
        table, classes = output(outputs, form["output"]), form["classes"]
        levels = _levels(search.size, form["strides"], table)
        hits = search.hits(table, (0, classes))
        return [
            _binned(form, hit, row[classes:], *_cell(levels, hit.row))
            for hit, row in zip(hits, read(table, hits))
        ]
    found = []
    for stride, scores, sides in zip(form["strides"], form["scores"], form["sides"]):
        table = output(outputs, scores)
        level = _levels(search.size, [stride], table)
        hits = search.hits(table)
        for hit, row in zip(hits, read(output(outputs, sides), hits)):
            found.append(_binned(form, hit, row, *_cell(level, hit.row)))
    return found


def detr(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """A fixed number of queries, in one of three forms."""
    if form.get("output") is not None:
        table = output(outputs, form["output"])
        hits = search.hits(table, (4, _columns(table) - 4))
        return [
            Scored(search.scaled(Box.about(*row[:4])), hit.score, hit.class_)
            for hit, row in zip(hits, read(table, hits))
        ]
    boxes = output(outputs, form["boxes"])
    if form.get("logits") is not None:
        hits = search.hits(output(outputs, form["logits"]), score=_logit(search.score))
        return [
            Scored(search.scaled(Box.about(*row[:4])), 1 / (1 + _exp(-hit.score)), hit.class_)
            for hit, row in zip(hits, read(boxes, hits))
        ]
    hits = _labelled(outputs, form["labels"], form["scores"], 0, search)
    rows = read(boxes, hits)
    return [Scored(Box(*row[:4]), hit.score, hit.class_) for hit, row in zip(hits, rows)]


def ssd(outputs: Outputs, form: Form, search: Search) -> list[Scored]:
    """Boxes by their edges, with a score for each class or with one class."""
    first = form["first"]
    if form.get("labels") is not None:
        hits = _labelled(outputs, form["labels"], form["scores"], first, search)
    else:
        scores = output(outputs, form["scores"])
        hits = search.hits(scores, (first, _columns(scores) - first))
    found = []
    for hit, row in zip(hits, read(output(outputs, form["boxes"]), hits)):
        a, b, c, d = row[:4]
        box = Box(a, b, c, d) if form["order"] == "xyxy" else Box(b, a, d, c)
        found.append(Scored(search.scaled(box) if form["unit"] else box, hit.score, hit.class_))
    return found


def _about(numbers: Box) -> Box:
    return Box.about(numbers.left, numbers.top, numbers.right, numbers.bottom)


def _columns(table: Tensor) -> int:
    return table.dimensions[-1]


def _levels(size: tuple[int, int], strides: Sequence[int], table: Tensor) -> list[Level]:
    """For each level the stride, the row of its first cell and the cells in a line, the coarsest
    first."""
    levels: list[Level] = []
    first = 0
    for stride in strides:
        columns, lines = (-(-side // stride) for side in size)
        levels.insert(0, (stride, first, columns))
        first += columns * lines
    rows = table.dimensions[-2]
    if rows != first:
        width, height = size
        raise PipelineError(
            f"its output has {rows} rows; strides {list(strides)} of {width} x {height} pixels "
            f"give {first}"
        )
    return levels


def _cell(levels: Sequence[Level], row: int) -> tuple[int, int, int]:
    """The stride of a row's level, and the column and the line of its cell."""
    stride, first, columns = next(level for level in levels if row >= level[1])
    return stride, (row - first) % columns, (row - first) // columns


def _binned(
    form: Form, hit: Candidate, row: Sequence[float], stride: int, column: int, line: int
) -> Scored:
    """A cell's box: the distances from its point to the sides, in strides, are expected bins."""
    bins, point = form["bins"], form["point"]
    sides = [_expected(row[i * bins : (i + 1) * bins]) * stride for i in range(4)]
    x, y = (column + point) * stride, (line + point) * stride
    box = Box(x - sides[0], y - sides[1], x + sides[2], y + sides[3])
    return Scored(box, hit.score, hit.class_)


def _expected(logits: Sequence[float]) -> float:
    """The mean of the bins' numbers, from 0 on, under the softmax of the logits."""
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    return sum(place * weight for place, weight in enumerate(weights)) / sum(weights)


def _labelled(
    outputs: Outputs, labels: str, scores: str, first: int, search: Search
) -> list[Candidate]:
    """The boxes that have one class each. `first` is the number of the first class; lower ones
    stand for nothing."""
    classes, values = _whole(output(outputs, labels)), output(outputs, scores).floats()
    if len(classes) != len(values):
        raise PipelineError(f"it gives {len(classes)} labels and {len(values)} scores")
    found = []
    for place, (class_, score) in enumerate(zip(classes, values)):
        if score >= search.score and class_ >= first and search.wants(class_ - first):
            found.append(Candidate(place, class_ - first, score))
    return found


def _whole(tensor: Tensor) -> Sequence[int]:
    """The numbers of a tensor of classes."""
    kind = tensor.type.name
    if kind == "FP32":
        return [int(value) for value in tensor.floats()]
    if kind not in ("I64", "I32", "U8"):
        raise PipelineError(f"its classes are of {kind}, which is no whole number")
    values = array({"I64": "q", "I32": "i", "U8": "B"}[kind])
    values.frombytes(tensor.bytes())
    return values


def _exp(value: float) -> float:
    """The exponential, infinite where Python would raise."""
    return math.exp(value) if value < 700 else math.inf


def _logit(score: float) -> float:
    """The number whose sigmoid is `score`."""
    if 0 < score < 1:
        return math.log(score / (1 - score))
    return -math.inf if score <= 0 else math.inf


FAMILIES: dict[str, Callable[[Outputs, Form, Search], list[Scored]]] = {
    "yolov5": yolov5,
    "yolov8": yolov8,
    "yolov10": yolov10,
    "yolox": yolox,
    "nanodet": nanodet,
    "detr": detr,
    "ssd": ssd,
}
"""What decodes each family's outputs."""
