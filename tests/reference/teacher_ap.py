#!/usr/bin/env python3
"""Write teacher_ap.json: raw outputs of made detectors of three families, labels, and the AP50 and AP that pycocotools gives
their own detections: every class of a box above 0.001, decoded here with numpy (run once; needs pip install pycocotools numpy).

Images of 128x64 pixels, letterboxed into 64x64. The student's class 0 is the teacher's class 2, its class 1 the teacher's 0 and 1.
"""
import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

GROUPS = [[2], [0, 1]]
LEAST = 0.001
IMAGES = 4


def to_source(boxes):
    """Corners in input pixels to corners in source pixels: half the size, 16 rows of padding above and below."""
    boxes = (boxes - np.float32([0, 16, 0, 16])) * 2
    return np.clip(boxes, 0, np.float32([128, 64, 128, 64]))


def corners(boxes):
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def nms(boxes, scores, limit):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        def iou(j):
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            common = np.prod(np.clip(high - low, 0, None))
            return common / (np.prod(boxes[i, 2:] - boxes[i, :2]) + np.prod(boxes[j, 2:] - boxes[j, :2]) - common)
        if all(iou(j) <= limit for j in kept):
            kept.append(i)
    return kept


def objects(rng):
    """Labels of an image: class and corners in input pixels, within the 64x32 that the image covers."""
    low = rng.uniform([2, 18], [44, 34], (rng.integers(2, 5), 2))
    return [(int(rng.integers(3)), np.concatenate([p, p + rng.uniform(6, 12, 2)]).astype(np.float32)) for p in low]


def yolo(rng, truth):
    """[1, 7, 60]: for each object several boxes about it that waver between classes, then noise."""
    rows = []
    for c, box in truth:
        for _ in range(rng.integers(2, 7)):
            b = box + rng.normal(0, 1.2, 4)
            p = rng.uniform(0, 0.4, 3)
            p[c] = rng.uniform(0.02, 0.9)
            rows.append([*(b[:2] + b[2:]) / 2, *(b[2:] - b[:2]), *p])
    while len(rows) < 60:
        rows.append([*rng.uniform([4, 18, 4, 4], [60, 46, 12, 12]), *rng.uniform(0, 0.06, 3)])
    raw = np.round(np.array(rows, np.float32), 4)
    boxes = to_source(corners(raw[:, :4]))
    found = []
    for c, group in enumerate(GROUPS):
        score = raw[:, 4:][:, group].max(1)
        at = np.where(score > LEAST)[0]
        found += [(c, float(score[at[k]]), boxes[at[k]]) for k in nms(boxes[at], score[at], 0.6)]
    return [([1, 7, 60], raw.T)], found


def centernet(rng, truth):
    """Heat map [1, 16, 16, 3] and distances [1, 16, 16, 4], stride 4, corner of the cell."""
    heat = rng.uniform(0, 0.05, (16, 16, 3)).astype(np.float32)
    sides = rng.uniform(2, 8, (16, 16, 4)).astype(np.float32)
    for c, box in truth:
        x, y = (box[:2] + box[2:]) / 2
        column, row = int(x // 4), int(y // 4)
        heat[row, column, c] = rng.uniform(0.1, 0.9)
        heat[row, column, (c + 1) % 3] = rng.uniform(0, 0.5)
        sides[row, column] = np.abs([4 * column - box[0], 4 * row - box[1], box[2] - 4 * column, box[3] - 4 * row] + rng.normal(0, 0.6, 4))
    heat, sides = np.round(heat, 4), np.round(sides, 4)
    found = []
    for c, group in enumerate(GROUPS):
        score = heat[:, :, group].max(2)
        padded = np.pad(score, 1, constant_values=-1)
        peak = score >= np.max([padded[i:i + 16, j:j + 16] for i in range(3) for j in range(3)], 0)
        for row, column in zip(*np.where(peak & (score > LEAST))):
            left, top, right, bottom = sides[row, column]
            box = np.float32([[4 * column - left, 4 * row - top, 4 * column + right, 4 * row + bottom]])
            found.append((c, float(score[row, column]), to_source(box)[0]))
    return [([1, 16, 16, 3], heat), ([1, 16, 16, 4], sides)], found


def end_to_end(rng, truth):
    """[1, 20, 6]: corners, score, class; the rest zero."""
    rows = []
    for c, box in truth:
        for _ in range(rng.integers(1, 4)):
            rows.append([*(box + rng.normal(0, 1, 4)), rng.uniform(0.01, 0.9), c if rng.uniform() < 0.7 else rng.integers(3)])
    raw = np.zeros((20, 6), np.float32)
    raw[:len(rows)] = np.round(np.array(rows, np.float32), 4)
    boxes = to_source(raw[:, :4])
    found = [(next(i for i, g in enumerate(GROUPS) if int(row[5]) in g), float(row[4]), box) for row, box in zip(raw, boxes) if row[4] > LEAST]
    return [([1, 20, 6], raw)], found


def judge(detections, labels):
    def xywh(b):
        return [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]

    coco, annotations, results = COCO(), [], []
    for image, truth in enumerate(labels):
        for c, b in truth:
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=c, bbox=xywh(b), area=xywh(b)[2] * xywh(b)[3], iscrowd=0))
    for image, found in enumerate(detections):
        results += [dict(image_id=image, category_id=c, score=s, bbox=xywh(b)) for c, s, b in found if b[2] > b[0] and b[3] > b[1]]
    coco.dataset = dict(images=[dict(id=i) for i in range(len(labels))], annotations=annotations, categories=[dict(id=c) for c in range(2)])
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"]  # overlap, recall, class, area, detections
    return [[float(precision[:1, :, c, 0, 2].mean()), float(precision[:, :, c, 0, 2].mean())] for c in range(2)]


rng = np.random.default_rng(15)
cases = []
for family in (yolo, centernet, end_to_end):
    outputs, labels, detections = [], [], []
    for _ in range(IMAGES):
        truth = objects(rng)
        tensors, found = family(rng, truth)
        outputs.append([(shape, [round(float(v), 4) for v in values.reshape(-1)]) for shape, values in tensors])
        source = [(next(i for i, g in enumerate(GROUPS) if c in g), to_source(box[None])[0]) for c, box in truth]
        labels.append([(c, [float(v) for v in box]) for c, box in source])
        detections.append(found)
    expected = judge(detections, labels)
    cases.append(dict(family=family.__name__, outputs=outputs, labels=labels, expected=expected))
    print(family.__name__, expected)
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(path, path.stat().st_size, "bytes")
