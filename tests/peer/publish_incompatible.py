"""Publishes what the node cannot receive: first incompatible QoS, then another type, then another
transport. Reports the diagnostics."""

from foxglove_msgs.msg import CompressedVideo
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from common import Peer

peer = Peer()


def said(part):
    peer.wait(lambda: peer.diagnostics and part in peer.diagnostics["message"], f"the diagnostics saying {part!r}")
    return peer.diagnostics["message"]


answer = {"no_publisher": said("it has no publisher")}
best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = peer.node.create_publisher(Image, "image", best_effort)
answer["qos"] = said("QoS")
peer.node.destroy_publisher(publisher)
publisher = peer.node.create_publisher(CompressedImage, "image", 1)
answer["type"] = said("CompressedImage")
peer.node.destroy_publisher(publisher)
publisher = peer.node.create_publisher(CompressedVideo, "image/foxglove", 1)
answer["transport"] = said("only /image/foxglove")
peer.answer(answer)
