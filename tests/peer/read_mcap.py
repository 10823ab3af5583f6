"""Reads a recording as most programs in Python do, with PyPI's `mcap` and `mcap-ros2-support`, and reports what it holds.

    read_mcap.py FILE
"""

import io
import json
import sys

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from PIL import Image as Picture


def time(stamp):
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def text(value):
    """A parameter's value, by its type."""
    return {1: value.bool_value, 2: value.integer_value, 3: value.double_value, 4: value.string_value}.get(value.type)


def described(schema, message):
    """What the test asks for, by the message's own fields."""
    if schema == "sensor_msgs/msg/CompressedImage":
        picture = Picture.open(io.BytesIO(message.data))
        picture.load()
        stamp, frame_id = time(message.header.stamp), message.header.frame_id
        pixel = picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2))
        return {"stamp": stamp, "frame_id": frame_id, "format": message.format, "size": picture.size, "pixel": pixel}
    if schema == "vision_msgs/msg/Detection2DArray":
        boxes = [[d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.size_x, d.bbox.size_y] for d in message.detections]
        return {"stamp": time(message.header.stamp), "boxes": boxes}
    if schema == "peregrine_msgs/msg/FrameTiming":
        return {"stamp": time(message.header.stamp), "verdict": message.verdict, "arrived": message.arrived}
    if schema == "diagnostic_msgs/msg/DiagnosticArray":
        level = lambda status: status.level if isinstance(status.level, int) else status.level[0]
        return {"levels": {status.name: level(status) for status in message.status}}
    if schema == "rcl_interfaces/msg/ParameterEvent":
        return {"node": message.node, "parameters": {p.name: text(p.value) for p in message.new_parameters}}
    return {}


with open(sys.argv[1], "rb") as file:
    reader = make_reader(file, decoder_factories=[DecoderFactory()], validate_crcs=True)
    topics = {}
    for schema, channel, record, message in reader.iter_decoded_messages():
        topic = topics.setdefault(channel.topic, {"type": schema.name, "messages": []})
        topic["messages"].append({"log_time": record.log_time, **described(schema.name, message)})
    notes = {record.name: record.metadata for record in reader.iter_metadata()}
    profile, chunks = reader.get_header().profile, len(reader.get_summary().chunk_indexes)
print(json.dumps({"topics": topics, "notes": notes, "profile": profile, "chunks": chunks}))
