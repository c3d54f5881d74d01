"""Layers, attention, norms, pooling and recurrent layers in ONNX."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nasgraph.errors import UnsupportedOpError
from nasgraph.modelzoo.export_onnx import Use, Value, Writer

OpWriter = Callable[[Writer, Use], str]


def _own(w: Writer, use: Use, short: str) -> str:
    """A parameter of the node, under the name that it has in the state."""
    return w.weight(use.own[short], f"{use.label}.{short}")


# ---- convolutions


def _steps(use: Use) -> dict[str, object]:
    attrs: dict[str, object] = {
        "strides": list(use.wholes("stride")),
        "pads": [*use.wholes("padding"), *use.wholes("padding")],
        "dilations": list(use.wholes("dilation")),
        "group": use.whole("groups"),
    }
    return (
        {**attrs, "output_padding": list(use.wholes("output_padding"))}
        if "output_padding" in use.attrs
        else attrs
    )


def _convolution(op: str) -> OpWriter:
    def write(w: Writer, use: Use) -> str:
        bias = [_own(w, use, "bias")] if "bias" in use.own else []
        kernel = list(use.wholes("kernel_size"))
        names = (w.name(use.inputs[0]), _own(w, use, "weight"), *bias)
        return w.node(op, *names, kernel_shape=kernel, **_steps(use))

    return write


def _applied(op: str) -> OpWriter:
    def write(w: Writer, use: Use) -> str:
        if any(value.fixed is None for value in use.inputs[1:]):
            raise UnsupportedOpError("its weight differs from example to example")
        given = [w.bare(value) for value in use.inputs[1:]]
        kernel = list(use.inputs[1].shape[2:])
        return w.node(op, w.name(use.inputs[0]), *given, kernel_shape=kernel, **_steps(use))

    return write


# ---- linear maps


def _linear(w: Writer, use: Use) -> str:
    weight, bias, name = use.own["weight"], use.own.get("bias"), w.name(use.inputs[0])
    if len(use.shape) == 1:
        given = [_own(w, use, "weight")] + ([] if bias is None else [_own(w, use, "bias")])
        return w.node("Gemm", name, *given, transB=1)
    found = w.node("MatMul", name, w.weight(weight.t(), f"{use.label}.weight"))
    return found if bias is None else w.node("Add", found, _own(w, use, "bias"))


def _bilinear(w: Writer, use: Use) -> str:
    """A product with one matrix, and one of its results with the second input: sum_ij x_i W_oij y_j."""
    first, second = use.inputs
    outs, ins, others = use.own["weight"].shape
    matrix = use.own["weight"].permute(1, 0, 2).reshape(ins, outs * others)
    rows = w.node("MatMul", w.name(first), w.weight(matrix, f"{use.label}.weight"))
    rows = w.node("Reshape", rows, w.ints([*([0] * len(use.shape)), outs, others]))
    column = w.node("Unsqueeze", w.name(second), w.ints([-1]))
    found = w.node("Squeeze", w.node("MatMul", rows, column), w.ints([-1]))
    return w.node("Add", found, _own(w, use, "bias")) if "bias" in use.own else found


def _embedding(w: Writer, use: Use) -> str:
    return w.node("Gather", _own(w, use, "weight"), w.name(use.inputs[0]), axis=0)


# ---- recurrent layers

_GATES: Mapping[str, tuple[int, ...]] = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""ONNX's order of the gates, as places in torch's: i o f c of i f g o, and z r h of r z n."""


def _recurrent(op: str) -> OpWriter:
    def write(w: Writer, use: Use) -> str:
        if use.attrs.get("proj_size"):
            raise UnsupportedOpError("ONNX has no projected states")
        weights = [_gates(op, use.own[name]).unsqueeze(0) for name in ("weight_ih", "weight_hh")]
        given = [w.tensor(weight, f"{use.label}.weight") for weight in weights]
        bias = ""
        if "bias_ih" in use.own:
            both = torch.cat([_gates(op, use.own["bias_ih"]), _gates(op, use.own["bias_hh"])])
            bias = w.tensor(both.unsqueeze(0), f"{use.label}.bias")
        x = w.node("Transpose", w.batched(use.inputs[0]), perm=[1, 0, 2])
        states = [w.node("Unsqueeze", w.batched(state), w.ints([0])) for state in use.inputs[1:]]
        attrs: dict[str, object] = {"hidden_size": use.whole("hidden_size")}
        if use.attrs["reverse"]:
            attrs["direction"] = "reverse"
        if op == "gru":
            attrs["linear_before_reset"] = 1
        if use.attrs.get("nonlinearity", "tanh") == "relu":
            attrs["activations"] = ["Relu"]
        rows = w.node(op.upper(), x, *given, bias, "", *states, **attrs)
        return w.node("Transpose", w.node("Squeeze", rows, w.ints([1])), perm=[1, 0, 2])

    return write


def _gates(op: str, tensor: Tensor) -> Tensor:
    order = _GATES[op]
    parts = tensor.chunk(len(order))
    return torch.cat([parts[place] for place in order])


# ---- attention


def _attention(w: Writer, use: Use) -> str:
    """softmax(scale query key^T + mask) value, with the heads as one more axis."""
    heads = use.whole("num_heads")
    query, key, value = (_heads(w, given, heads) for given in use.inputs[:3])
    depth = use.inputs[0].shape[-1] // heads
    scale = use.number("scale") or depth**-0.5
    rank = len(use.shape) + 1 + (heads > 1)
    turned = [*range(rank - 2), rank - 1, rank - 2]
    scores = w.node("MatMul", w.node("Mul", query, w.number(scale)), w.node("Transpose", key, perm=turned))
    scores = _masked(w, use, scores, heads)
    found = w.node("MatMul", w.node("Softmax", scores, axis=-1), value)
    if heads == 1:
        return found
    found = w.node("Transpose", found, perm=[*range(rank - 3), rank - 2, rank - 3, rank - 1])
    return w.node("Reshape", found, w.ints([-1, *use.shape]))


def _heads(w: Writer, given: Value, heads: int) -> str:
    """[B, ..., T, H * D] -> [B, ..., H, T, D]."""
    name = w.name(given)
    if heads == 1:
        return name
    *outer, width = given.shape
    name = w.node("Reshape", name, w.ints([-1, *outer, heads, width // heads]))
    last = len(outer) + 1
    return w.node("Transpose", name, perm=[*range(last - 1), last, last - 1, last + 1])


def _masked(w: Writer, use: Use, scores: str, heads: int) -> str:
    never = w.number(float("-inf"))
    if use.attrs["causal"]:
        queries, keys = use.inputs[0].shape[-2], use.inputs[1].shape[-2]
        seen = w.tensor(torch.ones(queries, keys, dtype=torch.bool).tril(), "seen")
        scores = w.node("Where", seen, scores, never)
    if len(use.inputs) < 4:
        return scores
    mask = use.inputs[3]
    name = w.name(mask)
    if heads > 1 and len(mask.shape) == len(use.inputs[0].shape):  # one mask for all heads
        name = w.node("Unsqueeze", name, w.ints([-3]))
    if not mask.is_int:
        return w.node("Add", scores, name)
    return w.node("Where", w.node("Cast", name, to=9), scores, never)


# ---- norms


def _batch_norm(w: Writer, use: Use) -> str:
    mean = use.own["running_mean"]
    given = [
        _own(w, use, short) if short in use.own else w.tensor(default, short)
        for short, default in (("weight", torch.ones_like(mean)), ("bias", torch.zeros_like(mean)))
    ]
    given += [_own(w, use, short) for short in ("running_mean", "running_var")]
    return w.node("BatchNormalization", w.batched(use.inputs[0]), *given, epsilon=use.number("eps"))


def _group_norm(w: Writer, use: Use) -> str:
    """Each group is one channel of an instance norm; scales and shifts follow."""
    groups = use.whole("groups")
    grouped = w.node("Reshape", w.name(use.inputs[0]), w.ints([0, groups, -1]))
    plain = [w.tensor(torch.ones(groups), "ones"), w.tensor(torch.zeros(groups), "zeros")]
    normed = w.node("InstanceNormalization", grouped, *plain, epsilon=use.number("eps"))
    found = w.node("Reshape", normed, w.ints([-1, *use.shape]))
    if "weight" not in use.own:
        return found
    ones = (1,) * (len(use.shape) - 1)
    scale, shift = (w.weight(use.own[n].reshape(-1, *ones), f"{use.label}.{n}") for n in ("weight", "bias"))
    return w.node("Add", w.node("Mul", found, scale), shift)


def _layer_norm(w: Writer, use: Use) -> str:
    axes = use.whole("axes")
    scale = _own(w, use, "weight") if "weight" in use.own else w.tensor(torch.ones(use.shape[-axes:]), "ones")
    shift = [_own(w, use, "bias")] if "bias" in use.own else []
    return w.node(
        "LayerNormalization", w.name(use.inputs[0]), scale, *shift, axis=-axes, epsilon=use.number("eps")
    )


def _given_layer_norm(w: Writer, use: Use) -> str:
    x, *given = use.inputs
    size = given[0].shape
    ones = w.tensor(torch.ones(size), "ones")
    found = w.node("LayerNormalization", w.name(x), ones, axis=-len(size), epsilon=use.number("eps"))
    between = [1] * (len(x.shape) - len(size))
    for op, value in zip(("Mul", "Add"), given, strict=False):
        spread = (
            w.bare(value)
            if value.fixed is not None
            else w.node("Reshape", value.name, w.ints([-1, *between, *size]))
        )
        found = w.node(op, found, spread)
    return found


def _rms_norm(w: Writer, use: Use) -> str:
    name, axes = w.name(use.inputs[0]), range(-use.whole("axes"), 0)
    mean = w.node("ReduceMean", w.node("Mul", name, name), w.ints(list(axes)), keepdims=1)
    root = w.node("Sqrt", w.node("Add", mean, w.number(use.number("eps"))))
    found = w.node("Div", name, root)
    return w.node("Mul", found, _own(w, use, "weight")) if "weight" in use.own else found


# ---- pooling


def _window(use: Use) -> tuple[list[int], dict[str, object]]:
    """Padding before and after each axis, and the other settings. What `ceil_mode` adds is padded after."""
    kernel, stride, padding = (use.wholes(name) for name in ("kernel_size", "stride", "padding"))
    dilation = use.wholes("dilation") if "dilation" in use.attrs else (1,) * len(kernel)
    after = []
    for axis, size in enumerate(use.inputs[0].shape[1:]):
        reach = (use.shape[axis + 1] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        after.append(max(padding[axis], reach - size - padding[axis]))
    attrs: dict[str, object] = {"kernel_shape": list(kernel), "strides": list(stride)}
    if "dilation" in use.attrs:
        attrs["dilations"] = list(dilation)
    return [*padding, *after], attrs


def _max_pool(w: Writer, use: Use) -> str:
    pads, attrs = _window(use)
    return w.node("MaxPool", w.name(use.inputs[0]), pads=pads, **attrs)


def _avg_pool(w: Writer, use: Use) -> str:
    pads, attrs = _window(use)
    name = w.name(use.inputs[0])
    if use.attrs.get("count_include_pad"):  # counted are the paddings, not what `ceil_mode` adds beyond them
        padding = use.wholes("padding")
        name = w.node("Pad", name, w.ints([0, 0, *padding, 0, 0, *padding]), mode="constant")
        dims = len(padding)
        pads = [*([0] * dims), *(pads[dims + axis] - padding[axis] for axis in range(dims))]
    return w.node("AveragePool", name, pads=pads, count_include_pad=0, **attrs)


def _global_avg_pool(w: Writer, use: Use) -> str:
    return w.node("ReduceMean", w.name(use.inputs[0]), w.ints([2, 3]), keepdims=0)


def _bounds(size: int, count: int) -> list[tuple[int, int]]:
    """Where torch's adaptive windows begin and end."""
    return [(place * size // count, -(-(place + 1) * size // count)) for place in range(count)]


def _averages(size: int, count: int) -> Tensor:
    """The matrix that takes the means over adaptive windows."""
    matrix = torch.zeros(size, count)
    for place, (start, stop) in enumerate(_bounds(size, count)):
        matrix[start:stop, place] = 1 / (stop - start)
    return matrix


def _adaptive_avg(w: Writer, use: Use) -> str:
    """Means over windows along one axis after the other: a product with a matrix each."""
    shape = use.inputs[0].shape
    name, rank = w.name(use.inputs[0]), len(shape) + 1
    for axis in range(2, rank):
        if shape[axis - 1] == use.shape[axis - 1]:
            continue
        turned = [place for place in range(rank) if place != axis] + [axis]
        back = [turned.index(place) for place in range(rank)]
        matrix = w.tensor(_averages(shape[axis - 1], use.shape[axis - 1]), "means")
        name = w.node("MatMul", w.node("Transpose", name, perm=turned), matrix)
        name = w.node("Transpose", name, perm=back)
    return name


def _adaptive_max(w: Writer, use: Use) -> str:
    shape, name = use.inputs[0].shape, w.name(use.inputs[0])
    for axis in range(2, len(shape) + 1):
        parts = []
        for start, stop in _bounds(shape[axis - 1], use.shape[axis - 1]):
            part = w.node("Slice", name, w.ints([start]), w.ints([stop]), w.ints([axis]))
            parts.append(w.node("ReduceMax", part, w.ints([axis]), keepdims=1))
        name = w.node("Concat", *parts, axis=axis)
    return name


def _upsample(w: Writer, use: Use) -> str:
    mode, size = str(use.attrs["mode"]), use.wholes("size")
    if mode == "area":
        return _adaptive_avg(w, use)
    attrs: dict[str, object] = {"coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        attrs = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif mode == "nearest-exact":
        attrs["nearest_mode"] = "round_prefer_ceil"
    if use.attrs["align_corners"]:
        attrs["coordinate_transformation_mode"] = "align_corners"
    if mode == "bicubic":
        attrs["cubic_coeff_a"] = -0.75
    known = {"nearest": "nearest", "nearest-exact": "nearest", "bicubic": "cubic"}
    axes = [place + 2 for place in range(len(size))]
    return w.node(
        "Resize",
        w.name(use.inputs[0]),
        "",
        "",
        w.ints(size),
        axes=axes,
        mode=known.get(mode, "linear"),
        **attrs,
    )


def _pixel_shuffle(w: Writer, use: Use) -> str:
    return w.node("DepthToSpace", w.name(use.inputs[0]), blocksize=use.whole("factor"), mode="CRD")


LAYERS: Mapping[str, OpWriter] = {
    **{f"conv{dims}d": _convolution("Conv") for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _convolution("ConvTranspose") for dims in (1, 2, 3)},
    **{f"apply_conv{dims}d": _applied("Conv") for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _applied("ConvTranspose") for dims in (1, 2, 3)},
    "linear": _linear,
    "bilinear": _bilinear,
    "embedding": _embedding,
    **{op: _recurrent(op) for op in ("lstm", "gru", "rnn")},
    "attention": _attention,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "apply_layer_norm": _given_layer_norm,
    "rms_norm": _rms_norm,
    **dict.fromkeys(("max_pool2d", "max_pool3d"), _max_pool),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), _avg_pool),
    "global_avg_pool2d": _global_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg,
    "adaptive_max_pool2d": _adaptive_max,
    "upsample": _upsample,
    "pixel_shuffle": _pixel_shuffle,
}
"""How layers are written."""
