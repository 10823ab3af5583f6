"""Makes model.param and model.bin for ncnn of a graph that bench/engines wrote: export_ncnn.py FOLDER

Needs numpy and safetensors. Written for ncnn rather than converted, so that it gets every fusion that it knows:
activations within convolutions (all but SiLU and hard-sigmoid, which it has as layers of their own) and its own channel
shuffle.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

# What follows a convolution within its layer.
FUSED = {
    "identity": "",
    "relu": " 9=1",
    "leaky_relu": " 9=2 -23310=1,0.1",
    "relu6": " 9=3 -23310=2,0.0,6.0",
    "sigmoid": " 9=4",
    "hardswish": " 9=6 -23310=2,0.1666667,0.5",
}

# An activation as a layer of its own.
ALONE = {
    "relu": ("ReLU", ""),
    "leaky_relu": ("ReLU", " 0=0.1"),
    "relu6": ("Clip", " 0=0.0 1=6.0"),
    "sigmoid": ("Sigmoid", ""),
    "silu": ("Swish", ""),
    "hardswish": ("HardSwish", " 0=0.1666667 1=0.5"),
    "hardsigmoid": ("HardSigmoid", " 0=0.1666667 1=0.5"),
}


class Writer:
    def __init__(self, layers, outputs):
        self.lines, self.blobs, self.binary = [], 0, bytearray()
        # ncnn's blobs have one reader each: those with more pass a Split.
        reads = [i for layer in layers for i in layer["inputs"]] + outputs
        self.readers = {i: reads.count(i) for i in range(len(layers))}
        self.copies = {}

    def layer(self, kind, name, inputs, outputs, parameters=""):
        self.blobs += len(outputs)
        fields = [kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs]
        self.lines.append(" ".join(fields) + parameters)

    def made(self, i):
        """To be called when blob t{i} exists."""
        n = self.readers[i]
        self.copies[i] = [f"t{i}"]
        if n > 1:
            self.copies[i] = [f"t{i}.{k}" for k in range(n)]
            self.layer("Split", f"split{i}", [f"t{i}"], self.copies[i])

    def read(self, i):
        return self.copies[i].pop()

    def weights(self, weight, bias):
        # A tag of zero: plain f32.
        self.binary += np.uint32(0).tobytes() + weight.astype("<f4").tobytes() + bias.astype("<f4").tobytes()


def write(writer, i, layer, tensors):
    op, name, out = layer["op"], layer["name"], f"t{i}"
    inputs = [writer.read(j) for j in layer["inputs"]]
    channels = layer["shape"][0]
    if op == "add":
        writer.layer("BinaryOp", name, inputs, [out], " 0=0")
    elif op == "concat":
        writer.layer("Concat", name, inputs, [out], " 0=0")
    elif op == "scale":
        writer.layer("BinaryOp", name, inputs, [out], " 0=2")
    elif op == "global_average":
        writer.layer("Pooling", name, inputs, [out], " 0=1 4=1")
    elif "activate" in op:
        kind, parameters = ALONE[op["activate"]]
        writer.layer(kind, name, inputs, [out], parameters)
    elif "upsample2x" in op:
        kind = 2 if op["upsample2x"] == "bilinear" else 1
        writer.layer("Interp", name, inputs, [out], f" 0={kind} 1=2.0 2=2.0")
    elif "slice" in op:
        first = op["slice"]["first"]
        writer.layer("Crop", name, inputs, [out], f" -23309=1,{first} -23310=1,{first + channels} -23311=1,0")
    elif "shuffle" in op:
        writer.layer("ShuffleChannel", name, inputs, [out], f" 0={op['shuffle']['groups']}")
    else:
        (top, bottom), (left, right) = layer["pad_rows"], layer["pad_columns"]
        pool = next((kind for kind in ("max_pool", "average_pool") if kind in op), None)
        if pool:
            of = op[pool]
            parameters = f" 0={int(pool == 'average_pool')} 1={of['kernel']} 2={of['stride']} 3={left} 13={top} 14={right} 15={bottom} 5=1"
            writer.layer("Pooling", name, inputs, [out], parameters)
            return
        of = op["conv"]
        weight = tensors[f"{name}.weight"]
        kind = "ConvolutionDepthWise" if of["depthwise"] else "Convolution"
        parameters = f" 0={channels} 1={of['kernel']} 3={of['stride']} 4={left} 14={top} 15={right} 16={bottom} 5=1 6={weight.size}"
        parameters += f" 7={channels}" if of["depthwise"] else ""
        fused = of["activation"] in FUSED
        raw = out if fused else out + ".raw"
        writer.layer(kind, name, inputs, [raw], parameters + (FUSED[of["activation"]] if fused else ""))
        writer.weights(weight, tensors[f"{name}.bias"])
        if raw != out:
            kind, parameters = ALONE[of["activation"]]
            writer.layer(kind, f"{name}.{of['activation']}", [raw], [out], parameters)


def main():
    folder = Path(sys.argv[1])
    graph = json.loads((folder / "graph.json").read_text())
    tensors = load_file(folder / "weights.safetensors")
    layers = graph["layers"]
    writer = Writer(layers, graph["outputs"])
    c, h, w = layers[0]["shape"]
    writer.layer("Input", "input", [], ["t0"], f" 0={w} 1={h} 2={c}")
    writer.made(0)
    for i, layer in enumerate(layers[1:], start=1):
        write(writer, i, layer, tensors)
        writer.made(i)
    # The names by which the outputs can be had.
    outputs = [writer.read(i) for i in graph["outputs"]]
    (folder / "ncnn_outputs.json").write_text(json.dumps(outputs))
    header = ["7767517", f"{len(writer.lines)} {writer.blobs}"]
    (folder / "model.param").write_text("\n".join(header + writer.lines) + "\n")
    (folder / "model.bin").write_bytes(writer.binary)


if __name__ == "__main__":
    main()
