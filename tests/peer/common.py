"""What the peers share: a node, waiting for conditions instead of times, and one JSON object as the answer."""

import array
import json
import pathlib
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from peregrine_msgs.msg import FrameTiming
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

FRAMES = pathlib.Path(__file__).resolve().parents[2] / "models" / "frames"
TIMEOUT = 120.0  # seconds; generous, since a machine may be busy
SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def stamp(header):
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


class Peer:
    """A node that keeps what the perception node publishes."""

    def __init__(self):
        rclpy.init()
        self.node = rclpy.create_node("peer")
        self.detections, self.timings, self.diagnostics, self.node_status = {}, {}, None, None
        self.node.create_subscription(Detection2DArray, "detections", self.keep(self.detections), 10)
        self.node.create_subscription(FrameTiming, "timing", self.keep(self.timings), 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.on_diagnostics, 10)

    @staticmethod
    def keep(store):
        return lambda message: store.__setitem__(stamp(message.header), message)

    def on_diagnostics(self, message):
        parts = {status.name.rsplit(": ", 1)[-1]: status for status in message.status}
        self.node_status = parts.get("node", self.node_status)
        status = parts.get("frames")
        if status is None:  # before the node is configured
            return
        # A byte in the definition, so bytes in Python.
        self.diagnostics = {v.key: v.value for v in status.values}
        self.diagnostics["level"], self.diagnostics["message"] = status.level[0], status.message

    def wait(self, condition, what):
        """Spins until condition() holds. Ends the process with a sentence if it never does."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > end:
                sys.exit(f"peer: {what} did not happen within {TIMEOUT:.0f} s; diagnostics: {self.diagnostics}")
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def image_publisher(self, kind=Image, topic="image"):
        """A publisher that the node has discovered, with the node's own publishers discovered as well."""
        publisher = self.node.create_publisher(kind, topic, SENSOR)
        self.wait(lambda: publisher.get_subscription_count() > 0, f"the node subscribing to {topic}")
        outputs = ("detections", "timing", "/diagnostics")
        self.wait(lambda: all(self.node.count_publishers(t) for t in outputs), "the node publishing")
        return publisher

    def send(self, publisher, message, answered):
        """Publishes until answered(stamp) holds for a stamp that was sent, and returns that one.

        Again with a new stamp if there is no answer for long, since best effort may lose an image.
        """
        sent = []
        for _ in range(5):
            message.header.stamp = self.node.get_clock().now().to_msg()
            sent.append(stamp(message.header))
            publisher.publish(message)
            end = time.monotonic() + TIMEOUT / 5
            while time.monotonic() < end:
                rclpy.spin_once(self.node, timeout_sec=0.05)
                for one in filter(answered, sent):
                    return one
        sys.exit(f"peer: an image was not answered; diagnostics: {self.diagnostics}")

    def processed(self, sent):
        return sent in self.detections and sent in self.timings

    def answer(self, answer):
        print(json.dumps(answer))
        self.node.destroy_node()
        rclpy.shutdown()


def image(width, height, encoding="rgb8", step=None, data=None):
    """A grey image, unless the arguments say otherwise."""
    step = 3 * width if step is None else step
    data = bytes([128]) * (step * height) if data is None else data
    message = Image(width=width, height=height, encoding=encoding, step=step)
    message.header.frame_id = "grey"
    message.data = array.array("B", data)
    return message


def boxes(message):
    """Each detection as a plain object."""
    return [
        {
            "class": d.results[0].hypothesis.class_id,
            "score": d.results[0].hypothesis.score,
            "x": d.bbox.center.position.x,
            "y": d.bbox.center.position.y,
            "width": d.bbox.size_x,
            "height": d.bbox.size_y,
            "frame_id": d.header.frame_id,
            "stamp": stamp(d.header),
        }
        for d in message.detections
    ]


def timing(message):
    """A FrameTiming as a plain object, times in ns."""
    plain = {name: getattr(message, name) for name in message.get_fields_and_field_types() if name != "header"}
    return {k: v.sec * 1_000_000_000 + v.nanosec if hasattr(v, "nanosec") else v for k, v in plain.items()}
