# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Rearranging."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    number,
    on_first,
    one_batch,
    whole,
    wholes,
)


def _concat(node: int, attrs: Attrs) -> Kernel:
    axis = whole(attrs, "axis") + 1
    return lambda inputs, own, context: torch.cat(one_batch(inputs), axis)


def _reshape(node: int, attrs: Attrs) -> Kernel:
    shape = wholes(attrs, "shape")
    return lambda inputs, own, context: inputs[0].reshape(-1, *shape)


def _permute(node: int, attrs: Attrs) -> Kernel:
    order = (0, *(axis + 1 for axis in wholes(attrs, "order")))
    return lambda inputs, own, context: inputs[0].permute(order)


def _slice(node: int, attrs: Attrs) -> Kernel:
    before = (slice(None),) * (whole(attrs, "axis") + 1)
    place = (*before, slice(whole(attrs, "start"), whole(attrs, "stop"), whole(attrs, "step")))
    return lambda inputs, own, context: inputs[0][place]


def _expand(node: int, attrs: Attrs) -> Kernel:
    shape = wholes(attrs, "shape")
    return lambda inputs, own, context: inputs[0].expand(-1, *shape)


def _pad(node: int, attrs: Attrs) -> Kernel:
    amounts, mode, value = wholes(attrs, "amounts"), str(attrs["mode"]), number(attrs, "value")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if mode == "constant":
        backwards = [amount for pair in reversed(pairs) for amount in pair]
        return lambda inputs, own, context: F.pad(inputs[0], backwards, value=value)

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        x = inputs[0]
        for axis, (before, after) in enumerate(pairs, start=1):
            if before or after:
                place = torch.arange(-before, x.shape[axis] + after, device=x.device)
                x = x.index_select(axis, _inside(place, x.shape[axis], mode))
        return x

    return run


def _inside(place: Tensor, size: int, mode: str) -> Tensor:
    """Where the elements at places beyond the ends come from."""
    if mode == "reflect":
        return size - 1 - (size - 1 - place.abs()).abs()
    return place.clamp(0, size - 1) if mode == "replicate" else place.remainder(size)


def _roll(node: int, attrs: Attrs) -> Kernel:
    shift, axis = whole(attrs, "shift"), whole(attrs, "axis") + 1
    return lambda inputs, own, context: inputs[0].roll(shift, axis)


def _flip(node: int, attrs: Attrs) -> Kernel:
    axis = whole(attrs, "axis") + 1
    return lambda inputs, own, context: inputs[0].flip(axis)


def _take(node: int, attrs: Attrs) -> Kernel:
    axis = whole(attrs, "axis") + 1

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        x, indices = inputs
        if indices.shape[0] == 1:
            return x.index_select(axis, indices[0])
        x, indices = one_batch(inputs)
        places = [1] * x.dim()
        places[0], places[axis] = indices.shape
        wanted = list(x.shape)
        wanted[axis] = indices.shape[1]
        return x.gather(axis, indices.reshape(places).expand(wanted))

    return run


def _gather(node: int, attrs: Attrs) -> Kernel:
    axis = whole(attrs, "axis") + 1

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        x, indices = one_batch(inputs)
        return x.gather(axis, indices)

    return run


STRUCTURE: Mapping[str, KernelMaker] = {
    "concat": _concat,
    "reshape": _reshape,
    "flatten": on_first(lambda x: x.flatten(1)),
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "roll": _roll,
    "flip": _flip,
    "take": _take,
    "gather": _gather,
}
