"""A faulty camera: random images, 1 kHz, killed while streaming, a restarted participant.

After each, reports how many images at the camera's rate it takes until one is answered. The argument is a seed.
"""

import os
import random
import signal
import subprocess
import sys
import time

import rclpy
from rclpy.context import Context
from sensor_msgs.msg import Image

from common import SENSOR, Peer, image
from recovery import Recovery

CAMERA = """
import sys; sys.path.insert(0, {folder!r})
import rclpy
from common import SENSOR, image
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("dying_camera")
publisher = node.create_publisher(Image, "image", SENSOR)
message = image(320, 240)
while True:
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
"""

peer = Peer()
publisher = peer.image_publisher()
chance = random.Random(int(sys.argv[1]))
answer = {}
recovery = Recovery(peer, publisher, image(64, 48))
drain, recovered = recovery.drain, recovery.after

extremes = (0, 1, 7, 64, 65535, 2**31, 2**32 - 1)
encodings = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "rgb16", "mono16", "uyvy", "yuyv", "nv12", "nv21", "nv24", "yuv420")
encodings += ("bayer_rggb8", "bayer_grbg16", "32FC1", "", "\x7f" * 300, "rgb8 ")
for _ in range(150):
    size = [chance.choice(extremes) for _ in range(3)]
    data = chance.randbytes(chance.choice((0, 1, 100, 3 * 64 * 48, 50_000)))
    message = image(size[0], size[1], encoding=chance.choice(encodings), step=size[2], data=data)
    # Stamps are random, too.
    message.header.stamp.sec = chance.choice((0, -(2**31), 2**31 - 1, 1_700_000_000))
    message.header.stamp.nanosec = chance.choice((0, 999_999_999, 2**32 - 1))
    publisher.publish(message)
    if chance.random() < 0.3:
        drain(0.01)
recovered("random images")

message = image(320, 240)
start, count = time.monotonic(), 0
while time.monotonic() - start < 2.0:
    message.header.stamp = peer.node.get_clock().now().to_msg()
    publisher.publish(message)
    count += 1
    # At 1 kHz, or as fast as this machine can.
    time.sleep(max(0.0, start + count / 1000 - time.monotonic()))
answer["images_a_second"] = round(count / 2.0)
recovered("1000 Hz")

code = CAMERA.format(folder=os.path.dirname(os.path.abspath(__file__)))
dying = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
peer.wait(lambda: peer.node.count_publishers("image") > 1, "discovery of the second camera")
drain(0.5)
dying.send_signal(signal.SIGKILL)
dying.wait()
recovered("a camera that was killed")

# A participant of its own that leaves and comes back, as when the driver of a camera is restarted.
peer.node.destroy_publisher(publisher)
context = Context()
for _ in range(2):
    rclpy.init(context=context)
    camera = rclpy.create_node("restarted_camera", context=context)
    publisher = camera.create_publisher(Image, "image", SENSOR)
    # Including discovery.
    recovered("a restarted participant", publisher)
    camera.destroy_node()
    rclpy.shutdown(context=context)
    context = Context()

peer.diagnostics = None
peer.wait(lambda: peer.diagnostics and int(peer.diagnostics["in_flight"]) == 0, "no frame being in flight")
answer |= {"diagnostics": peer.diagnostics, "images_until_answered": recovery.images}
peer.answer(answer)
