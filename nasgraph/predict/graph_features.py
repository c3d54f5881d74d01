"""Numbers that describe a graph of any space: operators, the paths between them, sizes, positions, neighbourhoods.

In the spirit of GRAF (Kadlecová et al., "Surprisingly Strong Performance Prediction with Neural Graph Features", 2024),
but read from the operators of the graph language, so that every space and every traced module has them.

A *kind* is what counts as the same operator, such as `conv2d 3x3`. A *landmark* is a node of a kind that computes
(has weights, pools, attends, or is opaque); everything else joins, scales or rearranges what landmarks give. Paths are
measured in landmarks. The value that a graph returns is the landmark `output`.

Shape letters: N = nodes, K = kinds of landmarks, Q = those with input and output, S = sets of kinds.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import combinations, pairwise
from typing import cast

import numpy as np
from jaxtyping import Float

from nasgraph.ir import ComputationalGraph
from nasgraph.predict.graph_columns import (
    GLOBAL_COLUMNS,
    global_columns,
    pair_columns,
    position_columns,
    set_columns,
)

Array = np.ndarray
MAX_LANDMARKS = 9
"""Kinds that paths are measured between: those whose numbers vary most."""
DECIMALS = 9
"""Rows are rounded to these, so that what is equal but for the order of a sum is a tie where columns are ranked."""
ALL_SETS = 5
"""Up to this many kinds every set of them has columns of its own; beyond it single kinds, pairs and all but one."""

_POOLS = frozenset(
    {"avg_pool2d", "avg_pool3d", "max_pool2d", "max_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "global_avg_pool2d"}
)  # fmt: skip
_LANDMARKS = _POOLS | {"attention", "opaque", "matmul", "einsum", "gru", "lstm", "rnn"}
_ACTIVATIONS = frozenset(
    {"relu", "relu6", "gelu", "silu", "elu", "celu", "selu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh",
     "leaky_relu", "prelu", "softplus", "softsign", "log_sigmoid"}
)  # fmt: skip
_NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "rms_norm"})
_MERGES = frozenset({"add", "concat", "mul", "sub", "div", "maximum", "minimum"})


def kind_of(graph: ComputationalGraph, index: int) -> str:
    """The kind of one node: its operator with kernel size, grouping and stride; an opaque node's own name.

    Channels are left out: sizes have columns of their own.
    """
    node = graph.nodes[index]
    if node.op == "opaque":
        return str(node.attr("name"))
    attrs = dict(node.attrs)
    words = [node.op]
    kernel = _kernel(graph, index)
    if kernel:
        words.append("x".join(map(str, kernel)))
    if attrs.get("groups", 1) != 1:
        is_depthwise = attrs["groups"] == graph.input_shapes(index)[0][0]
        words.append("depthwise" if is_depthwise else "grouped")
    if any(step != 1 for step in _pair(attrs.get("stride", 1))):
        words.append("strided")
    if any(step != 1 for step in _pair(attrs.get("dilation", 1))):
        words.append("dilated")
    return " ".join(words)


def class_of(graph: ComputationalGraph, index: int) -> str:
    """The kind of one node in words that all spaces share, such as `spatial convolution`."""
    node = graph.nodes[index]
    attrs = dict(node.attrs)
    for name, ops in (("pool", _POOLS), ("activation", _ACTIVATIONS), ("norm", _NORMS), ("merge", _MERGES)):
        if node.op in ops:
            return name
    kernel = _kernel(graph, index)
    if kernel:
        if attrs.get("groups", 1) != 1:
            return "grouped convolution"
        return "pointwise convolution" if max(kernel) == 1 else "spatial convolution"
    name = _CLASS_OF.get(node.op, node.op)
    return name if name in CLASSES else "other"


_CLASS_OF = {
    "apply_embedding": "embedding", "apply_layer_norm": "norm", "apply_linear": "linear", "bilinear": "linear",
    "gru": "recurrent", "lstm": "recurrent", "rnn": "recurrent",
}  # fmt: skip
CLASSES = (
    "activation", "attention", "embedding", "grouped convolution", "input", "linear", "matmul", "merge", "norm", "opaque",
    "other", "pointwise convolution", "pool", "recurrent", "spatial convolution",
)  # fmt: skip
"""What `class_of` returns."""
_CLASS_LANDMARKS = (
    "attention", "grouped convolution", "linear", "opaque", "pointwise convolution", "pool", "recurrent", "spatial convolution",
)  # fmt: skip

KindOf = Callable[[ComputationalGraph, int], str]


@dataclass(frozen=True)
class GraphFeatures:
    """Describes graphs by their operators and the paths between them. `nasgraph.predict.Features`.

    A row depends on its graph alone, not on the order of its nodes, and is finite. Kinds that are not listed are seen
    only in the columns that count all nodes, and in `other kinds`.

    Attributes:
        kinds: Kinds whose numbers are counted.
        landmarks: Those of them that paths are measured between.
        kind: Names the kind of a node.
    """

    kinds: tuple[str, ...]
    landmarks: tuple[str, ...]
    kind: KindOf = kind_of

    @staticmethod
    def of(graphs: Sequence[ComputationalGraph], *, max_landmarks: int = MAX_LANDMARKS) -> "GraphFeatures":
        """Features whose kinds are those of some graphs. Labels play no part, so any graphs of the space will do.

        Args:
            graphs: At least one.
            max_landmarks: Kinds of landmarks at most; the ones whose numbers vary most are kept.

        Raises:
            ValueError: If there is no graph.
        """
        if not graphs:
            raise ValueError("Expected at least one graph to find kinds in")
        rows = [Counter(kind_of(graph, i) for i in range(len(graph))) for graph in graphs]
        names = {kind_of(graph, index) for graph in graphs for index in _landmarks(graph)}
        spread = {name: float(np.std([row[name] for row in rows])) for name in names}
        varying = sorted((name for name in names if spread[name] > 0), key=lambda name: (-spread[name], name))
        kinds = sorted(set().union(*rows))
        return GraphFeatures(tuple(kinds), tuple(sorted(varying[:max_landmarks])))

    @staticmethod
    def universal() -> "GraphFeatures":
        """Features in words that all spaces share: the same columns for every graph there is."""
        return GraphFeatures(CLASSES, _CLASS_LANDMARKS, class_of)

    @cached_property
    def _sets_SK(self) -> Array:  # noqa: N802  shape letters
        K = len(self.landmarks)
        if K <= ALL_SETS:
            sets = [c for size in range(1, K + 1) for c in combinations(range(K), size)]
        else:
            singles, pairs = [(k,) for k in range(K)], list(combinations(range(K), 2))
            sets = [
                *singles,
                *pairs,
                *(tuple(j for j in range(K) if j != k) for k in range(K)),
                tuple(range(K)),
            ]
        result = np.zeros((len(sets), K), dtype=bool)
        for row, members in enumerate(sets):
            result[row, list(members)] = True
        return result

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        sets = ["|".join(np.array(self.landmarks)[row]) for row in self._sets_SK]
        ends = ("input", *self.landmarks, "output")
        pairs = [f"{a} -> {b}" for a in ends[:-1] for b in ends[1:]]
        return (
            *(f"number of {kind}" for kind in self.kinds),
            *(f"{what}: {one}" for what in ("fewest on a path", "most on a path", "mean on a path", "paths without") for one in sets),
            *(f"{what}: {one}" for what in ("direct", "paths", "shortest", "longest") for one in pairs),
            *(f"{what} of {kind}" for what in ("flow", "reverse flow", "multiply-adds", "parameters") for kind in self.landmarks),
            *(f"{what} {where} of {kind}" for where in ("depth", "height") for what in ("mean", "least", "largest") for kind in self.landmarks),
            *GLOBAL_COLUMNS,
        )  # fmt: skip

    @cached_property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Where the families of columns lie: numbers, sets on paths, pairs, flow and cost, positions, the whole graph.

        A kernel does better with one length for each than with one for all.
        """
        K, S = len(self.landmarks), len(self._sets_SK)
        ends = np.cumsum(
            [0, len(self.kinds), 4 * S, 4 * (K + 1) ** 2, 4 * K, 6 * K, len(GLOBAL_COLUMNS)]
        ).tolist()
        return tuple((low, high) for low, high in pairwise(ends) if high > low)

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row per graph."""
        rows: Array = np.array([self._row(graph) for graph in graphs]).reshape(len(graphs), len(self.names))
        return rows.round(DECIMALS)

    def _row(self, graph: ComputationalGraph) -> Float[Array, " features"]:
        kinds = [self.kind(graph, index) for index in range(len(graph))]
        place = {kind: k for k, kind in enumerate(self.landmarks)}
        landmark_N = np.array([place.get(kind, -1) for kind in kinds])
        known, number = set(self.kinds), Counter(kinds)
        counts = [float(number[kind]) for kind in self.kinds]
        others = sum(n for kind, n in number.items() if kind not in known)
        return np.concatenate(
            [
                counts,
                set_columns(graph, landmark_N, self._sets_SK),
                pair_columns(graph, landmark_N, len(self.landmarks)),
                position_columns(graph, landmark_N, len(self.landmarks)),
                global_columns(graph, landmark_N),
                [others],
            ]
        )


def _landmarks(graph: ComputationalGraph) -> set[int]:
    """Nodes that compute."""
    named = {i for i, node in enumerate(graph.nodes) if node.op in _LANDMARKS or node.op.startswith("apply_")}
    weighted = {
        int(name[1:].split(".")[0]) for name, spec in graph.parameters.items() if spec.role == "weight"
    }
    return named | {index for index in weighted if graph.nodes[index].op != "parameter"}


def _kernel(graph: ComputationalGraph, index: int) -> tuple[int, ...]:
    """Sizes of the window of one node; none if it has no window. Convolutions that are given their weight have its."""
    node = graph.nodes[index]
    if node.op.startswith("apply_conv"):
        return graph.input_shapes(index)[1][2:]
    size = dict(node.attrs).get("kernel_size")
    return () if size is None else _pair(size)


def _pair(value: object) -> tuple[int, ...]:
    """A setting per axis, which may be one number for all."""
    return value if isinstance(value, tuple) else (cast(int, value),)


@dataclass(frozen=True)
class NeighbourhoodFeatures:
    """Counts the surroundings of nodes: Weisfeiler-Lehman subtree features (Shervashidze et al. 2011). `nasgraph.predict.Features`.

    Two nodes have the same surroundings of radius r if an order of refinement r cannot tell them apart by their kinds, what
    they read and who reads them. With a kernel on these columns a Gaussian process has a WL kernel, as in NAS-BOWL (Ru et
    al. 2021). Square roots of the counts. A row does not depend on the order of the nodes.

    Attributes:
        known: Names of the surroundings that are counted.
        radius: The largest radius.
        kind: Names the kind of a node.
    """

    known: tuple[str, ...]
    radius: int = 2
    kind: KindOf = kind_of

    @staticmethod
    def of(
        graphs: Sequence[ComputationalGraph], *, radius: int = 2, max_known: int = 200, min_graphs: int = 5
    ) -> "NeighbourhoodFeatures":
        """Features that count what occurs in at least `min_graphs` graphs, the most frequent `max_known` of it."""
        bare = NeighbourhoodFeatures((), radius)
        number = Counter(name for graph in graphs for name in set(bare._names(graph)))
        frequent = sorted(
            (name for name in number if number[name] >= min_graphs), key=lambda n: (-number[n], n)
        )
        return NeighbourhoodFeatures(tuple(sorted(frequent[:max_known])), radius)

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row per graph."""
        rows = []
        for graph in graphs:
            number = Counter(self._names(graph))
            rows.append([number[name] for name in self.known])
        return np.sqrt(np.array(rows, dtype=np.float64).reshape(len(graphs), len(self.known)))

    def _names(self, graph: ComputationalGraph) -> list[str]:
        """Names of the surroundings of every node, radius after radius."""
        readers: list[list[int]] = [[] for _ in range(len(graph))]
        for index, node in enumerate(graph.nodes):
            for source in node.inputs:
                readers[source].append(index)
        outputs = set(graph.outputs)
        names = [f"{self.kind(graph, i)}{' returned' if i in outputs else ''}" for i in range(len(graph))]
        result = []
        for _ in range(self.radius):
            names = [
                _digest(
                    names[i],
                    sorted(names[source] for source in graph.nodes[i].inputs),
                    sorted(names[reader] for reader in readers[i]),
                )
                for i in range(len(graph))
            ]
            result += names
        return result


def _digest(own: str, sources: Sequence[str], readers: Sequence[str]) -> str:
    text = "\0".join((own, "reads", *sources, "read by", *readers))
    return blake2b(text.encode(), digest_size=8).hexdigest()
