"""Sends COUNT images as fast as it can and waits until none is in flight."""

import sys

from common import Peer, image, timing

peer = Peer()
publisher = peer.image_publisher()
message = image(640, 480)
for _ in range(int(sys.argv[1])):
    message.header.stamp = peer.node.get_clock().now().to_msg()
    publisher.publish(message)
# Images sent before the last answer may still arrive after it, so one more marks the end.
peer.send(publisher, image(64, 48), peer.processed)


def settled():
    if peer.diagnostics is None:  # they come once a second, and the first may still be on its way
        return False
    last = max(t.sequence for t in peer.timings.values())
    return int(peer.diagnostics["arrived"]) == last and int(peer.diagnostics["in_flight"]) == 0


peer.wait(settled, "the end of all frames in flight")
peer.answer({"diagnostics": peer.diagnostics, "timings": [timing(t) for t in peer.timings.values()]})
