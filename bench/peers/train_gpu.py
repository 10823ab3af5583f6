"""PyTorch's images a second in training the network of a run of `distill student`, on this machine's GPU:

train_gpu.py GRAPH CHECKPOINT --batch N [--seconds S] [--device cuda] [--ours SPEED.json] [--json FILE]

GRAPH is what `distill export --graph` wrote of the run's package; CHECKPOINT, the run's, says which convolutions have
batch-norm and which tensors are trained. A step copies a batch from the host, runs forward and backward from ½ Σ output²
(there are no losses of a task, and no images to load), clips, and updates by AdamW. Mixed precision, channels last, in
several ways, of which the fastest counts; each has a process of its own, so that one that fails or takes too long costs
no more than its time. On `--device cpu`, which is for rehearsal, in single precision and eagerly alone.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

# As in src/distill/net/norm.rs.
EPSILON, MOMENTUM = 1e-3, 0.03
# So small that the weights hardly change; the time does not depend on it.
RATE, WEIGHT_DECAY, CLIP = 1e-6, 0.02, 10.0
# (compiled, in one CUDA graph). The one that takes longest to begin with comes last.
WAYS = {"eager": (False, False), "graph": (False, True), "compile": (True, False), "compile-graph": (True, True)}
WARM_UP = 5


def prepared(arguments, compiled):
    """The network's loss, the host's batch, the device's, and the optimizer with the tensors that it trains."""
    import torch
    from pytorch_gpu import read_safetensors
    from torch_step import adamw, training_network

    graph = json.loads(arguments.graph.read_text())
    shapes = {f"{layer['name']}.weight": layer["weight"] for layer in graph["layers"] if "weight" in layer}
    stored = read_safetensors(arguments.checkpoint)
    tensors = {}
    for name, values in stored.items():
        kind, _, name = name.partition("/")
        if kind == "params":
            tensor = values.reshape(shapes.get(name, [-1])).to(arguments.device)
            tensors[name] = tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
    trained = {name: tensors[name].requires_grad_() for name in tensors if f"moment0/{name}" in stored}
    network = training_network(torch, graph, tensors, EPSILON, MOMENTUM)
    on_gpu = arguments.device != "cpu"
    torch.manual_seed(1)
    host = torch.randn(arguments.batch, *graph["layers"][0]["shape"]).contiguous(memory_format=torch.channels_last)
    image = host.to(arguments.device)
    if on_gpu:
        host = host.pin_memory()
    optimizer = adamw(torch, trained, RATE, WEIGHT_DECAY, **({"capturable": True} if on_gpu else {}))
    return torch.compile(network) if compiled else network, host, image, optimizer, list(trained.values())


def measured(arguments, compiled, in_graph):
    """Images a second of one way."""
    import torch

    on_gpu = arguments.device != "cpu"
    torch.backends.cudnn.benchmark = True
    loss_of, host, image, optimizer, trained = prepared(arguments, compiled)
    # Bfloat16 needs no scaling of the loss.
    half = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float16
    mixed = (lambda: torch.autocast("cuda", half)) if on_gpu else contextlib.nullcontext

    def compute():
        optimizer.zero_grad(set_to_none=True)
        with mixed():
            loss = loss_of(image)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()

    if in_graph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Gradients that the graph makes itself are overwritten by each replay, not added to.
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            compute()
        run = graph.replay
    else:
        run = compute

    def step():
        image.copy_(host, non_blocking=True)
        run()

    wait = torch.cuda.synchronize if on_gpu else (lambda: None)
    for _ in range(WARM_UP if on_gpu else 1):
        step()
    wait()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < arguments.each:
        # The host does not run ahead by more than this.
        for _ in range(10 if on_gpu else 1):
            step()
            steps += 1
        wait()
    return steps * arguments.batch / (time.perf_counter() - began)


def in_process(arguments, way, seconds):
    """What a process of its own found: images a second, or why there are none."""
    of_all = [str(arguments.graph), str(arguments.checkpoint), "--batch", str(arguments.batch), "--device", arguments.device]
    each = min(10.0, arguments.seconds / 10)
    command = [sys.executable, __file__, *of_all, "--way", way, "--each", str(each)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return {"images_per_second": float(lines[-1])}


def compared(ours, best):
    """How many times PyTorch's images a second ours are, as trained and as if images were always ready."""
    return {
        "ratio": ours["images_per_second"] / best,
        "ratio_unwaited": ours["images_per_second_unwaited"] / best,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=180, help="for all ways together (default: 180)")
    parser.add_argument("--device", default="cuda", help="cuda (the default), or cpu")
    parser.add_argument("--ours", type=Path, help="a run's speed.json, to compare with")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--each", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(measured(arguments, *WAYS[arguments.way]))
        return
    import torch

    ours = json.loads(arguments.ours.read_text()) if arguments.ours else None
    figures = {"ours": ours, "pytorch": None}
    if arguments.device == "cpu" or torch.cuda.is_available():
        device = "the CPU" if arguments.device == "cpu" else torch.cuda.get_device_name()
        end, ways = time.monotonic() + arguments.seconds, {}
        for way in ["eager"] if arguments.device == "cpu" else WAYS:
            ways[way] = in_process(arguments, way, max(1.0, end - time.monotonic()))
            rate = ways[way].get("images_per_second")
            print(f"PyTorch {way:<14} " + (f"{rate:9.1f} images/s" if rate else f"failed: {ways[way]['failed']}"), flush=True)
        figures["pytorch"] = {"torch": torch.__version__, "device": device, "batch": arguments.batch, "ways": ways}
        rates = {way: of["images_per_second"] for way, of in ways.items() if "images_per_second" in of}
        if rates:
            best = max(rates, key=rates.get)
            figures["pytorch"] |= {"best": best, "images_per_second": rates[best]}
            if ours:
                figures |= compared(ours, rates[best])
                print(
                    f"ours / PyTorch's best ({best}): {figures['ratio']:.2f}; without our waiting for images: "
                    f"{figures['ratio_unwaited']:.2f}. PyTorch loads no images and has no losses of a task."
                )
    else:
        print("PyTorch is skipped: torch finds no CUDA device")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
