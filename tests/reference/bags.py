"""Makes the bags of tests/reference/bags, with PyPI's `rosbags`, which shares no code with this project:

    pip install rosbags==0.11.9 pillow==13.0.0 && python tests/reference/bags.py

Each bag has, 100 ms apart from second 1000 on, five pictures of 8×6 pixels on /camera (raw, or of the type that the bag is
for), and a number on /other between them, so that a reader has something to leave out. Picture i is of one grey, 40·i.
Its header's stamp is 20 ms before the time at which it was recorded.
"""

import io
import pathlib
import shutil

import lz4.frame
import numpy
from PIL import Image as Picture
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_typestore

HERE = pathlib.Path(__file__).resolve().parent / "bags"
STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
WIDTH, HEIGHT, START, PERIOD, DELAY = 8, 6, 1000 * 10**9, 10**8, 2 * 10**7
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


class Lz4Writer(McapWriter):
    """Its chunks are compressed as rosbag2 does it by `compression: Lz4`, which rosbags does not write."""

    def __init__(self, path, compression):
        super().__init__(path, compression)
        self.compression, self.compressor = "lz4", lz4.frame.compress


def header(time, frame_id="front"):
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def raw(index, time, encoding="rgb8", channels=3, padding=4):
    """A message with padded rows."""
    step = WIDTH * channels + padding
    rows = numpy.full((HEIGHT, step), 255, numpy.uint8)
    rows[:, : WIDTH * channels] = 40 * index
    return TYPES[RAW](header(time), HEIGHT, WIDTH, encoding, 0, step, rows.reshape(-1))


def levels():
    """Pictures of one grey whose messages do not say what is white: 2000 of 12 bits, and luma of 80."""
    grey = numpy.full(WIDTH * HEIGHT, 2000)
    luma, chroma = numpy.full(WIDTH * HEIGHT, 80, numpy.uint8), numpy.full(WIDTH * HEIGHT // 2, 128, numpy.uint8)
    of = [
        ("mono16", 0, 2, grey.astype("<u2").view(numpy.uint8)),
        ("16UC1", 1, 2, grey.astype(">u2").view(numpy.uint8)),
        ("bayer_rggb16", 0, 2, grey.astype("<u2").view(numpy.uint8)),
        ("nv12", 0, 1, numpy.concatenate([luma, chroma])),
        ("yuv420", 0, 1, numpy.concatenate([luma, chroma])),
    ]
    return [
        TYPES[RAW](header(START + i * PERIOD - DELAY), HEIGHT, WIDTH, encoding, big, numbers * WIDTH, data)
        for i, (encoding, big, numbers, data) in enumerate(of)
    ]


def jpeg(index, time, form="JPEG", text="rgb8; jpeg compressed bgr8"):
    encoded = io.BytesIO()
    Picture.new("RGB", (WIDTH, HEIGHT), (40 * index,) * 3).save(encoded, form)
    return TYPES[COMPRESSED](header(time), text, numpy.frombuffer(encoded.getvalue(), numpy.uint8))


def write(name, storage, messages, mode=None, little=True, topic="/camera", start=START):
    """A bag of (type, message) pairs on /camera."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    writer = Writer(folder, version=9, storage_plugin=STORAGES[storage])
    if mode:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        kind = messages[0].__msgtype__
        camera = writer.add_connection(topic, kind, typestore=STORE)
        other = writer.add_connection("/other", "std_msgs/msg/UInt8", typestore=STORE)
        number = STORE.serialize_cdr(TYPES["std_msgs/msg/UInt8"](7), "std_msgs/msg/UInt8")
        for i, message in enumerate(messages):
            time = start + i * PERIOD
            writer.write(camera, time, bytes(STORE.serialize_cdr(message, kind, little_endian=little)))
            writer.write(other, time + 1000, bytes(number))
    return folder


def pictures(of=raw, first=0, count=5, **options):
    return [of(i, START + i * PERIOD - DELAY, **options) for i in range(first, first + count)]


def split():
    """A bag of two files: two bags whose files and metadata are put together as rosbag2 does it."""
    halves = [("split", 0, 3), ("split_1", 3, 2)]
    folders = [write(n, "mcap", pictures(first=f, count=c), start=START + f * PERIOD) for n, f, c in halves]
    whole, second = folders
    (second / "split_1.mcap").rename(whole / "split_1.mcap")
    shutil.rmtree(second)
    metadata = (whole / "metadata.yaml").read_text()
    metadata = metadata.replace("nanoseconds: 200001000", "nanoseconds: 400001000", 1)
    metadata = metadata.replace("message_count: 3", "message_count: 5").replace("message_count: 6", "message_count: 10")
    metadata = metadata.replace("- split.mcap", "- split.mcap\n  - split_1.mcap", 1)
    (whole / "metadata.yaml").write_text(metadata)


def main():
    HERE.mkdir(exist_ok=True)
    for storage in STORAGES:
        write(f"{storage}_raw", storage, pictures())
        write(f"{storage}_file_zstd", storage, pictures(), CompressionMode.FILE)
        write(f"{storage}_message_zstd", storage, pictures(), CompressionMode.MESSAGE)
    write("mcap_chunks_zstd", "mcap", pictures(), CompressionMode.STORAGE)
    Writer.STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: Lz4Writer}
    write("mcap_chunks_lz4", "mcap", pictures())
    Writer.STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: McapWriter}
    write("mcap_jpeg", "mcap", pictures(jpeg))
    write("mcap_png", "mcap", pictures(jpeg, form="PNG", text="rgb8; png compressed "))
    write("mcap_big_endian", "mcap", pictures(), little=False)
    mixed = [("rgb8", 3), ("bgr8", 3), ("mono8", 1), ("yuv422_yuy2", 2), ("32FC1", 4)]
    write("mcap_encodings", "mcap", [raw(2, START + i * PERIOD, e, c) for i, (e, c) in enumerate(mixed)])
    write("mcap_levels", "mcap", levels())
    write("mcap_no_images", "mcap", [TYPES["std_msgs/msg/UInt8"](1)], topic="/speed")
    split()


if __name__ == "__main__":
    main()
