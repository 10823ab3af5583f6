#!/usr/bin/env python3
"""BERT as ONNX, from its safetensors and config.json, without PyTorch.

    pip install numpy onnx safetensors
    export_bert.py MODEL_FOLDER OUT.onnx

Inputs `input_ids`, `attention_mask` and `token_type_ids`, int64 [batch, tokens]; output `last_hidden_state`, float
[batch, tokens, hidden]. The graph follows Devlin et al. 2019 (post-norm encoder, learnt positions, exact GELU).
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


class Graph:
    """Nodes and constants, as they are added; every method returns the name of its output."""

    def __init__(self, weights):
        self.weights, self.nodes, self.constants, self.count = weights, [], {}, 0

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        out = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, name, values):
        self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def integers(self, *values):
        return self.constant("i_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def linear(self, x, name):
        weight = self.constant(f"{name}.weight", np.ascontiguousarray(self.weights[f"{name}.weight"].T))
        return self.op("Add", self.op("MatMul", x, weight), self.weight(f"{name}.bias"))

    def norm(self, x, name, epsilon):
        weights = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, *weights, axis=-1, epsilon=epsilon)


def bert(weights, config):
    g = Graph(weights)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    epsilon, width = config["layer_norm_eps"], hidden // heads

    tokens = g.op("Slice", g.op("Shape", "input_ids"), g.integers(1), g.integers(2), g.integers(0))
    positions = g.op("Slice", g.weight("embeddings.position_embeddings.weight"), g.integers(0), tokens, g.integers(0))
    words = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    kinds = g.op("Gather", g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    x = g.norm(g.op("Add", g.op("Add", words, kinds), positions), "embeddings.LayerNorm", epsilon)

    # 0 where a token counts, very negative where it is padding: added to the attention's logits.
    mask = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.FLOAT), g.integers(1, 2))
    one, low = g.constant("one", np.float32(1.0)), g.constant("low", np.float32(-1e9))
    mask = g.op("Mul", g.op("Sub", one, mask), low)
    scale = g.constant("scale", np.float32(width**-0.5))
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"

        def split(name, order):
            projected = g.linear(x, f"{at}.attention.self.{name}")
            return g.op("Transpose", g.op("Reshape", projected, g.integers(0, 0, heads, width)), perm=order)

        query, value = split("query", [0, 2, 1, 3]), split("value", [0, 2, 1, 3])
        logits = g.op("Mul", g.op("MatMul", query, split("key", [0, 2, 3, 1])), scale)
        attended = g.op("MatMul", g.op("Softmax", g.op("Add", logits, mask), axis=-1), value)
        joined = g.op("Reshape", g.op("Transpose", attended, perm=[0, 2, 1, 3]), g.integers(0, 0, hidden))
        out = g.linear(joined, f"{at}.attention.output.dense")
        x = g.norm(g.op("Add", out, x), f"{at}.attention.output.LayerNorm", epsilon)
        inner = g.op("Gelu", g.linear(x, f"{at}.intermediate.dense"))
        x = g.norm(g.op("Add", g.linear(inner, f"{at}.output.dense"), x), f"{at}.output.LayerNorm", epsilon)

    g.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"]) for n in names]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", hidden])
    graph = helper.make_graph(g.nodes, "bert", inputs, [output], list(g.constants.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = Path(sys.argv[1]), sys.argv[2]
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        sys.exit(f"{folder}/config.json: not a BERT with GELU")
    model = bert(load_file(folder / "model.safetensors"), config)
    onnx.checker.check_model(model)
    onnx.save(model, out)


if __name__ == "__main__":
    main()
