"""What is left of every value and of every parameter when units are taken out of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nasgraph.ir import ComputationalGraph
from nasgraph.symmetry.demands import Value
from nasgraph.symmetry.loose import Loose
from nasgraph.symmetry.table import followed, symmetry_table
from nasgraph.symmetry.units import Axis, Ids

Mask = NDArray[np.bool_] | None
"""Which places along an axis are kept; None: all."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptPlaces:
    """Which places stay when units are taken out.

    Attributes:
        values: For each node, one mask per axis of its value.
        parameters: Masks by name of the parameter or running statistic, and axis. Axes of which all is kept are left out.
    """

    values: tuple[tuple[Mask, ...], ...]
    parameters: Mapping[tuple[str, int], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One way of applying the rules, with the unit of each element, and the units of the groups that it found."""

    values: tuple[Value, ...]
    loose: Mapping[int, Loose]
    units: Ids
    parameters: Mapping[tuple[str, int], Axis]
    groups: Mapping[str, Ids]


@lru_cache(maxsize=16)
def _passes(graph: ComputationalGraph) -> tuple[_Pass, ...]:
    table, passes = symmetry_table(graph), followed(graph)
    within = len(passes[0].ledger.groups()[0])  # groups of blocks come last
    found = []
    for each, groups in zip(passes, (table.groups[:within], table.groups[within:]), strict=False):
        units, axes = each.ledger.all_units(), each.ledger.parameter_axes()
        of_group = {}
        for group in groups:
            first = group.members[0]
            ids = axes[first.parameter, first.axis]
            assert ids is not None, "the axis of a group moves"
            of_group[group.name] = units[ids[list(first.starts)]]
        found.append(_Pass(each.values, each.loose, units, axes, of_group))
    return tuple(found)


def kept_places(graph: ComputationalGraph, removed: Mapping[str, Ids]) -> KeptPlaces:
    """Follow the removal of units through a network.

    Args:
        graph: A checked graph.
        removed: For each group from which units are taken, by its name in the graph's symmetry table: which. Not checked.
    """
    values: list[list[Mask]] = [[None] * len(shape) for shape in graph.shapes]
    parameters: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for each in _passes(graph):
        gone = np.zeros(len(each.units) + 1, dtype=np.bool_)
        for name in each.groups.keys() & removed.keys():
            gone[each.groups[name][removed[name]]] = True
        if not gone.any():
            continue
        kept, known = ~gone[each.units], dict[int, Mask]()
        for node, value in enumerate(each.values):
            for place, axis in enumerate(value):
                values[node][place] = _both(values[node][place], _mask(axis, kept, known))
        for node, loose in each.loose.items():
            for place, mask in _loose_masks(loose, kept).items():
                values[node][place] = _both(values[node][place], mask)
            for place, axis in enumerate(loose.rest):
                values[node][place] = _both(values[node][place], _mask(axis, kept, known))
        for key, axis in each.parameters.items():
            mask = _both(parameters.get(key), _mask(axis, kept, known))
            if mask is not None:
                parameters[key] = mask
    return KeptPlaces(tuple(tuple(masks) for masks in values), parameters)


def _mask(axis: Axis, kept: NDArray[np.bool_], known: dict[int, Mask]) -> Mask:
    if axis is None:
        return None
    if id(axis) not in known:
        mask = kept[axis]
        known[id(axis)] = None if mask.all() else mask
    return known[id(axis)]


def _loose_masks(loose: Loose, kept: NDArray[np.bool_]) -> dict[int, Mask]:
    """A place along one of the axes stays if anything does there."""
    stays = kept[loose.ids]
    masks: dict[int, Mask] = {}
    for k, place in enumerate(loose.places):
        mask = np.asarray(stays.any(axis=tuple(other for other in range(stays.ndim) if other != k)))
        masks[place] = None if mask.all() else mask
    return masks


def _both(first: Mask, second: Mask) -> Mask:
    if first is None or second is None:
        return second if first is None else first
    found: Mask = first & second
    return found
