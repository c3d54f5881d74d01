"""The cheapest view of a network: seven numbers per tensor of weights.

Unterthiner, Keysers, Gelly, Bousquet and Tolstikhin, "Predicting Neural Network Accuracy from Weights", 2020: mean, variance and
five quantiles of every tensor, read by boosted trees, tell how accurate a network is. The numbers do not change when units are
permuted. They change when a width does: `pooled_statistics` has columns that mean the same for every architecture.

Shape letters: B = networks, P = values of one tensor, S = statistics, C = columns.
"""

from collections.abc import Mapping
from math import log, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.ir import ComputationalGraph, ParameterSpec
from nasgraph.meta.views.stack import check_stack
from nasgraph.modules import State, is_averaged, is_statistic

STATISTICS = ("mean", "variance", "minimum", "quartile1", "median", "quartile3", "maximum")
"""What the seven numbers of a tensor are."""

ROLES = ("weight", "bias", "scale", "shift", "running_mean", "running_var", "embedding", "position")
"""Roles of tensors, in the order of the columns of `pooled_statistics`."""

PLACES = ("first", "hidden", "hidden_spread", "last")
"""Which tensors of a role a block of columns describes: the first, the mean over those between the first and the last, their
standard deviation, and the last. The only tensor of a role is its first and its last."""


def tensor_statistics(x_BP: Float[Tensor, "networks values"]) -> Float[Tensor, "networks statistics"]:
    """Mean, variance (over all values, not the estimate of a sample), and quantiles 0, 1/4, 1/2, 3/4, 1 with linear interpolation.

    What is too large for the numbers' type, as the variance of weights that diverged, becomes the largest number of it.
    """
    ordered_BP = x_BP.sort(dim=1).values
    last = x_BP.shape[1] - 1
    exact_BP = x_BP.double()
    columns = [exact_BP.mean(1), exact_BP.var(1, correction=0)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        below = int(share * last)
        low_B, high_B = ordered_BP[:, below], ordered_BP[:, min(below + 1, last)]
        columns.append(low_B + (share * last - below) * (high_B - low_B))
    limit = torch.finfo(x_BP.dtype).max
    return torch.stack(columns, dim=1).clamp(-limit, limit).to(x_BP.dtype)


def statistics_of_stack(graph: ComputationalGraph, stacked: State) -> Float[Tensor, "networks columns"]:
    """Seven statistics of each tensor that is learnt or measured, in the order of `statistics_columns`.

    Raises:
        StateError: If the stack does not fit the graph, or the network has no parameters.
    """
    check_stack(graph, stacked)
    return torch.cat([tensor_statistics(stacked[name].flatten(1)) for name in _read(graph, stacked)], dim=1)


def statistics(graph: ComputationalGraph, state: State) -> Float[Tensor, " columns"]:
    """The row of one network in `statistics_of_stack`."""
    return statistics_of_stack(graph, _alone(state))[0]


def statistics_columns(graph: ComputationalGraph, state: State) -> tuple[str, ...]:
    """Names of the columns of `statistics_of_stack`, such as `n3.weight/variance`. `state` may be a stack."""
    return tuple(f"{name}/{each}" for name in _read(graph, state) for each in STATISTICS)


def pooled_statistics_of_stack(
    graph: ComputationalGraph, stacked: State, *, by_fan_in: bool = True
) -> Float[Tensor, "networks columns"]:
    """Statistics in columns that every architecture shares, named by `POOLED_COLUMNS`.

    For each role of a tensor: the statistics of the first such tensor, the mean and the standard deviation over those between, and
    those of the last; and the logarithm of one plus the number of values of that role. A role that the architecture does not have gives zeros.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        by_fan_in: Whether weights are multiplied by the square root of the number of inputs that they sum over, and those of a wide layer
            so brought to the size of those of a narrow one.

    Raises:
        StateError: If the stack does not fit the graph, or the network has no parameters.
    """
    count = check_stack(graph, stacked)
    by_role: dict[str, list[Tensor]] = {role: [] for role in ROLES}
    sizes = dict.fromkeys(ROLES, 0)
    for name in _read(graph, stacked):
        spec, x_BP = graph.parameters.get(name), stacked[name].flatten(1)
        role = _role(name, spec)
        scale = sqrt(spec.fan_in) if by_fan_in and spec is not None and role == "weight" else 1.0
        by_role[role].append(tensor_statistics(x_BP * scale))
        sizes[role] += x_BP.shape[1]
    like = next(iter(stacked.values()))
    blocks = [_pooled(by_role[role], like=like.new_zeros(count, len(STATISTICS))) for role in ROLES]
    logs_BR = like.new_tensor([log(1 + sizes[role]) for role in ROLES]).expand(count, -1)
    return torch.cat([*blocks, logs_BR], dim=1)


def pooled_statistics(
    graph: ComputationalGraph, state: State, *, by_fan_in: bool = True
) -> Float[Tensor, " columns"]:
    """The row of one network in `pooled_statistics_of_stack`."""
    return pooled_statistics_of_stack(graph, _alone(state), by_fan_in=by_fan_in)[0]


POOLED_COLUMNS: tuple[str, ...] = (
    *(f"{role}/{place}/{each}" for role in ROLES for place in PLACES for each in STATISTICS),
    *(f"{role}/log_size" for role in ROLES),
)
"""Names of the columns of `pooled_statistics`."""


def _pooled(found: list[Tensor], *, like: Tensor) -> Tensor:
    if not found:
        return torch.cat([like] * len(PLACES), dim=1)
    between = torch.stack(found[1:-1] if len(found) > 2 else found).double()
    limit = torch.finfo(like.dtype).max
    spread = between.std(0, correction=0).clamp(max=limit)
    return torch.cat([found[0], between.mean(0).to(like), spread.to(like), found[-1]], dim=1)


def _read(graph: ComputationalGraph, state: State) -> list[str]:
    """Tensors that are read, in an order that the graph decides: parameters first, then running statistics."""
    return [*graph.parameters, *sorted((name for name in state if is_statistic(name)), key=_place)]


def _place(name: str) -> tuple[int, str]:
    node, own = name[1:].split(".")
    return int(node), own


def _role(name: str, spec: ParameterSpec | None) -> str:
    return name.rsplit(".", 1)[-1] if spec is None else spec.role


def _alone(state: State) -> Mapping[str, Tensor]:
    return {name: tensor.unsqueeze(0) for name, tensor in state.items()}


def flat_of_stack(graph: ComputationalGraph, stacked: State) -> Float[Tensor, "networks parameters"]:
    """All parameters and running statistics as one vector per network: the baseline that knows no symmetry.

    Raises:
        StateError: If the stack does not fit the graph, or the network has no parameters.
    """
    check_stack(graph, stacked)
    names = [name for name in _read(graph, stacked) if is_averaged(name, stacked[name])]
    return torch.cat([stacked[name].flatten(1) for name in names], dim=1)


def flat(graph: ComputationalGraph, state: State) -> Float[Tensor, " parameters"]:
    """The row of one network in `flat_of_stack`."""
    return flat_of_stack(graph, _alone(state))[0]


def low_rank_singular_values(
    up: Float[Tensor, "*networks outputs rank"], down: Float[Tensor, "*networks rank inputs"]
) -> Float[Tensor, "*networks rank"]:
    """Singular values of low-rank updates `up @ down`, largest first, without forming the products.

    They are the same for `(up @ R, inverse(R) @ down)` with any invertible R, which is the same update: a view that respects
    the symmetry of low-rank adapters (Putterman, Lim, Gelberg, Jegelka and Maron, "Learning on LoRAs", 2024). Two QR decompositions
    and a decomposition of a `rank x rank` matrix, in double precision.

    Args:
        up: Left factors; `outputs >= rank`.
        down: Right factors; `inputs >= rank`.

    Raises:
        ValueError: If the ranks differ.
    """
    if up.shape[-1] != down.shape[-2]:
        raise ValueError(f"Expected factors of one rank (got {up.shape[-1]} and {down.shape[-2]})")
    left = torch.linalg.qr(up.double()).R
    right = torch.linalg.qr(down.double().mT).R
    values: Tensor = torch.linalg.svdvals(left @ right.mT)
    return values.to(up.dtype)
