"""Ranges of random histograms by four calibration methods, written down in numpy independently of the Rust code.

Run once: python tests/reference/calibration.py > tests/reference/calibration.json (numpy 2).
"""
import json

import numpy as np

rng = np.random.default_rng(7)


def step(low, high):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((np.float32(high) - np.float32(low)) / np.float32(255), 1e-10))
    zero = np.clip(np.rint(-np.float32(low) / scale), 0, 255)
    return scale, zero


def percentile(counts, edges, kept):
    total = counts.sum()
    signed = edges[0] < 0
    cut = total * (1 - kept) / (2 if signed else 1)
    from_top = np.cumsum(counts[::-1])
    upper = edges[len(counts) - np.searchsorted(from_top, cut, side="right")]
    from_bottom = np.cumsum(counts)
    lower = edges[np.searchsorted(from_bottom, cut, side="right")] if signed else edges[0]
    return min(lower, 0), max(upper, 0)


def mse(counts, edges):
    centres = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    best = None
    for percent in range(100, 19, -1):
        f = np.float32(percent / 100)
        low, high = np.float32(edges[0]) * f, np.float32(edges[-1]) * f
        scale, zero = step(low, high)
        q = np.rint(np.clip(centres / scale + np.float32(zero), 0, 255))
        error = (counts * (centres.astype(float) - (q - zero) * float(scale)) ** 2).sum()
        if best is None or error < best[0]:
            best = error, low, high
    return best[1:]


def kl(counts, edges):
    counts = counts.astype(float).copy()
    n = len(counts)
    zero = min(int((0 - edges[0]) / (edges[1] - edges[0])), n - 1)
    counts[zero] = counts[zero + 1] if zero + 1 < n else counts[n - 2]
    best = None
    for percent in range(100, 12, -1):
        first = zero * (100 - percent) // 100
        past = n - (n - 1 - zero) * (100 - percent) // 100
        if past - first < 256:
            continue
        inside = counts[first:past]
        p = inside.copy()
        p[0] += counts[:first].sum()
        p[-1] += counts[past:].sum()
        level = np.empty(len(inside), int)
        bounds = [i * len(inside) // 256 for i in range(257)]
        for i in range(256):
            level[bounds[i] : bounds[i + 1]] = i
        sums = np.bincount(level, inside, 256)
        filled = np.bincount(level, inside > 0, 256)
        q = np.where(inside > 0, (sums / np.maximum(filled, 1))[level], 0)
        p, q = p / p.sum(), np.maximum(q / q.sum(), 1e-12)
        divergence = (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()
        if best is None or divergence < best[0]:
            best = divergence, edges[first], edges[past]
    return min(best[1], 0), max(best[2], 0)


def case(name, values):
    low, high = min(float(np.float32(values.min())), 0.0), max(float(np.float32(values.max())), 0.0)
    counts, edges = np.histogram(values, 2048, (low, high))
    edges = np.linspace(low, high, 2049)
    pair = lambda r: [float(r[0]), float(r[1])]
    return dict(
        name=name, low=low, high=high, counts=counts.tolist(), min_max=[low, high],
        percentile=pair(percentile(counts, edges, 0.9999)), mse=pair(mse(counts, edges)), kl=pair(kl(counts, edges)),
    )


n = 200_000
cases = [
    case("gaussian", rng.normal(0.3, 1, n)),
    case("relu6 of a gaussian", np.clip(rng.normal(0, 1.5, n), 0, 6)),
    case("laplace with heavy tails", rng.laplace(0, 1, n)),
    case("exponential", rng.exponential(1, n)),
    case("two far outliers", np.concatenate([rng.normal(0, 1, n), [40, -25]])),
]
print(json.dumps(cases))
