"""One hypernetwork base: conditioning vectors in, the named parameters of any graph out.

Letters: B = conditions, D = numbers in a condition, E = size of an encoded condition, P = parameters of the target.
"""

from math import pi, sqrt

import torch
from torch import Tensor, nn

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.hypernetworks.config import HypernetworkConfig
from nasgraph.meta.hypernetworks.generators import make_generator
from nasgraph.meta.hypernetworks.target import Target


def encode_condition(condition: Tensor) -> Tensor:
    """Numbers from 0 to 1 as cosine and sine of an angle from 0 to 90 degrees: `[..., D]` to `[..., 2 D]`.

    The input encoding of Ortiz et al. 2023, "Magnitude invariant parametrizations improve hypernetwork learning", section 4, times the square
    root of two: every result has a mean square of one, whatever the numbers.
    """
    angle = condition * (pi / 2)
    return torch.cat([angle.cos(), angle.sin()], dim=-1) * sqrt(2)


class Hypernetwork(nn.Module):
    """Parameters of a target network as a function of a conditioning vector.

    With MIP, the default, `theta(z) = theta_0 + s * h(cos, sin)`: `theta_0` are ordinary initial parameters that learn along, `s` the usual
    size of each tensor's numbers, `h` the generator. Without, `theta(z) = c + s * h(z)` where `c` is one for the scales of norms and
    zero elsewhere: the size of what is generated follows the size of `z`.

    Guaranteed: every parameter of the graph, each once, in its exact shape; differentiable in the condition and in the hypernetwork. Running
    statistics and constants are not generated: give them beside, or run with the statistics of the batch. No global random state is touched.

    Args:
        graph: The target: any executable graph.
        config: Shape of the hypernetwork.
        seed: Seed of its initial parameters, those of the target among them.

    Raises:
        NasGraphError: If the graph has no parameters.
        UnsupportedOpError: If a node of the graph is opaque.
    """

    base: Tensor
    scale: Tensor

    def __init__(self, graph: ComputationalGraph, config: HypernetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.target = Target(graph)
        rng = torch.Generator().manual_seed(seed)
        encoded = config.condition_dim * (2 if config.mip else 1)
        self.generator = make_generator(self.target, encoded, config, rng)
        if config.mip:
            self.base = nn.Parameter(self.target.initial(seed=seed))
        else:
            self.register_buffer("base", self.target.neutral(), persistent=False)
        self.register_buffer("scale", self.target.scale(), persistent=False)

    @property
    def graph(self) -> ComputationalGraph:
        """The target's graph."""
        return self.target.graph

    @property
    def num_parameters(self) -> int:
        """How many numbers the hypernetwork itself learns, without conditions."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flat(self, condition: Tensor) -> Tensor:
        """Parameters as one vector each: `[B, P]` for conditions `[B, D]`, `[P]` for one condition `[D]`.

        Raises:
            NasGraphError: If a condition has another length.
        """
        if condition.ndim not in (1, 2) or condition.shape[-1] != self.config.condition_dim:
            raise NasGraphError(
                f"Expected conditions of {self.config.condition_dim} numbers, [B, {self.config.condition_dim}] or "
                f"[{self.config.condition_dim}] (got shape {tuple(condition.shape)})"
            )
        if condition.ndim == 1:
            return self.flat(condition.unsqueeze(0))[0]
        parameters: Tensor = self.base + self.scale * self.generator(self._encoded(condition))
        return parameters

    def _encoded(self, condition_BD: Tensor) -> Tensor:
        if not self.config.mip:
            return condition_BD
        is_free = self.config.condition == "free"
        return encode_condition(torch.sigmoid(condition_BD) if is_free else condition_BD)

    def forward(self, condition: Tensor) -> dict[str, Tensor]:
        """Named parameters: `[B, *shape]` for conditions `[B, D]`, exactly the graph's shapes for one condition `[D]`.

        Raises:
            NasGraphError: If a condition has another length.
        """
        return self.target.split(self.flat(condition))
