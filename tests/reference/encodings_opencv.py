"""Colours of images of every encoding by OpenCV, for the letterbox to agree with.

    python -m venv V && V/bin/pip install opencv-python-headless==5.0.0.93 numpy==2.4.6
    V/bin/python tests/reference/encodings_opencv.py > tests/reference/encodings_opencv.json

`pixels` are the colours of WIDTH x HEIGHT pixels of noise, as hexadecimal rgb8. `scaled` are those of a texture without
saturated colours, of TEXTURE pixels resized to SCALED by bilinear interpolation. The tests make the same bytes by the
same formulas.
"""

import json
import sys

import cv2
import numpy as np

WIDTH, HEIGHT = 10, 8
TEXTURE, SCALED = (48, 12), (32, 8)
MOSAICS = ("rggb", "bggr", "gbrg", "grbg")
# Values that are white, of a little-endian and of a big-endian variant of each encoding of 16 bits.
WHITE = {"little": 65535, "big": 40000}


def noise(count):
    state, values = 7, np.empty(count, np.uint8)
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values[i] = state >> 24
    return values


def texture(count):
    i = np.arange(count)
    return (90 + (i * 7 + i // 96 * 11) % 76).astype(np.uint8)


def first(data, *shape):
    return data[: int(np.prod(shape))].reshape(shape)


def full_range(y, u, v):
    """Of planes of one size: JPEG's conversion."""
    return cv2.cvtColor(cv2.merge([y, v, u]), cv2.COLOR_YCrCb2RGB)


def limited_range(y, u, v):
    """Of planes of one size: as NV12 of twice the size, whose pixels share no chroma."""
    double = cv2.resize(y, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    chroma = cv2.merge([u, v]).reshape(y.shape[0], -1)
    return cv2.cvtColor(np.vstack([double, chroma]), cv2.COLOR_YUV2RGB_NV12)[::2, ::2]


def planes(name, data, width, height):
    """Y, U and V of every pixel."""
    rest = data[width * height :]
    y = first(data, height, width)
    twice = lambda plane: plane.repeat(2, 0).repeat(2, 1)
    if name in ("uyvy", "yuyv"):
        pairs = first(data, height, width // 2, 4)
        luma, u, v = {"uyvy": (1, 0, 2), "yuyv": (0, 1, 3)}[name]
        return pairs[:, :, [luma, luma + 2]].reshape(height, width), pairs[:, :, u].repeat(2, 1), pairs[:, :, v].repeat(2, 1)
    if name == "nv24":
        chroma = first(rest, height, width, 2)
        return y, chroma[:, :, 0], chroma[:, :, 1]
    if name == "yuv420":
        u, v = first(rest, 2, height // 2, width // 2)
        return y, twice(u), twice(v)
    chroma = first(rest, height // 2, width // 2, 2)
    order = (0, 1) if name == "nv12" else (1, 0)
    return y, *(twice(chroma[:, :, i]) for i in order)


def yuv(name, limits, data, width, height):
    """As OpenCV has it, where it has it."""
    if limits == "full":
        return full_range(*planes(name, data, width, height))
    codes = {
        "uyvy": cv2.COLOR_YUV2RGB_UYVY,
        "yuyv": cv2.COLOR_YUV2RGB_YUYV,
        "nv12": cv2.COLOR_YUV2RGB_NV12,
        "nv21": cv2.COLOR_YUV2RGB_NV21,
        "yuv420": cv2.COLOR_YUV2RGB_I420,
    }
    if name == "nv24":
        return limited_range(*planes(name, data, width, height))
    shape = (height, width, 2) if name in ("uyvy", "yuyv") else (height * 3 // 2, width)
    return cv2.cvtColor(first(data, *shape), codes[name])


def colours(name, variant, data, width, height):
    """RGB in steps of 0 to 255: uint8, or float32 of 16 bits."""
    if name in ("uyvy", "yuyv", "nv12", "nv21", "nv24", "yuv420"):
        return yuv(name, variant, data, width, height)
    white = WHITE.get(variant)
    numbers = data if white is None else np.frombuffer(data.tobytes(), "<u2" if variant == "little" else ">u2")
    numbers = numbers if white is None else np.minimum(numbers, white).astype(np.uint16)
    kind = name.rstrip("0123456789")
    if kind.startswith("bayer_"):
        code = getattr(cv2, f"COLOR_Bayer{kind[6:].upper()}2RGB")
        found = cv2.cvtColor(first(numbers, height, width), code)
    elif kind == "mono":
        found = cv2.cvtColor(first(numbers, height, width), cv2.COLOR_GRAY2RGB)
    else:
        found = first(numbers, height, width, len(kind))
        code = {"bgr": cv2.COLOR_BGR2RGB, "rgba": cv2.COLOR_RGBA2RGB, "bgra": cv2.COLOR_BGRA2RGB}.get(kind)
        found = found if code is None else cv2.cvtColor(found, code)
    return found if white is None else found.astype(np.float32) * np.float32(255 / white)


def variants():
    eight = ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"] + [f"bayer_{m}8" for m in MOSAICS]
    sixteen = ["rgb16", "bgr16", "rgba16", "bgra16", "mono16"] + [f"bayer_{m}16" for m in MOSAICS]
    yield from ((name, "") for name in eight)
    yield from ((name, order) for name in sixteen for order in WHITE)
    names = ("uyvy", "yuyv", "nv12", "nv21", "nv24", "yuv420")
    yield from ((name, limits) for name in names for limits in ("limited", "full"))


cases = []
for name, variant in variants():
    pixels = np.rint(colours(name, variant, noise(8 * WIDTH * HEIGHT), WIDTH, HEIGHT)).astype(np.uint8)
    large = colours(name, variant, texture(8 * TEXTURE[0] * TEXTURE[1]), *TEXTURE).astype(np.float32)
    scaled = np.rint(cv2.resize(large, SCALED, interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    cases.append({"encoding": name, "variant": variant, "pixels": pixels.tobytes().hex(), "scaled": scaled.tobytes().hex()})
json.dump({"opencv": cv2.__version__, "cases": cases}, sys.stdout, indent=0)
print()
