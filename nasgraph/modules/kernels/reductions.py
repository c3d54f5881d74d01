# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Reductions along axes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nasgraph.modules.kernels.kernel import Attrs, Kernel, KernelMaker, whole, wholes


def _mean(node: int, attrs: Attrs) -> Kernel:
    axis, keep = whole(attrs, "axis") + 1, bool(attrs["keepdims"])
    return lambda inputs, own, context: inputs[0].mean(axis, keep)


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> KernelMaker:
    def make(node: int, attrs: Attrs) -> Kernel:
        axes, keep = tuple(axis + 1 for axis in wholes(attrs, "axes")), bool(attrs["keepdims"])
        return lambda inputs, own, context: function(inputs[0], axes, keep)

    return make


def _variance(node: int, attrs: Attrs) -> Kernel:
    axes, keep = tuple(axis + 1 for axis in wholes(attrs, "axes")), bool(attrs["keepdims"])
    correction = whole(attrs, "correction")
    return lambda inputs, own, context: torch.var(inputs[0], axes, correction=correction, keepdim=keep)


def _cumsum(node: int, attrs: Attrs) -> Kernel:
    axis = whole(attrs, "axis") + 1
    return lambda inputs, own, context: inputs[0].cumsum(axis)


REDUCTIONS: Mapping[str, KernelMaker] = {
    "mean": _mean,
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "reduce_var": _variance,
    "cumsum": _cumsum,
}
