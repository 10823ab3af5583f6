"""Makes an ONNX model of a graph that bench/engines.rs wrote: export_onnx.py FOLDER MODEL

FOLDER holds graph.json and weights.safetensors. Needs onnx, numpy and safetensors.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


def node_of(layer, output, inputs, constants):
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
    conv = op["conv"]
    (top, bottom), (left, right) = layer["pad_rows"], layer["pad_columns"]
    name = layer["name"]
    relu6 = conv["activation"] == "relu6"
    result = f"{output}.raw" if relu6 else output
    nodes = [
        helper.make_node(
            "Conv",
            [inputs[0], f"{name}.weight", f"{name}.bias"],
            [result],
            kernel_shape=[conv["kernel"]] * 2,
            strides=[conv["stride"]] * 2,
            pads=[top, left, bottom, right],
            group=layer["shape"][0] if conv["depthwise"] else 1,
        )
    ]
    if relu6:
        constants["zero"], constants["six"] = np.float32(0), np.float32(6)
        nodes.append(helper.make_node("Clip", [result, "zero", "six"], [output]))
    return nodes


def main():
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    graph = json.loads((folder / "graph.json").read_text())
    constants = dict(load_file(folder / "weights.safetensors"))
    layers = graph["layers"]
    nodes = []
    for i, layer in enumerate(layers[1:], start=1):
        nodes += node_of(layer, f"t{i}", [f"t{j}" for j in layer["inputs"]], constants)

    def info(i):
        return helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, [1, *layers[i]["shape"]])

    initializers = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    body = helper.make_graph(nodes, "student", [info(0)], [info(i) for i in graph["outputs"]], initializers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    main()
