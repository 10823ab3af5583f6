#!/usr/bin/env python3
"""A camera that replays a folder of images or a video on a ROS 2 image topic at a steady rate, or a bag as it was recorded.

Everything that takes time is done before the first image: publishing one costs a copy into the middleware.
"""

import argparse
import array
import io
import itertools
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import bag
import numpy
import rclpy
import rclpy.signals
from PIL import Image as Picture
from PIL import ImageOps
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

FRAMES = pathlib.Path(__file__).resolve().parent.parent / "models" / "frames"
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm"}


def size(text):
    """640x480 as (640, 480)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 0 < int(width) <= 8192 and 0 < int(height) <= 8192):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size like 640x480")
    return int(width), int(height)


def positive(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1000.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0 and up to 1000")
    return value


def add_arguments(parser):
    parser.add_argument("--frames", type=pathlib.Path, default=FRAMES, help="folder of images, a video (needs ffmpeg) or a ROS 2 bag (needs rosbags)")
    parser.add_argument("--bag-topic", help="the bag's topic of images, where it has several")
    parser.add_argument("--rate", type=positive, default=30.0, help="images a second, but for a bag (default 30)")
    parser.add_argument("--size", type=size, default=(640, 480), help="size they are scaled and cropped to (default 640x480)")
    parser.add_argument("--compressed", action="store_true", help="publish JPEG on TOPIC/compressed instead")


def fitted(picture, wanted):
    return numpy.asarray(ImageOps.fit(picture, wanted, Picture.BILINEAR))


def pictures(source, wanted):
    """The pictures of a folder or a video as arrays [height, width, 3]; of a video the first 300.

    They are scaled to fill `wanted` and cropped to it: the network was not trained on stretched images.
    """
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in PICTURES)
        if not files:
            sys.exit(f"camera: no image ({', '.join(sorted(PICTURES))}) in {source}; name another with --frames")
        return [fitted(Picture.open(f).convert("RGB"), wanted) for f in files]
    if not source.exists():
        sys.exit(f"camera: {source} does not exist; name a folder of images or a video with --frames")
    if not shutil.which("ffmpeg"):
        sys.exit("camera: ffmpeg is needed to replay a video, and is not installed (Debian: apt-get install ffmpeg)")
    width, height = wanted
    fill = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    command = ["ffmpeg", "-v", "error", "-i", source, "-frames:v", "300", "-vf", fill]
    decoded = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True)
    count = len(decoded.stdout) // (width * height * 3)
    if decoded.returncode != 0 or count == 0:
        sys.exit(f"camera: ffmpeg cannot read {source}: {decoded.stderr.decode().strip() or 'no picture in it'}")
    raw = numpy.frombuffer(decoded.stdout, numpy.uint8)
    return list(raw[: count * width * height * 3].reshape(count, height, width, 3))


def raw_message(pixels):
    height, width, _ = pixels.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    # An array of bytes is copied in one piece; a list or bytes would be converted item by item.
    message.data = array.array("B", pixels.tobytes())
    return message


def jpeg_message(pixels):
    encoded = io.BytesIO()
    Picture.fromarray(pixels).save(encoded, "JPEG", quality=90)
    # What image_transport writes for a JPEG of an rgb8 image: decoders make bgr8 of it.
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    message.data = array.array("B", encoded.getvalue())
    return message


def steadily(rate):
    """When the images of a steady camera are due, and how old each is then; both in seconds."""
    return ((tick / rate, 0.0) for tick in itertools.count())


def as_recorded(times, ages):
    """The same of images that were recorded at `times`, each `ages` after its stamp; over and over."""
    gaps = sorted(b - a for a, b in zip(times, times[1:]))
    length = times[-1] - times[0] + (gaps[len(gaps) // 2] if gaps else 1.0)
    for turn in itertools.count():
        yield from ((turn * length + time_ - times[0], age) for time_, age in zip(times, ages))


def replay(node, publisher, messages, schedule, stop):
    """Publishes message after message when `schedule` says, by the monotonic clock, until `stop` is set.

    Returns how many were published, and how many were left out because their time had passed.
    """
    clock, published, late = node.get_clock(), 0, 0
    start = time.monotonic()
    due, age = next(schedule)
    for message in itertools.cycle(messages):
        (next_due, next_age), now = next(schedule), time.monotonic() - start
        if now > next_due:
            # A camera does not catch up: frames that it could not take in time are skipped.
            late += 1
        elif stop.wait(max(due - now, 0.0)):
            break
        else:
            message.header.stamp = (clock.now() - Duration(nanoseconds=round(age * 1e9))).to_msg()
            publisher.publish(message)
            published += 1
        due, age = next_due, next_age
    return published, late


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--topic", default="image", help="topic of the images (default image)")
    parser.add_argument("--frame-id", default="camera", help="the header's frame_id (default camera)")
    # launch appends --ros-args of its own.
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])

    schedule = steadily(options.rate)
    if bag.is_one(options.frames):
        recorded = bag.images(options.frames, options.bag_topic)
        frames = [fitted(image.picture, options.size) for image in recorded]
        schedule = as_recorded([image.time for image in recorded], [image.age for image in recorded])
    else:
        frames = pictures(options.frames, options.size)
    messages = [jpeg_message(f) if options.compressed else raw_message(f) for f in frames]
    for message in messages:
        message.header.frame_id = options.frame_id
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = rclpy.create_node("replay_camera")
    topic = f"{options.topic}/compressed" if options.compressed else options.topic
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(type(messages[0]), topic, qos)
    published, late = replay(node, publisher, messages, schedule, stop)
    if late:
        print(f"camera: {published} images published, {late} left out for want of time", flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
