"""How each operator of the graph language is written in ONNX."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from string import ascii_letters

import torch
from torch import Tensor

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir.op import MAX_REAL
from nasgraph.modelzoo.export_onnx import Use, Value, Writer
from nasgraph.modelzoo.export_onnx_layers import LAYERS

OpWriter = Callable[[Writer, Use], str]


# ---- joining


def _joined(w: Writer, use: Use, values: Sequence[Value] | None = None) -> list[str]:
    """All operands of one type, that of the result: torch makes real numbers of integers that meet some."""
    values = use.inputs if values is None else values
    is_mixed = len({value.is_int for value in values}) > 1
    return [w.real(value) if is_mixed else w.name(value) for value in values]


def _of_all(op: str) -> OpWriter:
    return lambda w, use: w.node(op, *_joined(w, use))


def _add(w: Writer, use: Use) -> str:
    first, *others = _joined(w, use)
    for other in others:
        first = w.node("Add", first, other)
    return first


def _div(w: Writer, use: Use) -> str:
    return w.node("Div", *(w.real(value) for value in use.inputs))


def _where(w: Writer, use: Use) -> str:
    condition = w.node("Cast", w.name(use.inputs[0]), to=9)
    return w.node("Where", condition, *_joined(w, use, use.inputs[1:]))


_SIGNS = {"lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}


def _compared(w: Writer, kind: str, first: str, second: str) -> str:
    found = w.node(_SIGNS.get(kind, "Equal"), first, second)
    if kind == "ne":
        found = w.node("Not", found)
    return w.node("Cast", found, to=7)


def _compare(w: Writer, use: Use) -> str:
    first, second = _joined(w, use)
    return _compared(w, str(use.attrs["kind"]), first, second)


def _compare_scalar(w: Writer, use: Use) -> str:
    number = use.number("value")
    is_int = use.inputs[0].is_int and number.is_integer()
    first = w.name(use.inputs[0]) if is_int else w.real(use.inputs[0])
    return _compared(w, str(use.attrs["kind"]), first, w.number(number, is_int=is_int))


def _prelu(w: Writer, use: Use) -> str:
    x, slope = use.inputs
    ones = (1,) * (len(x.shape) - 1)
    if slope.fixed is not None:
        return w.node("PRelu", w.name(x), w.tensor(slope.fixed[0].reshape(-1, *ones), "slope"))
    per_axis = w.node("Reshape", slope.name, w.ints([-1, *slope.shape, *ones]))
    name = w.name(x)
    scaled = w.node("Mul", per_axis, name)
    return w.node("Where", w.node("Greater", name, w.number(0.0)), name, scaled)


# ---- products


def _apply_linear(w: Writer, use: Use) -> str:
    x, weight, *bias = use.inputs
    if weight.fixed is None:
        raise UnsupportedOpError("its weight differs from example to example")
    found = w.node("MatMul", w.name(x), w.tensor(weight.fixed[0].t(), "weight"))
    if not bias:
        return found
    if bias[0].fixed is None:
        raise UnsupportedOpError("its bias differs from example to example")
    return w.node("Add", found, w.bare(bias[0]))


def _apply_embedding(w: Writer, use: Use) -> str:
    indices, table = use.inputs
    if table.fixed is None:
        raise UnsupportedOpError("its table differs from example to example")
    return w.node("Gather", w.bare(table), w.name(indices), axis=0)


def _einsum(w: Writer, use: Use) -> str:
    equation = str(use.attrs["equation"]).replace(" ", "")
    batch = next(letter for letter in ascii_letters if letter not in equation)
    left, right = equation.split("->")
    terms, names = [], []
    for term, value in zip(left.split(","), use.inputs, strict=True):
        terms.append(term if value.fixed is not None else batch + term)
        names.append(w.bare(value) if value.fixed is not None else value.name)
    return w.node("Einsum", *names, equation=f"{','.join(terms)}->{batch}{right}")


# ---- reductions


def _reduction(op: str) -> OpWriter:
    def write(w: Writer, use: Use) -> str:
        axes = (use.axis,) if "axis" in use.attrs else tuple(axis + 1 for axis in use.wholes("axes"))
        return w.node(op, w.name(use.inputs[0]), w.ints(axes), keepdims=int(bool(use.attrs["keepdims"])))

    return write


def _variance(w: Writer, use: Use) -> str:
    x, axes = use.inputs[0], tuple(axis + 1 for axis in use.wholes("axes"))
    count = prod(x.shape[axis - 1] for axis in axes) - use.whole("correction")
    name, where = w.name(x), w.ints(axes)
    centred = w.node("Sub", name, w.node("ReduceMean", name, where, keepdims=1))
    squares = w.node("Mul", centred, centred)
    total = w.node("ReduceSum", squares, where, keepdims=int(bool(use.attrs["keepdims"])))
    return w.node("Div", total, w.number(float(count)))


# ---- rearranging


def _concat(w: Writer, use: Use) -> str:
    is_mixed = len({value.is_int for value in use.inputs}) > 1
    names = [w.batched(value) for value in use.inputs]
    if is_mixed:
        names = [w.node("Cast", name, to=1) for name in names]
    return w.node("Concat", *names, axis=use.axis)


def _reshape(w: Writer, use: Use) -> str:
    return w.node("Reshape", w.name(use.inputs[0]), w.ints([-1, *use.shape]))


def _permute(w: Writer, use: Use) -> str:
    order = [0, *(axis + 1 for axis in use.wholes("order"))]
    return w.node("Transpose", w.name(use.inputs[0]), perm=order)


def _part(w: Writer, name: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    return w.node("Slice", name, w.ints([start]), w.ints([stop]), w.ints([axis]), w.ints([step]))


def _slice(w: Writer, use: Use) -> str:
    bounds = (use.whole(name) for name in ("start", "stop", "step"))
    return _part(w, w.name(use.inputs[0]), use.axis, *bounds)


def _flip(w: Writer, use: Use) -> str:
    return _part(w, w.name(use.inputs[0]), use.axis, -1, -(2**62), -1)


def _roll(w: Writer, use: Use) -> str:
    name, axis, size = w.name(use.inputs[0]), use.axis, use.shape[use.whole("axis")]
    cut = -use.whole("shift") % size
    if cut == 0:
        return name
    parts = (_part(w, name, axis, cut, size), _part(w, name, axis, 0, cut))
    return w.node("Concat", *parts, axis=axis)


def _expand(w: Writer, use: Use) -> str:
    return w.node("Expand", w.name(use.inputs[0]), w.ints([1, *use.wholes("shape")]))


def _pad(w: Writer, use: Use) -> str:
    amounts, mode = use.wholes("amounts"), str(use.attrs["mode"])
    pads = w.ints([0, *amounts[::2], 0, *amounts[1::2]])
    name = w.name(use.inputs[0])
    if mode == "constant":
        value = w.number(use.number("value"), is_int=use.inputs[0].is_int)
        return w.node("Pad", name, pads, value, mode=mode)
    return w.node("Pad", name, pads, mode={"replicate": "edge", "circular": "wrap"}.get(mode, mode))


def _take(w: Writer, use: Use) -> str:
    x, indices = use.inputs
    if indices.fixed is not None:
        return w.node("Gather", w.name(x), w.bare(indices), axis=use.axis)
    ones = [1] * len(x.shape)
    places = [*ones[: use.axis - 1], *indices.shape, *ones[use.axis :]]
    spread = w.node("Reshape", indices.name, w.ints([-1, *places]))
    spread = w.node("Expand", spread, w.ints([1, *use.shape]))
    return w.node("GatherElements", w.batched(x), spread, axis=use.axis)


def _gather(w: Writer, use: Use) -> str:
    x, indices = use.inputs
    return w.node("GatherElements", w.batched(x), w.batched(indices), axis=use.axis)


# ---- functions of one number


def _function(op: str, **attrs: object) -> OpWriter:
    return lambda w, use: w.node(op, w.name(use.inputs[0]), **attrs)


def _with(op: str, **settings: str) -> OpWriter:
    """A function whose settings ONNX calls by other names: ours by theirs."""
    return lambda w, use: w.node(
        op, w.name(use.inputs[0]), **{name: use.number(own) for name, own in settings.items()}
    )


def _along(op: str) -> OpWriter:
    return lambda w, use: w.node(op, w.name(use.inputs[0]), axis=use.axis)


def _chain(*ops: str) -> OpWriter:
    """One function after the other, the first written first."""

    def write(w: Writer, use: Use) -> str:
        name = w.name(use.inputs[0])
        for op in ops:
            name = w.node(op, name)
        return name

    return write


def _silu(w: Writer, use: Use) -> str:
    name = w.name(use.inputs[0])
    return w.node("Mul", name, w.node("Sigmoid", name))


def _square(w: Writer, use: Use) -> str:
    name = w.name(use.inputs[0])
    return w.node("Mul", name, name)


def _hardsigmoid(w: Writer, use: Use) -> str:
    return w.node("HardSigmoid", w.name(use.inputs[0]), alpha=1 / 6, beta=0.5)


def _gelu(w: Writer, use: Use) -> str:
    return w.node("Gelu", w.name(use.inputs[0]), approximate=str(use.attrs["approximate"]))


def _softplus(w: Writer, use: Use) -> str:
    beta, threshold, name = use.number("beta"), use.number("threshold"), w.name(use.inputs[0])
    scaled = name if beta == 1.0 else w.node("Mul", name, w.number(beta))
    soft = w.node("Softplus", scaled)
    soft = soft if beta == 1.0 else w.node("Div", soft, w.number(beta))
    if threshold >= 20.0:  # beyond it, single precision tells no difference
        return soft
    return w.node("Where", w.node("Greater", scaled, w.number(threshold)), name, soft)


def _expm1(w: Writer, use: Use) -> str:
    return w.node("Sub", w.node("Exp", w.name(use.inputs[0])), w.number(1.0))


def _log1p(w: Writer, use: Use) -> str:
    return w.node("Log", w.node("Add", w.name(use.inputs[0]), w.number(1.0)))


def _log_sigmoid(w: Writer, use: Use) -> str:
    return w.node("Neg", w.node("Softplus", w.node("Neg", w.name(use.inputs[0]))))


def _whole_numbers(op: str) -> OpWriter:
    """Rounding, which leaves integers as they are."""
    return lambda w, use: w.name(use.inputs[0]) if use.inputs[0].is_int else w.node(op, w.name(use.inputs[0]))


def _affine(w: Writer, use: Use) -> str:
    scale, shift = use.number("scale"), use.number("shift")
    is_int = use.is_int
    name = w.name(use.inputs[0]) if is_int else w.real(use.inputs[0])
    if scale != 1.0:
        name = w.node("Mul", name, w.number(scale, is_int=is_int))
    return name if shift == 0.0 else w.node("Add", name, w.number(shift, is_int=is_int))


def _power_scalar(w: Writer, use: Use) -> str:
    return w.node("Pow", w.name(use.inputs[0]), w.number(use.number("exponent")))


def _clamp(w: Writer, use: Use) -> str:
    low, high, is_int = use.number("low"), use.number("high"), use.is_int
    name = w.name(use.inputs[0]) if is_int else w.real(use.inputs[0])
    if low != -MAX_REAL:
        name = w.node("Max", name, w.number(low, is_int=is_int))
    return name if high == MAX_REAL else w.node("Min", name, w.number(high, is_int=is_int))


def _cast(w: Writer, use: Use) -> str:
    return w.node("Cast", w.name(use.inputs[0]), to=7 if use.is_int else 1)


def _zero(w: Writer, use: Use) -> str:
    """Not the input times zero, which is no number where the input is infinite."""
    from onnx import numpy_helper

    zero: Tensor = torch.zeros(1, dtype=torch.int64 if use.is_int else torch.float32)
    shape = w.node("Shape", w.name(use.inputs[0]))
    return w.node("ConstantOfShape", shape, value=numpy_helper.from_array(zero.numpy()))


def _unchanged(w: Writer, use: Use) -> str:
    return w.name(use.inputs[0])


WRITERS: Mapping[str, OpWriter] = {
    **LAYERS,
    "apply_linear": _apply_linear,
    "apply_embedding": _apply_embedding,
    "matmul": _of_all("MatMul"),
    "einsum": _einsum,
    "mean": _reduction("ReduceMean"),
    **{f"reduce_{name}": _reduction(f"Reduce{name.capitalize()}") for name in ("sum", "mean", "max", "min")},
    "reduce_var": _variance,
    "cumsum": lambda w, use: w.node("CumSum", w.name(use.inputs[0]), w.ints([use.axis])),
    "add": _add,
    "mul": _of_all("Mul"),
    "sub": _of_all("Sub"),
    "div": _div,
    "maximum": _of_all("Max"),
    "minimum": _of_all("Min"),
    "power": _of_all("Pow"),
    "where": _where,
    "compare": _compare,
    "prelu": _prelu,
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _reshape,
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "roll": _roll,
    "flip": _flip,
    "take": _take,
    "gather": _gather,
    **{
        op: _function(theirs)
        for op, theirs in (
            *(("relu", "Relu"), ("selu", "Selu"), ("mish", "Mish"), ("hardswish", "HardSwish")),
            *(
                ("sigmoid", "Sigmoid"),
                ("tanh", "Tanh"),
                ("softsign", "Softsign"),
                ("exp", "Exp"),
                ("log", "Log"),
            ),
            *(
                ("sqrt", "Sqrt"),
                ("abs", "Abs"),
                ("neg", "Neg"),
                ("sign", "Sign"),
                ("reciprocal", "Reciprocal"),
            ),
            *(("sin", "Sin"), ("cos", "Cos"), ("tan", "Tan"), ("atan", "Atan"), ("erf", "Erf")),
        )
    },
    "relu6": lambda w, use: w.node("Clip", w.name(use.inputs[0]), w.number(0.0), w.number(6.0)),
    "leaky_relu": _with("LeakyRelu", alpha="slope"),
    "elu": _with("Elu", alpha="alpha"),
    "celu": _with("Celu", alpha="alpha"),
    "gelu": _gelu,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "log_sigmoid": _log_sigmoid,
    "softplus": _softplus,
    "softmax": _along("Softmax"),
    "log_softmax": _along("LogSoftmax"),
    "expm1": _expm1,
    "log1p": _log1p,
    "rsqrt": _chain("Sqrt", "Reciprocal"),
    "square": _square,
    "floor": _whole_numbers("Floor"),
    "round": _whole_numbers("Round"),
    "affine": _affine,
    "power_scalar": _power_scalar,
    "clamp": _clamp,
    "compare_scalar": _compare_scalar,
    "cast": _cast,
    **dict.fromkeys(("dropout", "drop_path", "identity"), _unchanged),
    "zero": _zero,
}
"""How each operator is written. Not here: sources, message passing and `opaque`."""
