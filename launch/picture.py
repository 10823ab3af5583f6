"""Drawing what the node found into the image it found it in."""

import numpy
from PIL import Image as Picture
from PIL import ImageDraw

COLOURS = {
    "person": (255, 80, 80),
    "two-wheeler": (255, 190, 40),
    "car": (60, 220, 90),
    "bus": (60, 190, 255),
    "truck": (210, 110, 255),
}
OTHER = (255, 255, 255)
ROAD = (128, 64, 255)


def to_picture(message):
    """A sensor_msgs/Image of encoding rgb8, bgr8 or mono8 as a picture; None for another."""
    channels = {"rgb8": 3, "bgr8": 3, "mono8": 1}.get(message.encoding)
    if channels is None or message.step < message.width * channels:
        return None
    rows = numpy.frombuffer(message.data, numpy.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    if message.encoding == "bgr8":
        pixels = pixels[:, :, ::-1]
    return Picture.fromarray(numpy.ascontiguousarray(pixels if channels == 3 else pixels[:, :, 0])).convert("RGB")


def annotate(picture, detections, road_mask=None, caption=""):
    """A copy of `picture` with the road tinted, each detection's box, class and score, and a caption."""
    if road_mask is not None:
        mask = numpy.frombuffer(road_mask.data, numpy.uint8).reshape(road_mask.height, road_mask.width)
        alpha = Picture.fromarray((mask > 0).astype(numpy.uint8) * 90).resize(picture.size, Picture.NEAREST)
        picture = Picture.composite(Picture.new("RGB", picture.size, ROAD), picture, alpha)
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    # The best last, so that they are on top.
    for d in sorted(detections, key=lambda d: d.results[0].hypothesis.score):
        best = d.results[0].hypothesis
        colour = COLOURS.get(best.class_id, OTHER)
        x, y = d.bbox.center.position.x, d.bbox.center.position.y
        w, h = d.bbox.size_x / 2, d.bbox.size_y / 2
        draw.rectangle((x - w, y - h, x + w, y + h), outline=colour, width=2)
        label(draw, (x - w, y - h), f"{best.class_id} {best.score:.2f}", colour)
    if caption:
        label(draw, (0, picture.height), caption, OTHER)
    return picture


def label(draw, corner, text, colour):
    """Dark text on `colour`, standing on `corner`; hanging from it where the picture ends above."""
    left, top, right, bottom = draw.textbbox((0, 0), text)
    width, height = right - left + 4, bottom - top + 4
    x, y = max(corner[0], 0), corner[1] - height if corner[1] >= height else max(corner[1], 0)
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0))


def strip(pictures, columns=3):
    """The pictures as a table, row by row."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Picture.new("RGB", (width * min(columns, len(pictures)), height * rows))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    return sheet
