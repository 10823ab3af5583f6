"""Sends images with a CameraInfo that changes, and reports after each what is placed and what the diagnostics say."""

import copy
import math

from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection3DArray

from common import SENSOR, Peer, image

WIDTH, HEIGHT = 320, 240

peer = Peer()
objects = {}
peer.node.create_subscription(Detection3DArray, "objects", peer.keep(objects), SENSOR)
publisher = peer.image_publisher()
infos = peer.node.create_publisher(CameraInfo, "camera_info", SENSOR)
peer.wait(lambda: infos.get_subscription_count() > 0, "the node subscribing to camera_info")
peer.wait(lambda: peer.node.count_publishers("objects"), "the node publishing objects")

good = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[-0.1, 0.01, 0.0, 0.0, 0.0])
good.k = [256.0, 0.0, 160.0, 0.0, 256.0, 120.0, 0.0, 0.0, 1.0]


def changed(**fields):
    info = copy.deepcopy(good)
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def with_focal(value):
    k = list(good.k)
    k[0] = value
    return changed(k=k)


cases = {
    "good": good,
    "uncalibrated": changed(k=[0.0] * 9),
    "binned": changed(width=2 * WIDTH, height=2 * HEIGHT, binning_x=2, binning_y=2),
    "nan": with_focal(math.nan),
    "negative": with_focal(-256.0),
    "coefficients": changed(d=[0.1, 0.2]),
    "larger": changed(width=2 * WIDTH, height=2 * HEIGHT),
    "other_shape": changed(width=WIDTH, height=WIDTH),
    "good_again": good,
}
answer = {}
for name, info in cases.items():
    expected = "on" if name in ("good", "binned", "good_again") else "off"

    def said():
        infos.publish(info)
        # The size of images shows only with an image.
        peer.send(publisher, image(WIDTH, HEIGHT), peer.processed)
        return (peer.diagnostics or {}).get("ground", "").startswith(expected)

    # The diagnostics of the case before are gone.
    peer.diagnostics = None
    peer.wait(said, f"the diagnostics saying {expected} of {name}")
    sent = peer.send(publisher, image(WIDTH, HEIGHT), peer.processed)
    last = peer.send(publisher, image(WIDTH, HEIGHT), peer.processed)
    peer.wait(lambda: last in objects or expected == "off", f"the objects of {name}")
    answer[name] = [sent in objects or last in objects, peer.diagnostics["level"], peer.diagnostics["message"]]
peer.answer(answer)
