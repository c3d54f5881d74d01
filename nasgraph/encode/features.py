# ruff: noqa: N815  shape letters after tensor names, in fields too
"""Graphs to numbers: node features, distances, and the list of parameters to predict.

Letters in array names: N = nodes of one graph, F = numeric features, E = edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2, prod

import numpy as np
from numpy.typing import NDArray

from nasgraph.encode.distances import MAX_DENSE_NODES, DistanceBand, distance_band, signed_distances
from nasgraph.ir import OPS, ComputationalGraph, Node, ParameterSpec, Role, Shape

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
"""Meaning of the numeric features. Sizes enter as log2(size) / 8, so that unseen sizes extend a line.

Of a window along one axis the height is its length and the width 1; of one along three axes height and width are
the last two, and the depth is seen in the inputs per output. A node has a bias if a parameter of that role is its own;
the shift of a norm is none. Stride and dilation are those of the height.
"""


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
        is_kernel: Whether its axes, if there are more than two, are outputs, inputs and space, as a convolution has
            them. Otherwise the axes before the last two are a stack of matrices, such as the experts of a mixture.
    """

    name: str
    node: int
    shape: Shape
    role: Role
    fan_in: int
    is_head: bool
    is_kernel: bool = True


@dataclass(frozen=True)
class EncodedGraph:
    """What networks over graphs read of one graph.

    Attributes:
        op_N: Number of each node's operator, see `OP_IDS`.
        features_NF: Numeric features, see `FEATURES`.
        distance_NN: Signed length of the shortest directed path: `+d` at `[u, v]` and `-d` at `[v, u]` if v can be
            reached from u in d steps, at most 50; 0 on the diagonal and where neither reaches the other. None for
            graphs that have a `band` instead.
        edges_2E: Source and target of every edge, in the order of nodes and arguments.
        level_N: Nodes on the longest path that ends here, less one.
        slots: Every parameter of the graph once, in node order.
        band: The distances of a graph too large for a matrix.
    """

    op_N: NDArray[np.int64]
    features_NF: NDArray[np.float32]
    distance_NN: NDArray[np.int8] | None
    edges_2E: NDArray[np.int64]
    level_N: NDArray[np.int64]
    slots: tuple[ParameterSlot, ...]
    band: DistanceBand | None = None

    def __len__(self) -> int:
        return len(self.op_N)


def encode(graph: ComputationalGraph, *, max_dense_nodes: int = MAX_DENSE_NODES) -> EncodedGraph:
    """Features of a checked graph. Reordering the nodes reorders the rows and changes nothing else.

    Args:
        graph: What to encode.
        max_dense_nodes: Graphs with more nodes get a band of distances instead of a matrix.
    """
    edges = [(source, index) for index, node in enumerate(graph.nodes) for source in node.inputs]
    uses = np.bincount([source for source, _ in edges], minlength=len(graph)).tolist()
    first_specs: dict[int, ParameterSpec] = {}
    biased = set()
    for name, spec in graph.parameters.items():
        first_specs.setdefault(_owner(name), spec)
        if spec.role == "bias":
            biased.add(_owner(name))
    outputs = frozenset(graph.outputs)
    rows = [
        _features(
            node,
            graph.shapes[index],
            _weight_shape(graph.parameters, first_specs, index),
            uses=uses[index],
            has_bias=index in biased,
            is_output=index in outputs,
        )
        for index, node in enumerate(graph.nodes)
    ]
    level_N = _levels(graph)
    is_dense = len(graph) <= max_dense_nodes
    return EncodedGraph(
        op_N=np.array([OP_IDS[node.op] for node in graph.nodes], dtype=np.int64),
        features_NF=np.array(rows, dtype=np.float32),
        distance_NN=signed_distances(graph) if is_dense else None,
        edges_2E=np.array(edges, dtype=np.int64).reshape(-1, 2).T,
        level_N=level_N,
        slots=_slots(graph, outputs),
        band=None if is_dense else distance_band(graph, level_N),
    )


def _owner(name: str) -> int:
    """The node that a parameter belongs to."""
    return int(name[1:].split(".")[0])


def _weight_shape(
    parameters: Mapping[str, ParameterSpec], first_specs: Mapping[int, ParameterSpec], index: int
) -> Shape:
    spec = parameters.get(f"n{index}.weight") or first_specs.get(index)
    return (spec.shape or (1,)) if spec is not None else (1,)


def _size(number: int) -> float:
    return log2(max(1, number)) / 8


def _number(attrs: Mapping[str, object], name: str, default: int) -> int:
    """An integer attribute, or the first of several."""
    value = attrs.get(name, default)
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) else default


def _window(attrs: Mapping[str, object], name: str) -> tuple[int, int]:
    """Height and width of a window along one, two or three axes."""
    value = attrs.get(name, (1, 1))
    axes = value if isinstance(value, tuple) else (value,)
    height, width = axes[-2:] if len(axes) > 1 else (*axes, 1)
    assert isinstance(height, int)
    assert isinstance(width, int)
    return height, width


def _features(
    node: Node, shape: Shape, weight: Shape, *, uses: int, has_bias: bool, is_output: bool
) -> list[float]:
    attrs: dict[str, object] = dict(node.attrs)
    kernel, stride, dilation = (_window(attrs, name) for name in ("kernel_size", "stride", "dilation"))
    return [
        _size(prod(shape)),
        _size(shape[0] if shape else 1),
        _size(shape[-1] if shape else 1),
        _size(weight[0]),
        _size(prod(weight[1:])),
        _size(kernel[0]),
        _size(kernel[1]),
        _size(stride[0]),
        _size(dilation[0]),
        _size(_number(attrs, "groups", 1)),
        _size(_number(attrs, "num_heads", 1)),
        _number(attrs, "axis", 0) / 4,
        float(has_bias),
        _size(1 + len(node.inputs)),
        _size(1 + uses),
        float(is_output),
    ]


def _levels(graph: ComputationalGraph) -> NDArray[np.int64]:
    levels: list[int] = []
    for node in graph.nodes:
        levels.append(1 + max((levels[source] for source in node.inputs), default=-1))
    return np.array(levels, dtype=np.int64)


def _slots(graph: ComputationalGraph, outputs: frozenset[int]) -> tuple[ParameterSlot, ...]:
    slots = []
    owner, weight_fan_in = -1, None
    for name, spec in graph.parameters.items():
        node = _owner(name)
        if node != owner:
            owner, weight_fan_in = node, None
        if spec.role == "weight":
            weight_fan_in = spec.fan_in
        # A bias follows its weight in the table. One that stands alone says itself what it belongs to.
        alone = spec.fan_in if weight_fan_in is None else weight_fan_in
        fan_in = alone if spec.role in ("weight", "bias") else 1
        op = graph.nodes[node].op
        is_kernel = op.startswith("conv") or spec.fan_in == prod(spec.shape[1:])
        slots.append(ParameterSlot(name, node, spec.shape, spec.role, fan_in, node in outputs, is_kernel))
    return tuple(slots)
