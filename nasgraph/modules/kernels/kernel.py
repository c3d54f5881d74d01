# ruff: noqa: ARG005  every kernel has the same signature, and most need only a part of it
"""What a kernel is, and what several families share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from nasgraph.ir import Scalar

Attrs = Mapping[str, Scalar]
BatchNormBuffers = tuple[Tensor, Tensor]  # running mean, running variance


@dataclass(slots=True)
class RunContext:
    """How a graph is run.

    Attributes:
        batch_size: Examples in the batch.
        training: Dropout drops, and batch norms use the statistics of the batch.
        generator: Source of dropout's randomness; None: torch's global one, as torch modules do.
        buffers: Running statistics of batch norms by node, updated in place while training. A batch norm
            without an entry uses the statistics of the batch, in training or not.
        constants: Values of `constant` nodes by node, each of the node's shape.
        real: What integers become where an operator makes real numbers of them. None: the type of the
            first parameter or input that consists of real numbers.
        progress: Share of the training that is done, 0 to 1: the chance of a scheduled `drop_path` is that much of `p`.
        edges: Source and target of each edge between examples, `[2, edges]`, for operators that pass messages; an
            undirected edge stands there in both directions. None: there is no data graph.
    """

    batch_size: int
    training: bool = False
    generator: torch.Generator | None = None
    buffers: Mapping[int, BatchNormBuffers] = field(default_factory=dict)
    constants: Mapping[int, Tensor] = field(default_factory=dict)
    real: torch.dtype | None = None
    progress: float = 1.0
    edges: Tensor | None = None


Parameters = Mapping[str, Tensor]
Kernel = Callable[[Sequence[Tensor], Parameters, RunContext], Tensor]
KernelMaker = Callable[[int, Attrs], Kernel]


def whole(attrs: Attrs, name: str) -> int:
    """An attribute that is an integer."""
    return cast(int, attrs[name])


def wholes(attrs: Attrs, name: str) -> tuple[int, ...]:
    """An attribute that is a tuple of integers."""
    return cast(tuple[int, ...], attrs[name])


def number(attrs: Attrs, name: str) -> float:
    """An attribute that is a number."""
    return cast(float, attrs[name])


def on_first(function: Callable[[Tensor], Tensor]) -> KernelMaker:
    """Kernel of a function of one tensor without settings."""
    return lambda node, attrs: lambda inputs, own, context: function(inputs[0])


def on_both(function: Callable[[Tensor, Tensor], Tensor]) -> KernelMaker:
    """Kernel of a function of two tensors without settings."""
    return lambda node, attrs: lambda inputs, own, context: function(inputs[0], inputs[1])


def real_numbers(tensor: Tensor, context: RunContext) -> Tensor:
    """The tensor as real numbers."""
    return tensor if tensor.is_floating_point() else tensor.to(context.real or torch.get_default_dtype())


def one_batch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors with one batch size: those that are the same for each example are repeated, without a copy."""
    size = max(tensor.shape[0] for tensor in tensors)
    return [
        tensor if tensor.shape[0] == size else tensor.expand(size, *tensor.shape[1:]) for tensor in tensors
    ]


def apply_given(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Apply `function(data, weight[, bias])` where weight and bias are inputs, computed from the data or not.

    Args:
        function: Takes data with a batch axis, weight and bias without.
        inputs: All with a batch axis, which has size one if the value is the same for each example.
    """
    if all(tensor.shape[0] == 1 for tensor in inputs[1:]):
        return function(inputs[0], *(tensor[0] for tensor in inputs[1:]))

    def single(data: Tensor, *given: Tensor) -> Tensor:
        return function(data.unsqueeze(0), *given).squeeze(0)

    result: Tensor = torch.vmap(single)(*one_batch(inputs))
    return result
