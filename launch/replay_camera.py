#!/usr/bin/env python3
"""A camera that replays a folder of images or a video on a ROS 2 image topic, at a steady rate.

Everything that takes time is done before the first image: publishing one costs a copy into the middleware.
"""

import argparse
import array
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy
import rclpy
import rclpy.signals
from PIL import Image as Picture
from PIL import ImageOps
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
    parser.add_argument("--frames", type=pathlib.Path, default=FRAMES, help="folder of images, or a video (needs ffmpeg)")
    parser.add_argument("--rate", type=positive, default=30.0, help="images a second (default 30)")
    parser.add_argument("--size", type=size, default=(640, 480), help="size they are scaled and cropped to (default 640x480)")
    parser.add_argument("--compressed", action="store_true", help="publish JPEG on TOPIC/compressed instead")


def pictures(source, wanted):
    """The pictures of a folder or a video as arrays [height, width, 3]; of a video the first 300.

    They are scaled to fill `wanted` and cropped to it: the network was not trained on stretched images.
    """
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in PICTURES)
        if not files:
            sys.exit(f"camera: no image ({', '.join(sorted(PICTURES))}) in {source}; name another with --frames")
        return [numpy.asarray(ImageOps.fit(Picture.open(f).convert("RGB"), wanted, Picture.BILINEAR)) for f in files]
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
    message = CompressedImage(format="rgb8; jpeg compressed rgb8")
    message.data = array.array("B", encoded.getvalue())
    return message


def replay(node, publisher, messages, rate, stop):
    """Publishes message after message, one each 1/rate s by the monotonic clock, until `stop` is set.

    Returns how many were published, and how many were left out because their time had passed.
    """
    clock, period, tick, late = node.get_clock(), 1.0 / rate, 0, 0
    start = time.monotonic()
    while not stop.is_set():
        wait = start + tick * period - time.monotonic()
        if wait > 0:
            if stop.wait(wait):
                break
        elif wait < -period:
            # A camera does not catch up: frames that it could not take in time are skipped.
            missed = int(-wait / period)
            tick, late = tick + missed, late + missed
        message = messages[tick % len(messages)]
        message.header.stamp = clock.now().to_msg()
        publisher.publish(message)
        tick += 1
    return tick - late, late


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--topic", default="image", help="topic of the images (default image)")
    parser.add_argument("--frame-id", default="camera", help="the header's frame_id (default camera)")
    # launch appends --ros-args of its own.
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])

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
    published, late = replay(node, publisher, messages, options.rate, stop)
    if late:
        print(f"camera: {published} images published, {late} left out for want of time", flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
