"""Which units to remove until a network is as fast as wanted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.edits.edited import EditError
from nasgraph.edits.removal import Removed, resized
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.symmetry import UnitGroup, symmetry_table


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """Groups of one size that lose as many units each, usually one. `orders`: their units, the weakest first;
    `scores`: of the weakest units of all, of the second weakest of all, and so on."""

    names: tuple[str, ...]
    orders: tuple[NDArray[np.int64], ...]
    scores: NDArray[np.float64]


def choose_units(
    graph: ComputationalGraph,
    scores: Mapping[str, Tensor],
    *,
    speed_up: float,
    min_units: int = 1,
    min_share: float = 0.0,
    round_to: int = 1,
    uniform: bool = False,
) -> dict[str, Int64[Tensor, " kept"]]:
    """The units that stay when the weakest go until the network has at most 1 / `speed_up` of its multiply-adds.

    Scores of all groups are ranked together, or, with `uniform`, all groups lose the same share of their units. Groups that can only lose
    units together, such as the channels within each head, do. Units that no group has a score for stay.

    Args:
        graph: A checked graph.
        scores: For groups by name, a score for each unit, the larger the better: see `importance`.
        speed_up: Multiply-adds before, divided by those that are allowed after. At least one.
        min_units: So many units of each group stay, at least.
        min_share: This share of each group's units stays, at least.
        round_to: Sizes of groups that become smaller are multiples of this, as far as their size before allows.
        uniform: Whether all groups lose the same share.

    Returns:
        For every group that becomes smaller the units that stay, ascending, as `prune_units` takes them.

    Raises:
        EditError: If a score belongs to no group or has the wrong shape or is not a number, a setting is out of bounds, or the
            target is out of reach; the message says how far these groups and limits can go.
    """
    _check_settings(speed_up, min_units, min_share, round_to)
    rankings = _rankings(graph, scores)
    sizes = [len(ranking.scores) for ranking in rankings]
    least = [min(size, max(min_units, int(np.ceil(min_share * size)))) for size in sizes]

    def removed(counts: Sequence[int]) -> Removed:
        found: dict[str, NDArray[np.int64]] = {}
        for ranking, size, low, count in zip(rankings, sizes, least, counts, strict=True):
            left = max(size - count, low)
            gone = size - min(size, -(-left // round_to) * round_to)
            found |= {n: o[:gone] for n, o in zip(ranking.names, ranking.orders, strict=True) if gone}
        return found

    counts_at, steps = _uniform(sizes) if uniform else _global([ranking.scores for ranking in rankings])
    chosen = _smallest(graph, lambda step: removed(counts_at(step)), steps, speed_up)
    groups = {group.name: group.size for group in symmetry_table(graph).groups}
    return {
        name: torch.from_numpy(np.setdiff1d(np.arange(groups[name]), gone)) for name, gone in chosen.items()
    }


def _check_settings(speed_up: float, min_units: int, min_share: float, round_to: int) -> None:
    if not speed_up >= 1:
        raise EditError(f"Expected a 'speed_up' of at least 1 (got {speed_up})")
    if min_units < 1 or round_to < 1:
        raise EditError(f"Expected 'min_units' and 'round_to' of at least 1 (got {min_units} and {round_to})")
    if not 0 <= min_share <= 1:
        raise EditError(f"Expected 'min_share' between 0 and 1 (got {min_share})")


def _smallest(
    graph: ComputationalGraph, removed: Callable[[int], Removed], steps: int, speed_up: float
) -> Removed:
    """The first of the steps, each of which removes more than the last, that reaches the target; by bisection."""
    dense = cost_of(graph).multiply_adds

    def cost(step: int) -> int:
        return cost_of(resized(graph, removed(step))[0]).multiply_adds

    most = cost(steps)
    if most * speed_up > dense:
        reach = "no further" if most == dense else f"{dense / max(most, 1):.3g} times fewer"
        raise EditError(
            f"Cannot reach {speed_up:g} times fewer multiply-adds: with every group at its smallest size there are {most:,} of "
            f"{dense:,} left ({reach}). Lower 'speed_up', 'min_units', 'min_share' or 'round_to', or score more groups"
        )
    low, high = 0, steps  # the target is reached at `high`, and maybe before
    while low < high:
        middle = (low + high) // 2
        if cost(middle) * speed_up <= dense:
            high = middle
        else:
            low = middle + 1
    return removed(high)


def _global(scores: Sequence[NDArray[np.float64]]) -> tuple[Callable[[int], Sequence[int]], int]:
    """Counts after the first so many units of one ranking."""
    owner = np.repeat(np.arange(len(scores)), [len(each) for each in scores])
    owner = owner[np.argsort(np.concatenate([*scores, np.zeros(0)]), kind="stable")]
    return lambda step: np.bincount(owner[:step], minlength=len(scores)).tolist(), len(owner)


def _uniform(sizes: Sequence[int]) -> tuple[Callable[[int], Sequence[int]], int]:
    """Counts after so many thousandths of each group."""
    return lambda step: [size * step // 1000 for size in sizes], 1000


# ---- what can be ranked


def _rankings(graph: ComputationalGraph, scores: Mapping[str, Tensor]) -> list[_Ranking]:
    sizes = {group.name: group.size for group in symmetry_table(graph).groups}
    values: dict[str, NDArray[np.float64]] = {}
    for name, tensor in scores.items():
        if name not in sizes:
            raise EditError(
                f"There are scores for '{name}', which is no group. There are: {', '.join(sizes)}"
            )
        if tuple(tensor.shape) != (sizes[name],):
            raise EditError(
                f"Expected {sizes[name]} scores for '{name}' (got a tensor of shape {tuple(tensor.shape)})"
            )
        values[name] = tensor.detach().cpu().numpy().astype(np.float64)
        if not np.isfinite(values[name]).all():
            raise EditError(f"Scores for '{name}' are not finite")
    found = []
    for names in removable(graph):
        if all(name in values for name in names):
            orders = tuple(np.argsort(values[name], kind="stable") for name in names)
            ranked = [values[name][order] for name, order in zip(names, orders, strict=True)]
            found.append(_Ranking(names, orders, np.mean(ranked, axis=0)))
    return found


@lru_cache(maxsize=64)
def removable(graph: ComputationalGraph) -> tuple[tuple[str, ...], ...]:
    """Groups from which units can be removed: each by itself, or together as many from each of several.

    Found by trying with one unit. Groups of which nothing can be removed are left out.
    """
    table = symmetry_table(graph)
    alone, others = list[tuple[str, ...]](), dict[object, list[UnitGroup]]()
    for group in table.groups:
        if _can_lose_one(graph, (group,)):
            alone.append((group.name,))
        else:
            where = frozenset((member.parameter, member.axis) for member in group.members)
            others.setdefault((group.parent, group.size, where), []).append(group)
    together = [
        tuple(group.name for group in groups)
        for groups in others.values()
        if len(groups) > 1 and _can_lose_one(graph, groups)
    ]
    return (*alone, *together)


def _can_lose_one(graph: ComputationalGraph, groups: Sequence[UnitGroup]) -> bool:
    last = {group.name: np.array([group.size - 1]) for group in groups}
    try:
        resized(graph, last)
    except EditError:
        return False
    return True
