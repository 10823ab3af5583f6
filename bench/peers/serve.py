"""Runs one peer, frame by frame, on request of bench/engines: serve.py PEER FOLDER THREADS

FOLDER holds what bench/engines and the exporters wrote there. Says `ready NAME VERSION` on standard output, then answers each line
of standard input: `run` with `WALL_MS CPU_MS` of one inference (CPU time: of all threads of this process), `outputs`
with `done` when all outputs lie in FOLDER/PEER.f32, planar, one after the other.

Each peer has the settings that its documentation advises for one frame at a time, and its model loaded once.
"""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import numpy as np
from torch_step import activated, adamw, conv_of, padded, training_network, without_weights


def onnxruntime(folder, x, threads, model="model.onnx"):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(folder / model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def openvino(folder, x, threads, model="model.onnx"):
    import openvino as ov

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = ov.Core().compile_model(folder / model, "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    tensors = [request.get_output_tensor(i) for i in range(len(compiled.outputs))]

    def run():
        request.infer()
        return [tensor.data for tensor in tensors]

    return run


def ncnn(folder, x, threads):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.lightmode = True
    # Its threads spin between layers either way; by default they go on for 20 ms after a frame, on the others' cores.
    net.opt.openmp_blocktime = 2
    for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{half}", False)
    if net.load_param(str(folder / "model.param")) != 0 or net.load_model(str(folder / "model.bin")) != 0:
        raise RuntimeError("ncnn refuses the model")
    blobs = json.loads((folder / "ncnn_outputs.json").read_text())
    image = ncnn.Mat(x[0])

    def run():
        with net.create_extractor() as extractor:
            extractor.input("t0", image)
            return [np.array(extractor.extract(blob)[1]) for blob in blobs]

    return run


def torch(folder, x, threads):
    """Eager, channels last, or traced, frozen and fused by oneDNN: whichever is the faster here."""
    import torch
    from torch.nn import functional
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    graph = json.loads((folder / "graph.json").read_text())
    tensors = load_file(folder / "weights.safetensors")
    tensors |= {k: v.to(memory_format=torch.channels_last) for k, v in tensors.items() if v.dim() == 4}
    image = torch.from_numpy(x).to(memory_format=torch.channels_last)
    def layer_of(layer, v):
        of = conv_of(layer)
        if of is None:
            return without_weights(torch, layer, v)
        name = layer["name"]
        v, padding = padded(torch, layer, v[0], 0.0)
        groups = layer["shape"][0] if of["depthwise"] else 1
        y = functional.conv2d(v, tensors[f"{name}.weight"], tensors[f"{name}.bias"], of["stride"], padding, 1, groups)
        return activated(torch, of["activation"], y)

    def forward(image):
        values = [image]
        for layer in graph["layers"][1:]:
            values.append(layer_of(layer, [values[i] for i in layer["inputs"]]))
        return [values[i] for i in graph["outputs"]]

    class Network(torch.nn.Module):
        def forward(self, image):
            return forward(image)

    def runner(network):
        @torch.inference_mode()
        def run():
            return [v.contiguous().numpy() for v in network(image)]

        def seconds():
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

        # The first runs of a traced network compile it.
        return min(seconds() for _ in range(8)), run

    with torch.no_grad():
        traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(Network().eval(), image)))
    return min(runner(Network().eval()), runner(traced), key=lambda timed: timed[0])[1]


def torch_training(folder, x, threads):
    """One training step, as bench/engines/training.rs does it; in the memory format that is the faster here."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    graph = json.loads((folder / "graph.json").read_text())
    settings = json.loads((folder / "training.json").read_text())

    def step_in(memory_format):
        def placed(t):
            return t.to(memory_format=memory_format) if t.dim() == 4 else t

        tensors = {k: placed(v) for k, v in load_file(folder / "training.safetensors").items()}
        image = placed(torch.from_numpy(x))
        trained = {name: tensors[name].requires_grad_() for name in settings["trainable"]}
        network = training_network(torch, graph, tensors, settings["epsilon"])
        optimizer = adamw(torch, trained, settings["rate"], settings["weight_decay"])

        def step():
            optimizer.zero_grad(set_to_none=True)
            network(image).backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), settings["clip"])
            optimizer.step()
            return [t.grad for t in trained.values()]

        return step

    def seconds(step):
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    formats = [torch.channels_last, torch.contiguous_format]
    least = [min(seconds(step) for _ in range(3)) for step in map(step_in, formats)]
    # Anew, so that its first step starts from the weights as they were given.
    return step_in(formats[least.index(min(least))])


def int8(peer):
    return lambda folder, x, threads: peer(folder, x, threads, "model_int8.onnx")


PEERS = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "ncnn": ncnn,
    "torch": torch,
    "torch-training": torch_training,
    "onnxruntime-int8": int8(onnxruntime),
    "openvino-int8": int8(openvino),
}


def main():
    peer, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    # Whatever a library prints goes to standard error, so that it cannot be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    shape = json.loads((folder / "graph.json").read_text())["layers"][0]["shape"]
    x = np.fromfile(folder / "input.f32", "<f4").reshape(-1, *shape)
    run = PEERS[peer](folder, x, threads)
    print(f"ready {peer} {importlib.metadata.version(peer.split('-')[0])}", file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "run":
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            run()
            wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
            print(f"{wall / 1e6:.4f} {cpu / 1e6:.4f}", file=answers, flush=True)
        elif line.strip() == "outputs":
            values = [np.ascontiguousarray(v, "<f4").tobytes() for v in run()]
            (folder / f"{peer}.f32").write_bytes(b"".join(values))
            print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
