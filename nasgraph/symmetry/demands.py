"""What the rules of operators are made of: a node and its values, axes that are fixed, joined, merged and split.

A value is described by one `Axis` per axis of its shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from nasgraph.ir import ParameterSpec, Scalar, Shape
from nasgraph.symmetry.units import Axis, Ids, Ledger

Value = tuple[Axis, ...]

KERNEL = "a place in the kernel"
SPACE = "a place in space"
ORDER = "the order along this axis has a meaning"


@dataclass(frozen=True, slots=True)
class Step:
    """One node while the rules go through a graph: what it is, what it reads, and where its demands are written down."""

    index: int
    op: str
    attrs: Mapping[str, Scalar]
    inputs: tuple[Value, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    parameters: Mapping[str, ParameterSpec]
    ledger: Ledger

    def own(self, name: str, *axes: Axis, reason: str = "") -> None:
        """Write down the axes of the parameter `name`, if the node has it. `reason`: why fixed ones are fixed."""
        if name in self.parameters:
            for axis, (size, ids) in enumerate(zip(self.parameters[name].shape, axes, strict=True)):
                self.ledger.own(f"n{self.index}.{name}", axis, size, ids, reason)

    def fix(self, value: Value, reason: str) -> None:
        """Demand that no axis of this value moves."""
        for axis in value:
            self.ledger.fix(axis, reason)


Rule = Callable[[Step], Value]


def fixed(shape: Shape) -> Value:
    """A value no axis of which may move."""
    return (None,) * len(shape)


def unknown(step: Step) -> Value:
    """The rule of an operator about which nothing is known: nothing that it reads or has may move."""
    reason = f"read by '{step.op}', which may treat its places differently"
    for value in step.inputs:
        step.fix(value, reason)
    for name, spec in step.parameters.items():
        step.own(name, *fixed(spec.shape), reason=f"of '{step.op}', which may treat its places differently")
    return fixed(step.shape)


def broadcast(ledger: Ledger, values: Sequence[Value], shapes: Sequence[Shape], op: str) -> Value:
    """Axes of a value made of others element by element; axes of size one are repeated."""
    result: list[Axis] = []
    for place in range(len(shapes[0])):
        size = max(shape[place] for shape in shapes)
        axes = [value[place] for value, shape in zip(values, shapes, strict=True) if shape[place] == size]
        common = axes[0]
        for axis in axes[1:]:
            common = ledger.unify(common, axis, f"joined by '{op}' with an axis that is fixed")
        result.append(common)
    return tuple(result)


def keep_apart(ledger: Ledger, rows: Ids) -> None:
    """Units of one row never change places with those of another."""
    for row in rows:
        ledger.see(np.ascontiguousarray(row))


def merge_axes(ledger: Ledger, axes: Value, shape: Shape) -> Axis:
    """The axis that several axes become when their places are written one after the other.

    One axis may go on moving, in blocks; of several that could, the longest: the others are fixed.
    """
    real = [(axis, size) for axis, size in zip(axes, shape, strict=True) if size > 1]
    if len(real) == 1:
        return real[0][0]
    units = ledger.units() if sum(axis is not None for axis, _ in real) > 1 else None
    free = [axis for axis, _ in real if axis is not None and (units is None or (units[axis] >= 0).any())]
    if not free:
        return None
    chosen = max(free, key=len)
    before = 1
    after = prod(size for _, size in real)
    found: Axis = None
    for axis, size in real:
        after //= size
        if axis is chosen and found is None:
            found = np.tile(np.repeat(axis, after), before)
        else:
            ledger.fix(axis, "written in one axis with others that move")
        before *= size
    assert found is not None
    return ledger.attached(found)


def split_axis(ledger: Ledger, axis: Axis, shape: Shape) -> Value:
    """The axes that one axis becomes. One of them goes on moving: that along which its units change, if they
    change along one only; else the last, and the first where whole blocks move."""
    places = [place for place, size in enumerate(shape) if size > 1]
    if axis is None or not places:
        return fixed(shape)
    if len(places) == 1:
        return tuple(axis if place == places[0] else None for place in range(len(shape)))
    units = ledger.units()[axis].reshape(shape)
    changes = [place for place in places if (np.diff(units, axis=place) != 0).any()]
    if len(changes) != 1:
        ledger.has_blocks = True
    chosen = changes[0] if len(changes) == 1 else places[0] if ledger.coarse else places[-1]
    rows = np.moveaxis(axis.reshape(shape), chosen, 0).reshape(shape[chosen], -1)
    ledger.join(rows)
    kept = ledger.attached(rows[:, 0])
    return tuple(kept if place == chosen else None for place in range(len(shape)))
