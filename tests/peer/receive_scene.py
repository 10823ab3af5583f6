"""Sends one image twice, as a camera with a CameraInfo does, and reports the outputs besides detections.

    receive_scene.py [without_camera_info]
"""

import array
import copy
import io
import math
import sys

from nav_msgs.msg import OccupancyGrid
from peregrine_msgs.msg import Track2DArray
from PIL import Image as Picture
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from common import FRAMES, SENSOR, Peer, boxes, stamp

with_info = "without_camera_info" not in sys.argv

peer = Peer()
kept = {}
for topic, kind in {
    "tracks": Track2DArray,
    "objects": Detection3DArray,
    "drivable_ground": OccupancyGrid,
    "debug_image": Image,
    "debug_image/compressed": CompressedImage,
    "segmentation": Image,
}.items():
    kept[topic] = {}
    peer.node.create_subscription(kind, topic, peer.keep(kept[topic]), SENSOR)
markers, labels = {}, []
peer.node.create_subscription(
    MarkerArray, "markers", lambda m: markers.__setitem__(stamp(m.markers[0].header), m.markers), SENSOR
)
# Late on purpose, after the node has published it, since it is latched.
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
peer.node.create_subscription(LabelInfo, "label_info", labels.append, latched)
publisher = peer.image_publisher()
infos = peer.node.create_publisher(CameraInfo, "camera_info", SENSOR)
outputs = [*kept, "markers"]
peer.wait(lambda: all(peer.node.count_publishers(t) for t in outputs), "the node publishing its scene")

picture = Picture.open(FRAMES / "street-20.jpg").convert("RGB")
message = Image(width=picture.width, height=picture.height, encoding="rgb8", step=3 * picture.width)
message.data = array.array("B", picture.tobytes())
message.header.frame_id = "front"
info = CameraInfo(width=picture.width, height=picture.height, distortion_model="plumb_bob", d=[-0.1, 0.01, 0.0, 0.0, 0.0])
focal = 0.8 * picture.width
info.k = [focal, 0.0, picture.width / 2, 0.0, focal, picture.height / 2, 0.0, 0.0, 1.0]

if with_info:
    peer.wait(lambda: infos.get_subscription_count() > 0, "the node subscribing to camera_info")

    def said(info, beginning):
        infos.publish(info)
        return (peer.diagnostics or {}).get("ground", "").startswith(beginning)

    # An invalid calibration, and then a valid one.
    damaged = copy.deepcopy(info)
    damaged.k[4] = math.nan
    peer.wait(lambda: said(damaged, "off"), "the node refusing a CameraInfo with NaN")
    refused = peer.diagnostics["ground"]
    peer.wait(lambda: said(info, "on"), "the node using the CameraInfo")


def answered(sent):
    wanted = [s for t, s in kept.items() if with_info or t not in ("objects", "drivable_ground")]
    return peer.processed(sent) and all(sent in s for s in wanted) and (not with_info or sent in markers)


def tracks_of(sent):
    return kept["tracks"][sent].tracks


# Until there are tracks: an object has to be detected twice.
for _ in range(20):
    sent = peer.send(publisher, message, answered)
    if tracks_of(sent):
        break
peer.wait(lambda: labels, "the labels")
peer.wait(lambda: "track_p99_ms" in (peer.diagnostics or {}), "the diagnostics of tracking")

shown = Picture.open(io.BytesIO(bytes(kept["debug_image/compressed"][sent].data)))
answer = {
    "sent": {"stamp": sent, "width": picture.width, "height": picture.height},
    "detections": [d | {"id": m.id} for d, m in zip(boxes(peer.detections[sent]), peer.detections[sent].detections)],
    "tracks": [
        {"id": t.id, "class": t.class_id, "age": t.age, "missed": t.missed, "covariance": list(t.covariance)}
        for t in tracks_of(sent)
    ],
    "labels": {c.class_id: c.class_name for c in labels[0].class_map},
    "mask": [kept["segmentation"][sent].width, kept["segmentation"][sent].height],
    "picture": {
        "raw": [kept["debug_image"][sent].width, kept["debug_image"][sent].height],
        "compressed": list(shown.size),
        "frame_id": kept["debug_image"][sent].header.frame_id,
        "changed": kept["debug_image"][sent].data.tobytes() != picture.tobytes(),
    },
    "ground": peer.diagnostics["ground"],
    "track_ms": float(peer.diagnostics["track_p99_ms"]),
    "placed": len(kept["objects"]) + len(kept["drivable_ground"]) + len(markers),
}
if with_info:
    answer["refused"] = refused
    placed, ground = kept["objects"][sent], kept["drivable_ground"][sent]
    answer["objects"] = {
        "frame_id": placed.header.frame_id,
        "each": [
            {
                "id": d.id,
                "x": d.results[0].pose.pose.position.x,
                "y": d.results[0].pose.pose.position.y,
                "covariance": list(d.results[0].pose.covariance),
                "size": [d.bbox.size.x, d.bbox.size.y, d.bbox.size.z],
            }
            for d in placed.detections
        ],
    }
    answer["map"] = {
        "frame_id": ground.header.frame_id,
        "size": [ground.info.width, ground.info.height],
        "cells": {str(v): list(ground.data).count(v) for v in set(ground.data)},
    }
    answer["markers"] = [{"ns": m.ns, "frame_id": m.header.frame_id} for m in markers[sent]]
peer.answer(answer)
