"""Makes families.json: the same objects in the form of each family of detectors.

    python3 tests/golden/make_families.py tests/golden/families.json
"""

import json
import math
import sys

WIDTH, HEIGHT = 320, 256
CLASSES = 3

# Edges, class and score; the cell of a grid (stride, column, line) at which the object is found.
# The last one scores less than is asked for.
OBJECTS = [
    ((20, 30, 100, 90), 2, 0.9, (16, 3, 3)),
    ((200, 40, 260, 200), 0, 0.6, (32, 7, 3)),
    ((5, 5, 25, 25), 1, 0.2, (8, 1, 1)),
]
LEAST_SCORE = 0.4


def middle(box):
    left, top, right, bottom = box
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def shares(numbers):
    x, y, width, height = numbers
    return [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]


def scores(class_, score, rest=0.0):
    return [score if place == class_ else rest for place in range(CLASSES)]


def cells(stride):
    return -(-WIDTH // stride), -(-HEIGHT // stride)


def rows_of(strides):
    return sum(columns * lines for columns, lines in map(cells, strides))


def row_of(strides, cell):
    stride, column, line = cell
    before = strides[: strides.index(stride)]
    return rows_of(before) + line * cells(stride)[0] + column


def sides(box, cell, bins, point):
    """Logits of bins whose expected numbers are the distances from the cell's point, in strides."""
    stride, column, line = cell
    x, y = (column + point) * stride, (line + point) * stride
    logits = []
    for distance in (x - box[0], y - box[1], box[2] - x, box[3] - y):
        part, whole = math.modf(distance / stride)
        side = [-60.0] * bins
        side[int(whole)] = math.log(1 - part)
        if part > 0:
            side[int(whole) + 1] = math.log(part)
        logits += side
    return logits


def rounded(numbers):
    return [float(f"{number:.6g}") for number in numbers]


def dense(shape, *parts, type=None):
    numbers = [number for part in parts for number in part]
    if type is not None:
        return {"shape": shape, "type": type, "values": numbers}
    return {"shape": shape, "values": rounded(numbers)}


def sparse(rows, columns, filled):
    return {
        "shape": [1, rows, columns],
        "rows": {str(row): rounded(numbers) for row, numbers in filled.items()},
    }


def tables():
    """Families with one output that has a row or a column for each box."""
    rows = [middle(b) + [0.95] + scores(c, s / 0.95, 0.01) for b, c, s, _ in OBJECTS]
    # A class that is certain of nothing.
    rows.append([50, 50, 20, 20, 0.1, 1, 0, 0])
    decoder = {"family": "yolov5", "output": "rows", "classes": CLASSES}
    yield "yolov5", decoder, {"rows": dense([1, 4, 8], *rows)}

    columns = [[0.0] * 9 for _ in range(7)]
    for place, (b, c, s, _) in zip((1, 4, 6), OBJECTS):
        columns[place] = middle(b) + scores(c, s, 0.01) + [9, 9]
    decoder = {"family": "yolov8", "output": "out", "classes": CLASSES}
    out = dense([1, 9, 7], *zip(*columns))
    yield "yolov8, with two columns behind the scores", decoder, {"out": out}

    rows = [[*b, s, c] for b, c, s, _ in OBJECTS]
    # Rows without a detection.
    rows += [[0] * 6, [1, 1, 9, 9, 0.9, -1]]
    decoder = {"family": "yolov10", "output": "rows"}
    yield "yolov10", decoder, {"rows": dense([1, 5, 6], *rows)}


def grids():
    """Families whose boxes are relative to the cells of a grid."""
    strides = [8, 16, 32]
    filled = {}
    for b, c, s, cell in OBJECTS:
        (stride, column, line), (x, y, width, height) = cell, middle(b)
        numbers = [x / stride - column, y / stride - line]
        numbers += [math.log(width / stride), math.log(height / stride), 0.95]
        filled[row_of(strides, cell)] = numbers + scores(c, s / 0.95)
    decoder = {"family": "yolox", "output": "out", "classes": CLASSES, "strides": strides}
    yield "yolox", decoder, {"out": sparse(rows_of(strides), 8, filled)}

    outputs = {}
    for stride in strides:
        here = [one for one in OBJECTS if one[3][0] == stride]
        rows = rows_of([stride])
        best = {row_of([stride], cell): scores(c, s) for _, c, s, cell in here}
        edges = {row_of([stride], cell): sides(b, cell, 11, 0.5) for b, _, _, cell in here}
        outputs[f"c{stride}"] = sparse(rows, CLASSES, best)
        outputs[f"s{stride}"] = sparse(rows, 44, edges)
    decoder = {"family": "nanodet", "classes": CLASSES, "strides": strides}
    decoder |= {"scores": ["c8", "c16", "c32"], "sides": ["s8", "s16", "s32"]}
    decoder |= {"bins": 11, "point": 0.5}
    yield "nanodet, an output for each level", decoder, outputs

    strides = [8, 16, 32, 64]
    filled = {}
    for b, c, s, cell in OBJECTS:
        filled[row_of(strides, cell)] = scores(c, s) + sides(b, cell, 8, 0)
    decoder = {"family": "nanodet", "output": "out", "classes": CLASSES, "strides": strides}
    decoder |= {"bins": 8, "point": 0}
    yield "nanodet, one output", decoder, {"out": sparse(rows_of(strides), 35, filled)}


def queries():
    """DETR in its three forms."""
    boxes = [shares(middle(b)) for b, *_ in OBJECTS]
    logits = [scores(c, math.log(s / (1 - s)), -9) for _, c, s, _ in OBJECTS]
    outputs = {"boxes": dense([1, 3, 4], *boxes), "logits": dense([1, 3, 3], *logits)}
    decoder = {"family": "detr", "boxes": "boxes", "logits": "logits"}
    yield "detr, boxes and logits", decoder, outputs

    rows = [box + scores(c, s, 0.01) for box, (_, c, s, _) in zip(boxes, OBJECTS)]
    decoder = {"family": "detr", "output": "rows"}
    yield "detr, one output", decoder, {"rows": dense([1, 3, 7], *rows)}

    decoder = {"family": "detr", "boxes": "boxes", "labels": "labels", "scores": "scores"}
    decoder["sizes"] = "orig_target_sizes"
    outputs = {
        "boxes": dense([1, 3, 4], *(b for b, *_ in OBJECTS)),
        "scores": dense([1, 3], [s for _, _, s, _ in OBJECTS]),
        "labels": dense([1, 3], [c for _, c, *_ in OBJECTS], type="I64"),
    }
    yield "detr, labels, boxes and scores", decoder, outputs


def edges():
    """SSD in either order, with scores or classes."""
    table = {"family": "ssd", "boxes": "boxes", "scores": "scores"}
    # The background, which is the best of what nothing is at.
    rows = [[0.3] + scores(c, s, 0.01) for _, c, s, _ in OBJECTS] + [[0.99, 0, 0, 0]]
    boxes = [shares(b) for b, *_ in OBJECTS] + [[0.1, 0.1, 0.2, 0.2]]
    decoder = table | {"order": "xyxy", "unit": True, "first": 1}
    outputs = {"boxes": dense([1, 4, 4], *boxes), "scores": dense([1, 4, 4], *rows)}
    yield "ssd, a score for each class behind the background", decoder, outputs

    labelled = table | {"labels": "classes"}
    best = dense([3], [s for _, _, s, _ in OBJECTS])
    numbers = [c + 1 for _, c, *_ in OBJECTS]
    units = [shares(b) for b, *_ in OBJECTS]
    turned = [[top, left, bottom, right] for left, top, right, bottom in units]
    decoder = labelled | {"order": "yxyx", "unit": True, "first": 1}
    outputs = {"boxes": dense([1, 3, 4], *turned), "scores": best, "classes": dense([3], numbers)}
    yield "ssd, classes, edges from the top, in shares", decoder, outputs

    decoder = labelled | {"order": "xyxy", "unit": False, "first": 1}
    outputs = {"boxes": dense([3, 4], *(b for b, *_ in OBJECTS)), "scores": best}
    outputs["classes"] = dense([3], numbers, type="I32")
    yield "ssd, classes, edges in pixels", decoder, outputs


def written(name, decoder, outputs):
    lines = [f"        {json.dumps(key)}: {json.dumps(value)}" for key, value in outputs.items()]
    return (
        f'    {{\n      "name": {json.dumps(name)},\n      "decoder": {json.dumps(decoder)},\n'
        '      "outputs": {\n' + ",\n".join(lines) + "\n      }\n    }"
    )


def main():
    expected = [
        {"box": b, "class": c, "score": s} for b, c, s, _ in OBJECTS if s >= LEAST_SCORE
    ]
    cases = [written(*case) for part in (tables, grids, queries, edges) for case in part()]
    text = (
        f'{{\n  "size": [{WIDTH}, {HEIGHT}],\n  "least_score": {LEAST_SCORE},\n'
        '  "expected": [\n    '
        + ",\n    ".join(map(json.dumps, expected))
        + '\n  ],\n  "cases": [\n'
        + ",\n".join(cases)
        + "\n  ]\n}\n"
    )
    json.loads(text)
    with open(sys.argv[1], "w") as file:
        file.write(text)


main()
