"""How consistently the tracker names what a teacher sees in the two clips: there is no truth to measure against.

    V/bin/pip install onnxruntime==1.20.1 opencv-python-headless==4.11.0.86      (besides what track_quality.py needs)
    V/bin/python tests/reference/track_clips.py target/release/examples/track_mot ../shared tests/reference/track_clips.json

Boxes are those of the CenterNet teacher for road users. Three figures, for this tracker and supervision's ByteTrack:

- identities: how many the whole clip was given, and the median length of their tracks in frames;
- short: the share of boxes in tracks of fewer than 5 frames (a flicker, or an identity that was lost);
- both_ways: IDF1 between the tracks of the clip played forwards and played backwards. 1 means that the same boxes
  are held for the same object in either direction. A tracker that names at random would be near 0; one that is always
  wrong in the same way would still have 1.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime
from track_quality import bytetrack, iou, ours
from trackeval.metrics import Identity

# COCO's numbers to ours.
ROAD_USERS = {0: 0, 1: 1, 3: 1, 2: 2, 5: 3, 7: 4}


def detections_of(session, path):
    video = cv2.VideoCapture(path)
    rate, frames = video.get(cv2.CAP_PROP_FPS), []
    while True:
        good, picture = video.read()
        if not good:
            return rate, frames
        height, width = picture.shape[:2]
        image = cv2.resize(picture, (512, 512))[:, :, ::-1][None].astype(np.float32)
        found = session.run(["tower_0/detections:0"], {"tower_0/images:0": image})[0][0]
        scale = np.array([width, height, width, height]) / 512
        frames.append(
            [
                (ROAD_USERS[int(kind)], float(score), np.array(box) * scale)
                for *box, score, kind in found
                if int(kind) in ROAD_USERS and score >= 0.1
            ]
        )


def both_ways(tracker, frames):
    forwards, backwards = tracker(frames), tracker(frames[::-1])[::-1]
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    ids = [{}, {}]
    for a, b in zip(forwards, backwards):
        data["gt_ids"].append(np.array([ids[0].setdefault(i, len(ids[0])) for i, _ in a], int))
        data["tracker_ids"].append(np.array([ids[1].setdefault(i, len(ids[1])) for i, _ in b], int))
        data["similarity_scores"].append(iou([x for _, x in a], [x for _, x in b]))
    data |= {"num_gt_ids": len(ids[0]), "num_tracker_ids": len(ids[1]), "num_timesteps": len(frames)}
    data |= {"num_gt_dets": sum(map(len, forwards)), "num_tracker_dets": sum(map(len, backwards))}
    lengths = {}
    for found in forwards:
        for identity, _ in found:
            lengths[identity] = lengths.get(identity, 0) + 1
    boxes = sum(lengths.values())
    if not boxes:
        return {"boxes": 0}
    return {
        "boxes": boxes,
        "identities": len(lengths),
        "median_length": float(np.median(list(lengths.values()))),
        "short": round(sum(n for n in lengths.values() if n < 5) / boxes, 4),
        "both_ways": round(float(Identity({"PRINT_CONFIG": False}).eval_sequence(data)["IDF1"]), 4),
    }


def main():
    program, shared, target = sys.argv[1:]
    session = onnxruntime.InferenceSession(f"{shared}/teachers/centernet_mb3_512.onnx")
    report = {}
    for clip in ("car-detection", "highway"):
        rate, frames = detections_of(session, f"{shared}/data/clips/{clip}.mp4")
        report[clip] = {
            "frames": len(frames),
            "frames_a_second": rate,
            "peregrine": both_ways(lambda f: ours(program, f, rate), frames),
            "supervision 0.25.1 ByteTrack": both_ways(lambda f: bytetrack(f, rate), frames),
        }
        print(clip, json.dumps(report[clip], indent=1), flush=True)
    with open(target, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
