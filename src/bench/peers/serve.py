"""Runs a network in one inference engine, frame by frame, on request: serve.py ENGINE FILE THREADS FOLDER WIDTH HEIGHT

FOLDER/input.f32 is the image: planar, 3 x HEIGHT x WIDTH. Says one line on standard output: `ready NAME VERSION`,
`missing PACKAGE` or `error SENTENCE`. Then answers each line of standard input: `run` with `WALL_NS CPU_NS` of one
inference (CPU time: of all threads of this process), `outputs` with `done` when all outputs lie in FOLDER/outputs.f32,
one after the other.
"""

import os
import sys
import time
from pathlib import Path

# The answers alone: whatever a library prints goes to standard error.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(line):
    print(line, file=ANSWERS, flush=True)


def refuse(sentence):
    answer(f"error {sentence}")
    sys.exit(1)


try:
    import numpy as np

    if sys.argv[1] == "onnxruntime":
        import onnxruntime
    else:
        import openvino
except ImportError as absent:
    answer(f"missing {absent.name or absent}")
    sys.exit(1)


def check_input(count, kind, shape, size):
    """That the network takes one image of that size; `shape` has None where any will do."""
    if count != 1:
        refuse(f"the network has {count} inputs; only one of a single image can be measured")
    if kind not in ("float", "f32"):
        refuse(f"the network's input is of {kind}; only one of f32 can be measured")
    if len(shape) != 4 or shape[0] not in (None, 1) or shape[1] not in (None, 3):
        refuse(f"the network's input has the shape {shape}; only one of 1 x 3 x height x width can be measured")
    (width, height), (own_height, own_width) = size, shape[2:]
    if own_height not in (None, height) or own_width not in (None, width):
        refuse(f"the network takes {own_width}x{own_height}, and ours {width}x{height}: give --input-size")


def in_onnxruntime(file, image, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
    kind = inputs[0].type.removeprefix("tensor(").removesuffix(")")
    check_input(len(inputs), kind, shape, (image.shape[3], image.shape[2]))
    feed = {inputs[0].name: image}
    return onnxruntime.__version__, lambda: session.run(None, feed)


def in_openvino(file, image, threads):
    core = openvino.Core()
    model = core.read_model(str(file))
    wanted = model.inputs[0].get_partial_shape()
    shape = [size.get_length() if size.is_static else None for size in wanted] if wanted.rank.is_static else [None] * 4
    kind = model.inputs[0].get_element_type().get_type_name()
    check_input(len(model.inputs), kind, shape, (image.shape[3], image.shape[2]))
    if None in shape:
        model.reshape(list(image.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
    tensors = [request.get_output_tensor(i) for i in range(len(compiled.outputs))]

    def run():
        request.infer()
        return [tensor.data for tensor in tensors]

    return openvino.__version__.split("-")[0], run


def main():
    engine, file, threads, folder, width, height = sys.argv[1:]
    folder = Path(folder)
    image = np.fromfile(folder / "input.f32", np.float32).reshape(1, 3, int(height), int(width))
    load = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}[engine]
    try:
        version, run = load(Path(file), image, int(threads))
        run()
    except Exception as failure:  # of any kind: each engine has its own
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
        refuse(lines[-1] if lines else type(failure).__name__)
    answer(f"ready {engine} {version}")
    for request in map(str.strip, sys.stdin):
        if request == "run":
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            run()
            wall = time.perf_counter_ns() - wall
            answer(f"{wall} {time.process_time_ns() - cpu}")
        else:
            with open(folder / "outputs.f32", "wb") as out:
                for output in run():
                    np.ascontiguousarray(output, np.float32).tofile(out)
            answer("done")


main()
