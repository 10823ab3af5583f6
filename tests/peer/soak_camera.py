"""A camera of 30 Hz that does what lines of its standard input say, from good to as faulty as cameras get.

Each line is one of the modes below, and `step SECONDS` steps the clock that its stamps are taken from. Answers each
line, and its start once the node is discovered, with `SENDS`, the mode and the first stamp that is sent in it.
"""

import array
import itertools
import sys
import threading
import time

import rclpy
from PIL import Image as Picture
from sensor_msgs.msg import Image

from common import FRAMES, SENSOR, image, stamp

PERIOD = 1 / 30
ENCODINGS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "yuv422_yuy2": 2, "uyvy": 2}


def good():
    pictures = [Picture.open(path).convert("RGB") for path in sorted(FRAMES.glob("*.jpg"))]
    return [
        Image(width=p.width, height=p.height, step=3 * p.width, encoding="rgb8", data=array.array("B", p.tobytes()))
        for p in pictures
    ]


def damaged():
    whole = image(320, 240)
    short, steep, unknown = image(320, 240), image(320, 240), image(320, 240, encoding="infrared7")
    short.data, steep.step = whole.data[:-1], 100
    return [whole, short, steep, unknown, image(0, 240, data=b""), image(2**31, 2**31, step=2**32 - 1, data=b"1")]


MODES = {
    "good": good(),
    "sizes": [image(w, h) for w, h in ((1920, 1080), (64, 48), (641, 359), (320, 240), (1280, 720), (2, 2))],
    "encodings": [image(320, 240, encoding=name, step=320 * size) for name, size in ENCODINGS.items()],
    "damaged": damaged(),
    "silent": [],
}

asked = ["good"]
threading.Thread(target=lambda: asked.extend(map(str.strip, sys.stdin)), daemon=True).start()
rclpy.init()
node = rclpy.create_node("soak_camera")
publisher = node.create_publisher(Image, "image", SENSOR)
while publisher.get_subscription_count() == 0:
    time.sleep(0.01)

offset, answered, frames = 0.0, 0, itertools.cycle([])
due = time.monotonic()
while True:
    answers = []
    while answered < len(asked):
        mode, answered = asked[answered], answered + 1
        if mode.startswith("step "):
            offset = float(mode.split()[1])
        else:
            frames = itertools.cycle(MODES[mode])
        answers.append(mode)
    message, now = next(frames, None), time.time_ns() + int(offset * 1e9)
    if message is not None:
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
        publisher.publish(message)
    for mode in answers:
        print("SENDS", mode, now, flush=True)
    due = max(due + PERIOD, time.monotonic() - PERIOD)
    time.sleep(max(0.0, due - time.monotonic()))
