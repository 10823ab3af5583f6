"""Subscribes to /rosout while images are rejected, and then accepted. Prints the records of the node."""

from rcl_interfaces.msg import Log
from rclpy.qos import DurabilityPolicy, QoSProfile

from common import Peer, image

peer = Peer()
records = []
# As rqt_console: what was logged before is received as well.
qos = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
peer.node.create_subscription(Log, "/rosout", records.append, qos)


def logged(part):
    return any(part in record.msg for record in records if record.name == "perception")


peer.wait(lambda: logged("images from"), "the node's start in the log")
publisher = peer.image_publisher()
unusable = image(64, 48, encoding="32FC1")
arrivals = []


def rejecting():
    """Whether the diagnostics have come five times with every image rejected."""
    publisher.publish(unusable)
    status = peer.diagnostics or {}
    if "every image on /image is rejected" in status.get("message", "") and status["arrived"] not in arrivals:
        arrivals.append(status["arrived"])
    return len(arrivals) >= 5


peer.wait(rejecting, "every image being rejected for a while")
peer.wait(lambda: logged("every image on /image is rejected"), "the rejections in the log")
peer.send(publisher, image(64, 48), peer.processed)
peer.wait(lambda: logged("are processed again"), "the end of the rejections in the log")
peer.answer([
    {"level": r.level, "name": r.name, "message": r.msg, "file": r.file, "function": r.function, "line": r.line}
    for r in records
    if r.name == "perception"
])
