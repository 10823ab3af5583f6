"""Changes the model while images are processed. Arguments: a folder with a model, one without, one of other classes."""

import sys
import threading

from common import boxes, image, stamp
from managed import Manager
from rclpy.qos import DurabilityPolicy, QoSProfile
from vision_msgs.msg import LabelInfo

good, bad, other = sys.argv[1:]
peer = Manager()
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
labels = {}
for topic in ("label_info", "detection_label_info"):
    keep = lambda m, topic=topic: labels.__setitem__(topic, [c.class_name for c in m.class_map])
    peer.node.create_subscription(LabelInfo, topic, keep, latched)
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
peer.wait(lambda: len(labels) == 2, "the names of the classes")
answer["labels_before"] = dict(labels)
answer["other"] = peer.set("model", other)
peer.wait(lambda: labels["detection_label_info"] != answer["labels_before"]["detection_label_info"], "the new names")
for _ in range(10):
    peer.wait_a_little()
stop.set()
flow.join()
last = peer.send(publisher, image(64, 48), peer.processed)
peer.diagnostics = None
peer.wait(lambda: peer.diagnostics and int(peer.diagnostics["in_flight"]) == 0, "the end of all frames in flight")
peer.wait(lambda: int(peer.diagnostics["arrived"]) >= peer.timings[last].sequence, "the last image being counted")
answer["diagnostics"] = peer.diagnostics
answer["labels_after"] = labels
answer["classes_after"] = sorted({b["class"] for b in boxes(peer.detections[last])})
answer["last_sequence"] = peer.timings[last].sequence
answer["state"] = peer.state()
peer.answer(answer)
