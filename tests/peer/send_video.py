"""Sends a video's packets, the files of a folder in the order of their names, again and again, until six are answered.

As `compressed` or `foxglove`, image_transport's names. Answers with the stamps that were sent and answered, the boxes of the last one, and
what the diagnostics say.
"""

import array
import pathlib
import sys
import time

import rclpy
from foxglove_msgs.msg import CompressedVideo
from sensor_msgs.msg import CompressedImage

from common import TIMEOUT, Peer, boxes

folder, kind, transport = sys.argv[1:]
packets = [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]
peer = Peer()
message_type = {"compressed": CompressedImage, "foxglove": CompressedVideo}[transport]
publisher = peer.image_publisher(message_type, f"image/{transport}")
sent, number = [], 0
end = time.monotonic() + TIMEOUT
while len(peer.detections) < 6 and time.monotonic() < end:
    now = peer.node.get_clock().now()
    message = message_type(format=kind, data=array.array("B", packets[number % len(packets)]))
    if transport == "foxglove":
        message.frame_id, message.timestamp = "eye", now.to_msg()
    else:
        message.header.frame_id, message.header.stamp = "eye", now.to_msg()
    sent.append(now.nanoseconds)
    publisher.publish(message)
    number += 1
    pause = time.monotonic() + 0.1
    while time.monotonic() < pause:
        rclpy.spin_once(peer.node, timeout_sec=0.02)
    said = (peer.diagnostics or {}).get("message", "")
    if "libavcodec" in said or "neither" in said:
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
