"""Reports the format of the first compressed image on image/compressed."""

from sensor_msgs.msg import CompressedImage

from common import SENSOR, Peer

peer = Peer()
received = []
peer.node.create_subscription(CompressedImage, "image/compressed", received.append, SENSOR)
peer.wait(lambda: received, "a compressed image")
peer.answer({"format": received[0].format, "is_jpeg": bytes(received[0].data[:3]) == b"\xff\xd8\xff"})
