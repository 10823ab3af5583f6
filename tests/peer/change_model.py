"""Changes the model while images are processed. Arguments: a folder with a model, and one without."""

import sys
import threading

from common import image, stamp
from managed import Manager

good, bad = sys.argv[1:]
peer = Manager()
peer.wait_for_state("active")
publisher = peer.image_publisher()
peer.send(publisher, image(64, 48), peer.processed)
stop, sent = threading.Event(), []


def stream():
    message = image(64, 48)
    while not stop.wait(0.05):
        message.header.stamp = peer.node.get_clock().now().to_msg()
        sent.append(stamp(message.header))
        publisher.publish(message)


flow = threading.Thread(target=stream)
flow.start()
answer = {"bad": peer.set("model", bad), "good": peer.set("model", good), "sent_meanwhile": len(sent)}
for _ in range(10):
    peer.wait_a_little()
stop.set()
flow.join()
last = peer.send(publisher, image(64, 48), peer.processed)
peer.diagnostics = None
peer.wait(lambda: peer.diagnostics and int(peer.diagnostics["in_flight"]) == 0, "the end of all frames in flight")
peer.wait(lambda: int(peer.diagnostics["arrived"]) >= peer.timings[last].sequence, "the last image being counted")
answer["diagnostics"] = peer.diagnostics
answer["last_sequence"] = peer.timings[last].sequence
answer["state"] = peer.state()
peer.answer(answer)
