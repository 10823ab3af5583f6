"""Statistics of src/bench/ by scipy and numpy: python3 tests/reference/bench_stats.py > tests/reference/bench_stats.json

scipy 1.17.1, numpy 2.4.6. The samples are in the output, so that the test reads the same ones.
"""

import json

import numpy as np
import scipy.stats as st

rng = np.random.default_rng(20261124)
# Whole microseconds in nanoseconds: what the histogram resolves.
samples = np.round(rng.lognormal(np.log(10_000), 0.3, 2000)).astype(int)
samples[::401] *= 5
quantiles = {q: int(np.quantile(samples, q, method="inverted_cdf")) for q in (0.5, 0.9, 0.99, 0.999, 0.9999)}

trends = []
for slope in (0.0, 0.004, -0.01):
    values = np.round(10 + slope * np.arange(60) + rng.normal(0, 0.1, 60), 2)
    slope, _, _, _ = st.theilslopes(values)
    tau = st.kendalltau(np.arange(60), values, method="asymptotic")
    # Mann-Kendall with ties and continuity correction; kendalltau's own p-value is two-sided and without correction.
    n = len(values)
    s = sum(np.sign(values[j] - values[i]) for i in range(n) for j in range(i + 1, n))
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    z = (s - np.sign(s)) / np.sqrt(variance)
    uncorrected = 2 * st.norm.sf(abs(s) / np.sqrt(variance))
    assert abs(uncorrected - tau.pvalue) < 1e-9, (uncorrected, tau.pvalue)
    trends.append({"values": values.tolist(), "change": slope * (n - 1), "p_value": st.norm.sf(z)})

bounds = [
    {"misses": m, "frames": n, "confidence": c, "bound": st.beta.ppf(c, m + 1, n - m)}
    for m, n, c in [(0, 90, 0.99), (0, 4603, 0.99), (1, 130, 0.99), (7, 18000, 0.99), (40, 5000, 0.95)]
]
print(
    json.dumps(
        {
            "samples_us": samples.tolist(),
            "quantiles_us": {str(q): v for q, v in quantiles.items()},
            "max_us": int(samples.max()),
            "trends": trends,
            "bounds": bounds,
        }
    )
)
