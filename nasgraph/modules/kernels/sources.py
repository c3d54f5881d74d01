# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Parameters and constants: the same for each example, hence with a batch axis of size one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasgraph.modules.kernels.kernel import Attrs, Kernel, KernelMaker, Parameters, RunContext


def _parameter(node: int, attrs: Attrs) -> Kernel:
    return lambda inputs, own, context: own["weight"].unsqueeze(0)


def _constant(node: int, attrs: Attrs) -> Kernel:
    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        value = context.constants.get(node)
        if value is None:
            raise ValueError(f"Node {node} (constant) has no value: pass 'n{node}.value'")
        return as_integers(value).unsqueeze(0)

    return run


def as_integers(tensor: Tensor) -> Tensor:
    """The tensor, with the integers 0 and 1 in place of truth values."""
    return tensor.to(torch.int64) if tensor.dtype == torch.bool else tensor


SOURCES: Mapping[str, KernelMaker] = {"parameter": _parameter, "constant": _constant}
