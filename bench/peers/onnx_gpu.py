"""The network of pytorch_gpu.py by ONNX Runtime's CUDA and TensorRT providers, and by TensorRT itself, where Python has them."""

import torch


def model(network, dtype):
    """The network as an ONNX model, whose values are of `dtype`; needs onnx."""
    from onnx import TensorProto, helper

    kind = {torch.half: TensorProto.FLOAT16, torch.float: TensorProto.FLOAT}[dtype]
    nodes, weights, names = [], [], []

    def add(op, inputs, **attributes):
        name = f"{op.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(name, values):
        values = values.detach().cpu().to(dtype).contiguous()
        weights.append(helper.make_tensor(name, kind, values.shape, values.numpy().tobytes(), raw=True))
        return name

    def activated(name, activation):
        if activation == "leaky_relu":
            return add("LeakyRelu", [name], alpha=0.1)
        if activation == "relu6":
            bounds = [constant(f"{name}_{at}", torch.tensor(float(at))) for at in (0, 6)]
            return add("Clip", [name, *bounds])
        if activation == "silu":
            return add("Mul", [name, add("Sigmoid", [name])])
        plain = {"relu": "Relu", "sigmoid": "Sigmoid", "hardswish": "HardSwish"}
        return name if activation == "identity" else add(plain[activation], [name])

    for layer in network.layers:
        inputs, op = [names[i] for i in layer["inputs"]], layer["op"]
        (top, bottom), (left, right) = layer.get("pad_rows", (0, 0)), layer.get("pad_columns", (0, 0))
        window = next(iter(op.values())) if isinstance(op, dict) else None
        around = {"pads": [top, left, bottom, right]}
        if isinstance(window, dict):
            around |= {"kernel_shape": [window["kernel"]] * 2, "strides": [window["stride"]] * 2}
        if op == "input":
            names.append("input")
        elif op == "add":
            names.append(add("Add", inputs))
        elif op == "concat":
            names.append(add("Concat", inputs, axis=1))
        elif "upsample2x" in op:
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            if window == "nearest":
                how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            scales = helper.make_tensor(f"scales_{len(nodes)}", TensorProto.FLOAT, [4], [1, 1, 2, 2])
            weights.append(scales)
            names.append(add("Resize", [inputs[0], "", scales.name], **how))
        elif "max_pool" in op:
            names.append(add("MaxPool", inputs, **around))
        elif "average_pool" in op:
            names.append(add("AveragePool", inputs, **around))
        elif "conv" in op:
            own = layer["name"].replace(".", "__")
            tensors = [constant(f"{own}__{part}", getattr(network, f"{own}__{part}")) for part in ("weight", "bias")]
            groups = layer["shape"][0] if window["depthwise"] else 1
            names.append(activated(add("Conv", [*inputs, *tensors], group=groups, **around), window["activation"]))
        else:
            raise ValueError(f"{layer['name']}: there is no ONNX of {op} here")
    value = lambda name, layer: helper.make_tensor_value_info(name, kind, [1, *layer["shape"]])
    outputs = [value(names[i], network.layers[i]) for i in network.outputs]
    graph = helper.make_graph(nodes, "network", [value("input", network.layers[0])], outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def by_onnxruntime(provider, options, onnx, x, outputs):
    """A run from `x` to `outputs`, tensors on the device, on the current stream."""
    import onnxruntime

    options = options | {"user_compute_stream": str(torch.cuda.current_stream().cuda_stream)}
    session = onnxruntime.InferenceSession(onnx, providers=[(provider, options)])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"it runs on {session.get_providers()[0]}")
    import numpy

    binding = session.io_binding()
    place = ("cuda", 0, numpy.float16)
    binding.bind_input("input", *place, x.shape, x.data_ptr())
    for output, tensor in zip(session.get_outputs(), outputs):
        binding.bind_output(output.name, *place, tensor.shape, tensor.data_ptr())

    def run(_):
        session.run_with_iobinding(binding)
        return outputs

    return run


def by_tensorrt(onnx, x, outputs):
    """The same by an engine in half precision, which TensorRT tunes first."""
    import tensorrt

    log = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(log)
    flags = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(flags)
    parser = tensorrt.OnnxParser(definition, log)
    if not parser.parse(onnx):
        raise RuntimeError(str(parser.get_error(0)))
    plan = builder.build_serialized_network(definition, builder.create_builder_config())
    engine = tensorrt.Runtime(log).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    context.set_tensor_address("input", x.data_ptr())
    for at, tensor in enumerate(outputs):
        context.set_tensor_address(definition.get_output(at).name, tensor.data_ptr())

    def run(_):
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return outputs

    return run


def ways(network, x):
    """A name, a run and its input for each that is there, one after the other; says why another is left out."""
    plain, expected = x.contiguous(), network(x)
    try:
        onnx = model(network, torch.half)
    except (ImportError, ValueError) as why:
        print(f"ONNX Runtime and TensorRT: skipped ({why})")
        return
    shapes = [network.layers[i]["shape"] for i in network.outputs]
    makers = {
        "ONNX Runtime, CUDA": lambda *of: by_onnxruntime("CUDAExecutionProvider", {}, *of),
        "ONNX Runtime, TensorRT": lambda *of: by_onnxruntime("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}, *of),
        "TensorRT": by_tensorrt,
    }
    for name, make in makers.items():
        outputs = [torch.empty(1, *shape, device="cuda", dtype=torch.half) for shape in shapes]
        try:
            run = make(onnx, plain, outputs)
            run(plain)
            torch.cuda.synchronize()
        # Whatever such a library raises where it does not fit this machine.
        except Exception as why:
            print(f"{name}: skipped ({str(why).splitlines()[0] if str(why) else type(why).__name__})", flush=True)
            continue
        apart = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(outputs, expected))
        if apart > 0.05:
            print(f"{name}: skipped (its outputs are {apart:.2f} of their range beside PyTorch's)", flush=True)
            continue
        yield name, run, plain
