"""Rescaling units: other weights, the same function."""

from collections.abc import Mapping
from math import log

import torch
from torch import Tensor

from nasgraph.symmetry.table import SymmetryTable, UnitGroup


def rescale_units(
    table: SymmetryTable, state: Mapping[str, Tensor], factors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Multiply units where they are made and divide them where they are read. The network's function stays as it is, up to rounding.

    Differentiable in the state and in the factors.

    Args:
        table: Of the network's graph.
        state: Parameters, and running statistics where there are any, by name. Not changed; what is not rescaled is shared.
        factors: For each group that is to be rescaled, by its name, a factor for each unit: positive where the group's scaling is
            "positive", 1 or -1 where it is "sign".

    Raises:
        KeyError: If there is no such group.
        ValueError: If a group cannot be rescaled, a factor is not allowed, or `state` lacks a parameter of the group.
    """
    result = dict(state)
    for name, given in factors.items():
        group = table.group(name)
        chosen = torch.as_tensor(given)
        _check(group, chosen)
        for member in group.members:
            if not member.power:
                continue
            if member.parameter not in result:
                raise ValueError(f"The state has no parameter '{member.parameter}', which '{name}' rescales")
            tensor = result[member.parameter]
            places = member.places()
            along = tensor.new_ones(tensor.shape[member.axis])
            values = (chosen.to(tensor) ** member.power).unsqueeze(1).expand_as(places)
            along = along.index_put((places.flatten().to(tensor.device),), values.flatten())
            shape = [-1 if axis == member.axis else 1 for axis in range(tensor.ndim)]
            result[member.parameter] = tensor * along.reshape(shape)
    return result


def _check(group: UnitGroup, factors: Tensor) -> None:
    if group.scaling == "none":
        raise ValueError(
            f"Units of '{group.name}' cannot be rescaled: what they pass commutes with no factor, or they are blocks"
        )
    if factors.shape != (group.size,):
        raise ValueError(
            f"Expected {group.size} factors for '{group.name}' (got a tensor of shape {tuple(factors.shape)})"
        )
    if group.scaling == "positive" and not bool(((factors > 0) & factors.isfinite()).all()):
        raise ValueError(f"Expected positive factors for '{group.name}' (got {factors.tolist()!r:.80})")
    if group.scaling == "sign" and not bool((factors.abs() == 1).all()):
        raise ValueError(f"Expected factors of 1 or -1 for '{group.name}' (got {factors.tolist()!r:.80})")


def random_factors(
    table: SymmetryTable, *, seed: int, low: float = 0.1, high: float = 10.0
) -> dict[str, Tensor]:
    """Random factors for all groups that can be rescaled, in double precision: the same seed, the same factors.

    Args:
        table: Of a graph.
        seed: Of the factors.
        low: Smallest positive factor; the logarithms are uniform. Signs are fair.
        high: Largest.

    Raises:
        ValueError: If not 0 < low <= high.
    """
    if not 0 < low <= high:
        raise ValueError(f"Expected 0 < 'low' <= 'high' (got {low} and {high})")
    rng = torch.Generator().manual_seed(seed)
    factors = {}
    for group in table.groups:
        drawn = torch.rand(group.size, generator=rng, dtype=torch.float64)
        if group.scaling == "positive":
            factors[group.name] = (log(low) + (log(high) - log(low)) * drawn).exp()
        elif group.scaling == "sign":
            factors[group.name] = torch.where(drawn < 0.5, -1.0, 1.0).double()
    return factors
