"""A training step in PyTorch of a network that `distill export --graph` describes, and what its layers compute.

Nothing is imported at the top: whoever calls has torch.
"""


def conv_of(layer):
    """A convolution's parameters; None for another operation."""
    op = layer["op"]
    return op.get("conv") if isinstance(op, dict) else None


def padded(torch, layer, v, value):
    """What a window is to be run over, and the padding that is left to it."""
    (top, bottom), (left, right) = layer["pad_rows"], layer["pad_columns"]
    if top == bottom == left == right:
        return v, top
    return torch.nn.functional.pad(v, (left, right, top, bottom), value=value), 0


def activated(torch, of, y, inplace=True):
    functional = torch.nn.functional
    return {
        "identity": lambda v: v,
        "relu": lambda v: functional.relu(v, inplace=inplace),
        "relu6": lambda v: functional.relu6(v, inplace=inplace),
        "silu": lambda v: functional.silu(v, inplace=inplace),
        "hardswish": lambda v: functional.hardswish(v, inplace=inplace),
        "hardsigmoid": lambda v: functional.hardsigmoid(v, inplace=inplace),
        "sigmoid": torch.sigmoid,
        "leaky_relu": lambda v: functional.leaky_relu(v, 0.1, inplace=inplace),
    }[of](y)


def without_weights(torch, layer, v):
    """An operation that has none, of the tensors `v`."""
    op, functional = layer["op"], torch.nn.functional
    if op == "add":
        return v[0] + v[1]
    if op == "concat":
        return torch.cat(v, 1)
    if op == "global_average":
        return v[0].mean((2, 3), keepdim=True)
    if op == "scale":
        return v[0] * v[1]
    if "activate" in op:
        # Others may read what it is computed from.
        return activated(torch, op["activate"], v[0], inplace=False)
    if "upsample2x" in op:
        bilinear = op["upsample2x"] == "bilinear"
        how = {"mode": "bilinear", "align_corners": False} if bilinear else {"mode": "nearest"}
        return functional.interpolate(v[0], scale_factor=2, **how)
    if "slice" in op:
        first = op["slice"]["first"]
        return v[0][:, first : first + layer["shape"][0]]
    if "shuffle" in op:
        return functional.channel_shuffle(v[0], op["shuffle"]["groups"])
    of = op.get("max_pool")
    if of is not None:
        image, padding = padded(torch, layer, v[0], float("-inf"))
        return functional.max_pool2d(image, of["kernel"], of["stride"], padding)
    # Padding does not count in a mean.
    of = op["average_pool"]
    (top, bottom), (left, right) = layer["pad_rows"], layer["pad_columns"]
    if not top == bottom == left == right:
        raise ValueError(f"{layer['name']}: a mean over windows with other padding on each side")
    return functional.avg_pool2d(v[0], of["kernel"], of["stride"], top, count_include_pad=False)


def training_network(torch, graph, tensors, epsilon, momentum=0.1):
    """A module whose output is ½ Σ output² of all the graph's outputs. Convolutions of which `tensors` has a gamma have
    batch-norm after them, by the statistics of the batch."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.of = {}
            for name, tensor in tensors.items():
                # A module's names have no dots.
                self.of[name] = name.replace(".", "__")
                self.register_buffer(self.of[name], tensor)

        def get(self, layer, part):
            name = self.of.get(f"{layer['name']}.{part}")
            return None if name is None else getattr(self, name)

        def conv(self, layer, of, v):
            v, padding = padded(torch, layer, v, 0.0)
            groups = layer["shape"][0] if of["depthwise"] else 1
            weight, bias, gamma = (self.get(layer, part) for part in ("weight", "bias", "gamma"))
            plain = bias if gamma is None else None
            y = torch.nn.functional.conv2d(v, weight, plain, of["stride"], padding, 1, groups)
            if gamma is not None:
                running = self.get(layer, "mean"), self.get(layer, "variance")
                y = torch.nn.functional.batch_norm(y, *running, gamma, bias, training=True, momentum=momentum, eps=epsilon)
            return activated(torch, of["activation"], y)

        def forward(self, image):
            values = [image]
            for layer in graph["layers"][1:]:
                v, of = [values[i] for i in layer["inputs"]], conv_of(layer)
                values.append(without_weights(torch, layer, v) if of is None else self.conv(layer, of, v[0]))
            return sum(0.5 * values[i].float().square().sum() for i in graph["outputs"])

    return Network()


def adamw(torch, trained, rate, weight_decay, **how):
    """AdamW as in src/distill/train/optimizer.rs: decay of weights alone. `trained`: tensors by name."""
    decays = {True: weight_decay, False: 0.0}
    groups = [
        {"params": [t for name, t in trained.items() if name.endswith(".weight") == of], "weight_decay": decay}
        for of, decay in decays.items()
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True, **how)
