"""Reports the reliability and durability with which the node publishes each of its topics."""

from common import Peer

TOPICS = (
    "detections", "timing", "road_mask", "segmentation", "tracks", "objects", "drivable_ground", "markers",
    "label_info", "debug_image", "debug_image/compressed",
)
peer = Peer()
peer.wait(lambda: all(peer.node.count_publishers(t) for t in TOPICS), "the node publishing")
answer = {}
for topic in TOPICS:
    qos = peer.node.get_publishers_info_by_topic(f"/{topic}")[0].qos_profile
    answer[topic] = [qos.reliability.name.lower(), qos.durability.name.lower()]
peer.answer(answer)
