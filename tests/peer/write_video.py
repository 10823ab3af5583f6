"""Records a video, a message for each packet, with PyPI's `mcap-ros2-support`, which makes the messages by their definitions.

    write_video.py FILE TYPE FORMAT FOLDER

The packets are the files of FOLDER in the order of their names. Message i is logged at second 1000 + i/10, and stamped
20 ms earlier.
"""

import pathlib
import sys

from mcap_ros2.writer import Writer

LINE = "=" * 80
TIME = f"{LINE}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
HEADER = f"{LINE}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
DEFINITIONS = {
    "sensor_msgs/msg/CompressedImage": "std_msgs/Header header\nstring format\nuint8[] data\n" + HEADER + TIME,
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n" + TIME,
}
START, PERIOD, DELAY = 1000 * 10**9, 10**8, 2 * 10**7


def main():
    file, type_name, form, folder = sys.argv[1:]
    with open(file, "wb") as stream:
        writer = Writer(stream)
        schema = writer.register_msgdef(type_name, DEFINITIONS[type_name])
        for number, path in enumerate(sorted(pathlib.Path(folder).iterdir())):
            logged = START + number * PERIOD
            sec, nanosec = divmod(logged - DELAY, 10**9)
            stamp = {"sec": sec, "nanosec": nanosec}
            message = {"format": form, "data": path.read_bytes()}
            if type_name.startswith("foxglove_msgs/"):
                message |= {"timestamp": stamp, "frame_id": "front"}
            else:
                message["header"] = {"stamp": stamp, "frame_id": "front"}
            writer.write_message("/camera", schema, message, log_time=logged, publish_time=logged, sequence=number)
        writer.finish()


main()
