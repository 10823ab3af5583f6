#!/usr/bin/env python3
"""What PyTorch makes of ResNet-18, -34 and -50, with weights that a formula gives: resnet.json.

usage: resnet.py > resnet.json      (needs: torch; made with 1.13.1)

The networks are put together from torch.nn after He et al. 2015, table 1, with torchvision's names (v1.5: a bottleneck's
stride is in its 3x3). The tests build the same tensors by the same formula, as a safetensors file by those names.
"""
import json
import sys

import numpy as np
import torch
from torch import nn


def uniform(name, count):
    """Values in 0..1, by integer arithmetic alone."""
    seed = sum(name.encode()) * 7919
    x = (np.arange(count, dtype=np.uint64) + seed) * 2654435761 % 2**32
    x = (x ^ (x >> 15)) * 2246822519 % 2**32
    return ((x ^ (x >> 13)) / 2**32).astype(np.float32)


def block(inner, channels, stride, bottleneck, inputs):
    conv = lambda i, o, k, s: nn.Conv2d(i, o, k, s, padding=k // 2, bias=False)
    b = nn.Module()
    if bottleneck:
        shapes = [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, channels, 1, 1)]
    else:
        shapes = [(inputs, channels, 3, stride), (channels, channels, 3, 1)]
    for i, shape in enumerate(shapes):
        setattr(b, f"conv{i + 1}", conv(*shape))
        setattr(b, f"bn{i + 1}", nn.BatchNorm2d(shape[1]))
    if stride != 1 or inputs != channels:
        b.downsample = nn.Sequential(conv(inputs, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(x):
        y = x
        for i in range(len(shapes)):
            y = getattr(b, f"bn{i + 1}")(getattr(b, f"conv{i + 1}")(y))
            if i + 1 < len(shapes):
                y = torch.relu(y)
        return torch.relu(y + (b.downsample(x) if hasattr(b, "downsample") else x))

    b.forward = forward
    return b


class ResNet(nn.Module):
    def __init__(self, blocks, expansion):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for s, (count, inner) in enumerate(zip(blocks, [64, 128, 256, 512])):
            stage = []
            for b in range(count):
                stride = 2 if s > 0 and b == 0 else 1
                stage.append(block(inner, inner * expansion, stride, expansion > 1, inputs))
                inputs = inner * expansion
            setattr(self, f"layer{s + 1}", nn.Sequential(*stage))

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        maps = []
        for s in range(4):
            x = getattr(self, f"layer{s + 1}")(x)
            maps.append(x)
        return maps


def fill(network):
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        u = torch.from_numpy(uniform(name, tensor.numel()).reshape(tensor.shape))
        if tensor.dim() == 4:
            fan_in = tensor[0].numel()
            tensor.copy_((u - 0.5) * np.float32((24 / fan_in) ** 0.5))
        elif name.endswith(("running_mean", "bias")):
            tensor.copy_(u - 0.5)
        else:
            tensor.copy_(u * 0.5 + 0.5)


def main():
    width, height = 96, 64
    image = torch.from_numpy(uniform("image", 3 * height * width).reshape(1, 3, height, width) * 4 - 2)
    result = {"width": width, "height": height, "torch": torch.__version__}
    for name, blocks, expansion in [("resnet18", [2, 2, 2, 2], 1), ("resnet34", [3, 4, 6, 3], 1), ("resnet50", [3, 4, 6, 3], 4)]:
        network = ResNet(blocks, expansion).eval()
        fill(network)
        with torch.no_grad():
            maps = network(image)
        result[name] = [
            {
                "shape": list(m.shape[1:]),
                "mean": float(m.double().mean()),
                # Every value of some channels at the finest: borders included.
                "every": (every := max(1, m.numel() // 61)),
                "values": [round(float(v), 6) for v in m.flatten()[::every]],
            }
            for m in maps
        ]
    json.dump(result, sys.stdout, indent=None)


main()
