#!/usr/bin/env python3
"""Make a NanoDet of 8 bits: another input size, constants folded, all layers quantised.

    quantise.py models/nanodet-g-416/model.onnx OUT.onnx --side 320 CLIP...

Calibrates on every 20th frame of the clips. Weights are folded first: those that a file keeps in 16
bits behind `Cast` nodes would otherwise be taken for activations, which doubles size and time.
README.md beside this file says which packages it needs.
"""

import argparse
import collections
import os
import sys
import tempfile
from pathlib import Path

# ONNX Runtime reads this when it is loaded, so it is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import av
import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/golden"))
from make_golden import STRIDES, letterbox, to_rgb, to_tensor

# Frames from one that is looked at to the next: two seconds of a camera.
STEP = 20

# What runs in 8 bits. The heads' last nodes (Sigmoid, Split, Reshape, Transpose) stay in floats.
QUANTISED = ["Conv", "LeakyRelu", "MaxPool", "Add"]


def fold_casts(graph):
    """Replace each weight that is cast by its value in 32 bits; returns how many there were."""
    weights = {weight.name: weight for weight in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]
    for node in casts:
        value = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
    return len(casts)


def set_side(graph, side):
    """Change the input's side. Constants of shapes hold the levels' sides, or numbers of cells."""
    shape = graph.input[0].type.tensor_type.shape.dim
    before = shape[2].dim_value
    changes = {before // stride: side // stride for stride in STRIDES}
    changes |= {(before // stride) ** 2: (side // stride) ** 2 for stride in STRIDES}
    shape[2].dim_value = shape[3].dim_value = side
    for index, weight in enumerate(graph.initializer):
        value = numpy_helper.to_array(weight)
        # The first is the batch. 44, 80 and 128 channels are not among the sides of levels.
        if value.dtype == np.int64 and value.ndim == 1 and value[0] == 1:
            changed = np.array([changes.get(int(number), int(number)) for number in value])
            graph.initializer[index].CopyFrom(numpy_helper.from_array(changed, weight.name))
    for output in graph.output:
        cells = output.type.tensor_type.shape.dim[1]
        cells.dim_value = changes[cells.dim_value]
    del graph.value_info[:]


class Frames(CalibrationDataReader):
    """The frames of clips as the model takes them."""

    def __init__(self, clips, side):
        self.tensors = self.read(clips, side)
        self.count = 0

    @staticmethod
    def read(clips, side):
        for clip in clips:
            with av.open(clip) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    if number % STEP == STEP // 2:
                        yield {"input": to_tensor(letterbox(to_rgb(frame), side, side)[0])}

    def get_next(self):
        tensor = next(self.tensors, None)
        self.count += tensor is not None
        return tensor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--side", type=int, default=320)
    arguments = parser.parse_args()
    if arguments.side % max(STRIDES) != 0:
        parser.error(f"--side: a multiple of {max(STRIDES)}")
    model = onnx.load(arguments.model)
    casts = fold_casts(model.graph)
    set_side(model.graph, arguments.side)
    frames = Frames(arguments.clips, arguments.side)
    with tempfile.TemporaryDirectory() as folder:
        folded, prepared = f"{folder}/folded.onnx", f"{folder}/prepared.onnx"
        onnx.save(model, folded)
        quant_pre_process(folded, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            arguments.out,
            frames,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=QUANTISED,
        )
    operators = collections.Counter(node.op_type for node in onnx.load(arguments.out).graph.node)
    print(
        f"{frames.count} frames, {casts} casts folded, {os.path.getsize(arguments.out)} bytes, "
        f"{dict(operators)}"
    )


if __name__ == "__main__":
    main()
