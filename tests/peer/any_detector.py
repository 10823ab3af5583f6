#!/usr/bin/env python3
"""A node as somebody else would write it, for latency_bench to measure: any_detector.py [OPTION …] [--ros-args …]

It knows nothing of this project: it takes sensor_msgs/Image from each of the topics of --images and publishes a
vision_msgs/Detection2DArray with one box, around what is darker than the image is on average. Its subscriptions are
rclpy's default, which is reliable.
"""

import argparse
import sys
import time

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", default="pictures", help="topics, separated by commas")
    parser.add_argument("--restamp", action="store_true", help="stamp detections with the time at which they were made")
    parser.add_argument("--skip", type=int, default=0, help="every how many images are not answered")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that each image takes besides")
    parser.add_argument("--best-effort", action="store_true", help="publish without reliability")
    return parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])


class Detector:
    def __init__(self, node, options):
        self.node, self.options, self.images = node, options, 0
        reliability = ReliabilityPolicy.BEST_EFFORT if options.best_effort else ReliabilityPolicy.RELIABLE
        self.found = node.create_publisher(Detection2DArray, "found", QoSProfile(depth=10, reliability=reliability))
        for topic in options.images.split(","):
            node.create_subscription(Image, topic, self.on_image, 10)

    def on_image(self, message):
        self.images += 1
        if self.options.skip and self.images % self.options.skip == 0:
            return
        time.sleep(self.options.slow)
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        grey = pixels[:, : 3 * message.width].reshape(message.height, message.width, 3).mean(axis=2)
        rows, columns = np.nonzero(grey <= grey.mean())
        detection = Detection2D(header=message.header)
        detection.bbox.center.position.x = float(columns.min() + columns.max() + 1) / 2
        detection.bbox.center.position.y = float(rows.min() + rows.max() + 1) / 2
        detection.bbox.size_x = float(columns.max() - columns.min() + 1)
        detection.bbox.size_y = float(rows.max() - rows.min() + 1)
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = "dark", 0.5
        detection.results.append(result)
        answer = Detection2DArray(header=message.header, detections=[detection])
        if self.options.restamp:
            answer.header.stamp = self.node.get_clock().now().to_msg()
        self.found.publish(answer)


def main():
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("any_detector")
    detector = Detector(node, arguments())
    try:
        rclpy.spin(detector.node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
