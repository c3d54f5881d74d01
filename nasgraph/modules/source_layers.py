# ruff: noqa: ARG001  all writers of one table have one signature, and some need only a part of it
"""Nodes with parameters or state as layers of `torch.nn`: how a layer is made, and what it calls its tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from nasgraph.ir import ComputationalGraph, Node, ParameterSpec, Scalar, Shape
from nasgraph.modules.source_format import Expression, Quoted, call

Attrs = Mapping[str, Scalar]
Writer = Callable[[Attrs, Sequence[Shape]], Expression]


@dataclass(frozen=True, slots=True)
class Layer:
    """How an operator is written as a layer.

    Attributes:
        prefix: Its layers are called `<prefix>1`, `<prefix>2` and so on.
        make: The expression that makes one, from attributes and input shapes.
        names: What the layer calls the operator's parameters, where the name differs.
    """

    prefix: str
    make: Writer
    names: Mapping[str, str] = field(default_factory=dict)


def one_or_all(sizes: Sequence[int]) -> int | tuple[int, ...]:
    """One number where all are the same."""
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def numbers(value: Scalar) -> tuple[int, ...]:
    """An attribute that is a tuple of integers."""
    assert isinstance(value, tuple)
    return value


def whole(value: Scalar) -> int:
    """An attribute that is an integer."""
    assert isinstance(value, int)
    return value


def changed(attrs: Attrs, **defaults: int) -> dict[str, object]:
    """The settings of a window that differ from torch's defaults."""
    found = {name: one_or_all(numbers(attrs[name])) for name in defaults if name in attrs}
    return {name: value for name, value in found.items() if value != defaults[name]}


def steps(attrs: Attrs) -> dict[str, object]:
    """The settings of a convolution that differ from torch's defaults."""
    settings = changed(attrs, stride=1, padding=0, output_padding=0, dilation=1)
    return settings if attrs["groups"] == 1 else {**settings, "groups": attrs["groups"]}


def _convolution(name: str) -> Layer:
    def make(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
        bias = {} if attrs["bias"] else {"bias": False}
        kernel = one_or_all(numbers(attrs["kernel_size"]))
        return call(f"nn.{name}", inputs[0][0], attrs["out_channels"], kernel, **steps(attrs), **bias)

    return Layer("conv", make)


def _linear(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    bias = {} if attrs["bias"] else {"bias": False}
    return call("nn.Linear", inputs[0][-1], attrs["out_features"], **bias)


def _bilinear(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    bias = {} if attrs["bias"] else {"bias": False}
    return call("nn.Bilinear", inputs[0][-1], inputs[1][-1], attrs["out_features"], **bias)


def _embedding(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    return call("nn.Embedding", attrs["num_embeddings"], attrs["dim"])


def _batch_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    space = max(1, len(inputs[0]) - 1)
    affine = {} if attrs["affine"] else {"affine": False}
    return call(f"nn.BatchNorm{space}d", inputs[0][0], **_eps(attrs), **affine)


def _group_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    affine = {} if attrs["affine"] else {"affine": False}
    return call("nn.GroupNorm", attrs["groups"], inputs[0][0], **_eps(attrs), **affine)


def _eps(attrs: Attrs) -> dict[str, object]:
    return {} if attrs["eps"] == 1e-5 else {"eps": attrs["eps"]}


def _trailing(attrs: Attrs, inputs: Sequence[Shape]) -> int | tuple[int, ...]:
    size = inputs[0][-whole(attrs["axes"]) :]
    return size[0] if len(size) == 1 else size


def _layer_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    affine: dict[str, object] = {} if attrs["bias"] else {"bias": False}
    affine = affine if attrs["affine"] else {"elementwise_affine": False}
    return call("nn.LayerNorm", _trailing(attrs, inputs), **_eps(attrs), **affine)


def _rms_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    affine = {} if attrs["affine"] else {"elementwise_affine": False}
    return call("nn.RMSNorm", _trailing(attrs, inputs), eps=attrs["eps"], **affine)


def _recurrent(op: str) -> Layer:
    def make(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
        named: dict[str, object] = {} if attrs["bias"] else {"bias": False}
        if attrs.get("proj_size"):
            named["proj_size"] = attrs["proj_size"]
        if attrs.get("nonlinearity", "tanh") != "tanh":
            named["nonlinearity"] = Quoted(attrs["nonlinearity"])
        return call(f"nn.{op.upper()}", inputs[0][1], attrs["hidden_size"], batch_first=True, **named)

    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    return Layer(op, make, {name: f"{name}_l0" for name in names})


def _dropout(attrs: Attrs, inputs: Sequence[Shape]) -> Expression:
    return call("nn.Dropout", attrs["p"])


LAYERS: Mapping[str, Layer] = {
    **{f"conv{d}d": _convolution(f"Conv{d}d") for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _convolution(f"ConvTranspose{d}d") for d in (1, 2, 3)},
    "linear": Layer("linear", _linear),
    "bilinear": Layer("bilinear", _bilinear),
    "embedding": Layer("embedding", _embedding),
    "batch_norm": Layer("norm", _batch_norm),
    "group_norm": Layer("norm", _group_norm),
    "layer_norm": Layer("norm", _layer_norm),
    "rms_norm": Layer("norm", _rms_norm),
    **{op: _recurrent(op) for op in ("lstm", "gru", "rnn")},
    "dropout": Layer("dropout", _dropout),
}


def free_parameter(spec: ParameterSpec) -> Expression:
    """A free parameter with the random start that `nasgraph.modules.initial_parameters` describes."""
    sizes = ", ".join(map(str, spec.shape))
    bound = 1 / sqrt(spec.fan_in) if spec.fan_in else 0.0
    match spec.role:
        case "weight" if bound:
            start = f"torch.empty({sizes}).uniform_({-bound!r}, {bound!r})"
        case "bias" if spec.fan_in > 1:
            start = f"torch.empty({sizes}).uniform_({-bound!r}, {bound!r})"
        case "scale":
            start = f"torch.ones({sizes})"
        case "embedding":
            start = f"torch.randn({sizes})"
        case "position":
            start = f"0.02 * torch.randn({sizes})"
        case _:
            start = f"torch.zeros({sizes})"
    return call("nn.Parameter", start)


def attribute_names(graph: ComputationalGraph) -> dict[int, str]:
    """What the module calls the layer, parameter or constant of each node that has one."""
    counts: dict[str, int] = {}
    names: dict[int, str] = {}
    for index, node in enumerate(graph.nodes):
        prefix = _prefix(node)
        if prefix:
            counts[prefix] = counts.get(prefix, 0) + 1
            names[index] = f"{prefix}{counts[prefix]}"
    return names


def _prefix(node: Node) -> str:
    if node.op == "parameter":
        return str(node.attr("role"))
    if node.op == "constant":
        return "constant"
    return LAYERS[node.op].prefix if node.op in LAYERS else ""


def state_names(graph: ComputationalGraph) -> dict[str, str]:
    """The module's name of every parameter, running statistic and constant of the graph."""
    attributes = attribute_names(graph)
    names: dict[str, str] = {}
    for name in graph.parameters:
        index, own = int(name[1:].split(".")[0]), name.split(".")[1]
        op = graph.nodes[index].op
        layer = "" if op == "parameter" else f".{LAYERS[op].names.get(own, own)}"
        names[name] = f"{attributes[index]}{layer}"
    for index, node in enumerate(graph.nodes):
        if node.op == "constant":
            names[f"n{index}.value"] = attributes[index]
        if node.op == "batch_norm":
            for own in ("running_mean", "running_var"):
                names[f"n{index}.{own}"] = f"{attributes[index]}.{own}"
    return names
