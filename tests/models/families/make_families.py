#!/usr/bin/env python3
"""Make the wrappings of nanodet-g-416 in which it gives its boxes in the form of other detectors.

A wrapping is an ONNX graph without the model: what stands before it (the family's preprocessing, undone and
made NanoDet's) and behind it (the family's outputs, of NanoDet's). `ocelli_testkit::wrapped` puts the model
between the two; README.md beside this file says what each is.

    pip install onnx==1.23.2 numpy
    make_families.py [DIRECTORY]
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES, BINS = 416, 80, 11
STRIDES = (8, 16, 32)
CELLS = [(SIZE // stride) ** 2 for stride in STRIDES]
ALL = sum(CELLS)
SELECTED = 300

MEAN = np.array([103.53, 116.28, 123.675], np.float32).reshape(1, 3, 1, 1)
STD = np.array([57.375, 57.12, 58.395], np.float32).reshape(1, 3, 1, 1)

COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
).split(",")


class Wrapping:
    """A graph in the making. Nodes of what stands before the model have names that begin with `head`."""

    def __init__(self):
        self.nodes, self.weights, self.count = [], [], 0

    def weight(self, values, dtype=np.float32):
        name = f"wrap_w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, operator, *inputs, name=None, part="tail", **attributes):
        self.count += 1
        out = name or f"wrap_{self.count}"
        self.nodes.append(helper.make_node(operator, inputs, [out], f"{part}_{self.count}", **attributes))
        return out

    def head(self, picture, rgb, scale):
        """NanoDet's input of a picture in RGB or BGR whose values are pixels times `scale`."""
        if scale != 1:
            picture = self.node("Mul", picture, self.weight(1 / scale), part="head")
        if rgb:
            picture = self.node("Gather", picture, self.weight([2, 1, 0], np.int64), part="head", axis=1)
        picture = self.node("Sub", picture, self.weight(MEAN), part="head")
        self.node("Div", picture, self.weight(STD), name="input", part="head")

    def grid(self):
        """Column, row and stride of each cell, [1, ALL, 1] each. Bytes, as they take less room."""
        cells = [(x, y, s) for s in STRIDES for y in range(SIZE // s) for x in range(SIZE // s)]
        columns = np.array(cells, np.uint8).T.reshape(3, 1, ALL, 1)
        return [self.node("Cast", self.weight(part, np.uint8), to=TensorProto.FLOAT) for part in columns]

    def split(self, tensor, parts, axis=-1):
        outs = [f"wrap_{self.count + 1}_{part}" for part in range(len(parts))]
        self.count += 1
        sizes = self.weight(parts, np.int64)
        self.nodes.append(helper.make_node("Split", [tensor, sizes], outs, f"tail_{self.count}", axis=axis))
        return outs

    def edges(self):
        """Left, top, right and bottom of each cell's box in pixels, [1, ALL, 1] each."""
        sides = self.node("Concat", *[f"reg_s{stride}" for stride in STRIDES], axis=1)
        sides = self.node("Reshape", sides, self.weight([1, ALL, 4, BINS], np.int64))
        sides = self.node("Softmax", sides, axis=-1)
        sides = self.node("MatMul", sides, self.weight(np.arange(BINS).reshape(BINS, 1)))
        sides = self.node("Reshape", sides, self.weight([1, ALL, 4], np.int64))
        column, row, stride = self.grid()
        left, top, right, bottom = self.split(self.node("Mul", sides, stride), [1, 1, 1, 1])
        half = self.weight(0.5)
        x, y = (self.node("Mul", self.node("Add", cell, half), stride) for cell in (column, row))
        edges = [self.node("Sub", x, left), self.node("Sub", y, top)]
        return edges + [self.node("Add", x, right), self.node("Add", y, bottom)]

    def middle(self, edges):
        """Middle and size of boxes by their edges."""
        left, top, right, bottom = edges
        half = self.weight(0.5)
        x = self.node("Mul", self.node("Add", left, right), half)
        y = self.node("Mul", self.node("Add", top, bottom), half)
        return [x, y, self.node("Sub", right, left), self.node("Sub", bottom, top)]

    def scores(self):
        return self.node("Concat", *[f"cls_s{stride}" for stride in STRIDES], axis=1)

    def best(self, scores):
        return self.node("ReduceMax", scores, axes=[2], keepdims=1)

    def selected(self, scores, *tensors):
        """The rows of the SELECTED best scores, of tensors [1, ALL, n]."""
        best = self.node("Squeeze", self.best(scores), self.weight([0, 2], np.int64))
        places = f"wrap_places_{self.count}"
        top = [f"wrap_top_{self.count}", places]
        count = self.weight([SELECTED], np.int64)
        self.nodes.append(helper.make_node("TopK", [best, count], top, f"tail_top{self.count}", axis=0))
        return [self.node("Gather", tensor, places, axis=1) for tensor in tensors]

    def model(self, inputs, outputs, notes):
        known = [helper.make_tensor_value_info(f"cls_s{s}", TensorProto.FLOAT, [1, n, CLASSES])
                 for s, n in zip(STRIDES, CELLS)]
        known += [helper.make_tensor_value_info(f"reg_s{s}", TensorProto.FLOAT, [1, n, 4 * BINS])
                  for s, n in zip(STRIDES, CELLS)]
        values = [helper.make_tensor_value_info(*value) for value in inputs]
        given = [helper.make_tensor_value_info(*value) for value in outputs]
        graph = helper.make_graph(self.nodes, "wrapping", values + known, given, self.weights)
        model = helper.make_model(graph, producer_name="ocelli-tests", opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        helper.set_model_props(model, notes)
        onnx.checker.check_model(model)
        return model


def ultralytics(**more):
    """What Ultralytics' exporter writes."""
    return {"stride": "32", "names": str(dict(enumerate(COCO))), **more}


PICTURE = ("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])


def yolov5():
    """Three anchors in each cell, two of which see nothing."""
    w = Wrapping()
    w.head("images", True, 1 / 255)
    scores = w.scores()
    best = w.node("Max", w.best(scores), w.weight(1e-6))
    objectness = w.node("Sqrt", best)
    row = w.node("Concat", *w.middle(w.edges()), objectness, w.node("Div", scores, objectness), axis=2)
    empty = w.node("Mul", row, w.weight([1, 1, 1, 1] + [0] * (1 + CLASSES)))
    w.node("Concat", row, empty, empty, name="output", axis=1)
    return w.model([PICTURE], [("output", TensorProto.FLOAT, [1, 3 * ALL, 5 + CLASSES])], ultralytics())


def yolov8():
    w = Wrapping()
    w.head("images", True, 1 / 255)
    rows = w.node("Concat", *w.middle(w.edges()), w.scores(), axis=2)
    w.node("Transpose", rows, name="output0", perm=[0, 2, 1])
    notes = ultralytics(task="detect", imgsz=f"[{SIZE}, {SIZE}]", batch="1",
                        description="Ultralytics YOLOv8 in form, NanoDet-g in fact")
    # Height and width are open, as `dynamic=True` exports them: `imgsz` has them.
    picture = ("images", TensorProto.FLOAT, [1, 3, "height", "width"])
    return w.model([picture], [("output0", TensorProto.FLOAT, [1, 4 + CLASSES, ALL])], notes)


def yolov10():
    w = Wrapping()
    w.head("images", True, 1 / 255)
    scores = w.scores()
    label = w.node("Cast", w.node("ArgMax", scores, axis=2, keepdims=1), to=TensorProto.FLOAT)
    rows = w.node("Concat", *w.edges(), w.best(scores), label, axis=2)
    (rows,) = w.selected(scores, rows)
    w.node("Identity", rows, name="output0")
    notes = ultralytics(task="detect", imgsz=f"[{SIZE}, {SIZE}]", end2end="True")
    return w.model([PICTURE], [("output0", TensorProto.FLOAT, [1, SELECTED, 6])], notes)


def yolox():
    w = Wrapping()
    w.head("images", False, 1)
    x, y, width, height = w.middle(w.edges())
    column, row, stride = w.grid()
    x = w.node("Sub", w.node("Div", x, stride), column)
    y = w.node("Sub", w.node("Div", y, stride), row)
    size = [w.node("Log", w.node("Max", w.node("Div", side, stride), w.weight(1e-6))) for side in (width, height)]
    scores = w.scores()
    objectness = w.node("Sqrt", w.node("Max", w.best(scores), w.weight(1e-6)))
    w.node("Concat", x, y, *size, objectness, w.node("Div", scores, objectness), name="output", axis=2)
    return w.model([PICTURE], [("output", TensorProto.FLOAT, [1, ALL, 5 + CLASSES])], {})


def detr():
    """RT-DETR as Hugging Face exports it."""
    w = Wrapping()
    w.head("pixel_values", True, 1 / 255)
    scores = w.scores()
    boxes = w.node("Concat", *w.middle(w.edges()), axis=2)
    boxes = w.node("Mul", boxes, w.weight(1 / SIZE))
    boxes, scores = w.selected(scores, boxes, scores)
    scores = w.node("Clip", scores, w.weight(1e-6), w.weight(1 - 1e-6))
    rest = w.node("Sub", w.weight(1), scores)
    w.node("Log", w.node("Div", scores, rest), name="logits")
    w.node("Identity", boxes, name="pred_boxes")
    picture = ("pixel_values", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    outputs = [("logits", TensorProto.FLOAT, [1, SELECTED, CLASSES]), ("pred_boxes", TensorProto.FLOAT, [1, SELECTED, 4])]
    return w.model([picture], outputs, {})


def dfine():
    """RT-DETR and D-FINE as their own repositories export them: boxes in the pixels of a size that is given."""
    w = Wrapping()
    w.head("images", True, 1 / 255)
    scores = w.scores()
    boxes = w.node("Mul", w.node("Concat", *w.edges(), axis=2), w.weight(1 / SIZE))
    label = w.node("ArgMax", scores, axis=2, keepdims=1)
    boxes, label, best = w.selected(scores, boxes, label, w.best(scores))
    sides = w.node("Cast", "orig_target_sizes", to=TensorProto.FLOAT)
    sides = w.node("Reshape", w.node("Concat", sides, sides, axis=1), w.weight([1, 1, 4], np.int64))
    w.node("Squeeze", label, w.weight([2], np.int64), name="labels")
    w.node("Mul", boxes, sides, name="boxes")
    w.node("Squeeze", best, w.weight([2], np.int64), name="scores")
    inputs = [PICTURE, ("orig_target_sizes", TensorProto.INT64, [1, 2])]
    outputs = [("labels", TensorProto.INT64, [1, SELECTED]), ("boxes", TensorProto.FLOAT, [1, SELECTED, 4]),
               ("scores", TensorProto.FLOAT, [1, SELECTED])]
    return w.model(inputs, outputs, {})


def ssd():
    """All boxes as shares of the picture, beside scores of which the first is the background's."""
    w = Wrapping()
    w.head("images", True, 1 / 255)
    scores = w.scores()
    background = w.node("Sub", w.weight(1), w.best(scores))
    w.node("Concat", background, scores, name="scores", axis=2)
    w.node("Mul", w.node("Concat", *w.edges(), axis=2), w.weight(1 / SIZE), name="boxes")
    outputs = [("scores", TensorProto.FLOAT, [1, ALL, 1 + CLASSES]), ("boxes", TensorProto.FLOAT, [1, ALL, 4])]
    return w.model([PICTURE], outputs, {})


FAMILIES = [yolov5, yolov8, yolov10, yolox, detr, dfine, ssd]

if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for family in FAMILIES:
        onnx.save(family(), directory / f"{family.__name__}.onnx")
