#!/usr/bin/env python3
"""Turn an EfficientNet-Lite ONNX classifier into the safetensors file that `distill student --init` starts from.

usage: import_imagenet.py efficientnet_lite0.onnx backbone.safetensors   (needs: pip install onnx safetensors numpy)

Convolutions appear in the ONNX graph in the order stem, then for each block (expand,) depthwise, project; with their
batch-norm folded in. They are written as `backbone.<stage>.<block>.<part>.{weight,bias}`; a student whose backbone has
a layer of that name and shape takes it over, and ignores the rest.
"""
import sys

import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

# Blocks and expansion factor of each stage of EfficientNet-Lite0 (deeper members repeat blocks).
LITE0 = [(1, 1), (2, 6), (2, 6), (3, 6), (3, 6), (4, 6), (1, 6)]


def names():
    yield "backbone.stem"
    for stage, (blocks, expand) in enumerate(LITE0):
        for block in range(blocks):
            for part in (["expand"] if expand > 1 else []) + ["depthwise", "project"]:
                yield f"backbone.{stage}.{block}.{part}"


def main(source, target):
    graph = onnx.load(source).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    tensors = {}
    for name, node in zip(names(), convs):
        weight, bias = values[node.input[1]], values[node.input[2]]
        depthwise = name.endswith("depthwise")
        if depthwise != (weight.shape[1] == 1):
            sys.exit(f"{source}: {node.name} has weights {weight.shape}, which is no {name}; is this EfficientNet-Lite0?")
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight.copy(), bias.copy()
    save_file(tensors, target)
    print(f"{target}: {len(tensors) // 2} convolutions of {len(convs)}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
