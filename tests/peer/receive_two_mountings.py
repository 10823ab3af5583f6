"""Sends the same image to two cameras of one node, and reports where on the ground each places its objects."""

import array

from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3DArray

from common import FRAMES, SENSOR, Peer

CAMERAS = ("front", "rear")
peer = Peer()
picture = Picture.open(FRAMES / "street-20.jpg").convert("RGB")
image = Image(width=picture.width, height=picture.height, encoding="rgb8", step=3 * picture.width)
image.data = array.array("B", picture.tobytes())
seen, images, infos = {}, {}, {}
for camera in CAMERAS:
    seen[camera] = {}
    peer.node.create_subscription(Detection3DArray, f"{camera}/objects", peer.keep(seen[camera]), SENSOR)
    images[camera] = peer.node.create_publisher(Image, f"{camera}/image", SENSOR)
    # The rear camera has another topic for its CameraInfo.
    topic = f"{camera}/camera_info" if camera == "front" else "rear/calibration"
    infos[camera] = peer.node.create_publisher(CameraInfo, topic, SENSOR)
peer.wait(
    lambda: all(p.get_subscription_count() for p in (*images.values(), *infos.values())),
    "the node subscribing to images and CameraInfo of both",
)
answer = {}
focal = 0.8 * picture.width
for camera in CAMERAS:
    info = CameraInfo(width=picture.width, height=picture.height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [focal, 0.0, picture.width / 2, 0.0, focal, picture.height / 2, 0.0, 0.0, 1.0]

    def placed():
        infos[camera].publish(info)
        image.header.stamp = peer.node.get_clock().now().to_msg()
        images[camera].publish(image)
        return any(m.detections for m in seen[camera].values())

    peer.wait(placed, f"{camera} seeing something on the ground")
    last = [m for m in seen[camera].values() if m.detections][-1]
    positions = [d.results[0].pose.pose.position for d in last.detections]
    answer[camera] = {"frame_id": last.header.frame_id, "at": [[p.x, p.y] for p in positions]}
peer.answer(answer)
