"""Sends the sample frames one by one and reports the answers to each.

    send_frames.py raw|compressed COUNT [wait_for_masks] [folder=FOLDER]
"""

import array
import pathlib
import sys

from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image

from common import FRAMES, SENSOR, Peer, boxes, stamp, timing

transport, count, with_masks = sys.argv[1], int(sys.argv[2]), "wait_for_masks" in sys.argv
folder = next((pathlib.Path(a[len("folder="):]) for a in sys.argv if a.startswith("folder=")), FRAMES)

peer = Peer()
masks = {"road_mask": {}, "segmentation": {}}
if with_masks:
    for topic, store in masks.items():
        peer.node.create_subscription(Image, topic, peer.keep(store), SENSOR)
if transport == "compressed":
    publisher = peer.image_publisher(CompressedImage, "image/compressed")
else:
    publisher = peer.image_publisher()


def message_of(path):
    picture = Picture.open(path).convert("RGB")
    if transport == "compressed":
        message = CompressedImage(format="jpeg")
        message.data = array.array("B", path.read_bytes())
    else:
        message = Image(width=picture.width, height=picture.height, encoding="rgb8", step=3 * picture.width)
        message.data = array.array("B", picture.tobytes())
    message.header.frame_id = f"camera of {path.stem}"
    return message, picture.size


def answered(sent):
    return peer.processed(sent) and (not with_masks or all(sent in store for store in masks.values()))


def mask(message):
    return {
        "width": message.width,
        "height": message.height,
        "encoding": message.encoding,
        "frame_id": message.header.frame_id,
        "values": sorted(set(message.data)),
        "bytes": len(message.data),
    }


answers = []
for path in sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))[:count]:
    message, (width, height) = message_of(path)
    sent = peer.send(publisher, message, answered)
    found = peer.detections[sent]
    answers.append(
        {
            "sent": {"stamp": sent, "frame_id": message.header.frame_id, "width": width, "height": height},
            "header": {"stamp": stamp(found.header), "frame_id": found.header.frame_id},
            "detections": boxes(found),
            "timing": timing(peer.timings[sent]),
            "masks": {topic: mask(store[sent]) for topic, store in masks.items() if sent in store},
        }
    )
peer.answer(answers)
