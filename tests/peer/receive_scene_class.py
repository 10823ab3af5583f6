"""Sends grey images, and reports the classes of the scene and what the diagnostics say of it."""

from vision_msgs.msg import Classification

from common import Peer, image, stamp

peer = Peer()
scenes = {}


def on_scene(message):
    results = [[result.class_id, result.score] for result in message.results]
    scenes.setdefault(stamp(message.header), []).append({"frame_id": message.header.frame_id, "results": results})


peer.node.create_subscription(Classification, "scene", on_scene, 10)
publisher = peer.image_publisher()
sent = peer.send(publisher, image(64, 48), lambda one: peer.processed(one) and len(scenes.get(one, [])) == 2)
peer.wait(lambda: peer.diagnostics and "night" in peer.diagnostics.get("scene.light", ""), "the scene in the diagnostics")
told = {key: value for key, value in peer.diagnostics.items() if key.startswith("scene")}
peer.answer({"messages": scenes[sent], "diagnostics": told})
