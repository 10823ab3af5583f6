#!/usr/bin/env python3
"""Write coco_ap.json: random detections, labels and regions to ignore, with their AP50, AP and AP by size from pycocotools
(run once; needs pip install pycocotools numpy)."""
import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES = 2


def boxes(rng, n, scale=1):
    low = rng.uniform(0, 80, (n, 2))
    return (scale * np.concatenate([low, low + rng.uniform(5, 40, (n, 2))], 1)).astype(np.float32)


def case(rng, images, regions=0, scale=1):
    detections, labels, ignore = [], [], []
    for _ in range(images):
        truth = [(c, b) for c in range(CLASSES) for b in boxes(rng, rng.integers(1, 4), scale)]
        found = []
        for c, b in truth:
            for _ in range(rng.integers(0, 3)):
                found.append((c, (b + rng.normal(0, 3 * scale, 4)).astype(np.float32)))
        found += [(int(rng.integers(CLASSES)), b) for b in boxes(rng, 2, scale)]
        found = [(c, b) for c, b in found if b[2] > b[0] + 1 and b[3] > b[1] + 1]
        detections.append([(c, round(float(rng.uniform()), 6), [float(v) for v in b]) for c, b in found])
        labels.append([(c, [float(v) for v in b]) for c, b in truth])
        ignore.append([[float(v) for v in b] for b in boxes(rng, regions, scale)])
    return dict(detections=detections, labels=labels, ignore=ignore, expected=evaluate(detections, labels, ignore))


def evaluate(detections, labels, ignore):
    def xywh(b):
        return [b[0], b[1], b[2] - b[0], b[3] - b[1]]

    coco = COCO()
    annotations, results = [], []
    for image, objects in enumerate(labels):
        # A region to ignore is what COCO calls a crowd, here of every class.
        regions = [(c, b, 1) for b in ignore[image] for c in range(CLASSES)]
        for c, b, crowd in [(c, b, 0) for c, b in objects] + regions:
            box = xywh(b)
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=c, bbox=box, area=box[2] * box[3], iscrowd=crowd))
    for image, objects in enumerate(detections):
        results += [dict(image_id=image, category_id=c, score=s, bbox=xywh(b)) for c, s, b in objects]
    coco.dataset = dict(images=[dict(id=i) for i in range(len(labels))], annotations=annotations, categories=[dict(id=c) for c in range(CLASSES)])
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"]  # overlap, recall, class, area, detections

    def mean(overlaps, c, area):
        values = precision[overlaps, :, c, area, 2]
        return None if (values < 0).any() else float(values.mean())

    every = slice(None)
    return [[mean(slice(0, 1), c, 0)] + [mean(every, c, area) for area in range(4)] for c in range(CLASSES)]


rng = np.random.default_rng(7)
cases = [case(rng, n) for n in (1, 3, 6, 10)] + [case(rng, n, regions=2) for n in (3, 8)]
# Boxes of 20 to 160 pixels: of every size.
cases += [case(rng, n, regions=r, scale=4) for n, r in ((1, 0), (4, 0), (12, 0), (6, 2), (12, 1))]
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(path, [c["expected"] for c in cases])
