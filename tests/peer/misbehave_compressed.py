"""A faulty camera: compressed images that are truncated, damaged, random, or claim to be enormous.

After each kind, reports how many images at the camera's rate it takes until one is answered. The argument is a seed.
"""

import array
import io
import random
import struct
import sys
import zlib

from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage

from common import FRAMES, Peer
from recovery import Recovery


def message(data):
    return CompressedImage(format="jpeg", data=array.array("B", data))


def flipped(data):
    data = bytearray(data)
    for _ in range(chance.randrange(1, 20)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def enormous():
    """A PNG with a header of 100,000 by 100,000 pixels: width and height from byte 16 on, the checksum from 29 on."""
    data = bytearray(files["PNG"])
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


chance = random.Random(int(sys.argv[1]))
picture = Picture.open(FRAMES / "street-20.jpg").convert("RGB").resize((160, 120))
files = {}
for form in ("JPEG", "PNG"):
    file = io.BytesIO()
    picture.save(file, form)
    files[form] = file.getvalue()

peer = Peer()
publisher = peer.image_publisher(CompressedImage, "image/compressed")
recovery = Recovery(peer, publisher, message(files["JPEG"]))
kinds = {f"truncated {form}": lambda data=data: data[: chance.randrange(len(data))] for form, data in files.items()}
kinds |= {f"damaged {form}": lambda data=data: flipped(data) for form, data in files.items()}
kinds |= {"random bytes": lambda: chance.randbytes(chance.randrange(20_000)), "enormous": enormous, "empty": bytes}


def rejected():
    return int((peer.diagnostics or {}).get("rejected", 0))


for kind, make in kinds.items():
    # A damaged image may still be decodable; of the other kinds, at least one has to be rejected.
    peer.send(publisher, message(make()), lambda sent: peer.processed(sent) or rejected())
    for _ in range(25):
        publisher.publish(message(make()))
        recovery.drain(0.02)
    recovery.after(kind)

truncated_before = rejected()
unanswered = peer.send(publisher, message(files["JPEG"][:-200]), lambda _: rejected() > truncated_before)
peer.diagnostics = None
peer.wait(lambda: peer.diagnostics and int(peer.diagnostics["in_flight"]) == 0, "no frame being in flight")
peer.answer({
    "diagnostics": peer.diagnostics,
    "images_until_answered": recovery.images,
    "truncated_is_answered": peer.processed(unanswered),
})
