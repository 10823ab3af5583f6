"""Makes model.onnx of a graph that bench/engines wrote: export_onnx.py FOLDER

FOLDER holds graph.json and weights.safetensors. Needs onnx, numpy and safetensors.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


def activation_nodes(activation, x, y, constants):
    """The ONNX nodes of an activation from x to y."""
    if activation == "relu6":
        constants["zero"], constants["six"] = np.float32(0), np.float32(6)
        return [helper.make_node("Clip", [x, "zero", "six"], [y])]
    if activation == "silu":
        return [helper.make_node("Sigmoid", [x], [f"{y}.sigmoid"]), helper.make_node("Mul", [x, f"{y}.sigmoid"], [y])]
    if activation == "leaky_relu":
        return [helper.make_node("LeakyRelu", [x], [y], alpha=0.1)]
    if activation == "hardswish":
        return [helper.make_node("HardSwish", [x], [y])]
    raise ValueError(activation)


def nodes_of(layer, output, inputs, constants):
    """The ONNX nodes of one layer; what they need besides its inputs goes to `constants`."""
    op = layer["op"]
    if op == "add":
        return [helper.make_node("Add", inputs, [output])]
    if op == "concat":
        return [helper.make_node("Concat", inputs, [output], axis=1)]
    if op == "upsample2x":
        constants["scales"] = np.array([1, 1, 2, 2], np.float32)
        return [
            helper.make_node(
                "Resize",
                [inputs[0], "", "scales"],
                [output],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ]
    kind, of = next(iter(op.items()))
    if kind == "slice":
        first = of["first"]
        constants["axis"] = np.array([1], np.int64)
        for value in (first, first + layer["shape"][0]):
            constants[f"at.{value}"] = np.array([value], np.int64)
        ends = [f"at.{first}", f"at.{first + layer['shape'][0]}", "axis"]
        return [helper.make_node("Slice", [inputs[0], *ends], [output])]
    if kind == "shuffle":
        channels, height, width = layer["shape"]
        groups = of["groups"]
        split, merged = f"{output}.split", f"{output}.merged"
        constants[split] = np.array([1, groups, channels // groups, height, width], np.int64)
        constants[merged] = np.array([1, channels, height, width], np.int64)
        return [
            helper.make_node("Reshape", [inputs[0], split], [f"{output}.grouped"]),
            helper.make_node("Transpose", [f"{output}.grouped"], [f"{output}.swapped"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", [f"{output}.swapped", merged], [output]),
        ]
    (top, bottom), (left, right) = layer["pad_rows"], layer["pad_columns"]
    window = dict(kernel_shape=[of["kernel"]] * 2, strides=[of["stride"]] * 2, pads=[top, left, bottom, right])
    if kind == "max_pool":
        return [helper.make_node("MaxPool", inputs, [output], **window)]
    name = layer["name"]
    activation = of["activation"]
    result = output if activation == "identity" else f"{output}.raw"
    group = layer["shape"][0] if of["depthwise"] else 1
    nodes = [
        helper.make_node("Conv", [inputs[0], f"{name}.weight", f"{name}.bias"], [result], group=group, **window)
    ]
    if activation != "identity":
        nodes += activation_nodes(activation, result, output, constants)
    return nodes


def main():
    folder = Path(sys.argv[1])
    graph = json.loads((folder / "graph.json").read_text())
    constants = dict(load_file(folder / "weights.safetensors"))
    layers = graph["layers"]
    nodes = []
    for i, layer in enumerate(layers[1:], start=1):
        inputs = [f"t{j}" for j in layer["inputs"]]
        nodes += nodes_of(layer, f"t{i}", inputs, constants)

    def info(i):
        return helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, [1, *layers[i]["shape"]])

    initializers = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    body = helper.make_graph(nodes, "network", [info(0)], [info(i) for i in graph["outputs"]], initializers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")


if __name__ == "__main__":
    main()
