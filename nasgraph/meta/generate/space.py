"""Networks as points: flattened, aligned if wanted, and seen along their principal components.

Shape letters: B = networks, P = numbers of a network, K = latent size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.merge import align
from nasgraph.meta.generate.support import GenerateError
from nasgraph.meta.population import Stack, stack_states, unstack
from nasgraph.modules import State

MIN_VARIANCE = 1e-5


def shapes_of(stack: State) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of one network of a stack, by name in ascending order."""
    return {name: tuple(stack[name].shape[1:]) for name in sorted(stack)}


def flatten_stack(stack: State) -> Tensor:
    """The networks of a stack as rows `[B, P]`, tensors in ascending order of their names."""
    return torch.cat([stack[name].flatten(1) for name in sorted(stack)], dim=1)


def unflatten(rows_BP: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Stack:
    """The inverse of `flatten_stack`; running variances are kept positive."""
    parts = torch.split(rows_BP, [math.prod(shape) for shape in shapes.values()], dim=1)
    stack = {
        name: part.reshape(len(rows_BP), *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
    return {
        name: tensor.clamp(min=MIN_VARIANCE) if name.endswith("running_var") else tensor
        for name, tensor in stack.items()
    }


def align_stack(graph: ComputationalGraph, stack: State, *, to: State) -> Stack:
    """Each network of a stack with its units reordered to resemble `to` (Ainsworth et al. 2023). No function changes."""
    size = len(next(iter(stack.values())))
    return stack_states([align(graph, unstack(stack, row), to=to) for row in range(size)])


@dataclass(frozen=True, slots=True, eq=False)
class WeightSpace:
    """Principal components of a set of networks. Latents have mean 0 and, on that set, variance 1 in each direction.

    Attributes:
        graph: The architecture.
        shapes: Shapes of the tensors of a state.
        mean: The mean network.
        basis: Orthonormal directions.
        scale: Standard deviation along each.
        reference: What networks are aligned with before anything else; None: they are taken as they are.
    """

    graph: ComputationalGraph
    shapes: dict[str, tuple[int, ...]]
    mean: Tensor
    basis: Tensor
    scale: Tensor
    reference: Tensor | None

    @staticmethod
    def fit(graph: ComputationalGraph, stack: State, *, dim: int, alignment: bool) -> "WeightSpace":
        """Find the components of a stack.

        Args:
            graph: The architecture.
            stack: The networks, at least two.
            dim: How many components, at most; fewer where there are fewer networks.
            alignment: Align all networks with the first, and then with their mean.

        Raises:
            GenerateError: If there are fewer than two networks, or their weights are not finite.
        """
        size = len(next(iter(stack.values())))
        if size < 2 or dim < 1:
            raise GenerateError(f"Expected at least two networks and one component (got {size} and {dim})")
        for name, tensor in stack.items():
            if not torch.isfinite(tensor).all():
                raise GenerateError(f"'{name}' has numbers that are not finite in a training network")
        shapes, reference = shapes_of(stack), None
        if alignment:
            first = align_stack(graph, stack, to=unstack(stack, 0))
            middle = {name: tensor.mean(0) for name, tensor in first.items()}
            stack = align_stack(graph, first, to=middle)
            reference = flatten_stack({name: tensor[None] for name, tensor in middle.items()})[0]
        rows = flatten_stack(stack).double()
        mean = rows.mean(0)
        _, spread, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        count = min(dim, int((spread > spread[0] * 1e-6).sum()) or 1)
        scale = (spread[:count] / math.sqrt(size - 1)).clamp(min=1e-12)
        return WeightSpace(
            graph, shapes, mean.float(), directions[:count].float().contiguous(), scale.float(), reference
        )

    def rows(self, stack: State) -> Tensor:
        """Networks as rows `[B, P]`, aligned with the reference if there is one."""
        if self.reference is not None:
            to = unstack(unflatten(self.reference[None], self.shapes), 0)
            stack = align_stack(self.graph, stack, to=to)
        return flatten_stack(stack)

    def encode(self, stack: State) -> Tensor:
        """Latents `[B, K]` of networks."""
        return (self.rows(stack) - self.mean) @ self.basis.T / self.scale

    def decode(self, latent_BK: Tensor) -> Stack:
        """Networks of latents."""
        return unflatten(self.mean + (latent_BK * self.scale) @ self.basis, self.shapes)
