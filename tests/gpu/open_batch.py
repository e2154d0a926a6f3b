#!/usr/bin/env python3
"""Make a NanoDet that takes several pictures in one run: its first dimension is open.

    open_batch.py models/nanodet-g-416/model.onnx OUT.onnx

The bundled model fixes the batch in the shapes of Reshape and in the sizes of Resize. Needs the
package `onnx`.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference


def main(source, out):
    model = onnx.load(source)
    graph = model.graph
    known = shape_inference.infer_shapes(model).graph
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in [*known.value_info, *known.input, *known.output]
    }
    constants = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    made = {}
    for node in graph.node:
        if node.op_type == "Reshape":
            shape = constants[node.input[1]].copy()
            shape[0] = 0  # As in the input.
            node.input[1] = made.setdefault(tuple(shape), f"open_shape_{len(made)}")
        elif node.op_type == "Resize":
            before, after = sides[node.input[0]], constants[node.input[3]]
            scales = tuple(float(n) / float(m) for n, m in zip(after, before))
            name = made.setdefault(scales, f"open_scales_{len(made)}")
            node.input[2] = name
            del node.input[3:]
    for value, name in made.items():
        kind = np.float32 if "scales" in name else np.int64
        graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
    used = {name for node in graph.node for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
    for tensor in [*graph.input, *graph.output]:
        tensor.type.tensor_type.shape.dim[0].CopyFrom(
            onnx.TensorShapeProto.Dimension(dim_param="batch")
        )
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
