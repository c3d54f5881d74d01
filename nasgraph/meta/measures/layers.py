"""The linear maps of a network, and their size as operators.

Shape letters: B = networks, O, I = outputs and inputs of a linear layer.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph, Shape
from nasgraph.modules import RunContext, State
from nasgraph.modules.functional import KERNELS
from nasgraph.seeding import derive_seed

CONVOLUTIONS = tuple(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class LinearMap:
    """A layer that is linear in its input, but for its bias.

    Attributes:
        node: Its node.
        op: `linear` or a convolution.
        weight: Name of its weight.
        input_shape: What it reads, per example.
    """

    node: int
    op: str
    weight: str
    input_shape: Shape


def linear_maps(graph: ComputationalGraph) -> tuple[LinearMap, ...]:
    """All linear layers and convolutions with weights of their own, in the order of the nodes.

    Raises:
        UnsupportedOpError: If there is none.
    """
    found = tuple(
        LinearMap(index, node.op, f"n{index}.weight", graph.input_shapes(index)[0])
        for index, node in enumerate(graph.nodes)
        if node.op == "linear" or node.op in CONVOLUTIONS
    )
    if not found:
        raise UnsupportedOpError(
            "Measures of weights need a linear layer or a convolution, and there is none"
        )
    return found


def spectral_norms(
    graph: ComputationalGraph, stacked: State, *, tolerance: float = 1e-4, max_steps: int = 500
) -> Float[Tensor, "networks layers"]:
    """Largest singular value of every layer of `linear_maps`.

    That of a linear layer is exact. That of a convolution is that of the whole operator on inputs of the layer's size, with its padding and stride
    (not that of the kernel as a matrix, which is neither a bound from above nor from below), by power iteration until no network's value moves by more
    than `tolerance`, relative to it; power iteration comes from below. Same arguments, same result.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        tolerance: When to stop.
        max_steps: When to stop at the latest.
    """
    columns = []
    for layer in linear_maps(graph):
        weight_B = stacked[layer.weight].detach()
        if layer.op == "linear":
            columns.append(torch.linalg.matrix_norm(weight_B, ord=2))
        else:
            columns.append(_power_iteration(graph, layer, weight_B, tolerance, max_steps))
    return torch.stack(columns, dim=1)


def _power_iteration(
    graph: ComputationalGraph, layer: LinearMap, weight_B: Tensor, tolerance: float, max_steps: int
) -> Tensor:
    """Power iteration on the square of the operator, for all networks at once."""
    kernel = KERNELS[layer.op](layer.node, dict(graph.nodes[layer.node].attrs))

    def forward(weight: Tensor, x: Tensor) -> Tensor:
        return kernel([x.unsqueeze(0)], {"weight": weight}, RunContext(batch_size=1))[0]

    def squared(weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y, back, *_ = torch.func.vjp(lambda given: forward(weight, given), x)
        return y, back(y)[0]

    rng = torch.Generator().manual_seed(derive_seed(0, "power iteration"))
    start = torch.randn(layer.input_shape, generator=rng).to(weight_B)
    x_B = start.expand(len(weight_B), *layer.input_shape)
    axes = tuple(range(1, x_B.dim()))
    value_B = weight_B.new_zeros(len(weight_B))
    for _ in range(max_steps):
        size_B = torch.linalg.vector_norm(x_B, dim=axes, keepdim=True)
        x_B = x_B / size_B.clamp(min=torch.finfo(x_B.dtype).tiny)
        y_B, x_B = torch.vmap(squared)(weight_B, x_B)
        before_B, value_B = value_B, y_B.flatten(1).norm(dim=1)
        if ((value_B - before_B).abs() <= tolerance * value_B).all():
            break
    return value_B


def frobenius_norms(graph: ComputationalGraph, stacked: State) -> Float[Tensor, "networks layers"]:
    """Square root of the sum of squares of the weight of every layer of `linear_maps`; a shared kernel counts once."""
    return torch.stack(
        [stacked[layer.weight].detach().flatten(1).norm(dim=1) for layer in linear_maps(graph)], dim=1
    )
