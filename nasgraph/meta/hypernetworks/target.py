"""The target of a hypernetwork: which tensors one long vector of numbers becomes, and how large its numbers should be.

Letters: B = conditions, P = parameters of the target.
"""

from collections.abc import Mapping
from functools import cached_property
from math import prod, sqrt

import torch
from torch import Tensor

from nasgraph.errors import NasGraphError, UnsupportedOpError
from nasgraph.ir import ComputationalGraph, ParameterSpec
from nasgraph.modules import initial_parameters


class Target:
    """The parameters of a graph laid out as one vector, tensor after tensor in the order of the graph.

    Args:
        graph: Any executable graph with parameters. Running statistics and constants are not parameters: they are no part of the vector.

    Raises:
        NasGraphError: If the graph has no parameters.
        UnsupportedOpError: If a node is opaque.
    """

    def __init__(self, graph: ComputationalGraph) -> None:
        if not graph.is_executable:
            opaque = next(
                (index, node.attr("name")) for index, node in enumerate(graph.nodes) if node.op == "opaque"
            )
            raise UnsupportedOpError(
                f"Cannot generate parameters of '{opaque[1]}' (node {opaque[0]}): it is not part of the graph language"
            )
        if not graph.parameters:
            raise NasGraphError("Expected a graph with parameters: there is nothing to generate for this one")
        self.graph = graph
        self.shapes = {name: spec.shape for name, spec in graph.parameters.items()}
        self.sizes = {name: prod(shape) for name, shape in self.shapes.items()}

    @cached_property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(self.sizes.values())

    def split(self, flat_BP: Tensor) -> dict[str, Tensor]:
        """Named tensors `[B, *shape]` of vectors `[B, P]`; of one vector `[P]` tensors of exactly the graph's shapes. Views."""
        lead = flat_BP.shape[:-1]
        parts = torch.split_with_sizes(flat_BP, list(self.sizes.values()), dim=-1)
        return {
            name: part.reshape(*lead, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def join(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The vector `[P]` of named tensors; the inverse of `split`.

        Raises:
            NasGraphError: If a tensor is missing or has another shape.
        """
        for name, shape in self.shapes.items():
            found = parameters.get(name)
            if found is None or tuple(found.shape) != shape:
                got = "nothing" if found is None else tuple(found.shape)
                raise NasGraphError(f"Expected '{name}' of shape {shape} (got {got})")
        return torch.cat([parameters[name].reshape(-1) for name in self.shapes])

    def initial(self, *, seed: int) -> Tensor:
        """Ordinary initial parameters `[P]`, see `nasgraph.modules.initial_parameters`."""
        return self.join(initial_parameters(self.graph, seed=seed))

    def neutral(self) -> Tensor:
        """A vector `[P]` that is one for the scales of norms and zero elsewhere."""
        specs = self.graph.parameters
        return self.join(
            {
                name: torch.full(spec.shape, 1.0 if spec.role == "scale" else 0.0)
                for name, spec in specs.items()
            }
        )

    def scale(self) -> Tensor:
        """The standard deviation `[P]` that ordinary initial parameters would have where they are random.

        `1 / sqrt(3 fan-in)` for weights and biases (uniform in +-1/sqrt(fan-in), torch's default), one for embeddings, and 0.02 for
        free parameters; scales and shifts of norms, which do not start at random, count as 0.1.
        """
        owner, fan_in = "", 1
        values = {}
        for name, spec in self.graph.parameters.items():
            if spec.role == "weight":
                owner, fan_in = name.split(".")[0], spec.fan_in
            is_its = name.split(".")[0] == owner
            values[name] = torch.full(spec.shape, _deviation(spec, fan_in if is_its else spec.fan_in))
        return self.join(values)


def _deviation(spec: ParameterSpec, fan_in: int) -> float:
    match spec.role:
        case "weight" | "bias":
            return 1 / sqrt(3 * max(fan_in, 1))
        case "embedding":
            return 1.0
        case "position":
            return 0.02
        case _:
            return 0.1
