"""Which units may be rescaled: multiplied where they are made, divided where they are read.

With ReLU every positive factor leaves the network's function as it is, with tanh and sine a change of sign does, with GELU or a sigmoid
nothing (Dinh et al. 2017, "Sharp minima can generalize for deep nets"; Kalogeropoulos et al. 2024, "Scale equivariant graph metanetworks",
section 4). A norm takes the scale out of what it reads; behind it, its own scale and shift make a new one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nasgraph.ir import ComputationalGraph, Node, Shape
from nasgraph.ir.op import whole
from nasgraph.symmetry.demands import Value
from nasgraph.symmetry.exponents import Equations, Scaling, Unknown
from nasgraph.symmetry.units import Axis, Ids, Ledger

Tensor = tuple[str, int | str]  # ("value", node) or ("parameter", name)
Place = tuple[Tensor, int]


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """For each place along the axes of a tensor: a number for the group and the element of its unit that stand there, -1 where no group has
    it."""

    tensor: Tensor
    axes: tuple[Ids, ...]


class System:
    """The equations of all groups of a graph."""

    def __init__(self, graph: ComputationalGraph, ledger: Ledger, values: Sequence[Value]) -> None:
        self.graph = graph
        self.equations: dict[int, Equations] = {}
        self._colour_of, self._number = ledger.kinds()
        self._values = values
        self._axes = ledger.parameter_axes()

    def value(self, node: int) -> Keys:
        """The value of a node."""
        shape = self.graph.shapes[node]
        axes = tuple(self._keys(axis, size) for axis, size in zip(self._values[node], shape, strict=True))
        return Keys(("value", node), axes)

    def parameter(self, node: int, own: str) -> Keys | None:
        """A parameter or running statistic of a node, if it has it."""
        name = f"n{node}.{own}"
        if (name, 0) in self._axes:
            sizes = self._sizes(name)
            axes = tuple(self._keys(self._axes[name, place], size) for place, size in enumerate(sizes))
            return Keys(("parameter", name), axes)
        return None

    def _sizes(self, name: str) -> Shape:
        spec = self.graph.parameters.get(name)
        return spec.shape if spec else (self.graph.shapes[int(name[1:].split(".")[0])][0],)

    def _keys(self, axis: Axis, size: int) -> Ids:
        return np.full(size, -1, dtype=np.int64) if axis is None else self._number[axis]

    # ---- equations

    def zero(self, *terms: tuple[Keys, int, int]) -> None:
        """Demand at every place that exponents sum to zero: of axes of equal length, each with its weight. An axis of size one has none."""
        given = [
            (keys.tensor, axis % len(keys.axes), keys.axes[axis], weight) for keys, axis, weight in terms
        ]
        size = max(len(numbers) for _, _, numbers, _ in given)
        given = [each for each in given if len(each[2]) == size]
        for column in _different([numbers for _, _, numbers, _ in given]):
            groups: dict[int, list[tuple[Unknown, int]]] = {}
            for (tensor, axis, _, weight), number in zip(given, column, strict=True):
                if number >= 0:
                    unknown = (*tensor, axis, number)
                    groups.setdefault(self._colour_of[number], []).append((unknown, weight))
            for colour, row in groups.items():
                self._of(colour).zero(row)

    def vanish(self, keys: Keys, axis: int) -> None:
        """Demand that nothing is scaled along an axis."""
        self.zero((keys, axis, 1))

    def same(self, first: Keys | None, axis: int, second: Keys | None, other: int) -> None:
        """Demand equal exponents on two axes, if both exist."""
        if not first or not second:
            return
        if len(first.axes[axis]) != len(second.axes[other]):
            self.vanish(first, axis)  # repeated along the other
            self.vanish(second, other)
        else:
            self.zero((first, axis, 1), (second, other, -1))

    def opposite(self, first: Keys | None, axis: int, second: Keys, other: int) -> None:
        """Demand that two axes cancel."""
        assert first is not None
        self.zero((first, axis, 1), (second, other, 1))

    def mark(self, keys: Keys, kind: Scaling) -> None:
        """Write down that what passes here allows positive factors only, or signs only."""
        for axis, numbers in enumerate(keys.axes):
            for number in set(numbers.tolist()) - {-1}:
                equations = self._of(self._colour_of[number])
                (equations.positive if kind == "positive" else equations.odd).add(
                    (*keys.tensor, axis, number)
                )

    def _of(self, colour: int) -> Equations:
        return self.equations.setdefault(colour, Equations())


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node while the equations are written down."""

    index: int
    node: Node
    system: System
    inputs: tuple[Keys, ...]
    output: Keys

    def own(self, name: str) -> Keys | None:
        return self.system.parameter(self.index, name)

    def vanish(self, *all_keys: Keys) -> None:
        """Nothing that these carry is scaled."""
        for keys in all_keys:
            for axis in range(len(keys.axes)):
                self.system.vanish(keys, axis)

    def follow(self, axes: Sequence[int], *, source: int = 0) -> None:
        """Along these axes the output is scaled as an input is."""
        for axis in axes:
            self.system.same(self.inputs[source], axis, self.output, axis)


def _different(rows: Sequence[Ids]) -> list[tuple[int, ...]]:
    """The different columns of some rows."""
    first = rows[0]
    if all(row is first or np.array_equal(row, first) for row in rows[1:]):
        return [(number,) * len(rows) for number in set(first.tolist())]
    return list(set(zip(*(row.tolist() for row in rows), strict=True)))


Rule = Callable[[Step], None]


def scalings(
    graph: ComputationalGraph, ledger: Ledger, values: Sequence[Value], rules: Mapping[str, Rule]
) -> dict[int, tuple[Scaling, dict[Unknown, int]]]:
    """For each group, by its number in the ledger: which factors it allows, and the exponents of its unknowns."""
    system = System(graph, ledger, values)
    for index, node in enumerate(graph.nodes):
        inputs = tuple(system.value(source) for source in node.inputs)
        step = Step(index, node, system, inputs, system.value(index))
        rules.get(node.op, nothing)(step)
    for output in graph.outputs:
        keys = system.value(output)
        for axis in range(len(keys.axes)):
            system.vanish(keys, axis)
    return {colour: equations.solve() for colour, equations in system.equations.items()}


def nothing(step: Step) -> None:
    """The rule of an operator that commutes with no factor: neither what it reads nor what it gives is scaled."""
    step.vanish(*step.inputs, step.output)
    for name in step.system.graph.parameters:
        if name.startswith(f"n{step.index}."):
            keys = step.own(name.split(".")[1])
            if keys:
                step.vanish(keys)


def attr(step: Step, name: str) -> int:
    """An attribute that is a whole number."""
    return whole(dict(step.node.attrs), name)
