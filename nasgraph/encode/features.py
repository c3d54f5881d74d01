# ruff: noqa: N815  shape letters after tensor names, in fields too
"""Graphs to numbers: node features, distances, and the list of parameters to predict.

Letters in array names: N = nodes of one graph, F = numeric features, E = edges.
"""

from dataclasses import dataclass
from math import log2, prod

import numpy as np
from numpy.typing import NDArray

from nasgraph.ir import OPS, ComputationalGraph, Node, Role, Shape

OP_IDS = {op: index for index, op in enumerate(sorted(OPS))}
"""Number of each operator, in the order of their names."""

FEATURES = (
    "output elements",
    "output first axis",
    "output last axis",
    "weight outputs",
    "weight inputs per output",
    "kernel height",
    "kernel width",
    "stride",
    "dilation",
    "groups",
    "heads",
    "concat or softmax or mean axis",
    "has bias",
    "inputs",
    "uses",
    "is output",
)
"""Meaning of the numeric features. Sizes enter as log2(size) / 8, so that unseen sizes extend a line."""

MAX_DISTANCE = 50
UNREACHABLE = 0


@dataclass(frozen=True, slots=True)
class ParameterSlot:
    """One parameter tensor that a hypernetwork has to predict.

    Attributes:
        name: Its name in `ComputationalGraph.parameters`.
        node: Index of the node that owns it.
        shape: Its shape.
        role: What it does.
        fan_in: Inputs that one output sums over; for a bias those of its weight; 1 for other roles.
        is_head: Whether its node directly gives an output of the graph.
    """

    name: str
    node: int
    shape: Shape
    role: Role
    fan_in: int
    is_head: bool


@dataclass(frozen=True)
class EncodedGraph:
    """What networks over graphs read of one graph.

    Attributes:
        op_N: Number of each node's operator, see `OP_IDS`.
        features_NF: Numeric features, see `FEATURES`.
        distance_NN: Signed length of the shortest directed path: `+d` at `[u, v]` and `-d` at `[v, u]` if v can be
            reached from u in d steps, at most 50; 0 on the diagonal and where neither reaches the other.
        edges_2E: Source and target of every edge, in the order of nodes and arguments.
        level_N: Nodes on the longest path that ends here, less one.
        slots: Every parameter of the graph once, in node order.
    """

    op_N: NDArray[np.int64]
    features_NF: NDArray[np.float32]
    distance_NN: NDArray[np.int16]
    edges_2E: NDArray[np.int64]
    level_N: NDArray[np.int64]
    slots: tuple[ParameterSlot, ...]

    def __len__(self) -> int:
        return len(self.op_N)


def encode(graph: ComputationalGraph) -> EncodedGraph:
    """Features of a checked graph. Reordering the nodes reorders the rows and changes nothing else."""
    edges = [(source, index) for index, node in enumerate(graph.nodes) for source in node.inputs]
    uses = np.bincount([source for source, _ in edges], minlength=len(graph))
    return EncodedGraph(
        op_N=np.array([OP_IDS[node.op] for node in graph.nodes], dtype=np.int64),
        features_NF=np.array(
            [_features(graph, index, int(uses[index])) for index in range(len(graph))], dtype=np.float32
        ),
        distance_NN=signed_distances(graph),
        edges_2E=np.array(edges, dtype=np.int64).reshape(-1, 2).T,
        level_N=_levels(graph),
        slots=_slots(graph),
    )


def _size(number: int) -> float:
    return log2(number) / 8


def _pair(node: dict[str, object], name: str) -> tuple[int, int]:
    value = node.get(name, (1, 1))
    assert isinstance(value, tuple)
    return value


def _features(graph: ComputationalGraph, index: int, uses: int) -> list[float]:
    node: Node = graph.nodes[index]
    attrs: dict[str, object] = dict(node.attrs)
    shape = graph.shapes[index]
    spec = graph.parameters.get(f"n{index}.weight")
    weight = spec.shape if spec is not None else (1,)
    kernel, stride, dilation = (_pair(attrs, name) for name in ("kernel_size", "stride", "dilation"))
    groups, heads, axis = (
        attrs.get(name, default) for name, default in (("groups", 1), ("num_heads", 1), ("axis", 0))
    )
    assert isinstance(groups, int)
    assert isinstance(heads, int)
    assert isinstance(axis, int)
    return [
        _size(prod(shape)),
        _size(shape[0]),
        _size(shape[-1]),
        _size(weight[0]),
        _size(prod(weight[1:])),
        _size(kernel[0]),
        _size(kernel[1]),
        _size(stride[0]),
        _size(dilation[0]),
        _size(groups),
        _size(heads),
        axis / 4,
        float(bool(attrs.get("bias", False))),
        _size(1 + len(node.inputs)),
        _size(1 + uses),
        float(index in graph.outputs),
    ]


def signed_distances(graph: ComputationalGraph) -> NDArray[np.int16]:
    """Signed shortest path lengths between all nodes, by dynamic programming along the topological order.

    See `EncodedGraph.distance_NN`. One vector minimum per edge; equal to networkx's breadth-first search.
    """
    size = len(graph)
    far = np.int16(2**14)
    forward_TN = np.full((size, size), far, dtype=np.int16)  # row v: distance from every u to v
    for index, node in enumerate(graph.nodes):
        row = forward_TN[index]
        for source in set(node.inputs):
            np.minimum(row, forward_TN[source] + 1, out=row)
        row[index] = 0
    reached = forward_TN < far
    clipped = np.where(reached, np.minimum(forward_TN, MAX_DISTANCE), UNREACHABLE).astype(np.int16)
    signed: NDArray[np.int16] = clipped.T - clipped
    return signed


def _levels(graph: ComputationalGraph) -> NDArray[np.int64]:
    levels: list[int] = []
    for node in graph.nodes:
        levels.append(1 + max((levels[source] for source in node.inputs), default=-1))
    return np.array(levels, dtype=np.int64)


def _slots(graph: ComputationalGraph) -> tuple[ParameterSlot, ...]:
    slots = []
    fan_in = 1
    for name, spec in graph.parameters.items():
        node = int(name[1:].split(".")[0])
        if spec.role != "bias":  # which follows its weight in the table
            fan_in = spec.fan_in if spec.role == "weight" else 1
        slots.append(ParameterSlot(name, node, spec.shape, spec.role, fan_in, node in graph.outputs))
    return tuple(slots)
