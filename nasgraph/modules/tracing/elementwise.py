# ruff: noqa: SIM905  lists of names read better as text
"""Rules for element-wise functions, reductions and comparisons."""

from collections.abc import Mapping
from math import isfinite

import torch

from nasgraph.modules.tracing.lowering import (
    Lowering,
    Rule,
    UntranslatableError,
    integers,
    kind_in_graph,
)
from nasgraph.modules.tracing.recording import Call, Value


def value_at(call: Call, position: int, name: str = "input") -> Value:
    """A tensor argument.

    Raises:
        UntranslatableError: If it is no tensor.
    """
    found = call.argument(position, name)
    if not isinstance(found, Value):
        raise UntranslatableError(f"expected a tensor as '{name}'")
    return found


def number_at(call: Call, position: int, name: str, default: float | None = None) -> float:
    """A number among the arguments.

    Raises:
        UntranslatableError: If it is none.
    """
    found = call.argument(position, name, default)
    if not isinstance(found, bool | int | float):
        raise UntranslatableError(f"expected a number as '{name}'")
    return float(found)


def finite(number: float) -> float:
    """A number that a graph may store."""
    if not isfinite(number) or abs(number) > 3.4e38:
        raise UntranslatableError(f"uses the number {number}")
    return number


def unary(op: str) -> Rule:
    """A function of one tensor, element by element, without settings."""

    def rule(lower: Lowering, call: Call) -> None:
        x = value_at(call, 0)
        lower.set(call.outputs[0], lower.emit(op, lower.node(x)), lower.layout(x))

    return rule


def same(lower: Lowering, call: Call) -> None:
    """A function that gives its input, as far as a graph can tell."""
    x = value_at(call, 0)
    out = call.outputs[0]
    node = lower.node(x)
    if out.dtype == "bool" and x.dtype != "bool":
        node = lower.emit("compare_scalar", node, kind="ne", value=0.0)
    elif kind_in_graph(x) != kind_in_graph(out):
        node = lower.emit("cast", node, dtype=kind_in_graph(out))
    lower.set(out, node, lower.layout(x))


def _combine(lower: Lowering, op: str, out: Value, first: object, second: object) -> None:
    """An operator of two tensors, or of a tensor and a number, with broadcasting."""
    one, two = lower.scalar(first), lower.scalar(second)
    if one is not None and two is None:
        first, one, second, two = _swapped(lower, op, out, first, second)
        if first is None:
            return
    if not isinstance(first, Value):
        raise UntranslatableError("combines two numbers")
    if two is not None:
        _with_number(lower, op, out, first, two)
        return
    if not isinstance(second, Value):
        raise UntranslatableError("combines two numbers")
    batch = lower.layout(out)
    nodes = [lower.operand(value, len(out.shape), batch) for value in (first, second)]
    lower.set(out, lower.emit(op, *nodes), batch)


def _swapped(
    lower: Lowering, op: str, out: Value, first: object, second: object
) -> tuple[object, None, object, float | None]:
    """Bring the tensor to the front; `number - x` and `number / x` are written here."""
    number = lower.scalar(first)
    assert number is not None
    if not isinstance(second, Value):
        raise UntranslatableError("combines two numbers")
    x = lower.node(second)
    if op in ("add", "mul", "maximum", "minimum"):
        return second, None, first, number
    if op == "sub":
        node = lower.emit("affine", x, scale=-1.0, shift=finite(number))
    elif op == "div":
        node = lower.emit("affine", lower.emit("reciprocal", x), scale=finite(number), shift=0.0)
    else:
        raise UntranslatableError(f"'{op}' of a number and a tensor")
    lower.set(out, node, lower.layout(second))
    return None, None, None, None


def _with_number(lower: Lowering, op: str, out: Value, x: Value, number: float) -> None:
    node = lower.node(x)
    if op in ("add", "sub"):
        node = lower.emit("affine", node, scale=1.0, shift=finite(number if op == "add" else -number))
    elif op in ("mul", "div"):
        if op == "div" and number == 0:
            raise UntranslatableError("divides by zero")
        node = lower.emit("affine", node, scale=finite(number if op == "mul" else 1 / number), shift=0.0)
    elif op == "power":
        special = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}.get(number)
        node = (
            lower.emit(special, node)
            if special
            else lower.emit("power_scalar", node, exponent=finite(number))
        )
    elif (op == "maximum" and number < -3.4e38) or (op == "minimum" and number > 3.4e38):
        pass  # the smallest or largest number there is
    elif op == "maximum":
        node = lower.emit("clamp", node, low=finite(number), high=3.4e38)
    else:
        node = lower.emit("clamp", node, low=-3.4e38, high=finite(number))
    batch = lower.layout(x)
    if len(out.shape) != len(x.shape):  # a constant of shape (1,) or (1, 1) adds an axis
        raise UntranslatableError("adds axes by a number")
    lower.set(out, node, batch)


def binary(op: str, *, reverse: bool = False) -> Rule:
    """A function of two operands with broadcasting; `alpha` scales the second of a sum or difference."""

    def rule(lower: Lowering, call: Call) -> None:
        first, second = call.argument(0, "input"), call.argument(1, "other")
        if second is None:
            second = call.kwargs.get("exponent")
        alpha = call.argument(2, "alpha", 1) if op in ("add", "sub") else 1
        if call.kwargs.get("rounding_mode") is not None:
            raise UntranslatableError("rounds a quotient")
        if alpha != 1:
            if isinstance(second, int | float) and isinstance(alpha, int | float):
                second = second * alpha
            else:
                raise UntranslatableError("scales an operand by 'alpha'")
        if reverse:
            first, second = second, first
        _combine(lower, op, call.outputs[0], first, second)

    return rule


def compare(kind: str) -> Rule:
    """A comparison of two tensors, or of a tensor with a number."""

    def rule(lower: Lowering, call: Call) -> None:
        x, other = value_at(call, 0), call.argument(1, "other")
        out, number = call.outputs[0], lower.scalar(other)
        if number is not None:
            node = lower.emit("compare_scalar", lower.node(x), kind=kind, value=finite(number))
            lower.set(out, node, lower.layout(x))
            return
        if not isinstance(other, Value):
            raise UntranslatableError("compares with no tensor")
        batch = lower.layout(out)
        nodes = [lower.operand(value, len(out.shape), batch) for value in (x, other)]
        lower.set(out, lower.emit("compare", *nodes, kind=kind), batch)

    return rule


def _operand_or_number(lower: Lowering, argument: object, out: Value) -> int:
    if isinstance(argument, Value):
        return lower.operand(argument, len(out.shape), lower.layout(out))
    number = lower.scalar(argument)
    if number is None:
        raise UntranslatableError("expected a tensor or a number")
    rank = max(1, len(lower.dims(out)))
    return lower.constant(torch.full((1,) * rank, number), "float")


def where(lower: Lowering, call: Call) -> None:
    """`torch.where(condition, a, b)`."""
    if len(call.args) + len(call.kwargs) < 3:
        raise UntranslatableError("lists the positions where a condition holds")
    out = call.outputs[0]
    condition = value_at(call, 0, "condition")
    nodes = [
        _operand_or_number(lower, call.argument(i, name), out) for i, name in ((1, "input"), (2, "other"))
    ]
    mask = lower.operand(condition, len(out.shape), lower.layout(out))
    lower.set(out, lower.emit("where", mask, *nodes), lower.layout(out))


def masked_fill(lower: Lowering, call: Call) -> None:
    """`x.masked_fill(mask, value)`."""
    x, mask, out = value_at(call, 0), value_at(call, 1, "mask"), call.outputs[0]
    batch = lower.layout(out)
    filler = _operand_or_number(lower, call.argument(2, "value"), out)
    nodes = [lower.operand(mask, len(out.shape), batch), filler, lower.operand(x, len(out.shape), batch)]
    lower.set(out, lower.emit("where", *nodes), batch)


def clamp(lower: Lowering, call: Call) -> None:
    """`clamp`, `hardtanh`."""
    x = value_at(call, 0)
    names = ("min_val", "max_val") if call.name.startswith("hardtanh") else ("min", "max")
    defaults = (-1.0, 1.0) if call.name.startswith("hardtanh") else (None, None)
    low, high = (
        lower.scalar(call.argument(i + 1, name, default))
        for i, (name, default) in enumerate(zip(names, defaults, strict=True))
    )
    low = -3.4e38 if low is None else max(low, -3.4e38)
    high = 3.4e38 if high is None else min(high, 3.4e38)
    if any(isinstance(argument, Value) and lower.scalar(argument) is None for argument in call.args[1:]):
        raise UntranslatableError("clamps by a tensor")
    if (low, high) == (0.0, 3.4e38):
        node = lower.emit("relu", lower.node(x))
    elif (low, high) == (0.0, 6.0):
        node = lower.emit("relu6", lower.node(x))
    else:
        node = lower.emit("clamp", lower.node(x), low=low, high=high)
    lower.set(call.outputs[0], node, lower.layout(x))


def setting(op: str, *settings: tuple[str, str, float]) -> Rule:
    """An activation with numbers as settings: (torch's name, the graph language's name, default) from position 1."""

    def rule(lower: Lowering, call: Call) -> None:
        x = value_at(call, 0)
        attrs = {
            name: number_at(call, i + 1, torch_name, default)
            for i, (torch_name, name, default) in enumerate(settings)
        }
        lower.set(call.outputs[0], lower.emit(op, lower.node(x), **attrs), lower.layout(x))

    return rule


def gelu(lower: Lowering, call: Call) -> None:
    """`gelu`, exact or with tanh."""
    x = value_at(call, 0)
    approximate = call.argument(1, "approximate", "none")
    lower.set(call.outputs[0], lower.emit("gelu", lower.node(x), approximate=approximate), lower.layout(x))


def dropout(lower: Lowering, call: Call) -> None:
    """Dropout of single elements. Dropping whole channels or paths is the identity that it is in evaluation."""
    x = value_at(call, 0)
    p = call.argument(1, "p", 0.5)
    node = lower.node(x)
    if call.name.rstrip("_") == "dropout" and isinstance(p, int | float) and 0 < p <= 1:
        node = lower.emit("dropout", node, p=float(p))
    lower.set(call.outputs[0], node, lower.layout(x))


def softmax(op: str) -> Rule:
    """Softmax or its logarithm along one axis."""

    def rule(lower: Lowering, call: Call) -> None:
        x = value_at(call, 0)
        axis = call.argument(1, "dim")
        if not isinstance(axis, int):
            raise UntranslatableError("normalises along no stated axis")
        node = lower.emit(op, lower.node(x), axis=lower.axis(x, axis))
        lower.set(call.outputs[0], node, lower.layout(x))

    return rule


def reduction(op: str, *, axis_name: str = "dim") -> Rule:
    """A sum, mean or extremum over some axes."""

    def rule(lower: Lowering, call: Call) -> None:
        x = value_at(call, 0)
        axes = call.argument(1, axis_name, call.kwargs.get("axis"))
        keep = bool(call.argument(2, "keepdim", call.kwargs.get("keepdims", False)))
        reduce(lower, op, x, axes, keep, call.outputs[0])

    return rule


def reduce(lower: Lowering, op: str, x: Value, axes: object, keep: bool, out: Value, **attrs: object) -> None:
    """Write a reduction of full axes of `x` as `out`."""
    full = (
        list(range(len(x.shape)))
        if axes is None or axes == []
        else [a % max(1, len(x.shape)) for a in integers((axes,))]
    )
    places = tuple(sorted({lower.axis(x, axis) for axis in full}))
    node = lower.node(x)
    rank = len(lower.g.shape(node))
    batch = lower.layout(x)
    if not keep and batch is not None:
        shift = sum(axis < batch.axis for axis in full)
        batch = type(batch)(batch.axis - shift, batch.outer, batch.inner)
    if op == "reduce_mean" and not keep and len(places) == 1 < rank:
        node = lower.emit("mean", node, axis=places[0])
    elif op == "reduce_mean" and not keep and places == (1, 2) and rank == 3:
        node = lower.emit("global_avg_pool2d", node)
    else:
        node = lower.emit(op, node, axes=places, keepdims=keep or len(places) == rank, **attrs)
    lower.set(out, lower.fit(node, lower.strip(out.shape, batch)), batch)


def extremum(op: str, pairwise: str) -> Rule:
    """`max` and `min`: of all elements, along an axis (values and positions), or of two tensors."""

    def rule(lower: Lowering, call: Call) -> None:
        second = call.argument(1, "dim")
        if isinstance(second, Value) or "other" in call.kwargs:
            binary(pairwise)(lower, call)
            return
        x = value_at(call, 0)
        keep = bool(call.argument(2, "keepdim", False))
        reduce(lower, op, x, second, keep, call.outputs[0])

    return rule


def variance(root: bool) -> Rule:
    """`var` and `std`."""

    def rule(lower: Lowering, call: Call) -> None:
        x, out = value_at(call, 0), call.outputs[0]
        second = call.argument(1, "dim")
        if isinstance(second, bool):
            raise UntranslatableError("takes an old form of the arguments")
        unbiased = call.argument(2, "unbiased", True)
        correction = call.kwargs.get("correction", 1 if unbiased else 0)
        keep = bool(call.argument(3, "keepdim", False))
        if correction not in (0, 1):
            raise UntranslatableError("uses another correction than 0 and 1")
        reduce(lower, "reduce_var", x, second, keep, out, correction=int(bool(correction)))
        if root:
            lower.set(out, lower.emit("sqrt", lower.node(out)), lower.layout(out))

    return rule


def norm(lower: Lowering, call: Call) -> None:
    """Euclidean norm over some axes (`norm`, `vector_norm`)."""
    x, out = value_at(call, 0), call.outputs[0]
    names = ("ord", "dim") if call.name == "vector_norm" or "ord" in call.kwargs else ("p", "dim")
    order = call.argument(1, names[0], 2)
    if order not in (2, 2.0, "fro", None):
        raise UntranslatableError(f"is of order {order}")
    axes, keep = call.argument(2, "dim"), bool(call.argument(3, "keepdim", False))
    squares = Value(x.shape, "float")
    lower.set(squares, lower.emit("square", lower.node(x)), lower.layout(x))
    reduce(lower, "reduce_sum", squares, axes, keep, out)
    lower.set(out, lower.emit("sqrt", lower.node(out)), lower.layout(out))


def normalize(lower: Lowering, call: Call) -> None:
    """`torch.nn.functional.normalize`: a vector over its norm."""
    x, out = value_at(call, 0), call.outputs[0]
    if call.argument(1, "p", 2.0) != 2:
        raise UntranslatableError("uses another norm than the Euclidean one")
    axis, eps = call.argument(2, "dim", 1), number_at(call, 3, "eps", 1e-12)
    if not isinstance(axis, int):
        raise UntranslatableError("normalises over several axes")
    axis %= len(x.shape)
    shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
    length = Value(shape, "float")
    squares = Value(x.shape, "float")
    lower.set(squares, lower.emit("square", lower.node(x)), lower.layout(x))
    reduce(lower, "reduce_sum", squares, axis, True, length)
    floor = lower.emit("clamp", lower.emit("sqrt", lower.node(length)), low=eps, high=3.4e38)
    lower.set(out, lower.emit("div", lower.node(x), floor), lower.layout(x))


def logsumexp(lower: Lowering, call: Call) -> None:
    """`logsumexp` along one axis, through `log_softmax`: x - log_softmax(x) is the same everywhere on the axis."""
    x, out = value_at(call, 0), call.outputs[0]
    axes = list(integers((call.argument(1, "dim"),)))
    if len(axes) != 1:
        raise UntranslatableError("sums over several axes")
    difference = Value(x.shape, "float")
    node = lower.node(x)
    logs = lower.emit("log_softmax", node, axis=lower.axis(x, axes[0]))
    lower.set(difference, lower.emit("sub", node, logs), lower.layout(x))
    reduce(lower, "reduce_max", difference, axes[0], bool(call.argument(2, "keepdim", False)), out)


def cumsum(lower: Lowering, call: Call) -> None:
    """Running sums along one axis."""
    x, axis = value_at(call, 0), call.argument(1, "dim")
    assert isinstance(axis, int)
    lower.set(call.outputs[0], lower.emit("cumsum", lower.node(x), axis=lower.axis(x, axis)), lower.layout(x))


def glu(lower: Lowering, call: Call) -> None:
    """Gated linear unit: the first half times the sigmoid of the second."""
    x, axis = value_at(call, 0), call.argument(1, "dim", -1)
    assert isinstance(axis, int)
    place = lower.axis(x, axis)
    node = lower.node(x)
    size = lower.g.shape(node)[place]
    halves = [
        lower.emit("slice", node, axis=place, start=start, stop=start + size // 2, step=1)
        for start in (0, size // 2)
    ]
    gated = lower.emit("mul", halves[0], lower.emit("sigmoid", halves[1]))
    lower.set(call.outputs[0], gated, lower.layout(x))


def lerp(lower: Lowering, call: Call) -> None:
    """`start + weight * (end - start)`."""
    out = call.outputs[0]
    batch, rank = lower.layout(out), len(out.shape)
    start, end = (lower.operand(value_at(call, i, n), rank, batch) for i, n in enumerate(("input", "end")))
    difference = lower.emit("sub", end, start)
    weight = call.argument(2, "weight")
    number = lower.scalar(weight)
    if number is not None:
        step = lower.emit("affine", difference, scale=finite(number), shift=0.0)
    else:
        step = lower.emit("mul", difference, lower.operand(value_at(call, 2, "weight"), rank, batch))
    lower.set(out, lower.emit("add", start, step), batch)


def softmin(lower: Lowering, call: Call) -> None:
    """`softmin`: softmax of the negative."""
    x, axis = value_at(call, 0), call.argument(1, "dim")
    if not isinstance(axis, int):
        raise UntranslatableError("normalises along no stated axis")
    node = lower.emit("softmax", lower.emit("neg", lower.node(x)), axis=lower.axis(x, axis))
    lower.set(call.outputs[0], node, lower.layout(x))


def prelu(lower: Lowering, call: Call) -> None:
    """A rectifier with a learnt slope."""
    x, slope = value_at(call, 0), value_at(call, 1, "weight")
    lower.set(call.outputs[0], lower.emit("prelu", lower.node(x), lower.node(slope)), lower.layout(x))


def addcmul(lower: Lowering, call: Call) -> None:
    """`input + value * a * b`, also `lerp`-free sums of products."""
    out = call.outputs[0]
    batch, rank = lower.layout(out), len(out.shape)
    x, a, b = (
        lower.operand(value_at(call, i, n), rank, batch)
        for i, n in enumerate(("input", "tensor1", "tensor2"))
    )
    product = lower.emit("mul", a, b)
    factor = number_at(call, 3, "value", 1.0)
    if factor != 1:
        product = lower.emit("affine", product, scale=factor, shift=0.0)
    lower.set(out, lower.emit("add", x, product), batch)


def logical(kind: str) -> Rule:
    """`&`, `|` and `~` of truth values, as product, maximum and comparison."""

    def rule(lower: Lowering, call: Call) -> None:
        values = list(call.inputs())
        out = call.outputs[0]
        if any(value.dtype != "bool" for value in values):
            raise UntranslatableError("combines the bits of integers")
        if kind == "not":
            node = lower.emit("compare_scalar", lower.node(values[0]), kind="eq", value=0.0)
            lower.set(out, node, lower.layout(values[0]))
            return
        batch = lower.layout(out)
        nodes = [lower.operand(value, len(out.shape), batch) for value in values]
        lower.set(out, lower.emit("mul" if kind == "and" else "maximum", *nodes), batch)

    return rule


UNARY = (
    "relu silu hardswish hardsigmoid sigmoid tanh exp log sqrt rsqrt square abs neg reciprocal sin cos erf mish relu6 "
    "selu softsign sign floor round log1p expm1 tan atan"
).split()

RULES: Mapping[str, Rule] = {
    **{name: unary(name) for name in UNARY},
    "lerp": lerp,
    "softmin": softmin,
    "log_sigmoid": unary("log_sigmoid"),
    "logsigmoid": unary("log_sigmoid"),
    "leaky_relu": setting("leaky_relu", ("negative_slope", "slope", 0.01)),
    "elu": setting("elu", ("alpha", "alpha", 1.0)),
    "celu": setting("celu", ("alpha", "alpha", 1.0)),
    "softplus": setting("softplus", ("beta", "beta", 1.0), ("threshold", "threshold", 20.0)),
    "gelu": gelu,
    "glu": glu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "add": binary("add"),
    "sub": binary("sub"),
    "rsub": binary("sub", reverse=True),
    "mul": binary("mul"),
    "div": binary("div"),
    "rdiv": binary("div", reverse=True),
    "pow": binary("power"),
    "rpow": binary("power", reverse=True),
    "maximum": binary("maximum"),
    "minimum": binary("minimum"),
    "addcmul": addcmul,
    **{kind: compare(kind) for kind in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"{family}_{kind}": logical(kind) for kind in ("and", "or", "not") for family in ("logical", "bitwise")},
    "where": where,
    "masked_fill": masked_fill,
    "clamp": clamp,
    "clamp_min": binary("maximum"),
    "clamp_max": binary("minimum"),
    "hardtanh": clamp,
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"), dropout
    ),
    "native_dropout": dropout,
    "softmax": softmax("softmax"),
    "log_softmax": softmax("log_softmax"),
    "mean": reduction("reduce_mean"),
    "sum": reduction("reduce_sum"),
    "amax": reduction("reduce_max"),
    "amin": reduction("reduce_min"),
    "max": extremum("reduce_max", "maximum"),
    "min": extremum("reduce_min", "minimum"),
    "var": variance(root=False),
    "std": variance(root=True),
    "norm": norm,
    "vector_norm": norm,
    "normalize": normalize,
    "logsumexp": logsumexp,
    "cumsum": cumsum,
    **dict.fromkeys(
        ("to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "bool", "contiguous", "detach", "clone",
         "alias", "cpu", "cuda", "_to_copy", "data", "identity", "checkpoint"),
        same,
    ),
}  # fmt: skip
