"""Sends a video's packets, the files of a folder in the order of their names, again and again, until six are answered.

Answers with the stamps that were sent and answered, the boxes of the last one, and what the diagnostics say.
"""

import array
import pathlib
import sys
import time

import rclpy
from sensor_msgs.msg import CompressedImage

from common import TIMEOUT, Peer, boxes, stamp

folder, kind = sys.argv[1:]
packets = [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]
peer = Peer()
publisher = peer.image_publisher(CompressedImage, "image/compressed")
sent, number = [], 0
end = time.monotonic() + TIMEOUT
while len(peer.detections) < 6 and time.monotonic() < end:
    message = CompressedImage(format=kind)
    message.data = array.array("B", packets[number % len(packets)])
    message.header.frame_id = "eye"
    message.header.stamp = peer.node.get_clock().now().to_msg()
    sent.append(stamp(message.header))
    publisher.publish(message)
    number += 1
    pause = time.monotonic() + 0.1
    while time.monotonic() < pause:
        rclpy.spin_once(peer.node, timeout_sec=0.02)
    said = (peer.diagnostics or {}).get("message", "")
    if "libavcodec" in said:
        break
last = max(peer.detections, default=None)
peer.answer(
    {
        "sent": sent,
        "answered": sorted(peer.detections),
        "boxes": boxes(peer.detections[last]) if last else [],
        "rejected": (peer.diagnostics or {}).get("rejected"),
        "message": (peer.diagnostics or {}).get("message"),
    }
)
