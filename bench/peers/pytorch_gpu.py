"""PyTorch's times for the same network on the same GPU: pytorch_gpu.py FOLDER [--frames N] [--json FILE]

FOLDER is what `gpu --export FOLDER` wrote. Needs torch with CUDA, and torchvision for boxes (its NMS). Half precision,
channels last, five ways: eager, eager captured as one CUDA graph, torch.compile, with mode="reduce-overhead" (which makes
CUDA graphs itself), and with mode="max-autotune", whose own tuning takes many minutes (150 seconds were not enough on an
H200; `--ways eager graph` leaves it out). Where Python has them, ONNX Runtime's CUDA and TensorRT providers and TensorRT
itself run the network as well (onnx_gpu.py). Each is timed by CUDA events
(the device alone) and by the wall clock from the call until the results are there: the network on a tensor that lies on the
device; the same from floats on the host to floats on the host; and from an image on the host to boxes and mask on the host,
where copy, letterbox, network and decoding are done on the device.

`--check` compares the outputs with the exported network run in single precision on the CPU, and needs no GPU;
`--check-boxes` does so with the boxes that the CPU pipeline finds.
"""

import argparse
import json
import struct
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import onnx_gpu


def read_safetensors(path):
    """The tensors of a file of 32-bit floats, by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + at for at in entry["data_offsets"])
        values = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.float32)
        tensors[name] = values.reshape(entry["shape"]).clone()
    return tensors


# The same as in src/engine/op.rs.
ACTIVATIONS = {
    "identity": lambda x: x,
    "relu6": lambda x: x.clamp(0, 6),
    "relu": F.relu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
}


class Network(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        description = json.loads((folder / "network.json").read_text())
        self.layers, self.outputs = description["layers"], description["outputs"]
        for name, tensor in read_safetensors(folder / "weights.safetensors").items():
            self.register_buffer(name.replace(".", "__"), tensor)

    def forward(self, x):
        made = []
        for layer in self.layers:
            inputs = [made[i] for i in layer["inputs"]]
            op = layer["op"]
            if op == "input":
                made.append(x)
            elif op == "add":
                made.append(inputs[0] + inputs[1])
            elif "upsample2x" in op:
                made.append(F.interpolate(inputs[0], scale_factor=2, mode=op["upsample2x"]))
            elif op == "concat":
                made.append(torch.cat(inputs, 1))
            elif "max_pool" in op:
                window, (top, bottom), (left, right) = op["max_pool"], layer["pad_rows"], layer["pad_columns"]
                x = F.pad(inputs[0], (left, right, top, bottom), value=float("-inf"))
                made.append(F.max_pool2d(x, window["kernel"], window["stride"]))
            elif "average_pool" in op and not any(layer["pad_rows"] + layer["pad_columns"]):
                made.append(F.avg_pool2d(inputs[0], op["average_pool"]["kernel"], op["average_pool"]["stride"]))
            elif "conv" in op:
                made.append(self.convolve(layer, op["conv"], inputs[0]))
            else:
                sys.exit(f"{layer['name']}: this script knows no {op}")
        return [made[i] for i in self.outputs]

    def convolve(self, layer, conv, x):
        name = layer["name"].replace(".", "__")
        weight, bias = getattr(self, name + "__weight"), getattr(self, name + "__bias")
        (top, bottom), (left, right) = layer["pad_rows"], layer["pad_columns"]
        groups = layer["shape"][0] if conv["depthwise"] else 1
        if (top, left) == (bottom, right):
            x = F.conv2d(x, weight, bias, conv["stride"], (top, left), 1, groups)
        else:
            x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, conv["stride"], 0, 1, groups)
        return ACTIVATIONS[conv["activation"]](x)


class Detector(torch.nn.Module):
    """From an image (height, width, 3 bytes) to the best candidates and the mask, in shapes that do not depend on it."""

    CANDIDATES = 300

    def __init__(self, network, boxes, dtype):
        super().__init__()
        self.network, self.boxes, self.dtype = network, boxes, dtype
        self.register_buffer("mean", torch.tensor(boxes["mean"]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(boxes["std"]).reshape(1, 3, 1, 1))
        self.register_buffer("bins", torch.arange(boxes["bins"], dtype=torch.float32))
        _, self.height, self.width = network.layers[0]["shape"]
        for i, level in enumerate(boxes["levels"]):
            stride = level["stride"]
            x, y = ((torch.arange(size // stride) + 0.5) * stride for size in (self.width, self.height))
            ys, xs = torch.meshgrid(y, x, indexing="ij")
            self.register_buffer(f"anchors{i}", torch.stack([xs, ys, xs, ys], -1).reshape(-1, 4))
        self.register_buffer("signs", torch.tensor([-1.0, -1.0, 1.0, 1.0]))

    def forward(self, image):
        (width, height), (left, top) = self.boxes["content"], self.boxes["pad"]
        x = image.permute(2, 0, 1)[None].to(self.mean.dtype)
        x = F.interpolate(x, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        x = (x - self.mean) / self.std
        x = F.pad(x, (left, self.width - width - left, top, self.height - height - top))
        outputs = self.network(x.to(self.dtype).contiguous(memory_format=torch.channels_last))
        boxes, logits = [], []
        for i, level in enumerate(self.boxes["levels"]):
            sides = outputs[level["sides"]][0].float()
            sides = sides.reshape(4, len(self.bins), -1).softmax(1)
            distances = torch.einsum("sbc,b->cs", sides, self.bins) * level["stride"]
            boxes.append(getattr(self, f"anchors{i}") + self.signs * distances)
            logits.append(outputs[level["class"]][0].float().flatten(1).t())
        boxes, logits = torch.cat(boxes), torch.cat(logits)
        best, at = logits.flatten().topk(self.CANDIDATES)
        classes = logits.shape[1]
        return boxes[at // classes], best.sigmoid(), at % classes, outputs[self.boxes["mask"]][0].argmax(0).byte()


def suppressed(boxes, found):
    """What is left of a detector's candidates, on the host."""
    from torchvision.ops import batched_nms

    corners, scores, classes, mask = found
    enough = scores > boxes["score_threshold"]
    corners, scores, classes = corners[enough], scores[enough], classes[enough]
    keep = batched_nms(corners, scores, classes, boxes["nms_iou"])[:100]
    return corners[keep].cpu(), scores[keep].cpu(), classes[keep].cpu(), mask.cpu()


def overlap(a, b):
    wide = (min(a[2], b[2]) - max(a[0], b[0])).clamp(0)
    high = (min(a[3], b[3]) - max(a[1], b[1])).clamp(0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return wide * high / (area(a) + area(b) - wide * high)


def check_boxes(network, boxes, image):
    """Whether the boxes of the exported pipeline are found, but for the difference between two ways to scale an image."""
    with torch.inference_mode():
        corners, scores, classes, _ = suppressed(boxes, Detector(network, boxes, torch.float32)(image))
    missing = 0
    for expected in boxes["found"]:
        corner = torch.tensor(expected["box"])
        alike = [overlap(corner, c) for c, k in zip(corners, classes) if k == expected["class"]]
        # One near the threshold may fall below it by that difference.
        missing += expected["score"] > boxes["score_threshold"] + 0.02 and not any(iou > 0.9 for iou in alike)
    print(f"{len(scores)} boxes; of the {len(boxes['found'])} that are expected {missing} are missing")
    return missing == 0


def captured(network, x):
    """One CUDA graph of an eager run, and a function that replays it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = network(x)

    def replay(_):
        graph.replay()
        return outputs

    return replay


WAYS = {
    "eager": ("eager", lambda module, x: module),
    "graph": ("eager in one CUDA graph", captured),
    "compile-default": ("compile", lambda module, x: torch.compile(module)),
    "reduce-overhead": ("compile, reduce-overhead", lambda module, x: torch.compile(module, mode="reduce-overhead")),
    "compile": ("compile, max-autotune", lambda module, x: torch.compile(module, mode="max-autotune")),
}


def percentiles(times):
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, int(share * len(times)))]
    return {"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": times[-1]}


def measure(run, x, frames):
    """Microseconds by CUDA events and by the wall clock."""
    for _ in range(max(50, frames // 10)):
        run(x)
    torch.cuda.synchronize()
    device, wall = [], []
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(frames):
        began = time.perf_counter()
        start.record()
        run(x)
        end.record()
        end.synchronize()
        wall.append((time.perf_counter() - began) * 1e6)
        device.append(start.elapsed_time(end) * 1e3)
    return {"device": percentiles(device), "wall": percentiles(wall)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="which of the ways (default: all)")
    parser.add_argument("--check-boxes", action="store_true", help="compare the boxes of image.rgb with those expected")
    parser.add_argument("--check", type=Path, help="a file of the input and the expected outputs, 32-bit floats in order")
    arguments = parser.parse_args()
    network = Network(arguments.folder).eval()
    shape = network.layers[0]["shape"]
    boxes = json.loads((arguments.folder / "boxes.json").read_text())
    image = torch.frombuffer(bytearray((arguments.folder / "image.rgb").read_bytes()), dtype=torch.uint8)
    image = image.reshape(boxes["image"])
    if arguments.check_boxes:
        sys.exit(not check_boxes(network, boxes, image))
    if arguments.check:
        values = torch.frombuffer(bytearray(arguments.check.read_bytes()), dtype=torch.float32)
        at = shape[0] * shape[1] * shape[2]
        with torch.inference_mode():
            found = torch.cat([output.flatten() for output in network(values[:at].reshape(1, *shape))])
        error = ((found - values[at:]).abs().max() / values[at:].abs().max()).item()
        print(f"largest difference, relative to the largest value: {error:.2e}")
        sys.exit(error > 1e-4)
    if not torch.cuda.is_available():
        print("skipped: torch finds no CUDA device")
        return
    x = torch.randn(1, *shape, device="cuda", dtype=torch.half).contiguous(memory_format=torch.channels_last)
    network = network.cuda().half()
    for name, buffer in network.named_buffers():
        if buffer.dim() == 4:
            buffer.data = buffer.data.contiguous(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    results = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    floats = torch.randn(1, *shape).pin_memory()
    detector = Detector(network, boxes, torch.half).cuda()
    image, on_device = image.pin_memory(), image.cuda()
    ways = {name: (label, make) for name, (label, make) in WAYS.items() if name in arguments.ways}

    def show(name, figures):
        results[name] = figures
        for clock, of in figures.items():
            print(f"{name:<50} {clock:<7} " + "  ".join(f"{k} {v:8.1f}" for k, v in of.items()) + " us", flush=True)

    try:
        import torchvision  # noqa: F401
    except ImportError:
        print("image to boxes: skipped, since torchvision is not installed")
        detector = None
    with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
        for name, run, plain in onnx_gpu.ways(network, x):
            show(f"network, {name}", measure(run, plain, arguments.frames))

            def from_floats(floats):
                plain.copy_(floats, non_blocking=True)
                return [output.float().cpu() for output in run(plain)]

            show(f"floats to floats, {name}", measure(from_floats, floats, arguments.frames))
    # One way after the other, the one that takes minutes to begin with last.
    with torch.inference_mode():
        for name, make in ways.values():
            run = make(network, x)
            show(f"network, {name}", measure(run, x, arguments.frames))

            def from_floats(floats):
                x.copy_(floats, non_blocking=True)
                return [output.float().cpu() for output in run(x)]

            show(f"floats to floats, {name}", measure(from_floats, floats, arguments.frames))
            if detector is None:
                continue
            detect = make(detector, on_device)

            def from_image(image):
                on_device.copy_(image, non_blocking=True)
                return suppressed(boxes, detect(on_device))

            show(f"image to boxes, {name}", measure(from_image, image, arguments.frames))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
