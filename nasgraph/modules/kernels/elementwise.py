# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Element by element."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.ir.op import MAX_REAL
from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    number,
    on_both,
    on_first,
    real_numbers,
    whole,
)
from nasgraph.modules.kernels.sparse import with_values


def _add(node: int, attrs: Attrs) -> Kernel:
    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        total = inputs[0] + inputs[1]
        for other in inputs[2:]:
            total = total + other
        return total

    return run


def _div(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: real_numbers(inputs[0], context) / inputs[1]


def _where(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: torch.where(inputs[0] != 0, inputs[1], inputs[2])


_COMPARISONS: Mapping[str, Callable[..., Tensor]] = {
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}


def _compare(node: int, attrs: Attrs) -> Kernel:
    function = _COMPARISONS[str(attrs["kind"])]
    return lambda inputs, own, context: function(inputs[0], inputs[1]).to(torch.int64)


def _compare_scalar(node: int, attrs: Attrs) -> Kernel:
    function, value = _COMPARISONS[str(attrs["kind"])], number(attrs, "value")
    return lambda inputs, own, context: function(inputs[0], value).to(torch.int64)


def _prelu(node: int, attrs: Attrs) -> Kernel:
    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        x, slope = inputs
        if slope.shape[0] == 1:
            return F.prelu(x, slope[0])
        slope = slope.reshape(*slope.shape, *(1,) * (x.dim() - slope.dim()))
        return torch.where(x > 0, x, slope * x)

    return run


def _affine(node: int, attrs: Attrs) -> Kernel:
    scale, shift = number(attrs, "scale"), number(attrs, "shift")
    are_whole = scale.is_integer() and shift.is_integer()

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        x = inputs[0]
        if not x.is_floating_point() and are_whole:
            return x * int(scale) + int(shift)
        x = real_numbers(x, context)
        x = x if scale == 1.0 else x * scale
        return x if shift == 0.0 else x + shift

    return run


def _power_scalar(node: int, attrs: Attrs) -> Kernel:
    exponent = number(attrs, "exponent")
    return lambda inputs, own, context: inputs[0] ** exponent


def _clamp(node: int, attrs: Attrs) -> Kernel:
    low, high = number(attrs, "low"), number(attrs, "high")
    bounds = (None if low == -MAX_REAL else low, None if high == MAX_REAL else high)
    whole_bounds = tuple(None if bound is None else int(bound) for bound in bounds)
    are_whole = low.is_integer() and high.is_integer()

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        x = inputs[0]
        if bounds == (None, None):
            return x
        if not x.is_floating_point() and are_whole:
            return x.clamp(*whole_bounds)
        return real_numbers(x, context).clamp(*bounds)

    return run


def _cast(node: int, attrs: Attrs) -> Kernel:
    if attrs["dtype"] == "float":
        return lambda inputs, own, context: real_numbers(inputs[0], context)
    return lambda inputs, own, context: inputs[0].to(torch.int64)


def _along(function: Callable[[Tensor, int], Tensor]) -> KernelMaker:
    def make(node: int, attrs: Attrs) -> Kernel:
        axis = whole(attrs, "axis") + 1
        return lambda inputs, own, context: function(inputs[0], axis)

    return make


def _with_numbers(function: Callable[..., Tensor], *names: str) -> KernelMaker:
    """Kernel of a function of one tensor and the named settings."""

    def make(node: int, attrs: Attrs) -> Kernel:
        settings = [number(attrs, name) for name in names]
        return lambda inputs, own, context: function(inputs[0], *settings)

    return make


def _gelu(node: int, attrs: Attrs) -> Kernel:
    approximate = str(attrs["approximate"])
    return lambda inputs, own, context: F.gelu(inputs[0], approximate=approximate)


def _dropout(node: int, attrs: Attrs) -> Kernel:
    p = number(attrs, "p")

    def drop(x: Tensor, context: RunContext) -> Tensor:
        if not context.training or context.generator is None:
            return F.dropout(x, p, context.training)
        if p == 1.0:
            return torch.zeros_like(x)
        # Drawn where the generator lives: a CPU seed then gives the same mask on every device.
        noise = torch.rand(x.shape, generator=context.generator, device=context.generator.device)
        return x * (noise >= p).to(x) / (1 - p)

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        (x,) = inputs
        if x.layout != torch.sparse_csr:
            return drop(x, context)
        # Bags of words: what is zero stays zero, whatever the mask there.
        return with_values(x, drop(x.values(), context))

    return run


def _drop_path(node: int, attrs: Attrs) -> Kernel:
    """Stochastic depth (Huang et al. 2016); scheduled, the ScheduledDropPath of Zoph et al. 2018."""
    p, scheduled = number(attrs, "p"), attrs["scheduled"]

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        (x,) = inputs
        rate = p * context.progress if scheduled else p
        if not context.training or rate == 0.0:
            return x
        rng = context.generator
        # Drawn where the generator lives: a CPU seed then gives the same mask on every device.
        noise = torch.rand(x.shape[0], generator=rng, device=x.device if rng is None else rng.device)
        keep = (noise >= rate).to(x).reshape(-1, *[1] * (x.ndim - 1))
        return x * keep / (1 - rate) if rate < 1.0 else torch.zeros_like(x)

    return run


JOINING: Mapping[str, KernelMaker] = {
    "add": _add,
    "mul": on_both(torch.mul),
    "sub": on_both(torch.sub),
    "div": _div,
    "maximum": on_both(torch.maximum),
    "minimum": on_both(torch.minimum),
    "power": on_both(torch.pow),
    "where": _where,
    "compare": _compare,
    "prelu": _prelu,
}

ACTIVATIONS: Mapping[str, KernelMaker] = {
    "relu": on_first(F.relu),
    "relu6": on_first(F.relu6),
    "leaky_relu": _with_numbers(F.leaky_relu, "slope"),
    "elu": _with_numbers(F.elu, "alpha"),
    "celu": _with_numbers(F.celu, "alpha"),
    "selu": on_first(F.selu),
    "gelu": _gelu,
    "silu": on_first(F.silu),
    "mish": on_first(F.mish),
    "hardswish": on_first(F.hardswish),
    "hardsigmoid": on_first(F.hardsigmoid),
    "sigmoid": on_first(torch.sigmoid),
    "log_sigmoid": on_first(F.logsigmoid),
    "tanh": on_first(torch.tanh),
    "softsign": on_first(F.softsign),
    "softplus": _with_numbers(F.softplus, "beta", "threshold"),
    "softmax": _along(torch.softmax),
    "log_softmax": _along(torch.log_softmax),
}

FUNCTIONS: Mapping[str, KernelMaker] = {
    **{
        name: on_first(getattr(torch, name))
        for name in (
            *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "neg", "sign", "reciprocal"),
            *("floor", "round", "sin", "cos", "tan", "atan", "erf"),
        )
    },
    "affine": _affine,
    "power_scalar": _power_scalar,
    "clamp": _clamp,
    "compare_scalar": _compare_scalar,
    "cast": _cast,
    "dropout": _dropout,
    "drop_path": _drop_path,
    "identity": on_first(lambda x: x),
    "zero": on_first(torch.zeros_like),
}
