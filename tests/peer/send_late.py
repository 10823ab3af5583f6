"""Sends an image to a node that drops late frames and whose deadline cannot be met. Reports its timing."""

from common import Peer, image, timing

peer = Peer()
publisher = peer.image_publisher()
sent = peer.send(publisher, image(64, 48), lambda s: s in peer.timings)
peer.answer({"timing": timing(peer.timings[sent]), "detections": len(peer.detections)})
