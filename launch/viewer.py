"""Watching a perception node: rates, latencies and counts each second, and pictures of what it found."""

import collections
import time

import numpy
from peregrine_msgs.msg import FrameTiming
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

import picture

WINDOW = 10.0  # seconds over which a line's percentiles are taken
COUNTS = ("arrived", "published_on_time", "published_late", "superseded", "dropped_late", "rejected")


def stamp(header):
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


class Viewer:
    """Subscribes to `detections` and `timing`, and on demand to what pictures need."""

    def __init__(self, node, image_topic):
        self.node, self.image_topic = node, image_topic
        self.received = collections.deque()  # (when, stamp to receive in ms) within the window
        self.published = collections.deque()  # (when, stamp to publish in ms) within the window
        self.all_received, self.all_published = [], []  # the same in ms, since the last forget()
        self.by_class = collections.Counter()  # since the last line
        self.frames = 0
        self.last_timing = None
        self.capture = None
        node.create_subscription(Detection2DArray, "detections", self.on_detections, 10)
        node.create_subscription(FrameTiming, "timing", self.on_timing, 10)

    def on_detections(self, message):
        now, arrived = time.monotonic(), self.node.get_clock().now()
        latency = (arrived - Time.from_msg(message.header.stamp)).nanoseconds / 1e6
        self.received.append((now, latency))
        self.all_received.append(latency)
        self.frames += 1
        self.by_class.update(d.results[0].hypothesis.class_id for d in message.detections)
        if self.capture:
            self.capture.add("detections", message)

    def on_timing(self, message):
        self.last_timing = message
        if message.verdict != FrameTiming.DROPPED_LATE:
            self.published.append((time.monotonic(), message.latency_ms))
            self.all_published.append(message.latency_ms)

    def forget(self):
        """Leaves out of the summary what came so far: discovery and first frames are not steady state."""
        self.all_received.clear()
        self.all_published.clear()

    def line(self, seconds):
        """One second in one line; `seconds` is how long it was."""
        for times in (self.received, self.published):
            while times and times[0][0] < time.monotonic() - WINDOW:
                times.popleft()
        rate, frames = self.frames / seconds, max(self.frames, 1)
        classes = ", ".join(f"{n / frames:.1f} {name}" for name, n in sorted(self.by_class.items())) or "nothing"
        self.frames = 0
        self.by_class.clear()
        published, received = (percentiles([ms for _, ms in times]) for times in (self.published, self.received))
        return f"{rate:5.1f} Hz | stamp→publish {published} | →here {received} | {self.counts()} | {classes}"

    def counts(self):
        t = self.last_timing
        if t is None:
            return "no frame yet"
        return (
            f"{t.arrived} arrived: {t.published_on_time} on time, {t.published_late} late, {t.superseded} superseded,"
            f" {t.dropped_late} dropped, {t.rejected} rejected"
        )

    def summary(self):
        if not self.all_received:
            return "too short for a summary: it leaves out the first seconds"
        return (
            f"stamp→publish {percentiles(self.all_published, (50, 99, 99.9, 100))}\n"
            f"stamp→here    {percentiles(self.all_received, (50, 99, 99.9, 100))}"
        )

    def start_capture(self, count, apart):
        self.capture = Capture(self.node, self.image_topic, count, apart)

    def take_pictures(self):
        """The pictures of a finished capture, once; an empty list until then."""
        if not self.capture or not self.capture.is_full():
            return []
        pictures = self.capture.pictures()
        self.give_up_capture()
        return pictures

    def give_up_capture(self):
        self.capture.close()
        self.capture = None


class Capture:
    """Collects images with their detections and road masks, matched by stamp.

    Subscribes only while it lasts: images in Python cost more than the node itself.
    """

    def __init__(self, node, image_topic, count, apart):
        self.node, self.count, self.apart = node, count, apart * 1e9
        self.parts = collections.OrderedDict()  # stamp: {kind: message}
        self.complete = []
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.subscriptions = [
            node.create_subscription(Image, image_topic, lambda m: self.add("image", m), qos),
            node.create_subscription(Image, "road_mask", lambda m: self.add("road_mask", m), qos),
        ]

    def add(self, kind, message):
        at = stamp(message.header)
        parts = self.parts.setdefault(at, {})
        parts[kind] = message
        while len(self.parts) > 30:
            self.parts.popitem(last=False)
        far_enough = not self.complete or at - stamp(self.complete[-1]["image"].header) >= self.apart
        if len(parts) == 3 and far_enough and not self.is_full():
            self.complete.append(parts)

    def is_full(self):
        return len(self.complete) >= self.count

    def pictures(self):
        drawn = []
        for parts in self.complete:
            source = picture.to_picture(parts["image"])
            if source:
                found = parts["detections"].detections
                drawn.append(picture.annotate(source, found, parts["road_mask"], f"{len(found)} found"))
        return drawn

    def close(self):
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)


def percentiles(milliseconds, which=(50, 99)):
    if not milliseconds:
        return "-"
    # The nearest rank: a measured latency, not an interpolated one.
    values = numpy.percentile(milliseconds, which, method="inverted_cdf")
    names = ["max" if q == 100 else f"p{q:g}" for q in which]
    return " ".join(f"{name} {value:.1f}" for name, value in zip(names, values)) + " ms"
