"""Small detectors of random weights as exporters write them, and what ONNX Runtime finds with them.

    pip install onnx numpy onnxruntime
    python tests/reference/networks.py

writes tests/reference/networks/NAME.onnx and .json: the candidates (class, score, left, top, right,
bottom in input pixels) in one fixed image. The layouts are those of the projects that the networks
are named after; nothing but the layouts is theirs.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEIGHT, CLASSES = 128, 96, 3
FOLDER = Path(__file__).parent / "networks"


def image():
    """Pixels 0…255, [3, height, width], RGB: coloured waves."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    return ((x * (3 + c) + y * (5 - c) + (x * y) // 16) % 256).astype(np.float32)


class Network:
    """An ONNX graph under construction; methods take and return names of tensors."""

    def __init__(self, seed):
        self.nodes, self.constants, self.count = [], [], 0
        self.rng = np.random.default_rng(seed)

    def const(self, array, name=None):
        self.count += 1
        name = name or f"const_{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, inputs, outputs=1, name=None, **attributes):
        self.count += 1
        name = name or f"{kind}_{self.count}"
        made = [f"{name}_out{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def conv(self, x, cin, cout, k=1, s=1, groups=1, pads=None, bias=True, name=None, gain=1.4, dilation=1):
        kh, kw = (k, k) if isinstance(k, int) else k
        scale = gain / np.sqrt(cin // groups * kh * kw)
        w = self.rng.normal(0, scale, (cout, cin // groups, kh, kw)).astype(np.float32)
        inputs = [x, self.const(w)]
        if bias:
            inputs.append(self.const(self.rng.normal(0, 0.3, cout).astype(np.float32)))
        if pads is None:
            ph, pw = (kh - 1) * dilation // 2, (kw - 1) * dilation // 2
            pads = [ph, pw, ph, pw]
        return self.op("Conv", inputs, name=name, kernel_shape=[kh, kw], strides=[s, s], pads=pads, group=groups,
                       dilations=[dilation, dilation])

    def norm(self, x, c):
        r = self.rng
        parts = [r.uniform(0.7, 1.3, c), r.normal(0, 0.2, c), r.normal(0, 0.2, c), r.uniform(0.5, 1.5, c)]
        return self.op("BatchNormalization", [x] + [self.const(p.astype(np.float32)) for p in parts], epsilon=1e-3)

    def silu(self, x):
        return self.op("Mul", [x, self.op("Sigmoid", [x])])

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def resize(self, x, mode="nearest", place="asymmetric", nearest="floor", scale=2.0):
        scales = self.const(np.array([1, 1, scale, scale], np.float32))
        return self.op("Resize", [x, "", scales], mode=mode, coordinate_transformation_mode=place,
                       nearest_mode=nearest)

    def cat(self, *xs, axis=1):
        return self.op("Concat", list(xs), axis=axis)

    def pool(self, x, k, s=1, p=None):
        return self.op("MaxPool", [x], kernel_shape=[k, k], strides=[s, s], pads=[k // 2 if p is None else p] * 4)

    def save(self, name, outputs, input_name="images", dims=(1, 3, HEIGHT, WIDTH), opset=13, rank=3):
        graph = helper.make_graph(
            self.nodes, name,
            [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, [None] * rank) for o in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        path = FOLDER / f"{name}.onnx"
        onnx.save(model, path)
        return path


def run(path, tensor):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tensor})


def write(name, candidates):
    """Keeps the best 300 above 0.05."""
    best = sorted((c for c in candidates if c[1] > 0.05), key=lambda c: -c[1])[:300]
    assert len(best) > 20, (name, len(best))
    rows = [[c[0]] + [round(float(v), 4 if i else 6) for i, v in enumerate(c[1:])] for c in best]
    text = ",\n".join(json.dumps(row) for row in rows)
    (FOLDER / f"{name}.json").write_text(f"[\n{text}\n]\n")
    print(name, (FOLDER / f"{name}.onnx").stat().st_size, len(candidates), "candidates, best", rows[0])


def cells(stride):
    rows, columns = -(-HEIGHT // stride), -(-WIDTH // stride)
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def of_centres(rows, scores):
    found = []
    for (x, y, w, h), per_class in zip(rows, scores):
        found += [[c, s, x - w / 2, y - h / 2, x + w / 2, y + h / 2] for c, s in enumerate(per_class)]
    return found


def of_distributions(scores, logits, strides, offset):
    """Scores [cells, classes] and logits [cells, 4·bins] of all levels, one after the other."""
    found, first = [], 0
    for stride in strides:
        grid = (cells(stride) + offset) * stride
        for i, (x, y) in enumerate(grid):
            sides = logits[first + i].reshape(4, -1).astype(np.float64)
            e = np.exp(sides - sides.max(1, keepdims=True))
            left, top, right, bottom = (e * np.arange(e.shape[1])).sum(1) / e.sum(1) * stride
            found += [[c, s, x - left, y - top, x + right, y + bottom] for c, s in enumerate(scores[first + i])]
        first += len(grid)
    return found


def yolov8():
    """SiLU, C2f with Split, SPPF, depthwise convolutions in the class branch (YOLO11), decoded boxes."""
    n = Network(8)

    def block(x, cin, cout, k=1, s=1, groups=1):
        return n.silu(n.conv(x, cin, cout, k, s, groups))

    def c2f(x, cin, cout, add=True):
        half = cout // 2
        a, b = n.op("Split", [block(x, cin, cout), n.ints(half, half)], 2, axis=1)
        c = block(block(b, half, half, 3), half, half, 3)
        c = n.op("Add", [b, c]) if add else c
        return block(n.cat(a, b, c), 3 * half, cout)

    x = block("images", 3, 8, 3, 2)
    x = c2f(block(x, 8, 8, 3, 2), 8, 8)
    p3 = c2f(block(x, 8, 12, 3, 2), 12, 12)
    p4 = c2f(block(p3, 12, 16, 3, 2), 16, 16)
    p5 = block(p4, 16, 16, 3, 2)
    s = block(p5, 16, 8)
    pools = [s]
    for _ in range(3):
        pools.append(n.pool(pools[-1], 5))
    p5 = block(n.cat(*pools), 32, 16)
    p4 = c2f(n.cat(n.resize(p5), p4), 32, 12, add=False)
    p3 = c2f(n.cat(n.resize(p4), p3), 24, 12, add=False)
    p4 = c2f(n.cat(block(p3, 12, 12, 3, 2), p4), 24, 12, add=False)
    p5 = c2f(n.cat(block(p4, 12, 12, 3, 2), p5), 28, 16, add=False)
    bins, levels, points, strides = 16, [], [], []
    for i, (p, c, stride) in enumerate([(p3, 12, 8), (p4, 12, 16), (p5, 16, 32)]):
        boxes = n.conv(block(p, c, 12, 3), 12, 4 * bins, 1, name=f"/model.22/cv2.{i}/cv2.{i}.2/Conv", gain=2)
        y = block(block(p, c, c, 3, groups=c), c, 12)
        scores = n.conv(y, 12, CLASSES, 1, name=f"/model.22/cv3.{i}/cv3.{i}.2/Conv")
        levels.append(n.op("Reshape", [n.cat(boxes, scores), n.ints(1, 4 * bins + CLASSES, -1)]))
        points.append(cells(stride) + 0.5)
        strides.append(np.full(len(points[-1]), stride, np.float32))
    boxes, scores = n.op("Split", [n.cat(*levels, axis=2), n.ints(4 * bins, CLASSES)], 2, axis=1)
    total = sum(map(len, points))
    d = n.op("Transpose", [n.op("Reshape", [boxes, n.ints(1, 4, bins, total)])], perm=[0, 2, 1, 3])
    weight = n.const(np.arange(bins, dtype=np.float32).reshape(1, bins, 1, 1))
    d = n.op("Conv", [n.op("Softmax", [d], axis=1), weight], kernel_shape=[1, 1])
    d = n.op("Reshape", [d, n.ints(1, 4, total)])
    lt, rb = n.op("Split", [d, n.ints(2, 2)], 2, axis=1)
    grid = n.const(np.concatenate(points).T[None])
    a, b = n.op("Sub", [grid, lt]), n.op("Add", [grid, rb])
    centre = n.op("Div", [n.op("Add", [a, b]), n.const(np.float32(2))])
    xywh = n.op("Mul", [n.cat(centre, n.op("Sub", [b, a])), n.const(np.concatenate(strides)[None])])
    out = n.cat(xywh, n.op("Sigmoid", [scores]))
    path = n.save("yolov8", [out])
    found = run(path, image()[None] / 255)[0][0].T
    write("yolov8", of_centres(found[:, :4], found[:, 4:]))


def yolox():
    """Focus, depthwise convolutions with batch-norm, SPP with windows of 5, 9 and 13; BGR, values 0…255."""
    n = Network(5)

    def block(x, cin, cout, k=1, s=1, groups=1):
        return n.silu(n.norm(n.conv(x, cin, cout, k, s, groups, bias=False), cout))

    def separable(x, cin, cout, s=1):
        return block(block(x, cin, cin, 3, s, groups=cin), cin, cout)

    def every_second(row, column):
        y = n.op("Slice", ["images", n.ints(row), n.ints(2**31 - 1), n.ints(2), n.ints(2)])
        return n.op("Slice", [y, n.ints(column), n.ints(2**31 - 1), n.ints(3), n.ints(2)])

    x = n.cat(every_second(0, 0), every_second(1, 0), every_second(0, 1), every_second(1, 1))
    x = n.conv(x, 12, 8, 3, bias=False, gain=0.01)
    x = n.silu(n.norm(x, 8))
    x = separable(x, 8, 12, 2)
    p3 = separable(x, 12, 16, 2)
    p4 = separable(p3, 16, 20, 2)
    x = separable(p4, 20, 24, 2)
    y = block(x, 24, 12)
    p5 = block(n.cat(y, n.pool(y, 5), n.pool(y, 9), n.pool(y, 13)), 48, 24)
    p4 = separable(n.cat(n.resize(block(p5, 24, 16)), p4), 36, 16)
    p3 = separable(n.cat(n.resize(p4), p3), 32, 16)
    levels, grids, strides = [], [], []
    for p, c, stride in [(p3, 16, 8), (p4, 16, 16), (p5, 24, 32)]:
        stem = block(p, c, 12)
        a, b = separable(stem, 12, 12), separable(stem, 12, 12)
        scores = n.op("Sigmoid", [n.conv(a, 12, CLASSES)])
        boxes = n.conv(b, 12, 4, gain=0.7)
        there = n.op("Sigmoid", [n.conv(b, 12, 1)])
        levels.append(n.op("Reshape", [n.cat(boxes, there, scores), n.ints(1, 5 + CLASSES, -1)]))
        grids.append(cells(stride))
        strides.append(np.full((len(grids[-1]), 1), stride, np.float32))
    out = n.op("Transpose", [n.cat(*levels, axis=2)], perm=[0, 2, 1])
    grid, stride = n.const(np.concatenate(grids)[None]), n.const(np.concatenate(strides)[None])
    xy, wh, rest = n.op("Split", [out, n.ints(2, 2, 1 + CLASSES)], 3, axis=2)
    xy = n.op("Mul", [n.op("Add", [xy, grid]), stride])
    wh = n.op("Mul", [n.op("Exp", [wh]), stride])
    path = n.save("yolox", [n.cat(xy, wh, rest, axis=2)])
    found = run(path, image()[None, ::-1].copy())[0][0]
    write("yolox", of_centres(found[:, :4], found[:, 4:5] * found[:, 5:]))


ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]


def yolov5():
    """A 6×6 stem, C3, SPPF, one convolution a level with three anchors."""
    n = Network(55)

    def block(x, cin, cout, k=1, s=1, pads=None):
        return n.silu(n.conv(x, cin, cout, k, s, pads=pads))

    def c3(x, cin, cout, add=True):
        half = cout // 2
        a, b = block(x, cin, half), block(x, cin, half)
        c = block(block(a, half, half), half, half, 3)
        a = n.op("Add", [a, c]) if add else c
        return block(n.cat(a, b), cout, cout)

    x = block("images", 3, 8, 6, 2, [2, 2, 2, 2])
    x = c3(block(x, 8, 8, 3, 2), 8, 8)
    p3 = c3(block(x, 8, 12, 3, 2), 12, 12)
    p4 = c3(block(p3, 12, 16, 3, 2), 16, 16)
    x = block(p4, 16, 16, 3, 2)
    y = block(x, 16, 8)
    a = n.pool(y, 5)
    b = n.pool(a, 5)
    p5 = block(n.cat(y, a, b, n.pool(b, 5)), 32, 16)
    p4 = c3(n.cat(n.resize(p5), p4), 32, 12, add=False)
    p3 = c3(n.cat(n.resize(p4), p3), 24, 12, add=False)
    outputs = []
    for i, (p, c, stride) in enumerate([(p3, 12, 8), (p4, 12, 16), (p5, 16, 32)]):
        rows, columns = HEIGHT // stride, WIDTH // stride
        y = n.conv(p, c, 3 * (5 + CLASSES), gain=2, name=f"/model.24/m.{i}/Conv")
        y = n.op("Reshape", [y, n.ints(1, 3, 5 + CLASSES, rows, columns)])
        y = n.op("Sigmoid", [n.op("Transpose", [y], perm=[0, 1, 3, 4, 2])])
        xy, wh, rest = n.op("Split", [y, n.ints(2, 2, 1 + CLASSES)], 3, axis=4)
        grid = cells(stride).reshape(1, 1, rows, columns, 2) - 0.5
        xy = n.op("Add", [n.op("Mul", [xy, n.const(np.float32(2))]), n.const(grid.astype(np.float32))])
        xy = n.op("Mul", [xy, n.const(np.float32(stride))])
        wh = n.op("Mul", [wh, n.const(np.float32(2))])
        wh = n.op("Mul", [n.op("Mul", [wh, wh]), n.const(np.array(ANCHORS[i], np.float32).reshape(1, 3, 1, 1, 2))])
        outputs.append(n.op("Reshape", [n.cat(xy, wh, rest, axis=4), n.ints(1, -1, 5 + CLASSES)]))
    path = n.save("yolov5", [n.cat(*outputs, axis=1)])
    found = run(path, image()[None] / 255)[0][0]
    write("yolov5", of_centres(found[:, :4], found[:, 4:5] * found[:, 5:]))


MEAN, STD = np.array([103.53, 116.28, 123.675], np.float32), np.array([57.375, 57.12, 58.395], np.float32)


def normalised():
    """The image in BGR, minus mean over std."""
    return ((image()[::-1] - MEAN[:, None, None]) / STD[:, None, None])[None].astype(np.float32)


def nanodet_plus():
    """ShuffleNetV2 blocks, leaky ReLU, a ghost PAN with bilinear upsampling, strides 8 to 64, one output."""
    n = Network(3)

    def leaky(x):
        return n.op("LeakyRelu", [x], alpha=0.1)

    def block(x, cin, cout, k=1, s=1, groups=1):
        return leaky(n.conv(x, cin, cout, k, s, groups))

    def shuffle(x, c, rows, columns):
        x = n.op("Reshape", [x, n.ints(1, 2, c // 2, rows, columns)])
        x = n.op("Transpose", [x], perm=[0, 2, 1, 3, 4])
        return n.op("Reshape", [x, n.ints(1, -1, rows, columns)])

    def down(x, cin, cout, rows, columns):
        half = cout // 2
        a = block(n.conv(x, cin, cin, 3, 2, cin), cin, half)
        b = block(n.conv(block(x, cin, half), half, half, 3, 2, half), half, half)
        return shuffle(n.cat(a, b), cout, rows, columns)

    def keep(x, c, rows, columns):
        half = c // 2
        a, b = n.op("Split", [x, n.ints(half, half)], 2, axis=1)
        b = block(n.conv(block(b, half, half), half, half, 3, 1, half), half, half)
        return shuffle(n.cat(a, b), c, rows, columns)

    def size(stride):
        return -(-HEIGHT // stride), -(-WIDTH // stride)

    x = n.pool(block("data", 3, 8, 3, 2), 3, 2, 1)
    c3 = keep(down(x, 8, 16, *size(8)), 16, *size(8))
    c4 = keep(down(c3, 16, 24, *size(16)), 24, *size(16))
    c5 = keep(down(c4, 24, 32, *size(32)), 32, *size(32))
    c = 12

    def ghost(x, cin):
        a = block(x, cin, c // 2)
        return n.cat(a, block(a, c // 2, c // 2, 3, groups=c // 2))

    def up(x):
        return n.resize(x, "linear", "half_pixel")

    r3, r4, r5 = block(c3, 16, c), block(c4, 24, c), block(c5, 32, c)
    p4 = ghost(n.cat(up(r5), r4), 2 * c)
    p3 = ghost(n.cat(up(p4), r3), 2 * c)
    d4 = block(block(p3, c, c, 5, 2, c), c, c)
    p4 = ghost(n.cat(d4, p4), 2 * c)
    d5 = block(block(p4, c, c, 5, 2, c), c, c)
    p5 = ghost(n.cat(d5, r5), 2 * c)
    p6 = n.op("Add", [block(block(r5, c, c, 5, 2, c), c, c), block(block(p5, c, c, 5, 2, c), c, c)])
    levels = []
    for p in [p3, p4, p5, p6]:
        x = block(block(p, c, c, 5, groups=c), c, c)
        y = n.conv(x, c, CLASSES + 32, gain=2)
        scores, boxes = n.op("Split", [y, n.ints(CLASSES, 32)], 2, axis=1)
        y = n.cat(n.op("Sigmoid", [scores]), boxes)
        levels.append(n.op("Reshape", [y, n.ints(1, CLASSES + 32, -1)]))
    out = n.op("Transpose", [n.cat(*levels, axis=2)], perm=[0, 2, 1])
    path = n.save("nanodet_plus", [out], "data")
    found = run(path, normalised())[0][0]
    write("nanodet_plus", of_distributions(found[:, :CLASSES], found[:, CLASSES:], [8, 16, 32, 64], 0.0))


def picodet():
    """Squeeze-and-excitation, hard-swish, an output for each level and kind; an ONNX file of open batch and size."""
    n = Network(21)

    def block(x, cin, cout, k=1, s=1, groups=1):
        return n.op("HardSwish", [n.norm(n.conv(x, cin, cout, k, s, groups, bias=False), cout)])

    def squeeze(x, c):
        y = n.op("GlobalAveragePool", [x])
        y = n.op("Relu", [n.conv(y, c, c // 4)])
        y = n.op("HardSigmoid", [n.conv(y, c // 4, c)], alpha=1 / 6, beta=0.5)
        return n.op("Mul", [x, y])

    def unit(x, cin, cout, s):
        y = block(n.conv(x, cin, cin, 3, s, cin), cin, cout)
        return squeeze(y, cout)

    x = n.pool(block("image", 3, 8, 3, 2), 3, 2, 1)
    c3 = unit(x, 8, 16, 2)
    c4 = unit(c3, 16, 24, 2)
    c5 = unit(c4, 24, 32, 2)
    c = 12

    def separable(x, cin, s=1):
        return block(block(x, cin, cin, 5, s, cin), cin, c)

    def up(x, like):
        # Sizes computed from another map's shape, as PyTorch and Paddle export it.
        shape = n.op("Shape", [like])
        size = n.op("Slice", [shape, n.ints(2), n.ints(4), n.ints(0)])
        start = n.op("Slice", [n.op("Shape", [x]), n.ints(0), n.ints(2), n.ints(0)])
        sizes = n.op("Concat", [start, size], axis=0)
        return n.op("Resize", [x, "", "", sizes], mode="nearest", coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor")

    r3, r4, r5 = block(c3, 16, c), block(c4, 24, c), block(c5, 32, c)
    p4 = separable(n.cat(up(r5, r4), r4), 2 * c)
    p3 = separable(n.cat(up(p4, r3), r3), 2 * c)
    p4 = separable(n.cat(separable(p3, c, 2), p4), 2 * c)
    p5 = separable(n.cat(separable(p4, c, 2), r5), 2 * c)
    p6 = separable(p5, c, 2)
    scores, boxes = [], []
    for p in [p3, p4, p5, p6]:
        x = separable(p, c)
        s = n.op("Sigmoid", [n.conv(x, c, CLASSES, gain=2)])
        scores.append(n.op("Transpose", [n.op("Reshape", [s, n.ints(1, CLASSES, -1)])], perm=[0, 2, 1]))
        b = n.conv(x, c, 32, gain=2)
        b = n.op("Mul", [b, n.const(np.float32(1.25))])
        boxes.append(n.op("Transpose", [n.op("Reshape", [b, n.ints(1, 32, -1)])], perm=[0, 2, 1]))
    path = n.save("picodet", scores + boxes, "image", ("batch", 3, "height", "width"), opset=14)
    rgb = ((image() - MEAN[::-1, None, None]) / STD[::-1, None, None])[None].astype(np.float32)
    found = run(path, rgb)
    scores, boxes = (np.concatenate(found[i:i + 4], 1)[0] for i in (0, 4))
    write("picodet", of_distributions(scores, boxes, [8, 16, 32, 64], 0.5))


def centernet():
    """As a converter writes a TensorFlow network: NHWC, hard-swish spelt out with rounded factors, asymmetric
    resizing, padding of its own before each convolution with a stride, dilation and a 1×5 kernel."""
    n = Network(17)
    sixth = np.float32(np.float16(1 / 6))

    def hard_swish(x):
        y = n.op("Clip", [n.op("Add", [x, n.const(np.full((1, 1, 1, 1), 3, np.float32))]), n.const(np.float32(0)),
                          n.const(np.float32(6))])
        return n.op("Mul", [n.op("Mul", [n.const(sixth), x]), y])

    def squeeze(x, c):
        y = n.op("Reshape", [n.op("GlobalAveragePool", [x]), n.ints(1, c, 1, 1)])
        y = n.op("Relu", [n.conv(y, c, c // 4)])
        y = n.op("Add", [n.conv(y, c // 4, c), n.const(np.full((1, 1, 1, 1), 3, np.float32))])
        y = n.op("Clip", [y, n.const(np.float32(0)), n.const(np.float32(6))])
        return n.op("Mul", [n.op("Mul", [n.const(sixth), y]), x])

    def pad(x):
        return n.op("Pad", [x, n.ints(0, 0, 0, 0, 0, 0, 1, 1)])

    x = n.op("Transpose", ["images"], perm=[0, 3, 1, 2])
    x = n.op("Sub", [n.op("Mul", [x, n.const(np.float32(1 / 127.5))]), n.const(np.float32(1))])
    x = hard_swish(n.conv(pad(x), 3, 8, 3, 2, pads=[0, 0, 0, 0]))
    c4 = n.op("Relu", [n.conv(x, 8, 12, 3, 2, pads=[0, 0, 1, 1])])
    y = squeeze(n.op("Relu", [n.conv(c4, 12, 12, 5, 2, 12, pads=[1, 1, 2, 2])]), 12)
    c8 = hard_swish(n.conv(y, 12, 16))
    y = n.op("LeakyRelu", [n.conv(c8, 16, 16, 3, dilation=2)], alpha=0.1)
    y = n.conv(y, 16, 16, (1, 5), groups=4)
    y = n.op("Add", [y, c8])
    y = n.op("Relu", [n.cat(n.resize(y, "linear", "asymmetric"), c4)])
    y = n.conv(y, 28, 16, 3)
    heat = n.op("Sigmoid", [n.conv(y, 16, CLASSES, gain=2)])
    sides = n.op("Mul", [n.op("Relu", [n.conv(y, 16, 4)]), n.const(np.float32(16))])
    heat, sides = (n.op("Transpose", [t], perm=[0, 2, 3, 1]) for t in (heat, sides))
    path = n.save("centernet", [sides, heat], "images", (1, HEIGHT, WIDTH, 3), rank=4)
    sides, heat = (t[0] for t in run(path, image().transpose(1, 2, 0)[None].copy()))
    found = []
    for y, x, c in np.ndindex(*heat.shape):
        around = heat[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2, c]
        if heat[y, x, c] >= around.max():
            left, top, right, bottom = sides[y, x]
            found.append([c, heat[y, x, c], 4 * x - left, 4 * y - top, 4 * x + right, 4 * y + bottom])
    write("centernet", found)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for make in [yolov8, yolox, yolov5, nanodet_plus, picodet, centernet]:
        make()
