"""Sends images on two cameras of one node and reports the topics and headers of the answers."""

import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from peregrine_msgs.msg import FrameTiming
from vision_msgs.msg import Detection2DArray

from common import SENSOR, Peer, image, stamp
from sensor_msgs.msg import Image

CAMERAS = ("front", "rear")
peer = Peer()
answers = {camera: {"detections": [], "timing": []} for camera in CAMERAS}
statuses = {}


def on_diagnostics(message):
    statuses.update({s.name.rsplit(": ", 1)[-1]: {v.key: v.value for v in s.values} for s in message.status})


peer.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
publishers = {}
for camera in CAMERAS:
    for kind, topic in ((Detection2DArray, "detections"), (FrameTiming, "timing")):
        peer.node.create_subscription(kind, f"{camera}/{topic}", answers[camera][topic].append, 10)
    publishers[camera] = peer.node.create_publisher(Image, f"{camera}/image", SENSOR)
peer.wait(lambda: all(p.get_subscription_count() for p in publishers.values()), "the node subscribing to both")
outputs = [f"{camera}/{topic}" for camera in CAMERAS for topic in ("detections", "timing")]
peer.wait(lambda: all(peer.node.count_publishers(topic) for topic in outputs), "the node publishing for both")
for _ in range(5):
    for (camera, publisher), size in zip(publishers.items(), ((64, 48), (96, 40))):
        message = image(*size)
        message.header.frame_id = camera
        message.header.stamp = peer.node.get_clock().now().to_msg()
        before, sent = len(answers[camera]["timing"]), 0.0

        def answered():
            # Again after a while: best effort may lose an image, which the node then never counted.
            global sent
            if time.monotonic() > sent + 10.0:
                sent = time.monotonic()
                publisher.publish(message)
            return len(answers[camera]["timing"]) > before

        peer.wait(answered, f"an answer for {camera}")
peer.wait(lambda: all(c in statuses and int(statuses[c]["arrived"]) >= 5 for c in CAMERAS), "the diagnostics of both")
peer.answer({
    "frames": {c: sorted({d.header.frame_id for d in answers[c]["detections"]}) for c in CAMERAS},
    "sequences": {c: [t.sequence for t in answers[c]["timing"]] for c in CAMERAS},
    "statuses": statuses,
})
