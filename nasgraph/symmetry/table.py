"""The symmetry table of a graph: which units of a network may change places without changing what it computes.

A hidden channel has no name: reorder the channels of a layer, and of everything that reads or normalises them, and the network
computes the same function (Hecht-Nielsen 1990, "On the algebraic structure of feedforward network weight spaces"). The table
lists, for every group of such units, all axes of parameters and running statistics on which they stand. Aligning two networks,
pruning and growing are short code on top of it.

The table follows from the operators alone, never from weights. Every group in it is a symmetry; that there are no others is
not claimed. Each group may be permuted by itself, whatever is done to the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from nasgraph.ir import ComputationalGraph, ParameterSpec
from nasgraph.symmetry.demands import Step, Value, fixed, unknown
from nasgraph.symmetry.exponents import Scaling
from nasgraph.symmetry.loose import Loose, rearranged, reshaped
from nasgraph.symmetry.rules import RULES
from nasgraph.symmetry.rules_scaling import RULES as SCALING_RULES
from nasgraph.symmetry.scaling import scalings
from nasgraph.symmetry.units import Ledger, Places, Unmoved

Role = Literal["weight", "bias", "scale", "shift", "embedding", "position", "running_mean", "running_var"]
"""What a tensor of a network does: the roles of parameters, and the two running statistics."""


@dataclass(frozen=True, slots=True)
class AxisRef:
    """The places of a group's units on one axis of a parameter.

    Attributes:
        parameter: Name of the parameter or of the running statistic, `n<node>.<name>`.
        axis: Which of its axes.
        block: Neighbouring places per unit: 49 for a linear layer that reads 7 x 7 places of each channel.
        starts: First place of each unit: unit u has the places from `starts[u]` to before `starts[u] + block`. A unit with
            several such blocks, as a cell's four gates, has one reference for each.
        power: What a unit's places are multiplied by when the unit is rescaled: its factor to this power.
    """

    parameter: str
    axis: int
    block: int
    starts: tuple[int, ...]
    power: int = 0

    def places(self) -> "Int64[Tensor, 'units block']":
        """All places, one row per unit."""
        return torch.tensor(self.starts).unsqueeze(1) + torch.arange(self.block)


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """Interchangeable units: any permutation of them, made on all members, leaves the network's function as it is.

    Attributes:
        name: Unique in its table: parameter and axis where the group starts, such as `n3.weight/0`.
        size: Number of units, at least two.
        members: Where they stand. A parameter may have several, on one axis or on two.
        parent: Name of the group whose single unit contains this group, as an attention head contains its channels; or empty.
        scaling: Factors by which each unit may be multiplied where it is made and divided where it is read: "positive" numbers, a
            change of "sign", or "none". Groups of blocks have none: the groups of what is in the blocks may have some.
    """

    name: str
    size: int
    members: tuple[AxisRef, ...]
    parent: str = ""
    scaling: Scaling = "none"


@dataclass(frozen=True, slots=True)
class FixedAxis:
    """Places on an axis that belong to no group.

    Attributes:
        parameter: Name of the parameter or of the running statistic.
        axis: Which of its axes.
        count: How many of its places.
        reason: Why.
    """

    parameter: str
    axis: int
    count: int
    reason: str


@dataclass(frozen=True)
class SymmetryTable:
    """All groups that the operators of a graph are known to allow, and what has to stay.

    Groups with a `parent` lie within one unit of another group. Beside these, groups share places only around convolutions in
    groups: whole groups of channels move, and so do the channels within all groups alike.

    Attributes:
        groups: In the order of the parameters; groups of blocks (heads, groups of channels) come last.
        fixed: Every place of every parameter that no group moves, with the reason. Axes of size one are left out.
        roles: What each parameter and running statistic does, by its name.
    """

    groups: tuple[UnitGroup, ...]
    fixed: tuple[FixedAxis, ...]
    roles: Mapping[str, Role] = field(default_factory=dict)

    def group(self, name: str) -> UnitGroup:
        """The group with this name.

        Raises:
            KeyError: If there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"No group named '{name}'. There are: {', '.join(g.name for g in self.groups)}")

    def on(self, parameter: str) -> tuple[UnitGroup, ...]:
        """The groups that have places on this parameter."""
        return tuple(g for g in self.groups if any(m.parameter == parameter for m in g.members))


@lru_cache(maxsize=64)
def symmetry_table(graph: ComputationalGraph) -> SymmetryTable:
    """Derive the table from the operators of a graph. Pure; the result is kept for the last 64 graphs.

    Inputs, outputs, places in space and what a mask or a constant touches stay where they are. So does all that an operator
    touches of which nothing is known, such as `gather` or one that is `opaque`. In a layer that is grouped (heads of
    attention, groups of channels of a convolution or norm) there are groups of units within a block, whose `parent` is
    the group of whole blocks.

    Args:
        graph: A checked graph.
    """
    fine, *more = followed(graph)
    places, unmoved = fine.ledger.groups()
    groups = _with_scaling(graph, fine, _named(places, taken=set()))
    for pass_ in more:
        coarse, still = pass_.ledger.groups()
        known = {_content(group) for group in groups}
        blocks = [
            group for group in _named(coarse, taken={g.name for g in groups}) if _content(group) not in known
        ]
        groups = [*(_with_parent(group, blocks) for group in groups), *blocks]
        unmoved = _both(unmoved, still)
    fixed = tuple(FixedAxis(each.parameter, each.axis, each.count, each.reason) for each in unmoved)
    return SymmetryTable(tuple(groups), fixed, _roles(graph, fine.ledger))


def _roles(graph: ComputationalGraph, ledger: Ledger) -> dict[str, Role]:
    roles: dict[str, Role] = {name: spec.role for name, spec in graph.parameters.items()}
    for name, _ in ledger.parameter_axes():
        if name.endswith(".running_mean"):
            roles[name] = "running_mean"
        elif name.endswith(".running_var"):
            roles[name] = "running_var"
    return roles


def _with_scaling(graph: ComputationalGraph, found: "Followed", groups: list[UnitGroup]) -> list[UnitGroup]:
    """The groups with the factors that they allow, and the power of the factor on each axis."""
    known = scalings(graph, found.ledger, found.values, SCALING_RULES)
    colour_of, number = found.ledger.kinds()
    axes = found.ledger.parameter_axes()
    result = []
    for group in groups:
        members, colours, is_clear = list[AxisRef](), set[int](), True
        for member in group.members:
            ids = axes[member.parameter, member.axis]
            assert ids is not None, "the axis of a group moves"
            numbers = number[ids[member.starts[0] : member.starts[0] + member.block]].tolist()
            colours.update(colour_of[each] for each in numbers)
            exponents = known.get(min(colours), ("none", {}))[1]
            powers = {
                exponents.get(("parameter", member.parameter, member.axis, each), 0) for each in numbers
            }
            is_clear = is_clear and len(powers) == 1
            members.append(replace(member, power=min(powers)))
        kind = known.get(min(colours), ("none", {}))[0]
        if is_clear and any(member.power for member in members):
            group = replace(group, members=tuple(members), scaling=kind)
        result.append(group)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """The rules applied to all nodes of a graph.

    Attributes:
        ledger: What they demand.
        values: The axes of every value.
        loose: Values of which it stays open which axis moves, since all that reads them rearranges them; fixed in `values`.
    """

    ledger: Ledger
    values: tuple[Value, ...]
    loose: Mapping[int, Loose]


@lru_cache(maxsize=16)
def followed(graph: ComputationalGraph) -> tuple[Followed, ...]:
    """The rules for units within blocks and, if there are blocks, those for whole blocks."""
    fine = _followed(graph, coarse=False)
    return (fine, _followed(graph, coarse=True)) if fine.ledger.has_blocks else (fine,)


def _followed(graph: ComputationalGraph, *, coarse: bool) -> Followed:
    """Apply the rules to all nodes."""
    ledger = Ledger(coarse=coarse)
    values: list[Value | None] = []  # None: loose, and not settled yet
    loose: dict[int, Loose] = {}
    parameters = _by_node(graph)

    def settled(index: int) -> Value:
        value = values[index]
        if value is None:
            value = values[index] = loose[index].settled(ledger)
            for axis in value:
                ledger.see(axis)
        return value

    for index, node in enumerate(graph.nodes):
        found: Value | Loose | None = None
        if node.inputs and (open_value := loose.get(node.inputs[0])):
            shapes = graph.input_shapes(index)[0], graph.shapes[index]
            found = rearranged(node.op, dict(node.attrs), open_value, *shapes)
        if found is None:
            inputs = tuple(settled(source) for source in node.inputs)
            step = _step(graph, index, inputs, parameters.get(index, {}), ledger)
            found = reshaped(step) if node.op == "reshape" else RULES.get(node.op, unknown)(step)
        if isinstance(found, Loose):
            loose[index] = found
            values.append(None)
            continue
        for axis in found:
            ledger.see(axis)
        values.append(found)
    for output in graph.outputs:
        for axis in settled(output):
            ledger.fix(axis, "an output of the network")
    if any(value is None for value in values):
        units = ledger.units()
        for index, each in loose.items():
            if values[index] is None:
                values[index] = each.moving(ledger, units)
    known = tuple(
        fixed(shape) if value is None else value for value, shape in zip(values, graph.shapes, strict=True)
    )
    return Followed(ledger, known, {i: each for i, each in loose.items() if values[i] is None})


def _by_node(graph: ComputationalGraph) -> dict[int, dict[str, ParameterSpec]]:
    found: dict[int, dict[str, ParameterSpec]] = {}
    for name, spec in graph.parameters.items():
        owner, own = name[1:].split(".")
        found.setdefault(int(owner), {})[own] = spec
    return found


def _step(
    graph: ComputationalGraph,
    index: int,
    inputs: tuple[Value, ...],
    parameters: Mapping[str, ParameterSpec],
    ledger: Ledger,
) -> Step:
    node = graph.nodes[index]
    return Step(
        index=index,
        op=node.op,
        attrs=dict(node.attrs),
        inputs=inputs,
        shapes=graph.input_shapes(index),
        shape=graph.shapes[index],
        parameters=parameters,
        ledger=ledger,
    )


def _named(found: Iterable[list[Places]], *, taken: set[str]) -> list[UnitGroup]:
    groups = []
    for places in found:
        members = tuple(ref for place in places for ref in _references(place))
        first = members[0]
        name = f"{first.parameter}/{first.axis}"
        if name in taken:
            name = next(f"{name}.{k}" for k in range(1, len(taken) + 2) if f"{name}.{k}" not in taken)
        taken.add(name)
        groups.append(UnitGroup(name, len(first.starts), members))
    return groups


def _references(found: Places) -> list[AxisRef]:
    """Blocks of neighbouring places, as long as they may be for all units."""
    places = found.places
    joined = (np.diff(places, axis=1) == 1).all(axis=0)
    starts = np.flatnonzero(np.r_[True, ~joined])
    stops = np.r_[starts[1:], places.shape[1]]
    return [
        AxisRef(found.parameter, found.axis, int(stop - start), tuple(places[:, start].tolist()))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _content(group: UnitGroup) -> tuple[tuple[str, int, frozenset[tuple[int, ...]]], ...]:
    """What a group moves, whatever the order of its units."""
    axes: dict[tuple[str, int], list[list[int]]] = {}
    for member in group.members:
        rows = axes.setdefault((member.parameter, member.axis), [[] for _ in range(group.size)])
        for row, start in zip(rows, member.starts, strict=True):
            row.extend(range(start, start + member.block))
    return tuple((*key, frozenset(map(tuple, rows))) for key, rows in sorted(axes.items()))


def _with_parent(group: UnitGroup, blocks: Iterable[UnitGroup]) -> UnitGroup:
    """The group with the name of the block group one unit of which contains all of its places."""
    own = _content(group)
    for block in blocks:
        rows = {key[:2]: key[2] for key in _content(block)}
        units = [
            {row for row in rows.get((parameter, axis), ()) if set().union(*places) <= set(row)}
            for parameter, axis, places in own
        ]
        if all(units):
            return replace(group, parent=block.name)
    return group


def _both(first: Iterable[Unmoved], second: Iterable[Unmoved]) -> list[Unmoved]:
    """What stays in both tables: where one moves a part of an axis, the smaller number."""
    others = {(each.parameter, each.axis): each for each in second}
    both = []
    for each in first:
        other = others.get((each.parameter, each.axis))
        if other is not None:
            both.append(each if each.count <= other.count else other)
    return both


def permute_units(
    table: SymmetryTable, state: Mapping[str, Tensor], orders: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Reorder units. The network's function stays as it is, up to rounding.

    Args:
        table: Of the network's graph.
        state: Parameters, and running statistics where there are any, by name. Not changed; what no group touches is shared.
        orders: For each group that is to be permuted, by its name: the unit that takes each place. Groups with a
            parent are permuted first.

    Returns:
        The state in which unit `orders[g][u]` of each group g stands in the place of unit u.

    Raises:
        KeyError: If there is no such group.
        ValueError: If an order is no permutation of the group's units, or `state` lacks a parameter of the group.
    """
    result = dict(state)
    groups = [table.group(name) for name in orders]
    for group in sorted(groups, key=lambda group: not group.parent):
        order = torch.as_tensor(orders[group.name])
        if order.shape != (group.size,) or not torch.equal(order.sort().values, torch.arange(group.size)):
            raise ValueError(
                f"Expected a permutation of {group.size} units for '{group.name}' (got {order.tolist()!r:.80})"
            )
        for (parameter, axis), (source, target) in _moves(group, order).items():
            if parameter not in result:
                if parameter.rsplit(".", 1)[1].startswith("running_"):
                    continue
                raise ValueError(
                    f"The state has no parameter '{parameter}', which the group '{group.name}' moves"
                )
            tensor = result[parameter]
            index = torch.arange(tensor.shape[axis])
            index[target] = source
            result[parameter] = tensor.index_select(axis, index.to(tensor.device))
    return result


def _moves(group: UnitGroup, order: Tensor) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
    """For every axis: the places that are read and those that are written."""
    found: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}
    for member in group.members:
        places = member.places()
        found.setdefault((member.parameter, member.axis), []).append(
            (places[order].flatten(), places.flatten())
        )
    return {
        key: (torch.cat([source for source, _ in parts]), torch.cat([target for _, target in parts]))
        for key, parts in found.items()
    }


def random_orders(table: SymmetryTable, *, seed: int) -> dict[str, Tensor]:
    """A random permutation of each group, for `permute_units`: the same seed, the same orders."""
    rng = torch.Generator().manual_seed(seed)
    return {group.name: torch.randperm(group.size, generator=rng) for group in table.groups}
