# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Convolutions."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    apply_given,
    whole,
    wholes,
)

Bound = Callable[..., Tensor]  # (data, weight[, bias])


def _convolution(function: Bound) -> Callable[[Attrs], Bound]:
    def bind(attrs: Attrs) -> Bound:
        stride, padding, dilation = (wholes(attrs, name) for name in ("stride", "padding", "dilation"))
        groups = whole(attrs, "groups")
        return lambda data, weight, bias=None: function(data, weight, bias, stride, padding, dilation, groups)

    return bind


def _transposed(function: Bound) -> Callable[[Attrs], Bound]:
    def bind(attrs: Attrs) -> Bound:
        stride, padding, more, dilation = (
            wholes(attrs, name) for name in ("stride", "padding", "output_padding", "dilation")
        )
        groups = whole(attrs, "groups")
        return lambda data, weight, bias=None: function(
            data, weight, bias, stride, padding, more, groups, dilation
        )

    return bind


def _own(bind: Callable[[Attrs], Bound]) -> KernelMaker:
    def make(node: int, attrs: Attrs) -> Kernel:
        function = bind(attrs)

        def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
            return function(inputs[0], own["weight"], own.get("bias"))

        return run

    return make


def _given(bind: Callable[[Attrs], Bound]) -> KernelMaker:
    def make(node: int, attrs: Attrs) -> Kernel:
        function = bind(attrs)
        return lambda inputs, own, context: apply_given(function, inputs)

    return make


_BINDERS: Mapping[str, Callable[[Attrs], Bound]] = {
    "conv1d": _convolution(F.conv1d),
    "conv2d": _convolution(F.conv2d),
    "conv3d": _convolution(F.conv3d),
    "conv_transpose1d": _transposed(F.conv_transpose1d),
    "conv_transpose2d": _transposed(F.conv_transpose2d),
    "conv_transpose3d": _transposed(F.conv_transpose3d),
}
CONVOLUTIONS: Mapping[str, KernelMaker] = {
    **{op: _own(bind) for op, bind in _BINDERS.items()},
    **{f"apply_{op}": _given(bind) for op, bind in _BINDERS.items()},
}
