"""The book in which the nodes and edges of a parameter graph are written down while the rules go through a network.

An `Axis` says for each place along one axis of a value which node of the parameter graph stands for it, and which of the places
of that node it is. Axes of space have no nodes; so has every axis that no parameter has touched yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from nasgraph.ir import ParameterSpec, Scalar, Shape
from nasgraph.meta.graph.kinds import ACTIVATIONS, EDGE_KINDS, NODE_COLUMNS, NUM_SLOTS, SITES

Ids = NDArray[np.int64]


class Axis:
    """One axis of a value: a node and a slot for each place, or nothing yet. Values that share an axis share the object.

    `joint`: what several axes stand for together, in place of nodes of their own.
    """

    __slots__ = ("is_input", "joint", "nodes", "size", "slots")

    def __init__(
        self, size: int, nodes: Ids | None = None, slots: Ids | None = None, *, is_input: bool = False
    ) -> None:
        self.size = size
        self.nodes = nodes
        self.slots = np.zeros(size, dtype=np.int64) if slots is None else slots
        self.is_input = is_input
        self.joint: Joint | None = None

    @property
    def is_plain(self) -> bool:
        """Whether every place has a node of its own."""
        return self.nodes is not None and not self.slots.any()


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Axes that one axis was taken apart into, such as heads and channels within them: nodes and slots for all their places."""

    axes: tuple[Axis, ...]
    nodes: Ids
    slots: Ids

    @staticmethod
    def of(nodes: Ids, slots: Ids) -> "Joint":
        """New axes for an array of nodes."""
        joint = Joint(tuple(Axis(size) for size in nodes.shape), nodes, slots)
        for axis in joint.axes:
            axis.joint = joint
        return joint

    def places(self, axes: Sequence[Axis]) -> list[int] | None:
        """Where these axes stand among the own, if there is none beside them that is longer than one."""
        found = [next((p for p, own in enumerate(self.axes) if own is axis), -1) for axis in axes]
        left = [own.size for place, own in enumerate(self.axes) if place not in found]
        return found if -1 not in found and prod(left) == 1 else None

    def ordered(self, axes: Sequence[Axis]) -> tuple[Ids, Ids] | None:
        """Nodes and slots with these axes in this order, if these are all."""
        places = self.places(axes)
        if places is None:
            return None
        shape = [axis.size for axis in axes]
        order = [*(place for place in range(len(self.axes)) if place not in places), *places]
        return self.nodes.transpose(order).reshape(shape), self.slots.transpose(order).reshape(shape)


Value = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator while the rules go through a network."""

    index: int
    op: str
    attrs: Mapping[str, Scalar]
    inputs: tuple[Value, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    parameters: Mapping[str, ParameterSpec]
    depth: int
    is_shared: tuple[bool, ...]
    """For each input: whether others read it too, or it is an output."""


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Edges of one origin. `parameter`: whose values they carry, or empty. `where`: for each element of the parameter, its
    place among the slots of these edges."""

    kind: int
    source: Ids
    target: Ids
    place: Ids
    parameter: str = ""
    fan_in: int = 1
    where: Ids | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A parameter whose elements stand on nodes."""

    parameter: str
    nodes: Ids
    column: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of the state: its shape, and whether its elements stand on nodes or on edges."""

    name: str
    shape: tuple[int, ...]
    on_nodes: bool

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return prod(self.shape)


class Book:
    """Nodes, edges and the places of all parameters. Rules write here; `graph_layout` reads.

    Args:
        moving: Axes of parameters that have interchangeable places, as (parameter, axis).
        weights: Free parameters that an operator reads as its weight, outputs first.
    """

    def __init__(self, moving: frozenset[tuple[str, int]], weights: frozenset[int]) -> None:
        self.moving = moving
        self.weights = weights
        self.num_nodes = 0
        self.node_site: list[int] = []
        self.node_depth: list[int] = []
        self.activation: dict[int, int] = {}
        self.edges: list[Edges] = []
        self.columns: list[Column] = []
        self.sums: set[tuple[tuple[bytes, bytes], ...]] = set()  # axes summed over
        self.axes: dict[tuple[str, int], Axis] = {}  # nodes of the axes of parameters
        self.sides: dict[tuple[str, int], int] = {}  # 1: of what they make, -1: of what they read

    # ---- nodes

    def site(self, step: Step, kind: str, count: int) -> Axis:
        """New nodes, one per place."""
        first = self.num_nodes
        self.num_nodes += count
        self.node_site += [SITES.index(kind)] * count
        self.node_depth += [step.depth] * count
        return Axis(count, np.arange(first, first + count))

    def nodes(self, step: Step, axis: Axis) -> Ids:
        """The nodes of an axis; made now if there are none, for all values that share the axis."""
        if axis.nodes is None:
            made = self.site(step, "input" if axis.is_input else "place", axis.size)
            self.node_depth[-axis.size :] = [0 if axis.is_input else step.depth - 1] * axis.size
            axis.nodes = made.nodes
        assert axis.nodes is not None
        return axis.nodes

    def take_apart(self, step: Step, values: Sequence[Value]) -> None:
        """Give axes that only stand for something together nodes of their own."""
        for joint in {
            id(a.joint): a.joint for value in values for a in value if a.joint is not None
        }.values():
            index = np.indices(joint.nodes.shape)
            for place, axis in enumerate(joint.axes):
                axis.joint = None
                if axis.size > 1:
                    new = self.site(step, "split", axis.size)
                    axis.nodes = new.nodes
                    assert axis.nodes is not None
                    self.link("split", joint.nodes, axis.nodes[index[place]], joint.slots)

    def activate(self, axis: Axis, op: str) -> bool:
        """Say which activation follows; False if there is one already."""
        if axis.nodes is None:
            return True
        nodes = axis.nodes.tolist()
        if any(node in self.activation for node in nodes):
            return False
        self.activation.update(dict.fromkeys(nodes, ACTIVATIONS.index(op)))
        return True

    # ---- edges without parameters

    def link(self, kind: str, source: Ids, target: Ids, place: Ids | None = None) -> None:
        """Edges with the value 1, one for each pair."""
        source, target = np.broadcast_arrays(source, target)
        self.edges.append(
            Edges(
                EDGE_KINDS.index(kind),
                source.ravel(),
                target.ravel(),
                np.zeros(source.size, dtype=np.int64) if place is None else place.ravel(),
            )
        )

    def follow(self, step: Step, site: str, axis: Axis, kind: str) -> Axis:
        """New nodes, one for each place of an axis, with edges from it."""
        new = self.site(step, site, axis.size)
        assert new.nodes is not None
        self.link(kind, self.nodes(step, axis), new.nodes, axis.slots)
        return new

    def blocks(self, step: Step, *rows: Ids, incoming: bool = True) -> None:
        """A node for each block of channels; `rows`: arrays of nodes, one row per block. The first array points to the
        blocks, the blocks to the others."""
        new = self.site(step, "block", len(rows[0])).nodes
        assert new is not None
        for number, each in enumerate(rows):
            if number == 0 and incoming:
                self.link("block", each, new[:, None])
            else:
                self.link("block", new[:, None], each)

    # ---- parameters

    def column(self, step: Step, name: str, axis: Axis, column: str) -> None:
        """A parameter with one element per unit. Where a unit has several places, its values stand on edges to itself."""
        if name in self.wanted(step):
            self.attach(step, name, (axis,), kind="norm", column=column)

    def wanted(self, step: Step) -> set[str]:
        """Parameters and running statistics of a node."""
        more = {"running_mean", "running_var"} if step.op == "batch_norm" else set()
        return set(step.parameters) | more

    def weight(
        self, step: Step, name: str, first: Axis, second: Axis, *, kind: str, outgoing: bool = False
    ) -> None:
        """A weight whose first axis is what comes out and whose second is what is read; or, `outgoing`, the reverse."""
        source, target = (first, second) if outgoing else (second, first)
        pairs = np.arange(first.size)[:, None], np.arange(second.size)[None, :]
        in_place, out_place = pairs if outgoing else pairs[::-1]
        spec = step.parameters[name]
        self.connect(step, name, spec.shape, (source, in_place), (target, out_place), kind=kind)
        sides = (-1, 1) if outgoing else (1, -1)
        self.stand(step, name, (first, second), sides)

    def stand(self, step: Step, name: str, axes: Sequence[Axis | None], sides: Sequence[int]) -> None:
        """Remember on which nodes the axes of a parameter stand, and whether it makes them or reads them."""
        for place, (axis, side) in enumerate(zip(axes, sides, strict=True)):
            if axis is not None:
                self.axes[(f"n{step.index}.{name}", place)] = axis
                self.sides[(f"n{step.index}.{name}", place)] = side

    def connect(
        self,
        step: Step,
        name: str,
        shape: Shape,
        source: tuple[Axis, Ids],
        target: tuple[Axis, Ids],
        *,
        kind: str,
        own: Shape = (),
        order: Sequence[int] = (),
    ) -> None:
        """Put a parameter on edges.

        Args:
            step: The operator.
            name: Of its parameter.
            shape: Of the parameter, after its axes are put in `order`: two axes of units, then those of the kernel.
            source: The axis read, and for each pair of units its place there.
            target: The axis written, and for each pair of units its place there.
            kind: Of the edges.
            own: The parameter's shape, if its axes have to be put in another order.
            order: That order.
        """
        (read, in_place), (written, out_place) = source, target
        in_place, out_place = (each.ravel() for each in np.broadcast_arrays(in_place, out_place))
        tails, heads = self.nodes(step, read)[in_place], self.nodes(step, written)[out_place]
        num_in, num_out = int(read.slots.max()) + 1, int(written.slots.max()) + 1
        slots = num_in * num_out
        if slots == 1:
            pair, rank = np.arange(len(tails)), np.zeros(len(tails), dtype=np.int64)
        else:
            _, first, pair = np.unique(tails * self.num_nodes + heads, return_index=True, return_inverse=True)
            rank = read.slots[in_place] * num_out + written.slots[out_place]
            tails, heads = tails[first], heads[first]
        kernel = shape[2:] if slots == 1 else (slots, *shape[2:])
        inner = _slots(kernel).reshape(slots, -1)
        chunks = int(inner.max()) // NUM_SLOTS + 1
        where = (pair[:, None] * (chunks * NUM_SLOTS) + inner[rank]).ravel()
        self.edges.append(
            Edges(
                EDGE_KINDS.index(kind),
                np.repeat(tails, chunks),
                np.repeat(heads, chunks),
                np.tile(np.arange(chunks), len(tails)),
                f"n{step.index}.{name}",
                step.parameters[name].fan_in if name in step.parameters else 1,
                _back(where, own or shape, order),
            )
        )

    def attach(
        self, step: Step, name: str, axes: Sequence[Axis], *, kind: str, column: str, is_weight: bool = False
    ) -> None:
        """Put a parameter of any rank where it belongs: on nodes if one axis has nodes, on edges if two have; more are
        joined to pairs first. Axes without nodes become slots; if all are, the largest gets nodes. Edges go from the first to the
        last axis, or to the first if it `is_weight`."""
        if all(axis.nodes is None for axis in axes):
            self.nodes(step, max(axes, key=lambda axis: axis.size))
        own = tuple(axis.size for axis in axes)
        units = [place for place, axis in enumerate(axes) if axis.nodes is not None]
        units = [place for place in units if own[place] > 1] or units[:1]
        if is_weight:
            units = units[::-1]
        rest = [place for place in range(len(axes)) if place not in units]
        last = axes[units[-1]]
        sides = [0] * len(axes)
        sides[units[-1]] = 1
        if len(units) == 2:
            sides[units[0]] = -1
        self.stand(step, name, axes, sides)
        if len(units) == 1 and last.is_plain and prod(own[place] for place in rest) == 1:
            self.columns.append(
                Column(f"n{step.index}.{name}", self.nodes(step, last), NODE_COLUMNS.index(column))
            )
            return
        order, kernel = [*units, *rest], [own[place] for place in rest]
        if len(units) == 1:
            same = last, np.arange(last.size)
            shape = (last.size, 1, *kernel)
            self.connect(step, name, shape, same, same, kind=kind, own=own, order=order)
            return
        source = axes[units[0]]
        for place in units[1:-1]:
            source = self.pairs(step, source, axes[place])
        rows, columns = np.arange(source.size)[:, None], np.arange(last.size)[None, :]
        shape = (source.size, last.size, *kernel)
        self.connect(step, name, shape, (source, rows), (last, columns), kind=kind, own=own, order=order)

    def pairs(self, step: Step, first: Axis, second: Axis) -> Axis:
        """A node for each pair of places, with edges from both."""
        new = self.site(step, "pair", first.size * second.size)
        assert new.nodes is not None
        grid = new.nodes.reshape(first.size, second.size)
        for kind, axis, tails in (
            ("argument_0", first, self.nodes(step, first)[:, None]),
            ("argument_1", second, self.nodes(step, second)[None, :]),
        ):
            slots = axis.slots[:, None] if axis is first else axis.slots[None, :]
            self.link(kind, np.broadcast_to(tails, grid.shape), grid, np.broadcast_to(slots, grid.shape))
        return new


def _slots(kernel: Shape) -> Ids:
    """Where the elements of a kernel stand: `chunk * NUM_SLOTS + slot`, centred in 3 x 3, or flat if it is larger."""
    *lead, height, width = (1, 1, *kernel)
    if height <= 3 and width <= 3:
        row = np.arange(height) + (3 - height) // 2
        column = np.arange(width) + (3 - width) // 2
        plane = (row[:, None] * 3 + column).ravel()
        return (np.arange(prod(lead))[:, None] * NUM_SLOTS + plane).ravel()
    count = prod(kernel)
    padded = -(-count // NUM_SLOTS) * NUM_SLOTS
    flat: Ids = np.arange(count) + (padded - count) // 2
    return flat


def _back(where: Ids, shape: Shape, order: Sequence[int]) -> Ids:
    """Places of the elements of a parameter of this shape, whose axes had been put in an order."""
    if list(order) == sorted(order):
        return where
    ordered = where.reshape([shape[place] for place in order])
    found: Ids = np.ascontiguousarray(ordered.transpose(np.argsort(order))).ravel()
    return found
