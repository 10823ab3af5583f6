"""The images of a ROS 2 bag: of its folder, or of a .mcap or .db3 file."""

import dataclasses
import io
import sys

import picture
from PIL import Image as Picture

MOST = 300  # images that are kept in memory
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@dataclasses.dataclass
class Recorded:
    time: float  # when it was recorded, in seconds
    age: float  # seconds from its stamp to that
    picture: Picture.Image


def is_one(path):
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def images(path, topic=None):
    """The first images of the topic, or of the only one of images, in the order in which they were recorded."""
    try:
        from rosbags.rosbag2 import Reader
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError:
        sys.exit(f"camera: rosbags is needed to replay a bag, and is not installed ({sys.executable} -m pip install rosbags==0.11.9)")
    if not path.exists():
        sys.exit(f"camera: {path} does not exist; name a bag's folder with --frames")
    store = get_typestore(Stores.LATEST)
    found, other = [], None
    with Reader(path) as reader:
        connections = [c for c in reader.connections if c.msgtype in (RAW, COMPRESSED)]
        names = sorted({c.topic for c in connections})
        if topic not in names and (topic or len(names) != 1):
            sys.exit(f"camera: {path} has these topics of images: {', '.join(names) or 'none'}; name one with --bag-topic")
        chosen = [c for c in connections if c.topic == (topic or names[0])]
        for connection, time, data in reader.messages(connections=chosen):
            message = store.deserialize_cdr(data, connection.msgtype)
            shown = of(message)
            if shown is None:
                other = message.encoding
                continue
            stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
            # A header that nobody filled in tells no age.
            found.append(Recorded(time / 1e9, max(time / 1e9 - stamp, 0.0) if stamp > 0 else 0.0, shown))
            if len(found) == MOST:
                break
    if not found:
        sys.exit(f"camera: {path}: no image can be shown{f'; their encoding is {other}' if other else ''}")
    return found


def of(message):
    """The message's picture; None for an encoding that is not shown."""
    if hasattr(message, "format"):
        return Picture.open(io.BytesIO(message.data.tobytes())).convert("RGB")
    return picture.to_picture(message)
