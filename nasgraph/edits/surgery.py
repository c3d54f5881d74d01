"""Resizing the units of a network: one walk through the graph that changes attributes and parameters together.

Growing, pruning and inheriting all come down to this: for the axes of parameters that make units, say which old unit each
new one copies, or that it is new. All that follows (who reads the units, normalises them, joins or reshapes them, in how many
groups or heads) is found on the way, and what does not fit is refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nasgraph.edits.edited import EditError
from nasgraph.edits.places import NEW, Along, Ids, Places, Resized, Step
from nasgraph.edits.resize_shapes import RULES
from nasgraph.errors import InvalidGraphError
from nasgraph.ir import ComputationalGraph, Node, check_graph, make_node
from nasgraph.modules import initial_buffers, initial_parameters
from nasgraph.modules.state import State
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import SymmetryTable

Picks = Mapping[str, Tensor | Ids]
"""For each group, by name, the old unit that each unit copies, or -1 for a new unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """How to resize.

    Attributes:
        exact: Whether the function must stay as it is: copies share out what reads them, and what cannot be exact is refused.
        zero_nodes: Nodes whose new units are zero; those of others start as in a fresh network, and what reads them is zero.
        spread: How unequally copies share out the weights that read them, each weight for itself, from 0 (equally) to
            below 1. Unequal shares keep the function and let the copies learn different things.
        noise: Standard deviation of what is added to the weights that make copies, as a share of the tensor's own.
        seed: Decides new weights, shares and noise.
    """

    exact: bool = False
    zero_nodes: Collection[int] = ()
    spread: float = 0.0
    noise: float = 0.0
    seed: int = 0


def select_units(
    graph: ComputationalGraph, state: State, table: SymmetryTable, picks: Picks
) -> tuple[ComputationalGraph, dict[str, Tensor]]:
    """The network that keeps only some units of each group, in their order. Nothing makes up for the others.

    Attention whose heads lose channels keeps its scale as an attribute.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        table: The graph's symmetry table.
        picks: For each group the units to keep, ascending. Groups must not share places: heads and the channels in them go
            one after the other, while the channels of all heads of one attention go together.

    Raises:
        EditError: If what reads the units cannot do with fewer.
    """
    return resize(graph, state, made_axes(graph, table, picks), Resizing())


def made_axes(graph: ComputationalGraph, table: SymmetryTable, picks: Picks) -> dict[str, dict[int, Ids]]:
    """Where the places of every axis come from on which the groups stand, by parameter and axis.

    Copies and new units follow the last unit of their group, in each segment of the axis that has one.

    Raises:
        EditError: If a pick is out of range, its first copies are not ascending, or groups share places.
        KeyError: If there is no such group.
    """
    sizes = {name: spec.shape for name, spec in graph.parameters.items()}
    sizes |= {name: tuple(tensor.shape) for name, tensor in initial_buffers(graph).items()}
    parts: dict[tuple[str, int], list[tuple[Ids, Ids]]] = {}
    for name, pick in picks.items():
        group = table.group(name)
        chosen = _checked_pick(name, pick, group.size)
        for member in group.members:
            parts.setdefault((member.parameter, member.axis), []).append((member.places().numpy(), chosen))
    result: dict[str, dict[int, Ids]] = {}
    for (parameter, axis), pairs in parts.items():
        result.setdefault(parameter, {})[axis] = _placed(parameter, sizes[parameter][axis], pairs)
    return result


def _checked_pick(name: str, pick: Tensor | Ids, size: int) -> Ids:
    chosen: Ids = np.asarray(pick, dtype=np.int64)
    if chosen.ndim != 1 or not len(chosen) or chosen.min() < NEW or chosen.max() >= size:
        raise EditError(f"Expected units from 0 to {size - 1} for '{name}' (got {chosen.tolist()!r:.80})")
    kept, first = np.unique(chosen[chosen >= 0], return_index=True)
    if len(kept) and (np.diff(first) < 0).any():
        raise EditError(
            f"Expected the units of '{name}' in ascending order; reorder them with 'permute_units'"
        )
    return chosen


def _placed(parameter: str, size: int, pairs: Sequence[tuple[Ids, Ids]]) -> Ids:
    """Places of an axis, sorted by where they stand: first copies in their unit's place, all else after the segment."""
    stays = np.ones(size, dtype=np.bool_)
    keys, sources = [], []
    for number, (rows, chosen) in enumerate(pairs):
        if not stays[rows].all():
            raise EditError(
                f"Two of the groups share places on '{parameter}': edit one, then the other by the new graph's table"
            )
        stays[rows] = False
        _, first = np.unique(chosen, return_index=True)
        is_first = np.isin(np.arange(len(chosen)), first) & (chosen >= 0)
        found = np.where((chosen == NEW)[:, None], NEW, rows[chosen])
        after = rows.max() + (number + 1) / (len(pairs) + 1)
        keys.append(np.where(is_first[:, None], found.astype(np.float64), after).ravel())
        sources.append(found.ravel())
    rest = np.flatnonzero(stays)
    key, source = np.concatenate([*keys, rest]), np.concatenate([*sources, rest])
    placed: Ids = source[np.argsort(key, kind="stable")]
    return placed


def resize(
    graph: ComputationalGraph, state: State, made: Mapping[str, Mapping[int, Ids]], how: Resizing
) -> tuple[ComputationalGraph, dict[str, Tensor]]:
    """Resize all that follows from the axes in `made`. Nodes keep their numbers.

    Args:
        graph: The architecture.
        state: Its state; not changed, and shared where nothing changes.
        made: Where the places of axes come from, from `made_axes`. Axes that read units are checked against what they read.
        how: Whether the function must stay, and what new weights are.

    Returns:
        The new graph, checked, and its state.

    Raises:
        EditError: If an operator cannot be resized so. The message names it.
    """
    steps = _walk(graph, made, how)
    nodes = tuple(
        node if step is None else make_node(node.op, node.inputs, **step.attrs)
        for node, step in zip(graph.nodes, steps, strict=True)
    )
    resized = ComputationalGraph(nodes, graph.outputs)
    try:
        check_graph(resized)
    except InvalidGraphError as error:
        raise EditError(f"The network cannot be resized so: {error}") from error
    return resized, _resized_state(resized, state, [step for step in steps if step is not None], how)


def _walk(
    graph: ComputationalGraph, made: Mapping[str, Mapping[int, Ids]], how: Resizing
) -> list[Step | None]:
    """Apply the rules. None for nodes that nothing of it reaches."""
    shapes_of = _shapes_by_node(graph)
    readers: dict[int, list[tuple[str, int]]] = {}
    for node in graph.nodes:
        for place, source in enumerate(node.inputs):
            readers.setdefault(source, []).append((node.op, place))
    touched = {name.split(".")[0] for name in made}
    steps: list[Step | None] = []
    values: list[Resized] = []
    for index, node in enumerate(graph.nodes):
        inputs = [values[source] for source in node.inputs]
        if f"n{index}" not in touched and all(value.is_as_before for value in inputs):
            steps.append(None)
            values.append(Resized((None,) * len(graph.shapes[index])))
            continue
        step = _step(graph, index, node, inputs, how, made)
        step.shapes_of, step.readers = shapes_of.get(index, {}), readers.get(index, ())
        values.append(RULES[node.op](step))
        _check_made(step, made)
        steps.append(step)
    for output in graph.outputs:
        if not values[output].is_as_before:
            raise EditError(
                f"Node {output} ({graph.nodes[output].op}) is an output, whose size cannot change"
            )
    return steps


def _step(
    graph: ComputationalGraph,
    index: int,
    node: Node,
    inputs: Sequence[Resized],
    how: Resizing,
    made: Mapping[str, Mapping[int, Ids]],
) -> Step:
    def made_of(name: str, axis: int) -> Places:
        return made.get(f"n{index}.{name}", {}).get(axis)

    return Step(
        index=index,
        op=node.op,
        attrs=dict(node.attrs),
        inputs=inputs,
        shapes=graph.input_shapes(index),
        shape=graph.shapes[index],
        shapes_of={},
        made=made_of,
        exact=how.exact,
        fills_zero=index in how.zero_nodes,
        readers=(),
    )


def _shapes_by_node(graph: ComputationalGraph) -> dict[int, dict[str, tuple[int, ...]]]:
    found: dict[int, dict[str, tuple[int, ...]]] = {}
    tensors = {name: spec.shape for name, spec in graph.parameters.items()}
    tensors |= {name: tuple(tensor.shape) for name, tensor in initial_buffers(graph).items()}
    for name, shape in tensors.items():
        node, own = name[1:].split(".")
        found.setdefault(int(node), {})[own] = shape
    return found


def _check_made(step: Step, made: Mapping[str, Mapping[int, Ids]]) -> None:
    """What the walk found for the axes of a node is what the symmetry table says of them."""
    for name in step.shapes_of:
        wanted = made.get(f"n{step.index}.{name}", {})
        found = {along.axis: along.places for along in step.changes.get(name, [])}
        for axis, places in wanted.items():
            if axis not in found or not np.array_equal(found[axis], places):
                step.refuse("reads units in an order, or from where, this edit cannot follow")


# ---- tensors


def _resized_state(
    graph: ComputationalGraph, state: State, steps: Sequence[Step], how: Resizing
) -> dict[str, Tensor]:
    result = dict(state)
    fresh: dict[str, Tensor] = {}
    for step in steps:
        for own, changes in step.changes.items():
            name = f"n{step.index}.{own}"
            if any((along.places == NEW).any() for along in changes) and not fresh:
                fresh = {**initial_parameters(graph, seed=how.seed), **initial_buffers(graph)}
            start = fresh.get(name)
            result[name] = _resized_tensor(name, state[name], changes, step, how, start)
        for own, factor in step.gains.items():
            result[f"n{step.index}.{own}"] = result[f"n{step.index}.{own}"] * factor
    return result


def _resized_tensor(
    name: str, tensor: Tensor, changes: Sequence[Along], step: Step, how: Resizing, fresh: Tensor | None
) -> Tensor:
    result = tensor.detach()
    for along in changes:
        index = torch.from_numpy(np.maximum(along.places, 0)).to(result.device)
        copied = result.index_select(along.axis, index)
        if how.exact and along.part == "read":
            copied = copied * shares(copied, along, tensor.shape[along.axis], name=name, how=how)
        if how.noise and along.part == "made":
            copied = copied + _noise(copied, along, name=name, how=how) * tensor.detach().std(correction=0)
        result = copied
    if fresh is None or not any((along.places == NEW).any() for along in changes):
        return result
    fresh = fresh.to(result)
    for part in ("read", "kept", "made"):  # a new unit's own weights are drawn also where it reads new units
        for along in changes:
            if along.part == part and (along.places == NEW).any():
                is_zero = step.fills_zero if part == "made" else part == "read" and not along.zero
                new = torch.from_numpy(np.flatnonzero(along.places == NEW)).to(result.device)
                filling = fresh.index_select(along.axis, new)
                result = result.index_copy(along.axis, new, torch.zeros_like(filling) if is_zero else filling)
    return result


def shares(copied: Tensor, along: Along, size: int, *, name: str, how: Resizing) -> Tensor:
    """What part of a weight each copy of a unit takes: parts of the copies of one unit sum to one, for every weight."""
    places = np.maximum(along.places, 0)
    counts = np.bincount(along.places[along.places >= 0], minlength=size)
    shape = [1] * copied.dim()
    shape[along.axis] = -1
    number = torch.from_numpy(np.maximum(counts[places], 1)).to(copied).reshape(shape)
    if not how.spread or counts.max(initial=0) < 2:
        return 1 / number
    rng = torch.Generator().manual_seed(derive_seed(how.seed, "shares", name, along.axis))
    draws = (torch.rand(copied.shape, generator=rng, dtype=torch.float64) - 0.5).to(copied)
    index = torch.from_numpy(places).to(copied.device)
    sums_shape = [*copied.shape]
    sums_shape[along.axis] = size
    sums = torch.zeros(sums_shape, dtype=copied.dtype, device=copied.device)
    means = sums.index_add(along.axis, index, draws).index_select(along.axis, index) / number
    return (1 + how.spread * (draws - means)) / number


def _noise(copied: Tensor, along: Along, *, name: str, how: Resizing) -> Tensor:
    """Random numbers for all copies of a unit but the first."""
    _, first = np.unique(along.places, return_index=True)
    shape = [1] * copied.dim()
    shape[along.axis] = -1
    is_copy = torch.ones(len(along.places))
    is_copy[torch.from_numpy(first)] = 0.0
    rng = torch.Generator().manual_seed(derive_seed(how.seed, "noise", name, along.axis))
    draws = torch.randn(copied.shape, generator=rng, dtype=torch.float64)
    return (how.noise * draws * is_copy.reshape(shape)).to(copied)
