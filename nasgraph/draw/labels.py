"""What a picture says about an operator: a short name with the settings that matter, and a colour family."""

from collections.abc import Callable, Mapping

from nasgraph.ir import Node, Scalar, Shape

FAMILIES: Mapping[str, str] = {
    "data": "input, output, parameter",
    "conv": "convolution",
    "linear": "linear, embedding, recurrent",
    "attention": "attention",
    "norm": "norm",
    "activation": "activation",
    "pool": "pooling",
    "join": "add, multiply, concat",
    "shape": "reshape and other",
    "group": "group of nodes",
}
"""Colour families in the order of the legend, with the words of the legend."""

NORMS = frozenset({"batch_norm", "group_norm", "layer_norm", "rms_norm", "apply_layer_norm"})
ACTIVATIONS = frozenset(
    {"relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softmax", "log_softmax",
     "prelu", "celu", "selu", "relu6", "mish", "softplus", "softsign", "log_sigmoid", "clamp", "erf"}
)  # fmt: skip
CONVOLUTIONS = frozenset(
    f"{prefix}conv{kind}{rank}d"
    for prefix in ("", "apply_")
    for kind in ("", "_transpose")
    for rank in (1, 2, 3)
)
MESSAGE_PASSING = frozenset(f"{kind}_conv" for kind in ("gcn", "gat", "gin", "sage", "cheb", "arma", "graph"))
POOLS = (
    "max_pool2d", "avg_pool2d", "global_avg_pool2d", "mean", "max_pool3d", "avg_pool3d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_var",
)  # fmt: skip

_FAMILY_OF = {
    **dict.fromkeys(NORMS, "norm"),
    **dict.fromkeys(ACTIVATIONS, "activation"),
    **dict.fromkeys(CONVOLUTIONS | MESSAGE_PASSING, "conv"),
    **dict.fromkeys(POOLS, "pool"),
    **dict.fromkeys(("input", "parameter", "constant"), "data"),
    **dict.fromkeys(
        (
            "linear",
            "embedding",
            "apply_linear",
            "apply_embedding",
            "bilinear",
            "matmul",
            "einsum",
            "lstm",
            "gru",
            "rnn",
        ),
        "linear",
    ),
    **dict.fromkeys(("add", "mul", "concat", "sub", "div", "maximum", "minimum", "where"), "join"),
    "attention": "attention",
}


def family_of(op: str) -> str:
    """Colour family of an operator, a key of `FAMILIES`. Operators without one of their own are "shape"."""
    return _FAMILY_OF.get(op, "shape")


def label_of(node: Node, input_shapes: tuple[Shape, ...]) -> str:
    """Short name of a node with the settings that tell it from others, such as `conv 3x3 / 2 depthwise`.

    Settings at their usual value are left out, and so is what the output shape shows anyway.
    """
    if node.op == "conv2d":
        return _conv(dict(node.attrs), in_channels=input_shapes[0][0])
    write = _WRITERS.get(node.op)
    return _NAMES.get(node.op, node.op.replace("_", " ")) if write is None else write(dict(node.attrs))


def shape_text(shape: Shape) -> str:
    """A shape as people write it: `16x8x8`."""
    return "x".join(map(str, shape))


def _conv(attrs: Mapping[str, Scalar], *, in_channels: int) -> str:
    text = f"conv {_window(attrs)}"
    groups = attrs["groups"]
    if groups == in_channels == attrs["out_channels"] and in_channels > 1:
        text += " depthwise"
    elif groups != 1:
        text += f" groups {groups}"
    dilation = attrs["dilation"]
    return text if dilation == (1, 1) else f"{text} dilation {_pair(dilation)}"


def _window(attrs: Mapping[str, Scalar]) -> str:
    kernel, stride = attrs["kernel_size"], attrs["stride"]
    assert isinstance(kernel, tuple)
    return shape_text(kernel) if stride == (1, 1) else f"{shape_text(kernel)} / {_pair(stride)}"


def _pair(value: Scalar) -> str:
    assert isinstance(value, tuple)
    return str(value[0]) if len(set(value)) == 1 else shape_text(value)


def _attention(attrs: Mapping[str, Scalar]) -> str:
    text = f"attention, {attrs['num_heads']} head{'' if attrs['num_heads'] == 1 else 's'}"
    return f"{text}, causal" if attrs["causal"] else text


def _permute(attrs: Mapping[str, Scalar]) -> str:
    order = attrs["order"]
    assert isinstance(order, tuple)
    return f"permute {','.join(map(str, order))}"


def _concat(attrs: Mapping[str, Scalar]) -> str:
    return "concat" if attrs["axis"] == 0 else f"concat axis {attrs['axis']}"


def _dropout(attrs: Mapping[str, Scalar]) -> str:
    return f"dropout {attrs['p']:g}"


_NAMES = {"global_avg_pool2d": "global avg pool", "mul": "multiply"}
_WRITERS: Mapping[str, Callable[[Mapping[str, Scalar]], str]] = {
    "input": lambda attrs: "input" if attrs["dtype"] == "float" else "input, integers",
    "linear": lambda attrs: f"linear {attrs['out_features']}",
    "embedding": lambda attrs: f"embedding {attrs['num_embeddings']}x{attrs['dim']}",
    "attention": _attention,
    "group_norm": lambda attrs: f"group norm {attrs['groups']}",
    "max_pool2d": lambda attrs: f"max pool {_window(attrs)}",
    "avg_pool2d": lambda attrs: f"avg pool {_window(attrs)}",
    "mean": lambda attrs: f"mean axis {attrs['axis']}",
    "softmax": lambda attrs: f"softmax axis {attrs['axis']}",
    "concat": _concat,
    "permute": _permute,
    "dropout": _dropout,
}
