"""Two cameras on one topic, of which one leaves; reports what the diagnostics say."""

import rclpy
from sensor_msgs.msg import Image

from common import SENSOR, Peer, image

peer = Peer()
publisher = peer.image_publisher()


def warned():
    peer.send(publisher, image(64, 48), peer.processed)
    return "publishers" in (peer.diagnostics or {}).get("message", "")


other = rclpy.create_node("right_camera")
other.create_publisher(Image, "image", SENSOR)
peer.wait(warned, "a warning of two publishers")
answer = {"level": peer.diagnostics["level"], "message": peer.diagnostics["message"]}
other.destroy_node()
peer.wait(lambda: not warned(), "the end of the warning")
peer.answer(answer)
