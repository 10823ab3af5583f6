"""How many images at the camera's rate it takes until one is answered again."""

import sys
import time

import rclpy

from common import TIMEOUT, stamp


class Recovery:
    def __init__(self, peer, publisher, good):
        self.peer, self.publisher, self.good, self.images = peer, publisher, good, {}
        # 30 Hz, or slower if the machine is so busy that an answer takes longer than that.
        self.period = max(1 / 30, 2 * max(self.latency() for _ in range(5)))

    def latency(self):
        """Seconds from a good image to its answer, under the present load."""
        begun = time.monotonic()
        self.peer.send(self.publisher, self.good, self.peer.processed)
        return time.monotonic() - begun

    def drain(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self.peer.node, timeout_sec=left)

    def after(self, what, publisher=None):
        """Sends good images at the camera's rate until one of them is answered."""
        sent = set()
        while not any(map(self.peer.processed, sent)):
            if len(sent) * self.period > TIMEOUT:
                sys.exit(f"peer: no answer after {what}; diagnostics: {self.peer.diagnostics}")
            self.good.header.stamp = self.peer.node.get_clock().now().to_msg()
            sent.add(stamp(self.good.header))
            (publisher or self.publisher).publish(self.good)
            self.drain(self.period)
        self.images[what] = len(sent)
