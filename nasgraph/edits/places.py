"""Where the places of a resized axis come from, and what each node makes of them.

An axis that keeps its places is None. Another one is an array with an entry for each new place: the old place that it
copies, or -1 for a new one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from nasgraph.edits.edited import EditError
from nasgraph.ir import Scalar, Shape
from nasgraph.symmetry import matched_axes

Ids = NDArray[np.int64]
Places = Ids | None
"""Old place of each new place, -1 where it is new; None: as before."""
Part = Literal["made", "read", "kept"]
"""What an axis of a parameter does: it makes units, reads them, or has one number for each, as a norm does."""
NEW = -1


@dataclass(frozen=True, slots=True)
class Resized:
    """A value after resizing.

    Attributes:
        axes: For each axis where its places come from.
        zero: Whether zeros stand in all new places.
        shares: Axes on which copies share out a weight among them: those of a parameter that one node reads as its weight.
    """

    axes: tuple[Places, ...]
    zero: bool = False
    shares: tuple[int, ...] = ()

    @property
    def is_as_before(self) -> bool:
        """Whether no axis changed."""
        return all(places is None for places in self.axes)


@dataclass(frozen=True, slots=True)
class Along:
    """How one axis of a parameter changes.

    Attributes:
        axis: Which.
        places: Where its new places come from.
        part: What the axis does.
        zero: For an axis that is read: whether zeros stand in the new places of what is read.
    """

    axis: int
    places: Ids
    part: Part
    zero: bool = False


@dataclass(slots=True, eq=False)
class Step:
    """One node while a resize goes through a graph. Rules change `attrs`, and say how its parameters change.

    Attributes:
        index: Of the node.
        op: Its operator.
        attrs: Its attributes; a rule writes the new ones here.
        inputs: What it reads.
        shapes: Old shapes of what it reads.
        shape: Its old shape.
        shapes_of: Old shapes of its parameters and running statistics.
        made: Where the places of a parameter's axis come from that makes units.
        exact: Whether the function must stay as it is.
        fills_zero: Whether new units that this node makes are zero.
        readers: Operators that read it, with the place of the argument.
        changes: How its parameters change.
        gains: Factors of its parameters.
    """

    index: int
    op: str
    attrs: dict[str, Scalar]
    inputs: Sequence[Resized]
    shapes: Sequence[Shape]
    shape: Shape
    shapes_of: Mapping[str, Shape]
    made: Callable[[str, int], Places]
    exact: bool
    fills_zero: bool
    readers: Sequence[tuple[str, int]]
    changes: dict[str, list[Along]] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)

    def own(self, name: str, axis: int, places: Places, part: Part, *, zero: bool = False) -> None:
        """Say that an axis of the parameter `name` changes, if the node has it and if it changes."""
        if places is not None and name in self.shapes_of:
            self.changes.setdefault(name, []).append(Along(axis, places, part, zero))

    def refuse(self, reason: str) -> NoReturn:
        """Raise an `EditError` that names the node."""
        raise EditError(f"Node {self.index} ({self.op}) {reason}")


Rule = Callable[[Step], Resized]


def same(first: Places, second: Places) -> bool:
    """Whether two axes changed alike."""
    if first is None or second is None:
        return first is second
    return first is second or np.array_equal(first, second)


def has_new(places: Places) -> bool:
    """Whether an axis has new places."""
    return places is not None and bool((places < 0).any())


def has_copies(places: Places) -> bool:
    """Whether an old place stands several times on an axis."""
    if places is None:
        return False
    kept = places[places >= 0]
    return len(np.unique(kept)) < len(kept)


def is_uniform(places: Places, size: int) -> bool:
    """Whether every old place stands equally often on an axis, so that means over it stay as they are."""
    if places is None:
        return True
    if (places < 0).any():
        return False
    counts = np.bincount(places, minlength=size)
    return bool((counts == counts[0]).all()) and int(counts[0]) > 0


def length(places: Places, before: int) -> int:
    """How many places an axis has now."""
    return before if places is None else len(places)


def whole_blocks(places: Places, size: int, blocks: int) -> Places:
    """Where the blocks of an axis come from, if it still consists of whole blocks of the old one; else None.

    Args:
        places: Of the axis.
        size: Its old length.
        blocks: How many blocks of equal length it had.
    """
    each = size // blocks
    if places is None:
        return np.arange(blocks)
    if len(places) % each:
        return None
    rows = places.reshape(-1, each)
    new = (rows == NEW).all(axis=1)
    found: Ids = np.where(new, NEW, rows[:, 0] // each)
    fits = (rows == found[:, None] * each + np.arange(each)).all(axis=1)
    return found if (fits | new).all() else None


def within_blocks(places: Places, size: int, blocks: int) -> NDArray[np.int64] | None:
    """Rows of places, one per old block, counted from its start, if each block has as many places as the others and only
    such as were its own or are new; else None."""
    each = size // blocks
    if places is None:
        return np.tile(np.arange(each), (blocks, 1))
    if len(places) % blocks:
        return None
    rows = places.reshape(blocks, -1)
    inner = rows - each * np.arange(blocks)[:, None]
    fits = (rows == NEW) | ((inner >= 0) & (inner < each))
    return np.where(rows == NEW, NEW, inner) if fits.all() else None


def reshaped(axes: Sequence[Places], before: Shape, after: Shape) -> tuple[Places, ...] | None:
    """Axes of a value whose elements are written in another shape; None if no shape holds them.

    Axes before and after are matched from the left, as few at a time as their sizes allow.
    """
    result: list[Places] = []
    for old, new in matched_axes(before, after):
        part = _regrouped(axes[old], before[old], after[new])
        if part is None:
            return None
        result.extend(part)
    return tuple(result)


def _regrouped(axes: Sequence[Places], before: Shape, after: Shape) -> list[Places] | None:
    if all(places is None for places in axes):
        return [None] * len(after)
    if len(before) == len(after) == 1:
        return list(axes)
    flat = _flat(axes, before)
    for chosen in range(len(after)):
        rest = prod(size for place, size in enumerate(after) if place != chosen)
        if len(flat) % rest:
            continue
        shape = [len(flat) // rest if place == chosen else size for place, size in enumerate(after)]
        line = np.moveaxis(flat.reshape(shape), chosen, 0).reshape(shape[chosen], -1)[:, 0]
        stride = prod(after[chosen + 1 :])
        places = np.where(line == NEW, NEW, line // stride % after[chosen])
        found: list[Places] = [places if place == chosen else None for place in range(len(after))]
        if np.array_equal(_flat(found, after), flat):
            return found
    return None


def _flat(axes: Sequence[Places], shape: Shape) -> Ids:
    """For every element after resizing, which one it was before."""
    flat: Ids = np.zeros(1, dtype=np.int64)
    for places, size in zip(axes, shape, strict=True):
        index = np.arange(size) if places is None else places
        rows = flat[:, None] * size + index[None, :]
        flat = np.where((flat[:, None] == NEW) | (index[None, :] == NEW), NEW, rows).ravel()
    return flat
