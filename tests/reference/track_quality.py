"""How well the tracker keeps identities: MOTA, IDF1 and HOTA on synthetic sequences, beside two other trackers.

    cargo build --release --example track_mot      (needs no ROS)
    python -m venv V && V/bin/pip install trackeval==1.0.0 motmetrics==1.4.0 supervision==0.25.1 norfair==2.3.0 'numpy<2'
    V/bin/python tests/reference/track_quality.py target/release/examples/track_mot tests/reference/track_quality.json

Ground truth is made here: boxes that move through an image, pass behind each other and leave. Detections are made from
it: edges are off by 4 % of the side (one standard deviation), one box in ten is missed, more where it is partly hidden,
none is found where more than 60 % is hidden; scores fall with what is hidden; one false box in two frames on average.
All trackers get the same detections and threshold for high scores, and are asked for what they see in each frame.
MOTA and IDF1 come from trackeval, and again from motmetrics as a check; HOTA from trackeval.
"""

import json
import subprocess
import sys

import numpy as np

if not hasattr(np, "asfarray"):
    np.asfarray = lambda a: np.asarray(a, dtype=float)
for name, kind in (("float", float), ("int", int), ("bool", bool)):
    if name not in np.__dict__:
        setattr(np, name, kind)

import motmetrics
import norfair
import supervision
import trackeval

WIDTH, HEIGHT = 1280, 720

# name: (frames, frames a second, objects at a time, probability of a miss, false boxes a frame, camera sway in px)
SEQUENCES = {
    "easy": (300, 30, 6, 0.02, 0.1, 0),
    "ordinary": (300, 30, 10, 0.10, 0.5, 0),
    "dense": (300, 30, 25, 0.10, 0.5, 0),
    "many_misses": (300, 30, 10, 0.35, 1.0, 0),
    "slow_camera_10hz": (150, 10, 10, 0.10, 0.5, 0),
    "swaying_camera": (300, 30, 10, 0.10, 0.5, 12),
}


def make(name, seed):
    frames, rate, objects, miss, false, sway = SEQUENCES[name]
    random = np.random.default_rng(seed)
    truth = [[] for _ in range(frames)]  # (id, class, box, visible share)
    alive, next_id = [], 1

    def new(anywhere):
        nonlocal next_id
        depth = random.uniform(0.25, 1.0)
        shape = [(0.4, 1.0), (1.6, 1.0), (2.2, 1.4)][kind := int(random.integers(3))]
        size = np.array(shape) * 180 * depth
        x = random.uniform(0, WIDTH) if anywhere else random.choice([-size[0] / 2 + 4, WIDTH + size[0] / 2 - 4])
        speed = random.uniform(40, 330) * depth * (1 if x < WIDTH / 2 else -1)
        thing = {
            "id": next_id, "class": kind, "depth": depth, "size": size,
            "at": np.array([x, random.uniform(250, 550)]), "speed": np.array([speed, random.normal(0, 8)]),
            "growth": random.normal(0, 0.05),
        }
        next_id += 1
        return thing

    alive = [new(True) for _ in range(objects)]
    for f in range(frames):
        t = f / rate
        offset = sway * np.array([np.sin(2 * np.pi * 0.9 * t), 0.6 * np.sin(2 * np.pi * 1.3 * t)])
        for o in alive:
            o["speed"] += random.normal(0, 60 * o["depth"], 2) * [1, 0.15] / np.sqrt(rate)
            o["at"] = o["at"] + o["speed"] / rate
            o["size"] = o["size"] * np.exp(o["growth"] / rate)
        alive = [o for o in alive if -o["size"][0] / 2 < o["at"][0] < WIDTH + o["size"][0] / 2 and o["at"][1] < 800]
        while len(alive) < objects:
            alive.append(new(False))
        # From near to far, each hides what lies behind.
        covered = np.zeros((HEIGHT // 4, WIDTH // 4), bool)
        for o in sorted(alive, key=lambda o: -o["depth"]):
            low, high = o["at"] + offset - o["size"] / 2, o["at"] + offset + o["size"] / 2
            box = np.array([max(low[0], 0), max(low[1], 0), min(high[0], WIDTH), min(high[1], HEIGHT)])
            x0, y0, x1, y1 = (box / 4).astype(int)
            if x1 - x0 < 3 or y1 - y0 < 3:
                continue
            free = 1 - covered[y0:y1, x0:x1].mean()
            covered[y0:y1, x0:x1] = True
            if free > 0.1:
                truth[f].append((o["id"], o["class"], box, free))

    detections = []
    for boxes in truth:
        found = []
        for _, kind, box, free in boxes:
            if free < 0.4 or random.random() < miss + 0.4 * (1 - free):
                continue
            w, h = box[2] - box[0], box[3] - box[1]
            noisy = box + random.normal(0, 0.04, 4) * [w, h, w, h]
            score = np.clip(random.normal(0.75 * free + 0.1, 0.12), 0.02, 0.99)
            found.append((kind, score, noisy))
        for _ in range(random.poisson(false)):
            size = np.array([random.uniform(0.5, 2), 1]) * random.uniform(40, 160)
            corner = random.uniform(0, 1, 2) * ([WIDTH, HEIGHT] - size)
            score = np.clip(random.exponential(0.2) + 0.05, 0.02, 0.9)
            found.append((int(random.integers(3)), score, np.concatenate([corner, corner + size])))
        detections.append(found)
    return truth, detections, rate


def ours(program, detections, rate, *options):
    lines = [
        f"{f + 1},-1,{b[0]:.3f},{b[1]:.3f},{b[2] - b[0]:.3f},{b[3] - b[1]:.3f},{s:.4f},{k}"
        for f, found in enumerate(detections)
        for k, s, b in found
    ]
    done = subprocess.run([program, str(rate), *options], input="\n".join(lines), capture_output=True, text=True, check=True)
    out = [[] for _ in detections]
    for line in done.stdout.splitlines():
        v = line.split(",")
        x, y, w, h = map(float, v[2:6])
        out[int(v[0]) - 1].append((int(v[1]), np.array([x, y, x + w, y + h])))
    return out


def bytetrack(detections, rate):
    tracker = supervision.ByteTrack(
        track_activation_threshold=0.3, lost_track_buffer=30, frame_rate=rate, minimum_consecutive_frames=2
    )
    out = []
    for found in detections:
        boxes = np.array([b for _, _, b in found], dtype=float).reshape(-1, 4)
        tracked = tracker.update_with_detections(
            supervision.Detections(
                xyxy=boxes,
                confidence=np.array([s for _, s, _ in found], dtype=float),
                class_id=np.array([k for k, _, _ in found], dtype=int),
            )
        )
        out.append([(int(i), b) for i, b in zip(tracked.tracker_id, tracked.xyxy)])
    return out


def norfair_tracker(detections, rate):
    tracker = norfair.Tracker("iou", distance_threshold=0.7, hit_counter_max=rate, initialization_delay=1)
    out = []
    for found in detections:
        given = [
            norfair.Detection(points=b.reshape(2, 2), scores=np.array([s, s]), label=k) for k, s, b in found if s >= 0.3
        ]
        tracked = tracker.update(detections=given)
        seen = [t for t in tracked if any(t.last_detection is d for d in given)]
        out.append([(t.id, t.estimate.reshape(4)) for t in seen])
    return out


def iou(a, b):
    a, b = np.array(a).reshape(-1, 1, 4), np.array(b).reshape(1, -1, 4)
    common = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    area = lambda c: (c[..., 2:] - c[..., :2]).prod(-1)
    return common / (area(a) + area(b) - common)


def measure(truth, tracked):
    numbers = {}
    local = lambda store, i: store.setdefault(i, len(store))
    gt_ids, tracker_ids = {}, {}
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for boxes, found in zip(truth, tracked):
        similarity = iou([b for _, _, b, _ in boxes], [b for _, b in found])
        data["gt_ids"].append(np.array([local(gt_ids, i) for i, *_ in boxes], int))
        data["tracker_ids"].append(np.array([local(tracker_ids, i) for i, _ in found], int))
        data["similarity_scores"].append(similarity)
        distance = np.where(similarity >= 0.5, 1 - similarity, np.nan)
        accumulator.update([i for i, *_ in boxes], [i for i, _ in found], distance)
    data |= {
        "num_gt_ids": len(gt_ids), "num_tracker_ids": len(tracker_ids), "num_timesteps": len(truth),
        "num_gt_dets": sum(map(len, truth)), "num_tracker_dets": sum(map(len, tracked)),
    }
    quiet = {"PRINT_CONFIG": False}
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    clear = trackeval.metrics.CLEAR(quiet).eval_sequence(data)
    identity = trackeval.metrics.Identity(quiet).eval_sequence(data)
    check = motmetrics.metrics.create().compute(accumulator, metrics=["mota", "idf1"], name="s")
    return {
        "MOTA": float(clear["MOTA"]), "IDF1": float(identity["IDF1"]), "HOTA": float(np.mean(hota["HOTA"])),
        "IDSW": int(clear["IDSW"]), "FP": int(clear["CLR_FP"]), "FN": int(clear["CLR_FN"]),
        "MOTA_motmetrics": float(check["mota"].iloc[0]), "IDF1_motmetrics": float(check["idf1"].iloc[0]),
    }


def mean(results):
    return {k: round(float(np.mean([r[k] for r in results])), 4) for k in results[0]}


def main():
    program, target, *options = sys.argv[1:]
    report = {}
    for name in SEQUENCES:
        made = [make(name, seed) for seed in range(3)]
        report[name] = {"peregrine": mean([measure(t, ours(program, d, r, *options)) for t, d, r in made])}
        if target != "-":
            report[name]["supervision 0.25.1 ByteTrack"] = mean([measure(t, bytetrack(d, r)) for t, d, r in made])
            report[name]["norfair 2.3.0"] = mean([measure(t, norfair_tracker(d, r)) for t, d, r in made])
        for tracker, numbers in report[name].items():
            shown = " ".join(f"{k} {v:.3f}" if v < 2 else f"{k} {v:.0f}" for k, v in numbers.items())
            print(f"{name:18} {tracker:30} {shown}", flush=True)
    if target != "-":
        with open(target, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
