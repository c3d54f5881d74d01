"""Where every parameter of an architecture stands in its parameter graph. Computed once per architecture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, ParameterSpec
from nasgraph.meta.graph.kinds import ACTIVATIONS, NODE_COLUMNS, NUM_SLOTS
from nasgraph.meta.graph.rules import apply_rule
from nasgraph.meta.graph.scalings import scalings
from nasgraph.meta.graph.sites import Book, Ids, Placed, Step, Value
from nasgraph.modules import initial_buffers
from nasgraph.symmetry import SymmetryTable, symmetry_table


class ParameterGraphError(NasGraphError, ValueError):
    """A network of which no parameter graph can be made, or values that do not fit one."""


@dataclass(frozen=True, eq=False)
class GraphLayout:
    """The parameter graph of an architecture without the values: nodes, edges, and where each parameter stands.

    The elements of the tensors `placed`, one after the other, followed by 0 and 1, are the vector that `node_gather` and
    `edge_gather` read. `node_scatter` and `edge_scatter` read the way back.

    Attributes:
        graph: The architecture.
        placed: Parameters and running statistics; those on nodes first.
        node_gather: For each node and column what stands there.
        edge_gather: For each edge and slot what stands there.
        node_scatter: For the elements on nodes, in order: their place in `node_values`, flat.
        edge_scatter: For the elements on edges, in order: their place in `edge_values`, flat.
        node_kind: What each node is, see `kinds`.
        node_depth: Number of layers before it.
        node_position: Its place along an axis whose order has a meaning, else -1.
        node_scaling: By which factors its unit may be rescaled: the index in `SCALINGS`.
        edge_index: Source and target of every edge, along the computation.
        edge_kind: What each edge is, see `kinds`.
        edge_place: Which part of a large kernel or block it carries.
        edge_fan_in: How many inputs its target's weight sums over; 1 where there is no parameter.
        edge_alike: Whether both ends are rescaled by one factor, or neither is.
        parameter_axes: For axes of parameters that have nodes: the node of each place, and its slot there.
    """

    graph: ComputationalGraph
    placed: tuple[Placed, ...]
    node_gather: Int64[Tensor, "nodes columns"]
    edge_gather: Int64[Tensor, "edges slots"]
    node_scatter: Int64[Tensor, " node_elements"]
    edge_scatter: Int64[Tensor, " edge_elements"]
    node_kind: Int64[Tensor, " nodes"]
    node_depth: Int64[Tensor, " nodes"]
    node_position: Int64[Tensor, " nodes"]
    node_scaling: Int64[Tensor, " nodes"]
    edge_index: Int64[Tensor, "2 edges"]
    edge_kind: Int64[Tensor, " edges"]
    edge_place: Int64[Tensor, " edges"]
    edge_fan_in: Int64[Tensor, " edges"]
    edge_alike: Bool[Tensor, " edges"]
    parameter_axes: dict[tuple[str, int], tuple[Ids, Ids]] = field(repr=False)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.node_kind)

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.edge_index.shape[1]

    @property
    def num_elements(self) -> int:
        """Number of elements of all tensors placed."""
        return len(self.node_scatter) + len(self.edge_scatter)

    @property
    def node_mask(self) -> Bool[Tensor, "nodes columns"]:
        """Where a parameter or running statistic stands on a node."""
        return self.node_gather < self.num_elements

    @property
    def edge_mask(self) -> Bool[Tensor, "edges slots"]:
        """Where an element of a parameter stands on an edge."""
        return self.edge_gather < self.num_elements


@lru_cache(maxsize=64)
def graph_layout(graph: ComputationalGraph) -> GraphLayout:
    """Where every parameter of an architecture stands in its parameter graph. Pure; kept for the last 64 graphs.

    Args:
        graph: A checked graph with parameters.

    Raises:
        ParameterGraphError: If an operator is opaque, or nothing has parameters.
    """
    check_architecture(graph)
    table = symmetry_table(graph)
    book = _written(graph, table)
    specs = {name: spec.shape for name, spec in graph.parameters.items()}
    specs |= {name: tuple(tensor.shape) for name, tensor in initial_buffers(graph).items()}
    on_nodes = {column.parameter for column in book.columns}
    names = sorted(specs, key=lambda name: name not in on_nodes)
    placed = tuple(Placed(name, specs[name], name in on_nodes) for name in names)
    starts = dict(zip(names, np.cumsum([0, *(each.numel for each in placed)]).tolist(), strict=False))
    total = sum(each.numel for each in placed)
    node_gather, node_scatter = _node_places(book, names, starts, total)
    edge_gather, edge_scatter = _edge_places(book, names, starts, total)
    assert len(node_scatter) + len(edge_scatter) == total, "a parameter has no place"
    activation = np.zeros(book.num_nodes, dtype=np.int64)
    activation[list(book.activation)] = list(book.activation.values())
    position = _positions(book, table, specs)
    scaling, unit = scalings(book, table, node_gather, edge_gather, placed)
    source, target = _joined(book, "source"), _joined(book, "target")
    return GraphLayout(
        graph=graph,
        placed=placed,
        node_gather=torch.from_numpy(node_gather),
        edge_gather=torch.from_numpy(edge_gather),
        node_scatter=torch.from_numpy(node_scatter),
        edge_scatter=torch.from_numpy(edge_scatter),
        node_kind=torch.from_numpy(
            np.asarray(book.node_site, dtype=np.int64) * len(ACTIVATIONS) + activation
        ),
        node_depth=torch.tensor(book.node_depth, dtype=torch.int64),
        node_position=torch.from_numpy(position),
        node_scaling=torch.from_numpy(scaling),
        edge_index=torch.from_numpy(np.stack([source, target])),
        edge_kind=torch.from_numpy(_repeated(book, [each.kind for each in book.edges])),
        edge_place=torch.from_numpy(_joined(book, "place")),
        edge_fan_in=torch.from_numpy(_repeated(book, [each.fan_in for each in book.edges])),
        edge_alike=torch.from_numpy(unit[source] == unit[target]),
        parameter_axes={
            key: (axis.nodes, axis.slots) for key, axis in book.axes.items() if axis.nodes is not None
        },
    )


def check_architecture(graph: ComputationalGraph) -> None:
    """Refuse an architecture of which nothing can be read.

    Raises:
        ParameterGraphError: If an operator is opaque, or nothing has parameters.
    """
    for index, node in enumerate(graph.nodes):
        if node.op == "opaque":
            raise ParameterGraphError(
                f"Node {index} is '{node.attr('name')}', which the graph language does not have: nothing is known of its "
                "parameters. Write this part of the model with operators of 'nasgraph.ir.OPS', or leave it out"
            )
    if not graph.parameters:
        raise ParameterGraphError("The network has no parameters, so it has no parameter graph")


def _written(graph: ComputationalGraph, table: SymmetryTable) -> Book:
    """Apply the rules to all nodes."""
    weights = {
        node.inputs[1]
        for node in graph.nodes
        if node.op == "apply_linear" or (node.op.startswith("apply_conv") and "transpose" not in node.op)
    }
    moving = frozenset((m.parameter, m.axis) for group in table.groups for m in group.members)
    book = Book(moving, frozenset(weights))
    values: list[Value] = []
    depths: list[int] = []
    readers = [0] * len(graph)
    for node in graph.nodes:
        for source in node.inputs:
            readers[source] += 1
    for output in graph.outputs:
        readers[output] += 2
    for index, node in enumerate(graph.nodes):
        depth = max((depths[source] for source in node.inputs), default=0)
        step = Step(
            index=index,
            op=node.op,
            attrs=dict(node.attrs),
            inputs=tuple(values[source] for source in node.inputs),
            shapes=graph.input_shapes(index),
            shape=graph.shapes[index],
            parameters=_own(graph, index),
            depth=depth + 1,
            is_shared=tuple(readers[source] > 1 for source in node.inputs),
        )
        before = book.num_nodes
        value = apply_rule(book, step)
        assert tuple(axis.size for axis in value) == step.shape, f"wrong axes for '{node.op}'"
        values.append(value)
        depths.append(depth + (book.num_nodes > before and node.op != "parameter"))
    return book


@lru_cache(maxsize=4)
def _owners(graph: ComputationalGraph) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in graph.parameters:
        owner, own = name[1:].split(".")
        found.setdefault(int(owner), []).append(own)
    return found


def _own(graph: ComputationalGraph, index: int) -> dict[str, ParameterSpec]:
    return {own: graph.parameters[f"n{index}.{own}"] for own in _owners(graph).get(index, ())}


def _node_places(book: Book, names: Sequence[str], starts: dict[str, int], total: int) -> tuple[Ids, Ids]:
    gather = np.full((book.num_nodes, len(NODE_COLUMNS)), total, dtype=np.int64)
    by_name = {}
    for column in book.columns:
        start = starts[column.parameter]
        assert (gather[column.nodes, column.column] == total).all(), "two parameters at one place"
        gather[column.nodes, column.column] = np.arange(start, start + len(column.nodes))
        by_name[column.parameter] = column.nodes * len(NODE_COLUMNS) + column.column
    return gather, _chained([by_name[name] for name in names if name in by_name])


def _edge_places(book: Book, names: Sequence[str], starts: dict[str, int], total: int) -> tuple[Ids, Ids]:
    counts = [len(each.source) for each in book.edges]
    gather = np.full(sum(counts) * NUM_SLOTS, total, dtype=np.int64)
    by_name, first = {}, 0
    for each, count in zip(book.edges, counts, strict=True):
        if each.where is None:
            gather[first * NUM_SLOTS + NUM_SLOTS // 2 : (first + count) * NUM_SLOTS : NUM_SLOTS] = total + 1
        else:
            places = each.where + first * NUM_SLOTS
            start = starts[each.parameter]
            gather[places] = np.arange(start, start + len(places))
            by_name[each.parameter] = places
        first += count
    return gather.reshape(-1, NUM_SLOTS), _chained([by_name[name] for name in names if name in by_name])


def _positions(book: Book, table: SymmetryTable, shapes: dict[str, tuple[int, ...]]) -> Ids:
    """The place of nodes that no group moves."""
    position = np.full(book.num_nodes, -1, dtype=np.int64)
    moved: dict[tuple[str, int], list[Ids]] = {}
    for group in table.groups:
        for member in group.members:
            moved.setdefault((member.parameter, member.axis), []).append(member.places().numpy().ravel())
    for (name, place), axis in book.axes.items():
        if axis.nodes is not None:
            stays = np.ones(shapes[name][place], dtype=np.bool_)
            stays[_chained(moved.get((name, place), []))] = False
            found = np.flatnonzero(stays)[::-1]
            position[axis.nodes[found]] = found
    return position


def _chained(parts: Sequence[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _joined(book: Book, name: str) -> Ids:
    return _chained([getattr(each, name) for each in book.edges])


def _repeated(book: Book, values: Sequence[int]) -> Ids:
    return np.repeat(np.asarray(values, dtype=np.int64), [len(each.source) for each in book.edges])
