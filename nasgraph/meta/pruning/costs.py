"""Multiply-adds and parameters of a network as a function of the widths of its groups of units, and their expectation.

The weight of a convolution or linear map has one axis per group that it reads or makes, so what a layer costs is a product of
widths: a polynomial that the symmetry table and the cost of the whole graph determine. Nothing is built or run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.edits import EditError
from nasgraph.edits.removal import resized
from nasgraph.ir import OPS, ComputationalGraph, cost_of
from nasgraph.symmetry import SymmetryTable, UnitGroup, symmetry_table

Widths = Mapping[str, int]
"""Number of units by name of the group. A group that is left out keeps all of its units."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis with `fixed` places and `counts[k]` places for each unit of group k."""

    fixed: int
    counts: tuple[tuple[int, int], ...]

    def size(self, widths: Sequence[int]) -> int:
        return self.fixed + sum(count * widths[group] for group, count in self.counts)


@dataclass(frozen=True, slots=True)
class _Term:
    """A parameter: its axes, and the multiply-adds that each of its elements takes part in."""

    node: int
    uses: int
    axes: tuple[_Axis, ...]


@dataclass(frozen=True)
class WidthCost:
    """What a network costs at other widths. Made by `width_cost`.

    Exact at all widths: layers with one weight (or several of which each element is used as often) count by their widths. What
    remains (products of activations, such as attention) is constant: groups that would change it are not among those here.

    Attributes:
        groups: Names of the groups that may be cut by themselves, in the order of the table. Groups nested in others
            (channels of a head, channels within groups of a convolution) and those that contain others are not among them, nor are
            those by whose width products of activations cost more or less.
        sizes: Their numbers of units.
        dense: Multiply-adds at full width.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    dense: int
    _terms: tuple[_Term, ...]
    _constants: tuple[tuple[int, int], ...]  # (node, multiply-adds that do not depend on widths)

    def full(self) -> dict[str, int]:
        """The widths of the network itself."""
        return dict(zip(self.groups, self.sizes, strict=True))

    def multiply_adds(self, widths: Widths, *, without: frozenset[int] = frozenset()) -> int:
        """Multiply-adds at these widths; `without`: nodes that are left out."""
        sizes = self._sizes(widths)
        total = sum(cost for node, cost in self._constants if node not in without)
        return total + sum(
            term.uses * prod(axis.size(sizes) for axis in term.axes)
            for term in self._terms
            if term.uses and term.node not in without
        )

    def num_parameters(self, widths: Widths, *, without: frozenset[int] = frozenset()) -> int:
        """Elements of all parameters at these widths."""
        sizes = self._sizes(widths)
        return sum(
            prod(axis.size(sizes) for axis in term.axes) for term in self._terms if term.node not in without
        )

    def expected(self, means: Tensor, variances: Tensor, alive: Mapping[int, Tensor] | None = None) -> Tensor:
        """Expected multiply-adds if each group's width is drawn by itself. Differentiable.

        Exact for layers that read and make units (a group that stands on two axes brings its variance); a weight with three
        such axes, as of a bilinear map, is taken without covariances.

        Args:
            means: Mean width of each group `[groups]`.
            variances: Variance of each width `[groups]`.
            alive: Probability that a node is there at all, for nodes that may be left out.

        Returns:
            A number.
        """
        alive = alive or {}
        total = means.new_zeros(())
        for node, cost in self._constants:
            total = total + cost * alive.get(node, 1.0)
        for term in self._terms:
            if term.uses:
                total = total + term.uses * _expected_product(term.axes, means, variances) * alive.get(
                    term.node, 1.0
                )
        return total

    def _sizes(self, widths: Widths) -> list[int]:
        unknown = sorted(set(widths) - set(self.groups))
        if unknown:
            raise EditError(
                f"No group '{unknown[0]}' that can be cut by itself. There are: {', '.join(self.groups)}"
            )
        sizes = [widths.get(name, size) for name, size in zip(self.groups, self.sizes, strict=True)]
        for name, size, full in zip(self.groups, sizes, self.sizes, strict=True):
            if not 1 <= size <= full:
                raise EditError(f"Expected from 1 to {full} units for '{name}' (got {size})")
        return sizes


def _expected_product(axes: Sequence[_Axis], means: Tensor, variances: Tensor) -> Tensor:
    constant = prod(axis.fixed for axis in axes if not axis.counts)
    moving = [axis for axis in axes if axis.counts]
    value = means.new_tensor(float(constant))
    for axis in moving:
        value = value * (axis.fixed + sum(count * means[group] for group, count in axis.counts))
    if len(moving) == 2:
        first, second = (dict(axis.counts) for axis in moving)
        for group in first.keys() & second.keys():
            value = value + constant * first[group] * second[group] * variances[group]
    return value


@lru_cache(maxsize=32)
def width_cost(graph: ComputationalGraph) -> WidthCost:
    """Derive what a network costs at other widths from its symmetry table.

    Args:
        graph: A checked graph.

    Raises:
        EditError: If no group of the graph can be cut by itself.
    """
    groups = separate_groups(symmetry_table(graph))
    groups = tuple(group for group in groups if _is_exact(graph, _cost(graph, groups), group))
    if not groups:
        raise EditError("No group of units of this network can be cut by itself: there is nothing to prune")
    return _cost(graph, groups)


def _cost(graph: ComputationalGraph, groups: Sequence[UnitGroup]) -> WidthCost:
    terms, counted = _terms(graph, groups)
    constants = tuple(
        (index, cost) for index, cost in enumerate(_node_costs(graph)) if cost and index not in counted
    )
    return WidthCost(
        groups=tuple(group.name for group in groups),
        sizes=tuple(group.size for group in groups),
        dense=cost_of(graph).multiply_adds,
        _terms=terms,
        _constants=constants,
    )


def _is_exact(graph: ComputationalGraph, cost: WidthCost, group: UnitGroup) -> bool:
    """Whether the group can really be cut, and costs then what the terms say: not if products of activations depend on it."""
    width = (group.size + 1) // 2
    try:
        cut, _ = resized(graph, {group.name: np.arange(width, group.size)})
    except EditError:
        return False
    return cost_of(cut).multiply_adds == cost.multiply_adds({group.name: width})


def separate_groups(table: SymmetryTable) -> tuple[UnitGroup, ...]:
    """The groups that share no place with another: neither nested in one nor around one."""
    taken: dict[tuple[str, int], list[tuple[str, frozenset[int]]]] = {}
    for group in table.groups:
        for member in group.members:
            places = frozenset(member.places().flatten().tolist())
            taken.setdefault((member.parameter, member.axis), []).append((group.name, places))
    shared: set[str] = {group.parent for group in table.groups} | {g.name for g in table.groups if g.parent}
    for entries in taken.values():
        for i, (name, places) in enumerate(entries):
            for other, more in entries[i + 1 :]:
                if name != other and places & more:
                    shared |= {name, other}
    return tuple(group for group in table.groups if group.name not in shared)


def _node_costs(graph: ComputationalGraph) -> list[int]:
    return [
        OPS[node.op].multiply_adds(dict(node.attrs), graph.input_shapes(index), graph.shapes[index])
        for index, node in enumerate(graph.nodes)
    ]


def _terms(
    graph: ComputationalGraph, groups: Sequence[UnitGroup]
) -> tuple[tuple[_Term, ...], frozenset[int]]:
    """One term per parameter, and the nodes whose cost they hold."""
    counts: dict[tuple[str, int], dict[int, int]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            places = counts.setdefault((member.parameter, member.axis), {})
            places[number] = places.get(number, 0) + member.block
    costs = _node_costs(graph)
    weights: dict[int, list[str]] = {}
    for name, spec in graph.parameters.items():
        if spec.role == "weight" and len(spec.shape) > 1:
            weights.setdefault(int(name[1:].split(".")[0]), []).append(name)
    uses = {
        node: costs[node] // sum(prod(graph.parameters[name].shape) for name in names)
        for node, names in weights.items()
        if costs[node] and costs[node] % sum(prod(graph.parameters[name].shape) for name in names) == 0
    }
    terms = []
    for name, spec in graph.parameters.items():
        node = int(name[1:].split(".")[0])
        axes = []
        for axis, size in enumerate(spec.shape):
            here = counts.get((name, axis), {})
            moving = sum(count * groups[number].size for number, count in here.items())
            axes.append(_Axis(size - moving, tuple(sorted(here.items()))))
        terms.append(_Term(node, uses.get(node, 0) if name in weights.get(node, ()) else 0, tuple(axes)))
    return tuple(terms), frozenset(uses)


def ratio_widths(cost: WidthCost, ratios: Sequence[float]) -> dict[str, int]:
    """Widths for one ratio per group, rounded, of at least one unit."""
    return {
        name: min(size, max(1, round(ratio * size)))
        for name, size, ratio in zip(cost.groups, cost.sizes, ratios, strict=True)
    }


def uniform_widths(cost: WidthCost, target: float) -> dict[str, int]:
    """All groups scaled by one ratio: the largest widths whose multiply-adds are at most `target`.

    Raises:
        EditError: If even one unit per group costs more.
    """
    low, high = 0.0, 1.0
    if cost.multiply_adds(ratio_widths(cost, [high] * len(cost.groups))) <= target:
        return cost.full()
    _check_reachable(cost, target, least=0.0)
    for _ in range(40):
        middle = (low + high) / 2
        fits = cost.multiply_adds(ratio_widths(cost, [middle] * len(cost.groups))) <= target
        low, high = (middle, high) if fits else (low, middle)
    return ratio_widths(cost, [low] * len(cost.groups))


def random_widths(
    cost: WidthCost,
    target: float,
    *,
    rng: np.random.Generator,
    tolerance: float = 0.05,
    least: float = 0.3,
    attempts: int = 10_000,
) -> dict[str, int]:
    """A random width per group at given multiply-adds: ratios uniform in [least, 1], drawn until the cost fits.

    After half of the attempts without success the drawn ratios are scaled by one common factor before they are rounded, which
    reaches narrow targets too (He et al. 2022, "Network Pruning Spaces", reject until within 1 %).

    Args:
        cost: Of the network.
        target: Wanted multiply-adds.
        rng: Source of the choice.
        tolerance: Largest relative distance from `target`.
        least: Smallest ratio.
        attempts: After how many draws to give up.

    Raises:
        EditError: If none fits.
    """
    _check_reachable(cost, target, least=least)
    for attempt in range(attempts):
        ratios = rng.uniform(least, 1.0, len(cost.groups))
        widths = ratio_widths(cost, ratios.tolist())
        if attempt >= attempts // 2:
            widths = _scaled(cost, ratios, target, least=least)
        if abs(cost.multiply_adds(widths) - target) <= tolerance * target:
            return widths
    raise EditError(f"No widths within {tolerance:.1%} of {target:,.0f} multiply-adds in {attempts:,} draws")


def _check_reachable(cost: WidthCost, target: float, *, least: float) -> None:
    smallest = cost.multiply_adds(ratio_widths(cost, [least] * len(cost.groups)))
    if smallest > target:
        raise EditError(
            f"Expected a target of at least {smallest:,} multiply-adds, the cost of the smallest widths (got {target:,.0f})"
        )


def fit_widths(
    cost: WidthCost,
    widths: Widths,
    target: float,
    *,
    least: float,
    without: frozenset[int] = frozenset(),
) -> dict[str, int]:
    """Scale widths by one common factor to given multiply-adds, and then single groups by single units while that comes nearer.

    The proportions of the widths stay, as far as no group is at an end of its range.

    Args:
        cost: Of the network.
        widths: Where to begin; a group that is left out has all of its units.
        target: Wanted multiply-adds.
        least: Smallest ratio of each group.
        without: Nodes that are left out.
    """
    ratios = np.array(
        [widths.get(name, size) / size for name, size in zip(cost.groups, cost.sizes, strict=True)]
    )
    floors = ratio_widths(cost, [least] * len(cost.groups))
    best = _scaled(cost, ratios, target, least=least, without=without)
    distance = abs(cost.multiply_adds(best, without=without) - target)
    while True:
        moves = []
        for name, size in zip(cost.groups, cost.sizes, strict=True):
            for width in (best[name] - 1, best[name] + 1):
                if floors[name] <= width <= size:
                    changed = {**best, name: width}
                    moves.append((abs(cost.multiply_adds(changed, without=without) - target), name, changed))
        nearest = min(moves, key=lambda move: move[:2], default=(distance, "", best))
        if nearest[0] >= distance:
            return best
        distance, _, best = nearest


def _scaled(
    cost: WidthCost,
    ratios: NDArray[np.float64],
    target: float,
    *,
    least: float,
    without: frozenset[int] = frozenset(),
) -> dict[str, int]:
    """The largest common factor, and the widths by it, that cost no more than `target`."""
    low, high = least, 1 / least
    for _ in range(30):
        middle = (low + high) / 2
        scaled = ratio_widths(cost, np.clip(ratios * middle, least, 1.0).tolist())
        fits = cost.multiply_adds(scaled, without=without) <= target
        low, high = (middle, high) if fits else (low, middle)
    return ratio_widths(cost, np.clip(ratios * low, least, 1.0).tolist())
