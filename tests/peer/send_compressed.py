"""Sends JPEGs on /camera/image_raw/compressed alone, until one is answered or the node says how it would be."""

import array
import sys
import time

from sensor_msgs.msg import CompressedImage

from common import FRAMES, SENSOR, TIMEOUT, Peer
import rclpy

peer = Peer()
publisher = peer.node.create_publisher(CompressedImage, "/camera/image_raw/compressed", SENSOR)
message = CompressedImage(format="rgb8; jpeg compressed bgr8")
message.data = array.array("B", (FRAMES / "street-20.jpg").read_bytes())
end = time.monotonic() + TIMEOUT
while time.monotonic() < end:
    message.header.stamp = peer.node.get_clock().now().to_msg()
    publisher.publish(message)
    pause = time.monotonic() + 0.2
    while time.monotonic() < pause:
        rclpy.spin_once(peer.node, timeout_sec=0.05)
    said = (peer.diagnostics or {}).get("message", "")
    if peer.detections or "start this node" in said:
        peer.answer({"answered": bool(peer.detections), "message": said})
        sys.exit(0)
sys.exit(f"peer: neither an answer nor an explanation; diagnostics: {peer.diagnostics}")
