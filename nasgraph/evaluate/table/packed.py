"""Many graphs in a few arrays.

Nodes of all graphs stand one after another. A node is a *kind* (an operator with its attributes, a place in a list) and the
indices of the nodes that it reads. Rows that have equal graphs share one.

Shape letters: none; every array has one axis.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Shaped

from nasgraph.errors import InvalidGraphError
from nasgraph.evaluate.table.records import TableError
from nasgraph.files import Json, canonical_json
from nasgraph.ir import ComputationalGraph, Node, check_graph, make_node
from nasgraph.ir.graph import MAX_NODES

Array = np.ndarray
Numbers = Shaped[Array, "..."]
ARRAYS = (
    "row_graph",
    "fingerprint",
    "node_offset",
    "input_offset",
    "output_offset",
    "node_kind",
    "num_inputs",
    "inputs",
    "outputs",
)
MAX_KINDS = 1_000_000


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedGraphs:
    """Graphs in arrays of unsigned integers, which may lie in a file. Offsets are checked here, graphs when they are taken out.

    Attributes:
        kinds: Distinct operators with their attributes: nodes that read nothing.
        row_graph: For every row the place of its graph.
        fingerprint: For every graph its fingerprint as a number.
        node_offset: For every graph where its nodes begin, and one last end.
        input_offset: For every graph where its entries of `inputs` begin, and one last end.
        output_offset: For every graph where its outputs begin, and one last end.
        node_kind: For every node the place of its kind.
        num_inputs: For every node how many nodes it reads.
        inputs: What each node reads, as an index within its graph.
        outputs: Outputs of each graph, as an index within it.

    Raises:
        TableError: If the arrays do not fit together.
    """

    kinds: tuple[Node, ...]
    row_graph: Numbers
    fingerprint: Numbers
    node_offset: Numbers
    input_offset: Numbers
    output_offset: Numbers
    node_kind: Numbers
    num_inputs: Numbers
    inputs: Numbers
    outputs: Numbers

    def __post_init__(self) -> None:
        for name in ARRAYS:
            array = getattr(self, name)
            if array.ndim != 1 or array.dtype.kind != "u":
                raise TableError(
                    f"Expected '{name}' of the graphs as one axis of unsigned integers (got {array.dtype}, {array.ndim} axes)"
                )
        if len(self.num_inputs) != len(self.node_kind):
            raise TableError(
                f"Expected one 'num_inputs' per 'node_kind' (got {len(self.num_inputs)} and {len(self.node_kind)})"
            )
        _check_offsets("node_offset", self.node_offset, len(self.fingerprint), len(self.node_kind))
        _check_offsets("input_offset", self.input_offset, len(self.fingerprint), len(self.inputs))
        _check_offsets("output_offset", self.output_offset, len(self.fingerprint), len(self.outputs))
        _check_below("row_graph", self.row_graph, len(self.fingerprint))
        _check_below("node_kind", self.node_kind, len(self.kinds))

    def __len__(self) -> int:
        """Number of distinct graphs."""
        return len(self.fingerprint)

    def graph(self, place: int) -> ComputationalGraph:
        """One graph, checked.

        Raises:
            TableError: If it breaks a rule of `check_graph`.
        """
        start, end = int(self.node_offset[place]), int(self.node_offset[place + 1])
        first, last = int(self.input_offset[place]), int(self.input_offset[place + 1])
        sources = self.inputs[first:last].tolist()
        counts = self.num_inputs[start:end].tolist()
        if not 1 <= len(counts) <= MAX_NODES or sum(counts) != len(sources):
            raise TableError(
                f"Graph {place} of the table is damaged: {len(counts)} nodes, {len(sources)} inputs"
            )
        nodes, taken = [], 0
        for kind, count in zip(self.node_kind[start:end].tolist(), counts, strict=True):
            known = self.kinds[kind]
            nodes.append(Node(known.op, tuple(sources[taken : taken + count]), known.attrs))
            taken += count
        outputs = self.outputs[int(self.output_offset[place]) : int(self.output_offset[place + 1])]
        graph = ComputationalGraph(tuple(nodes), tuple(outputs.tolist()))
        try:
            check_graph(graph)
        except InvalidGraphError as error:
            raise TableError(f"Graph {place} of the table is no valid graph: {error}") from error
        return graph

    @cached_property
    def rows_by_fingerprint(self) -> tuple[Numbers, Numbers]:
        """Fingerprints of all rows in rising order, and the rows in that order."""
        of_row = np.asarray(self.fingerprint)[self.row_graph]
        order = np.argsort(of_row, kind="stable")
        return of_row[order], order


def _check_offsets(name: str, offsets: Numbers, num_graphs: int, end: int) -> None:
    if len(offsets) != num_graphs + 1 or offsets[0] != 0 or offsets[-1] != end:
        raise TableError(f"Expected '{name}' to hold {num_graphs + 1} numbers from 0 to {end}")
    if np.any(offsets[1:] < offsets[:-1]):
        raise TableError(f"Expected '{name}' to rise")


def _check_below(name: str, numbers: Numbers, bound: int) -> None:
    if len(numbers) and int(numbers.max()) >= bound:
        raise TableError(f"'{name}' names number {int(numbers.max())}, but there are {bound}")


def pack_graphs(graphs: Sequence[ComputationalGraph]) -> PackedGraphs:
    """Pack the graphs of all rows. Graphs that are written down alike are stored once."""
    places: dict[tuple[tuple[Node, ...], tuple[int, ...]], int] = {}
    distinct: list[ComputationalGraph] = []
    row_graph = []
    for graph in graphs:
        place = places.setdefault((graph.nodes, graph.outputs), len(distinct))
        if place == len(distinct):
            distinct.append(graph)
        row_graph.append(place)
    kinds: dict[str, int] = {}
    known: list[Node] = []
    node_kind = []
    for graph in distinct:
        for node in graph.nodes:
            # The text tells 1 from 1.0 and True, which are equal but not alike.
            place = kinds.setdefault(canonical_json([node.op, node.attrs]), len(known))
            if place == len(known):
                known.append(Node(node.op, (), node.attrs))
            node_kind.append(place)
    nodes = [node for graph in distinct for node in graph.nodes]
    return PackedGraphs(
        kinds=tuple(known),
        row_graph=compact(row_graph),
        fingerprint=np.array([int(graph.fingerprint, 16) for graph in distinct], dtype=np.uint64),
        node_offset=_offsets(len(graph.nodes) for graph in distinct),
        input_offset=_offsets(sum(len(node.inputs) for node in graph.nodes) for graph in distinct),
        output_offset=_offsets(len(graph.outputs) for graph in distinct),
        node_kind=compact(node_kind),
        num_inputs=compact([len(node.inputs) for node in nodes]),
        inputs=compact([source for node in nodes for source in node.inputs]),
        outputs=compact([output for graph in distinct for output in graph.outputs]),
    )


def compact(numbers: Sequence[int] | Numbers) -> Numbers:
    """Whole numbers of at least zero in the smallest type that holds them."""
    wide = np.asarray(numbers, dtype=np.uint64)
    most = int(wide.max()) if len(wide) else 0
    return wide.astype(np.min_scalar_type(most))


def _offsets(counts: Iterable[int]) -> Numbers:
    return compact(np.cumsum([0, *counts]))


def kinds_to_json(kinds: Sequence[Node]) -> list[list[object]]:
    """Kinds as plain values: pairs of operator and attributes."""
    return [[kind.op, dict(kind.attrs)] for kind in kinds]


def kinds_from_json(value: Json, *, source: str) -> tuple[Node, ...]:
    """Kinds that may come from a stranger.

    Raises:
        TableError: If one has another form, or an operator or attribute is unknown or out of bounds.
    """
    if not isinstance(value, list) or len(value) > MAX_KINDS:
        raise TableError(f"Expected 'kinds' in {source} to be a list of at most {MAX_KINDS:,}")
    kinds = []
    for place, item in enumerate(value):
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise TableError(
                f"Expected kind {place} in {source} to be a pair of an operator and its attributes"
            )
        op, attrs = item
        if not isinstance(op, str) or not isinstance(attrs, dict):
            raise TableError(f"Expected the attributes of kind {place} in {source} to be an object")
        try:
            kinds.append(make_node(op, (), **_tuples(attrs)))
        except InvalidGraphError as error:
            raise TableError(f"Kind {place} in {source}: {error}") from error
    return tuple(kinds)


def _tuples(attrs: dict[str, Json]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in attrs.items()}
