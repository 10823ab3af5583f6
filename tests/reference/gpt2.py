#!/usr/bin/env python3
"""GPT-2's forward pass in NumPy (f64), from the paper and the layout of its published weights: gpt2.json.

usage: gpt2.py > gpt2.json      (needs: numpy)

The weights are made by a formula, so that both sides have the same: the i-th value of the j-th tensor, in the order of
SHAPES, is 0.4 sin(1.3 i + 0.9 j), and 1 more for the scale of a normalisation.
"""
import json

import numpy as np

VOCABULARY, POSITIONS, WIDTH, LAYERS, HEADS = 13, 10, 12, 2, 3
TEXT = [5, 0, 12, 7, 7, 3, 1]


def shapes():
    yield "wte.weight", (VOCABULARY, WIDTH)
    yield "wpe.weight", (POSITIONS, WIDTH)
    for i in range(LAYERS):
        for name, shape in [("ln_1", (WIDTH,)), ("attn.c_attn", (WIDTH, 3 * WIDTH)), ("attn.c_proj", (WIDTH, WIDTH)),
                            ("ln_2", (WIDTH,)), ("mlp.c_fc", (WIDTH, 4 * WIDTH)), ("mlp.c_proj", (4 * WIDTH, WIDTH))]:
            yield f"h.{i}.{name}.weight", shape
            yield f"h.{i}.{name}.bias", shape[-1:]
    yield "ln_f.weight", (WIDTH,)
    yield "ln_f.bias", (WIDTH,)


def weights():
    made = {}
    for j, (name, shape) in enumerate(shapes()):
        values = 0.4 * np.sin(1.3 * np.arange(np.prod(shape)) + 0.9 * j)
        made[name] = values.reshape(shape) + (1 if "ln_" in name and name.endswith("weight") else 0)
    return made


def forward(w, text):
    def norm(x, name):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    n = len(text)
    x = w["wte.weight"][text] + w["wpe.weight"][:n]
    for i in range(LAYERS):
        queries, keys, values = np.split(linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, axis=-1)
        seen = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = queries[:, part] @ keys[:, part].T / np.sqrt(WIDTH // HEADS)
            scores[np.triu_indices(n, 1)] = -np.inf
            e = np.exp(scores - scores.max(-1, keepdims=True))
            seen.append(e / e.sum(-1, keepdims=True) @ values[:, part])
        x = x + linear(np.concatenate(seen, -1), f"h.{i}.attn.c_proj")
        x = x + linear(gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


def main():
    size = {"vocabulary": VOCABULARY, "positions": POSITIONS, "width": WIDTH, "layers": LAYERS, "heads": HEADS}
    logits = [[round(v, 6) for v in row] for row in forward(weights(), TEXT).tolist()]
    print(json.dumps({"size": size, "text": TEXT, "logits": logits}))


if __name__ == "__main__":
    main()
