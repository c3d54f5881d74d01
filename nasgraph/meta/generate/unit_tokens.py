"""Networks as sequences of tokens: one per hidden unit, with everything that belongs to it.

Shape letters: B = networks, P = numbers of a network, U = units of a group, L = numbers of a unit.
"""

import math

import torch
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.symmetry import symmetry_table


class UnitTokens:
    """Where the numbers of each hidden unit stand in a network that is flattened as `flatten_stack` does it.

    Each group of the symmetry table gives one token per unit: its incoming weights, bias, norm and outgoing weights. A weight between
    two groups stands in two tokens. What belongs to no unit is one more token. So a function of sets of tokens commutes with
    reordering the units of a network with one hidden group; with several groups only the place within a token tells units apart.

    Attributes:
        index: For each group (the last for what belongs to no unit) the places, `[U, L]`.
        count_P: In how many tokens each number stands.
    """

    def __init__(self, graph: ComputationalGraph, shapes: dict[str, tuple[int, ...]]) -> None:
        start, places = 0, {}
        for name, shape in shapes.items():
            places[name] = torch.arange(start, start + math.prod(shape)).reshape(shape)
            start += math.prod(shape)
        self.index: list[Tensor] = []
        for group in symmetry_table(graph).groups:
            if group.parent:
                continue
            parts = []
            for member in group.members:
                if member.parameter in places:
                    units = places[member.parameter].movedim(member.axis, 0)[member.places()]
                    parts.append(units.flatten(1))
            self.index.append(torch.cat(parts, dim=1))
        covered = torch.zeros(start)
        for each in self.index:
            covered.index_add_(0, each.flatten(), torch.ones(each.numel()))
        rest = torch.nonzero(covered == 0).flatten()
        if len(rest):
            self.index.append(rest[None])
            covered[rest] = 1
        self.count_P = covered

    def gather(self, rows_BP: Tensor) -> list[Tensor]:
        """Tokens of each group, `[B, U, L]`."""
        return [rows_BP[:, each] for each in self.index]

    def scatter(self, tokens: list[Tensor]) -> Tensor:
        """The inverse: rows `[B, P]`; a number that stands in several tokens becomes their mean."""
        rows = tokens[0].new_zeros(len(tokens[0]), len(self.count_P))
        for each, token in zip(self.index, tokens, strict=True):
            rows = rows.index_add(1, each.flatten(), token.flatten(1))
        return rows / self.count_P
