#!/usr/bin/env python3
"""Write tiny_teacher.onnx: a CenterNet-like "teacher" that sees red, green and blue spots (run once; needs pip install
onnx numpy).

Input x 1x64x64x3 with values 0...1; heat 1x16x16x3 is the mean colour of each 4x4 cell; sides 1x16x16x4 is 6 everywhere.
"""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

nodes = [
    helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
    helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
    helper.make_node("Transpose", ["cells"], ["heat"], perm=[0, 2, 3, 1]),
    helper.make_node("Identity", ["six"], ["sides"]),
]
graph = helper.make_graph(
    nodes,
    "tiny_teacher",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 64, 3])],
    [
        helper.make_tensor_value_info("heat", TensorProto.FLOAT, [1, 16, 16, 3]),
        helper.make_tensor_value_info("sides", TensorProto.FLOAT, [1, 16, 16, 4]),
    ],
    [numpy_helper.from_array(np.full((1, 16, 16, 4), 6, np.float32), "six")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
model.ir_version = 8
onnx.checker.check_model(model)
path = pathlib.Path(__file__).with_suffix(".onnx")
onnx.save(model, path)
print(path, path.stat().st_size, "bytes")
