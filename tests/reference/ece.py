#!/usr/bin/env python3
"""Write ece.json: random confidences, whether each was right, and their expected calibration error over 15 bins
(Guo et al. 2017), with numpy's own binning (run once; needs pip install numpy)."""
import json
import pathlib

import numpy as np

BINS = 15


def error(confidence, right):
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.digitize(confidence, edges[1:-1], right=True)
    total = 0.0
    for b in range(BINS):
        inside = bins == b
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


rng = np.random.default_rng(3)
cases = []
for n, bias in ((1, 0.0), (20, 0.1), (200, -0.2), (1000, 0.0)):
    confidence = np.round(rng.uniform(0, 1, n), 6)
    right = rng.uniform(0, 1, n) < np.clip(confidence + bias, 0, 1)
    predictions = [(float(c), bool(r)) for c, r in zip(confidence, right)]
    cases.append(dict(predictions=predictions, expected=error(confidence, right)))
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(path, [c["expected"] for c in cases])
