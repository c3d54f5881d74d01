# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Norms."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    number,
    whole,
)

BATCH_NORM_MOMENTUM = 0.1


def _batch_norm(node: int, attrs: Attrs) -> Kernel:
    eps = number(attrs, "eps")

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        mean, variance = context.buffers.get(node, (None, None))
        use_batch = context.training or mean is None
        weight, bias = own.get("weight"), own.get("bias")
        x = inputs[0]
        if use_batch:  # a value that is the same for each example counts once for each
            x = x.expand(context.batch_size, *x.shape[1:])
        return F.batch_norm(x, mean, variance, weight, bias, use_batch, BATCH_NORM_MOMENTUM, eps)

    return run


def _group_norm(node: int, attrs: Attrs) -> Kernel:
    groups, eps = whole(attrs, "groups"), number(attrs, "eps")
    return lambda inputs, own, context: F.group_norm(
        inputs[0], groups, own.get("weight"), own.get("bias"), eps
    )


def _layer_norm(node: int, attrs: Attrs) -> Kernel:
    eps, axes = number(attrs, "eps"), whole(attrs, "axes")
    return lambda inputs, own, context: F.layer_norm(
        inputs[0], inputs[0].shape[-axes:], own.get("weight"), own.get("bias"), eps
    )


def _rms_norm(node: int, attrs: Attrs) -> Kernel:
    eps, axes = number(attrs, "eps"), whole(attrs, "axes")
    return lambda inputs, own, context: F.rms_norm(inputs[0], inputs[0].shape[-axes:], own.get("weight"), eps)


def _given_layer_norm(node: int, attrs: Attrs) -> Kernel:
    eps = number(attrs, "eps")

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        data, given = inputs[0], inputs[1:]
        size = list(given[0].shape[1:])
        if all(tensor.shape[0] == 1 for tensor in given):
            return F.layer_norm(data, size, given[0][0], given[1][0] if given[1:] else None, eps)
        between = (1,) * (data.dim() - 1 - len(size))
        weight, *bias = (tensor.reshape(tensor.shape[0], *between, *size) for tensor in given)
        result = F.layer_norm(data, size, None, None, eps) * weight
        return result + bias[0] if bias else result

    return run


NORMS: Mapping[str, KernelMaker] = {
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "apply_layer_norm": _given_layer_norm,
}
