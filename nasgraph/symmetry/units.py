"""Which elements of which axes move together: the book-keeping behind the symmetry table.

An *axis* is an array of element ids, one for each place along it, or None if its places must stay where they are. An
*element* stands for one place on every axis where its id is written. A *unit* is a set of elements that move together, such as
the 49 inputs of a linear layer that come from one channel. Two units may change places if they stand alike on every axis:
as often, and with corresponding elements in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ids = NDArray[np.int64]
Axis = Ids | None
"""Element ids along an axis; None: fixed."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the units of one group stand on one axis of a parameter: `places[u]` are those of unit u, ascending."""

    parameter: str
    axis: int
    places: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Unmoved:
    """Places on one axis of a parameter that belong to no group, and why."""

    parameter: str
    axis: int
    count: int
    reason: str


class Ledger:
    """Records what the operators demand of the axes, and tells in the end which units are interchangeable.

    Args:
        coarse: Whether operators that work on blocks of channels (heads, groups) move whole blocks, or the
            channels within a block.
    """

    def __init__(self, *, coarse: bool) -> None:
        self.coarse = coarse
        self.has_blocks = False
        self._unit_of: list[Ids] = []
        self._size = 0
        self._alike: list[tuple[Ids, Ids]] = []  # elements that are one
        self._joined: list[tuple[Ids, Ids]] = []  # elements whose units are one
        self._fixed: list[tuple[Ids, str]] = []
        self._axes: list[Ids] = []
        self._parameters: list[tuple[str, int, int, Axis, str]] = []
        self._known: tuple[Ids, Ids, Ids, dict[int, str]] | None = (
            None  # the result, once all is written down
        )

    # ---- what operators demand

    def fresh(self, size: int) -> Ids:
        """New elements, each a unit of its own."""
        return self._new(np.arange(self._size, self._size + size))

    def attached(self, ids: Ids) -> Ids:
        """New elements, each of the unit of the given one."""
        return self._new(np.concatenate(self._unit_of)[ids])

    def _new(self, units: Ids) -> Ids:
        ids = np.arange(self._size, self._size + len(units))
        self._unit_of.append(np.asarray(units, dtype=np.int64))
        self._size += len(units)
        return ids

    def see(self, axis: Axis) -> None:
        """Remember that this axis exists: units may change places only if they stand alike on it."""
        if axis is not None and len(axis):
            self._axes.append(axis)

    def own(self, parameter: str, axis: int, size: int, ids: Axis, reason: str = "") -> None:
        """Write down which elements an axis of a parameter has. `reason`: why it is fixed, if it is."""
        self.see(ids)
        self._parameters.append((parameter, axis, size, ids, reason))

    def fix(self, axis: Axis, reason: str) -> None:
        """Demand that the places of this axis stay."""
        if axis is not None:
            self._fixed.append((axis, reason))

    def unify(self, first: Axis, second: Axis, reason: str) -> Axis:
        """Demand that two axes move alike; return the one that stands for both. `reason`: why, if one is fixed."""
        if first is None or second is None:
            self.fix(first, reason)
            self.fix(second, reason)
            return None
        if first is not second:
            self._alike.append((first, second))
        return first

    def join(self, blocks: Ids) -> None:
        """Demand that the elements of each row of `blocks` move together."""
        rows = blocks.reshape(len(blocks), -1)
        if rows.shape[1] > 1:
            self._joined.append((np.repeat(rows[:, 0], rows.shape[1] - 1), rows[:, 1:].ravel()))

    def bind(self, first: Ids, second: Ids) -> None:
        """Demand that the units of corresponding elements are one; the elements stay different."""
        self._joined.append((first.ravel(), second.ravel()))

    # ---- what is known so far

    def units(self) -> Ids:
        """The unit of every element, as far as it is known: equal numbers, one unit. Fixed units are -1."""
        units, fixed, _ = self._resolve()
        found: Ids = np.where(fixed[units], -1, units)
        return found

    def kinds(self) -> tuple[dict[int, int], Ids]:
        """A number for every element: equal ones are corresponding elements of units of one group, -1 those of none.
        And the group of each number."""
        units, elements, colours, _ = self._coloured()
        ranks = self._ranks(units, elements)[elements]
        colour = colours[units]
        numbers: Ids = np.where(colour < 0, -1, colour * (int(ranks.max(initial=0)) + 1) + ranks)
        found, first = np.unique(numbers, return_index=True)
        return dict(zip(found.tolist(), colour[first].tolist(), strict=True)), numbers

    def all_units(self) -> Ids:
        """The unit of every element, fixed ones too."""
        return self._coloured()[0]

    def parameter_axes(self) -> dict[tuple[str, int], Axis]:
        """The elements on every axis of every parameter."""
        return {(name, axis): ids for name, axis, _, ids, _ in self._parameters}

    def _resolve(self) -> tuple[Ids, NDArray[np.bool_], dict[int, str]]:
        """Unit of each element; whether each unit is fixed; the reasons."""
        own = np.concatenate([*self._unit_of, np.zeros(0, dtype=np.int64)])
        units = _components(self._size, [*self._alike, *self._joined, (np.arange(self._size), own)])
        fixed = np.zeros(self._size + 1, dtype=np.bool_)
        reasons: dict[int, str] = {}
        for ids, reason in self._fixed:
            found = np.unique(units[ids])
            for unit in found[~fixed[found]].tolist():
                reasons[unit] = reason
            fixed[found] = True
        return units, fixed, reasons

    # ---- the result

    def groups(self) -> tuple[list[list[Places]], list[Unmoved]]:
        """Groups of two or more interchangeable units, in the order of the parameters, and what stays."""
        units, _, colours, reasons = self._coloured()
        groups: dict[int, list[Places]] = {}
        order: dict[int, Ids] = {}  # the units of a group, as they stand on its first axis
        unmoved: list[Unmoved] = []
        for name, axis, size, ids, why in self._parameters:
            if ids is None:
                if size > 1:
                    unmoved.append(Unmoved(name, axis, size, why))
                continue
            here = units[ids]
            colour = colours[here]
            for kind in _in_order(colour[colour >= 0]).tolist():
                places = np.flatnonzero(colour == kind)
                first = order.setdefault(kind, _in_order(here[places]))
                groups.setdefault(kind, []).append(Places(name, axis, _by_unit(places, here[places], first)))
            stays = np.flatnonzero(colour < 0)
            if len(stays) and size > 1:
                named = next((reasons[unit] for unit in here[stays].tolist() if unit in reasons), "")
                unmoved.append(Unmoved(name, axis, len(stays), named or "no other unit is used alike"))
        return list(groups.values()), unmoved

    def _coloured(self) -> tuple[Ids, Ids, Ids, dict[int, str]]:
        """The unit of each element; the number of each element; the group of each unit, -1 where it has none; why units are fixed."""
        if self._known is None:
            units, fixed, reasons = self._resolve()
            elements = _components(self._size, self._alike)
            colours = self._colours(units, elements)
            colours[fixed[: len(colours)]] = -1
            sizes = np.bincount(colours[np.unique(units)] + 1, minlength=int(colours.max(initial=-1)) + 2)
            self._known = (units, elements, np.where(sizes[colours + 1] > 1, colours, -1), reasons)
        return self._known

    def _colours(self, units: Ids, elements: Ids) -> Ids:
        """A number for every unit; equal numbers: the units stand alike on every axis. Exact, by refinement."""
        ranks = self._ranks(units, elements)
        colours = np.zeros(self._size, dtype=np.int64)
        seen: set[bytes] = set()
        for axis in self._axes:
            key = axis.tobytes()
            if key not in seen:
                seen.add(key)
                _refine(colours, units[axis], ranks[elements[axis]])
        return colours

    def _ranks(self, units: Ids, elements: Ids) -> Ids:
        """The number of each element within its unit, in the order in which they first stand on an axis."""
        ranks = np.zeros(self._size, dtype=np.int64)
        if not self._axes:
            return ranks
        everywhere = np.concatenate(self._axes)
        found, first = np.unique(elements[everywhere], return_index=True)
        order = np.argsort(first, kind="stable")
        found, of = found[order], units[everywhere[first[order]]]
        by_unit = np.argsort(of, kind="stable")
        ranks[found[by_unit]] = _count_up(of[by_unit])
        return ranks


def _components(size: int, edges: Sequence[tuple[Ids, Ids]]) -> Ids:
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    first = np.concatenate([np.zeros(0, dtype=np.int64), *(edge[0] for edge in edges)])
    second = np.concatenate([np.zeros(0, dtype=np.int64), *(edge[1] for edge in edges)])
    matrix = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
    labels: Ids = connected_components(matrix, directed=False)[1].astype(np.int64)
    return labels


def _count_up(sorted_labels: Ids) -> Ids:
    """0, 1, 2, ... within each run of equal labels."""
    starts = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    lengths = np.diff(np.r_[starts, len(sorted_labels)])
    counted: Ids = np.arange(len(sorted_labels)) - np.repeat(starts, lengths)
    return counted


def _refine(colours: Ids, units: Ids, ranks: Ids) -> None:
    """Give units that stand on an axis with different sequences of ranks different colours."""
    order = np.argsort(units, kind="stable")
    present, starts, lengths = np.unique(units[order], return_index=True, return_counts=True)
    code = np.zeros(len(present), dtype=np.int64)
    used = 1  # units that are not on the axis have code 0
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        rows = ranks[order[starts[chosen][:, None] + np.arange(length)]]
        kinds, inverse = np.unique(rows, axis=0, return_inverse=True)
        code[chosen] = used + inverse.ravel()
        used += len(kinds)
    pairs = np.stack([colours[present], code], axis=1)
    _, fine = np.unique(pairs, axis=0, return_inverse=True)
    colours[present] = fine.ravel() + int(colours.max(initial=0)) + 1


def _in_order(values: Ids) -> Ids:
    """Different values in the order of their first appearance."""
    found, first = np.unique(values, return_index=True)
    ordered: Ids = found[np.argsort(first)]
    return ordered


def _by_unit(places: Ids, units: Ids, order: Ids) -> Ids:
    """Places of each unit of `order`, one row per unit."""
    place_in_order = np.empty(int(units.max()) + 1, dtype=np.int64)
    place_in_order[order] = np.arange(len(order))
    rows: Ids = places[np.argsort(place_in_order[units], kind="stable")].reshape(len(order), -1)
    return rows
