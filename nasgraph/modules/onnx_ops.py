"""ONNX operators that compute element by element, reduce axes or multiply matrices, as torch functions."""

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.onnx_step import Result, Rule, Step


def _one(function: Callable[[Tensor], Tensor]) -> Rule:
    return lambda step: function(step.tensor())


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    return lambda step: function(step.tensor(0), step.tensor(1))


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    return lambda step: reduce(function, step.tensors())


def _setting(function: Callable[[Tensor, float], Tensor], name: str, default: float) -> Rule:
    return lambda step: function(step.tensor(), step.node.number(name, default))


def _div(step: Step) -> Result:
    first, second = step.tensor(0), step.tensor(1)
    if first.is_floating_point():
        return first / second
    return torch.div(first, second, rounding_mode="trunc")


def _mod(step: Step) -> Result:
    function = torch.fmod if step.node.whole("fmod", 0) else torch.remainder
    return function(step.tensor(0), step.tensor(1))


def _power(step: Step) -> Result:
    base, exponent = step.tensor(0), step.tensor(1)
    return torch.pow(base, exponent).to(base.dtype)


def _mean(step: Step) -> Result:
    return reduce(torch.add, step.tensors()) / len(step.tensors())


# ---- activations


def _selu(step: Step) -> Result:
    alpha, gamma = step.node.number("alpha", 1.6732632), step.node.number("gamma", 1.0507010)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.0507010) < 1e-6:
        return F.selu(step.tensor())
    return gamma * F.elu(step.tensor(), alpha)


def _prelu(step: Step) -> Result:
    x, slope = step.tensor(0), step.tensor(1)
    channels = x.shape[1] if x.dim() > 1 else 1
    full = (1,) * (x.dim() - slope.dim()) + tuple(slope.shape)
    along_channels = all(size == 1 or axis == 1 for axis, size in enumerate(full))
    if slope.numel() == 1 or (along_channels and slope.numel() == channels):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


def _gelu(step: Step) -> Result:
    return F.gelu(step.tensor(), approximate=step.node.text("approximate", "none"))


def _hardsigmoid(step: Step) -> Result:
    alpha, beta = step.node.number("alpha", 0.2), step.node.number("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(step.tensor())
    return (step.tensor() * alpha + beta).clamp(0.0, 1.0)


def _thresholded(step: Step) -> Result:
    x = step.tensor()
    return torch.where(x > step.node.number("alpha", 1.0), x, torch.zeros_like(x))


def _swish(step: Step) -> Result:
    alpha, x = step.node.number("alpha", 1.0), step.tensor()
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Rule:
    """Before version 13 all axes from the given one on are normalised together."""

    def rule(step: Step) -> Result:
        x = step.tensor()
        if step.opset >= 13:
            return function(x, step.node.whole("axis", -1))
        axis = step.node.whole("axis", 1) % x.dim()
        if axis == x.dim() - 1:
            return function(x, axis)
        return function(x.flatten(axis), axis).reshape(x.shape)

    return rule


def _clip(step: Step) -> Result:
    x = step.tensor()
    low, high = (
        float(step.node.number(name, default)) if operand is None else operand.item()
        for name, default, operand in (
            ("min", -torch.inf, step.optional(1)),
            ("max", torch.inf, step.optional(2)),
        )
    )
    return torch.clamp(x, None if low == -torch.inf else low, None if high == torch.inf else high)


def _dropout(step: Step) -> Result:
    if len(step.node.outputs) > 1 and step.node.outputs[1]:
        raise step.refuse("its mask is read")
    given = step.optional(1)
    ratio = step.node.number("ratio", 0.5) if given is None else float(given.item())
    return F.dropout(step.tensor(), ratio, step.training)


def _where(step: Step) -> Result:
    return torch.where(step.tensor(0), step.tensor(1), step.tensor(2))


# ---- reductions


def _axes(step: Step) -> tuple[int, ...] | None:
    """The axes to reduce; None if nothing is to be reduced."""
    axes, rank = step.integers(1, "axes"), step.tensor().dim()
    if axes:
        return tuple(axis % rank for axis in axes)
    return None if step.node.whole("noop_with_empty_axes", 0) else tuple(range(rank))


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor], *, before: bool = True) -> Rule:
    def rule(step: Step) -> Result:
        axes, x = _axes(step), step.tensor()
        if axes is None:
            return x if before else function(x.unsqueeze(-1), (-1,), False)
        return function(x, axes, bool(step.node.whole("keepdims", 1)))

    return rule


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keep)


def _extreme_place(function: Callable[[Tensor, int, bool], Tensor]) -> Rule:
    def rule(step: Step) -> Result:
        x, axis = step.tensor(), step.node.whole("axis", 0) % step.tensor().dim()
        last = bool(step.node.whole("select_last_index", 0))
        place = function(x.flip(axis) if last else x, axis, bool(step.node.whole("keepdims", 1)))
        return x.shape[axis] - 1 - place if last else place

    return rule


def _top(step: Step) -> Result:
    x, given = step.tensor(), step.optional(1)
    k = step.node.whole("k", 1) if given is None else int(given.item())
    axis = step.node.whole("axis", -1)
    largest, ordered = bool(step.node.whole("largest", 1)), bool(step.node.whole("sorted", 1))
    values, places = torch.topk(x, k, axis, largest, ordered)
    return values, places


def _cumsum(step: Step) -> Result:
    x, axis = step.tensor(), int(step.tensor(1).item())
    reverse = bool(step.node.whole("reverse", 0))
    x = x.flip(axis) if reverse else x
    total = x.cumsum(axis)
    if step.node.whole("exclusive", 0):
        total = total - x
    return total.flip(axis) if reverse else total


# ---- products


def _gemm(step: Step) -> Result:
    first, second, third = step.tensor(0), step.tensor(1), step.optional(2)
    alpha, beta = step.node.number("alpha", 1.0), step.node.number("beta", 1.0)
    transposed = bool(step.node.whole("transB", 0))
    if step.node.whole("transA", 0):
        first = first.t()
    out = second.shape[0 if transposed else 1]
    is_linear = alpha == beta == 1.0 and (third is None or tuple(third.shape) == (out,))
    if is_linear and transposed:
        return F.linear(first, second, third)
    if is_linear and third is not None:
        return torch.addmm(third, first, second)
    product = torch.matmul(first, second.t() if transposed else second)
    product = product if alpha == 1.0 else product * alpha
    return product if third is None else product + (third if beta == 1.0 else third * beta)


def _einsum(step: Step) -> Result:
    return torch.einsum(step.node.text("equation"), *step.tensors())


_LOGICAL = {"And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor}
_COMPARISONS = {
    "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le,
}  # fmt: skip
_PLAIN: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "HardSwish": F.hardswish, "Mish": F.mish,
    "Softplus": F.softplus, "Softsign": F.softsign, "Erf": torch.erf, "Exp": torch.exp, "Log": torch.log,
    "Sqrt": torch.sqrt, "Abs": torch.abs, "Neg": torch.neg, "Reciprocal": torch.reciprocal, "Sign": torch.sign,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
    "Not": torch.logical_not, "IsNaN": torch.isnan, "IsInf": torch.isinf,
}  # fmt: skip

OPERATORS: Mapping[str, Rule] = {
    **{name: _one(function) for name, function in _PLAIN.items()},
    **{name: _two(function) for name, function in (*_LOGICAL.items(), *_COMPARISONS.items())},
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _div,
    "Mod": _mod,
    "Pow": _power,
    "Max": _many(torch.maximum),
    "Min": _many(torch.minimum),
    "Sum": _many(torch.add),
    "Mean": _mean,
    "Where": _where,
    "LeakyRelu": _setting(F.leaky_relu, "alpha", 0.01),
    "Elu": _setting(F.elu, "alpha", 1.0),
    "Celu": _setting(F.celu, "alpha", 1.0),
    "Selu": _selu,
    "PRelu": _prelu,
    "Gelu": _gelu,
    "HardSigmoid": _hardsigmoid,
    "ThresholdedRelu": _thresholded,
    "Swish": _swish,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Clip": _clip,
    "Dropout": _dropout,
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": _reduction(_product),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep), before=False),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt(), before=False),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep), before=False),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log(), before=False),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ArgMax": _extreme_place(torch.argmax),
    "ArgMin": _extreme_place(torch.argmin),
    "TopK": _top,
    "CumSum": _cumsum,
    "Gemm": _gemm,
    "MatMul": _two(torch.matmul),
    "Einsum": _einsum,
}
