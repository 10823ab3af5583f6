"""PyTorch's times for the same network on the same GPU: pytorch_gpu.py FOLDER [--frames N] [--json FILE]

FOLDER is what `gpu --export FOLDER` wrote. Needs torch with CUDA and nothing else. Half precision, channels last, three
ways: eager, torch.compile(mode="max-autotune"), and eager captured as one CUDA graph. Each is timed by CUDA events
(the device alone) and by the wall clock from the call until the results are there.

`--check` compares the outputs with the exported network run in single precision on the CPU, and needs no GPU.
"""

import argparse
import json
import struct
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F


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
            elif op == "upsample2x":
                made.append(F.interpolate(inputs[0], scale_factor=2, mode="nearest"))
            elif op == "concat":
                made.append(torch.cat(inputs, 1))
            elif "conv" in op:
                made.append(self.convolve(layer, op["conv"], inputs[0]))
            else:
                sys.exit(f"{layer['name']}: this script knows no {op}")
        return [made[i] for i in self.outputs]

    def convolve(self, layer, conv, x):
        name = layer["name"].replace(".", "__")
        weight, bias = getattr(self, name + "__weight"), getattr(self, name + "__bias")
        (top, bottom), (left, right) = layer["pads"]
        groups = layer["shape"][0] if conv["depthwise"] else 1
        if (top, left) == (bottom, right):
            x = F.conv2d(x, weight, bias, conv["stride"], (top, left), 1, groups)
        else:
            x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, conv["stride"], 0, 1, groups)
        return x.clamp(0, 6) if conv["activation"] == "relu6" else x


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
    parser.add_argument("--check", type=Path, help="a file of the input and the expected outputs, 32-bit floats in order")
    arguments = parser.parse_args()
    network = Network(arguments.folder).eval()
    shape = network.layers[0]["shape"]
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
    with torch.inference_mode():
        ways = {
            "eager": lambda: network,
            "compile, max-autotune": lambda: torch.compile(network, mode="max-autotune"),
            "eager in one CUDA graph": lambda: captured(network, x),
        }
        for name, make in ways.items():
            results[name] = measure(make(), x, arguments.frames)
            for clock, of in results[name].items():
                print(f"{name:<26} {clock:<7} " + "  ".join(f"{k} {v:8.1f}" for k, v in of.items()) + " us", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
