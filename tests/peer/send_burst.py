"""Sends COUNT images as fast as it can and waits until the node has none left in hand."""

import sys

from common import Peer, image, timing

peer = Peer()
publisher = peer.image_publisher()
message = image(640, 480)
for _ in range(int(sys.argv[1])):
    message.header.stamp = peer.node.get_clock().now().to_msg()
    publisher.publish(message)
# What is sent before the last answer may still arrive after it, so the end is marked by one more.
peer.send(publisher, image(64, 48), peer.processed)


def settled():
    if peer.diagnostics is None:  # they come once a second, and the first may still be on its way
        return False
    last = max(t.sequence for t in peer.timings.values())
    return int(peer.diagnostics["arrived"]) == last and int(peer.diagnostics["in_flight"]) == 0


peer.wait(settled, "the node finishing what it had in hand")
peer.answer({"diagnostics": peer.diagnostics, "timings": [timing(t) for t in peer.timings.values()]})
