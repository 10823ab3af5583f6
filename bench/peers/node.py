#!/usr/bin/env python3
"""The perception node as one would write it with rclpy, onnxruntime and numpy: the peer of `make bench-node`.

    node.py MODEL.onnx THREADS [--ros-args ...]

MODEL.onnx is what `distill export` writes: it says in its metadata how to prepare images and what outputs mean. The
same letterbox, box decoding, suppression and mask as the Rust node, the same topics and the same FrameTiming, so that
both can be measured alike. Buffers are made once, and whatever numpy can do in place is done in place.
"""

import json
import math
import sys
import time

import numpy as np
import onnxruntime
import rclpy
from builtin_interfaces.msg import Time
from peregrine_msgs.msg import FrameTiming
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

SCORE_THRESHOLD = 0.3
NMS_IOU = 0.6
MAX_DETECTIONS = 100
MAX_CANDIDATES = 1000
PAD_ALIGN = 4
CHANNELS = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0]}


def taps(source, output):
    """For each output position the source positions and their weights: [samples, output] each."""
    step = source / output
    if step <= 2.0:
        at = np.clip((np.arange(output) + 0.5) * step - 0.5, 0, source - 1)
        index = at.astype(np.int64)
        second = (at - index).astype(np.float32)
        return np.stack([index, np.minimum(index + 1, source - 1)]), np.stack([1 - second, second])
    samples = min(max(math.ceil(step / 2.0), 2), 4)
    n = np.arange(samples)[:, None]
    index = (2 * (np.arange(output) * samples + n) + 1) * source // (2 * samples * output)
    return index, np.full((samples, output), 1 / samples, np.float32)


class Letterbox:
    """From images of one size to the network's input: scaled to fit, centred, padded with the mean colour."""

    def __init__(self, source, size, mean, std):
        self.source = source
        scale = min(size[0] / source[0], size[1] / source[1])
        self.content = [min(max(math.floor(s * scale + 0.5), 1), limit) for s, limit in zip(source, size)]
        self.pad = [(limit - c) // 2 // PAD_ALIGN * PAD_ALIGN for limit, c in zip(size, self.content)]
        self.scale = [c / s for c, s in zip(self.content, source)]
        self.columns, self.column_weights = taps(source[0], self.content[0])
        self.rows, self.row_weights = taps(source[1], self.content[1])
        self.factor = (1 / np.array(std, np.float32))[:, None, None]
        self.offset = (np.array(mean, np.float32) / np.array(std, np.float32))[:, None, None]
        self.input = np.zeros((1, 3, size[1], size[0]), np.float32)
        height, width = self.content[1], self.content[0]
        self.inside = self.input[0, :, self.pad[1] : self.pad[1] + height, self.pad[0] : self.pad[0] + width]
        # Columns first: fewer pixels are left for the rows, and only the rows that are looked at are gathered.
        self.needed, places = np.unique(self.rows, return_inverse=True)
        self.places = places.reshape(self.rows.shape)
        self.narrow = np.empty((len(self.needed), width, 3), np.float32)
        self.sum = np.empty((height, width, 3), np.float32)
        self.part = np.empty_like(self.sum)

    def apply(self, image, channels):
        rows = image if len(self.needed) == image.shape[0] else image[self.needed]
        self.narrow.fill(0)
        for index, weight in zip(self.columns, self.column_weights):
            self.narrow += rows[:, index] * weight[:, None]
        np.multiply(self.narrow[self.places[0]], self.row_weights[0][:, None, None], out=self.sum)
        for place, weight in zip(self.places[1:], self.row_weights[1:]):
            np.multiply(self.narrow[place], weight[:, None, None], out=self.part)
            self.sum += self.part
        np.multiply(self.sum.transpose(2, 0, 1)[channels], self.factor, out=self.inside)
        self.inside -= self.offset
        return self.input

    def to_source(self, boxes):
        pad, scale = np.tile(self.pad, 2).astype(np.float32), np.tile(self.scale, 2).astype(np.float32)
        return np.clip((boxes - pad) / scale, 0, np.tile(self.source, 2)).astype(np.float32)


class Decoder:
    """From the head's outputs to boxes in input pixels."""

    def __init__(self, strides, bins, size):
        self.strides, self.bins = strides, bins
        self.threshold = math.log(SCORE_THRESHOLD / (1 - SCORE_THRESHOLD))
        self.widths = [size[0] // stride for stride in strides]

    def __call__(self, outputs):
        scores, classes, boxes = [], [], []
        for level, stride in enumerate(self.strides):
            logits, sides = outputs[2 * level][0], outputs[2 * level + 1][0]
            found = np.flatnonzero(logits > self.threshold)
            if len(found) == 0:
                continue
            label, cell = np.divmod(found, logits.shape[1] * logits.shape[2])
            chosen = sides.reshape(4, self.bins, -1)[:, :, cell]
            exp = np.exp(chosen - chosen.max(axis=1, keepdims=True))
            mean = (exp * np.arange(self.bins, dtype=np.float32)[:, None]).sum(axis=1) / exp.sum(axis=1)
            left, top, right, bottom = mean * stride
            x = (cell % self.widths[level] + 0.5) * stride
            y = (cell // self.widths[level] + 0.5) * stride
            boxes.append(np.stack([x - left, y - top, x + right, y + bottom], axis=1))
            scores.append(logits.reshape(-1)[found])
            classes.append(label)
        if not scores:
            return np.empty(0), np.empty(0, int), np.empty((0, 4))
        scores, classes, boxes = np.concatenate(scores), np.concatenate(classes), np.concatenate(boxes)
        order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
        return 1 / (1 + np.exp(-scores[order])), classes[order], boxes[order]


def suppress(classes, boxes):
    """Indices of the boxes that stay, of boxes by falling score."""
    # Classes apart: boxes of different ones are moved to where they cannot overlap.
    moved = boxes + (classes * (2 * np.abs(boxes).max() + 1))[:, None]
    area = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    kept, alive = [], np.arange(len(moved))
    while len(alive) and len(kept) < MAX_DETECTIONS:
        best, alive = alive[0], alive[1:]
        kept.append(best)
        low, high = np.maximum(moved[best, :2], moved[alive, :2]), np.minimum(moved[best, 2:], moved[alive, 2:])
        common = np.prod(np.clip(high - low, 0, None), axis=1)
        alive = alive[common <= NMS_IOU * (area[best] + area[alive] - common)]
    return kept


def to_time(nanoseconds):
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


class Peer:
    def __init__(self, node, model, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        facts = self.session.get_modelmeta().custom_metadata_map
        _, _, height, width = self.session.get_inputs()[0].shape
        self.name, self.size = self.session.get_inputs()[0].name, (width, height)
        self.mean, self.std = json.loads(facts["mean"]), json.loads(facts["std"])
        self.classes = json.loads(facts["classes"])
        self.decode = Decoder(json.loads(facts["strides"]), int(facts["bins"]), self.size)
        self.letterbox, self.mask, self.sequence, self.node = None, None, 0, node
        self.detections = node.create_publisher(Detection2DArray, "detections", 10)
        self.timing = node.create_publisher(FrameTiming, "timing", 10)
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(Image, "image", self.on_image, qos)

    def on_image(self, message):
        arrival = time.time_ns()
        self.sequence += 1
        size = (message.width, message.height)
        if self.letterbox is None or self.letterbox.source != size:
            self.letterbox = Letterbox(size, self.size, self.mean, self.std)
        start = time.time_ns()
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        pixels = pixels[:, : 3 * message.width].reshape(message.height, message.width, 3)
        tensor = self.letterbox.apply(pixels, CHANNELS[message.encoding])

        prepared = time.time_ns()
        outputs = self.session.run(None, {self.name: tensor})

        inferred = time.time_ns()
        scores, classes, boxes = self.decode(outputs)
        kept = suppress(classes, boxes) if len(boxes) else []
        boxes = self.letterbox.to_source(boxes[kept]) if kept else []
        self.mask = outputs[-1][0].argmax(axis=0).astype(np.uint8)

        decoded = time.time_ns()
        found = Detection2DArray(header=message.header)
        for index, (left, top, right, bottom) in zip(kept, np.asarray(boxes, float).tolist()):
            detection = Detection2D(header=message.header)
            detection.bbox.center.position.x, detection.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
            detection.bbox.size_x, detection.bbox.size_y = right - left, bottom - top
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id = self.classes[classes[index]]
            result.hypothesis.score = float(scores[index])
            detection.results.append(result)
            found.detections.append(detection)
        publish = time.time_ns()
        self.detections.publish(found)
        self.timing.publish(
            FrameTiming(
                header=message.header,
                sequence=self.sequence,
                arrival=to_time(arrival),
                preprocess_start=to_time(start),
                preprocess_end=to_time(prepared),
                inference_end=to_time(inferred),
                decode_end=to_time(decoded),
                publish=to_time(publish),
            )
        )


def main():
    model, threads = sys.argv[1], int(sys.argv[2])
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("peer")
    Peer(node, model, threads)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
