"""Axes that an axis has been split into, as long as it is open which of them moves.

`query, key, value = x.reshape(tokens, 3, heads, width)` splits one axis in three, then takes the first apart. Only in each part by itself
do heads move, or the places within heads; so the decision waits until something else than a rearrangement reads the value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from nasgraph.ir import Scalar, Shape
from nasgraph.ir.op import whole, wholes
from nasgraph.symmetry.demands import Step, Value, fixed, merge_axes, split_axis
from nasgraph.symmetry.units import Axis, Ids, Ledger


@dataclass(frozen=True, slots=True, eq=False)
class Loose:
    """A value some axes of which one axis has been split into.

    Attributes:
        ids: Elements, with one axis for each of these axes, in the order in which they were split.
        places: Which axes of the value these are.
        rest: The value's other axes; None at `places`.
    """

    ids: Ids
    places: tuple[int, ...]
    rest: Value

    def settled(self, ledger: Ledger) -> Value:
        """The value with one of the axes moving, or two where whole blocks do."""
        value = list(self.rest)
        for place, axis in zip(
            self.places, split_axis(ledger, self.ids.ravel(), self.ids.shape), strict=True
        ):
            value[place] = axis
        return tuple(value)

    def moving(self, ledger: Ledger, units: Ids) -> Value | None:
        """The value with the one axis moving along which units change, once all is known; None if they change along several."""
        here = units[self.ids]
        changes = [k for k in range(here.ndim) if (np.diff(here, axis=k) != 0).any()]
        if len(changes) != 1:
            return None
        value = list(self.rest)
        first = np.moveaxis(self.ids, changes[0], 0).reshape(self.ids.shape[changes[0]], -1)[:, 0]
        value[self.places[changes[0]]] = ledger.attached(first)
        return tuple(value)


def matched_axes(before: Shape, after: Shape) -> Iterator[tuple[slice, slice]]:
    """Axes before and after a reshape that hold the same numbers: from the left, as few at a time as their sizes allow."""
    i = j = 0
    while i < len(before) or j < len(after):
        i_end, j_end = min(i + 1, len(before)), min(j + 1, len(after))
        while prod(before[i:i_end]) != prod(after[j:j_end]):
            if prod(before[i:i_end]) < prod(after[j:j_end]):
                i_end += 1
            else:
                j_end += 1
        yield slice(i, i_end), slice(j, j_end)
        i, j = i_end, j_end


def reshaped(step: Step) -> Value | Loose:
    """What a reshape gives: the first axis that is split into several along which its units change stays loose."""
    ledger, result, loose = step.ledger, list[Axis](), None
    for old, new in matched_axes(step.shapes[0], step.shape):
        merged = merge_axes(ledger, step.inputs[0][old], step.shapes[0][old])
        after = step.shape[new]
        if loose is None and merged is not None and _changes(ledger, merged, after) > 1:
            places = tuple(range(*new.indices(len(step.shape))))
            loose = (merged.reshape(after), places)
            result.extend(fixed(after))
        else:
            result.extend(split_axis(ledger, merged, after))
    return tuple(result) if loose is None else Loose(*loose, tuple(result))


def _changes(ledger: Ledger, axis: Ids, shape: Shape) -> int:
    """Along how many of these axes the units change."""
    if sum(size > 1 for size in shape) < 2:
        return 0
    units = ledger.units()[axis].reshape(shape)
    return sum(bool((np.diff(units, axis=place) != 0).any()) for place in range(len(shape)))


def rearranged(op: str, attrs: dict[str, Scalar], loose: Loose, before: Shape, after: Shape) -> Loose | None:
    """A loose value in another order, in part, or without axes of size one. None: the operator is none of these."""
    if op == "permute":
        order = wholes(attrs, "order")
        places = tuple(order.index(place) for place in loose.places)
        return Loose(loose.ids, places, tuple(loose.rest[axis] for axis in order))
    if op == "slice":
        axis = whole(attrs, "axis")
        part = slice(*(whole(attrs, name) for name in ("start", "stop", "step")))
        if axis in loose.places:
            where = (slice(None),) * loose.places.index(axis) + (part,)
            return Loose(np.ascontiguousarray(loose.ids[where]), loose.places, loose.rest)
        kept = loose.rest[axis]
        rest = list(loose.rest)
        rest[axis] = None if kept is None else np.ascontiguousarray(kept[part])
        return Loose(loose.ids, loose.places, tuple(rest))
    if op == "reshape" and tuple(size for size in before if size > 1) == tuple(s for s in after if s > 1):
        return _squeezed(loose, before, after)
    return None


def _squeezed(loose: Loose, before: Shape, after: Shape) -> Loose:
    """Only axes of size one come and go."""
    stay = [axis for axis, size in enumerate(before) if size > 1]
    goes_to = dict(zip(stay, (axis for axis, size in enumerate(after) if size > 1), strict=True))
    kept = [k for k, place in enumerate(loose.places) if place in goes_to]
    ids = loose.ids.reshape([loose.ids.shape[k] for k in kept])
    rest: list[Axis] = [None] * len(after)
    for axis, place in goes_to.items():
        rest[place] = loose.rest[axis]
    return Loose(ids, tuple(goes_to[loose.places[k]] for k in kept), tuple(rest))
