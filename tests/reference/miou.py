#!/usr/bin/env python3
"""Write miou.json: random labels (255: void) and predictions, and each class's intersection over union and their mean from
scikit-learn's confusion matrix, held against its Jaccard score (run once; needs pip install scikit-learn)."""
import json
import pathlib

import numpy as np
from sklearn.metrics import confusion_matrix, jaccard_score

VOID = 255


def figures(labels, predicted, classes):
    counted = labels != VOID
    matrix = confusion_matrix(labels[counted], predicted[counted], labels=range(classes))
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    there = [c for c in range(classes) if union[c] > 0]
    iou = [float(right[c] / union[c]) if c in there else None for c in range(classes)]
    jaccard = jaccard_score(labels[counted], predicted[counted], labels=there, average=None)
    assert np.allclose([iou[c] for c in there], jaccard, atol=1e-12)
    return iou, float(np.mean(jaccard))


rng = np.random.default_rng(5)
cases = []
# Classes known, pixels, share that is right, share void, and how many of the classes occur.
for classes, pixels, right, void, occurring in ((2, 60, 0.9, 0.0, 2), (5, 400, 0.6, 0.2, 4), (11, 900, 0.5, 0.1, 11)):
    labels = rng.choice(occurring, pixels, p=rng.dirichlet(np.ones(occurring)))
    predicted = np.where(rng.uniform(size=pixels) < right, labels, rng.integers(0, occurring, pixels))
    labels = np.where(rng.uniform(size=pixels) < void, VOID, labels)
    iou, mean = figures(labels, predicted, classes)
    cases.append(dict(classes=classes, labels=labels.tolist(), predicted=predicted.tolist(), iou=iou, mean=mean))
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(path, [c["mean"] for c in cases])
