# ruff: noqa: N815  shape letters after tensor names, in fields too
"""What the graph network reads: nodes, edges in both directions, and numbers of the whole graph.

Shape letters: M = nodes of all graphs together, E = edges, F = numeric features, C = length of a code, G = graphs, K = columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import shake_256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nasgraph.encode import FEATURES, encode
from nasgraph.ir import ComputationalGraph, Node
from nasgraph.predict.graph_network.path_features import PathFeatures

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

NODE_FEATURES = (*FEATURES, "nodes before", "nodes after")
"""Numeric features of a node: those of `nasgraph.encode`, sizes above one relative to the largest of the graph so that narrow and
wide spaces look alike; and the longest paths that end and that start here, log2(1 + length) / 8."""
NUM_SIZES = 5
"""The first features, which are sizes of values and weights."""
CODE_LENGTH = 16
UNKNOWN = 0
"""Number of every operator that a network was not trained on."""


@dataclass(frozen=True)
class GraphTensors:
    """One graph or several side by side; nodes are numbered through.

    Attributes:
        op_M: Operator numbers; `UNKNOWN` for operators outside the vocabulary.
        code_MC: A fixed sign pattern per operator name, by which unknown operators can still be told apart.
        x_MF: Numeric features, see `NODE_FEATURES`.
        edge_index: Source and target; every edge stands twice, forwards and backwards.
        edge_type: 0 for edges that follow the computation, 1 for those against it.
        graph_M: The graph that each node belongs to.
        columns_GK: Numbers of each whole graph: `PathFeatures`.
    """

    op_M: Int[Tensor, " nodes"]
    code_MC: Float[Tensor, "nodes code"]
    x_MF: Float[Tensor, "nodes features"]
    edge_index: Int[Tensor, "2 edges"]
    edge_type: Int[Tensor, " edges"]
    graph_M: Int[Tensor, " nodes"]
    columns_GK: Float[Tensor, "graphs columns"]

    def __len__(self) -> int:
        return len(self.columns_GK)

    def double(self) -> "GraphTensors":
        """The same in double precision."""
        code, x, columns = (t.double() for t in (self.code_MC, self.x_MF, self.columns_GK))
        return replace(self, code_MC=code, x_MF=x, columns_GK=columns)


def node_key(node: Node) -> str:
    """Name under which a node's operator is learnt: `opaque` nodes have one each, `opaque:` and their own name."""
    return f"opaque:{node.attr('name')}" if node.op == "opaque" else node.op


def vocabulary_of(graphs: Sequence[ComputationalGraph]) -> tuple[str, ...]:
    """All operators of some graphs, sorted by name."""
    return tuple(sorted({node_key(node) for graph in graphs for node in graph.nodes}))


def graph_tensors(graph: ComputationalGraph, vocabulary: Sequence[str]) -> GraphTensors:
    """Read one graph. Reordering its nodes reorders the rows and changes nothing else.

    Args:
        graph: A checked graph.
        vocabulary: Operators that the network knows; number i + 1 belongs to operator i.
    """
    encoded = encode(graph)
    numbers = _numbers(tuple(vocabulary))
    keys = [node_key(node) for node in graph.nodes]
    sizes = encoded.features_NF[:, :NUM_SIZES]
    after = _nodes_after(graph)
    x = np.concatenate(
        [
            np.where(sizes > 0, sizes - sizes.max(axis=0, keepdims=True), 0),
            encoded.features_NF[:, NUM_SIZES:],
            np.log2(1 + np.stack([encoded.level_N, after], axis=1)) / 8,
        ],
        axis=1,
    )
    edges = torch.from_numpy(encoded.edges_2E)
    return GraphTensors(
        op_M=torch.tensor([numbers.get(key, UNKNOWN) for key in keys]),
        code_MC=torch.tensor([_code(key) for key in keys]),
        x_MF=torch.from_numpy(x.astype(np.float32)),
        edge_index=torch.cat([edges, edges.flip(0)], dim=1),
        edge_type=torch.arange(2).repeat_interleave(edges.shape[1]),
        graph_M=torch.zeros(len(graph), dtype=torch.int64),
        columns_GK=torch.from_numpy(PathFeatures()([graph]).astype(np.float32)),
    )


def join(parts: Sequence[GraphTensors]) -> GraphTensors:
    """Several graphs side by side, in their order. There is no padding.

    Raises:
        ValueError: If there are none.
    """
    if not parts:
        raise ValueError("Expected at least one graph")
    nodes = np.cumsum([0, *(len(part.op_M) for part in parts)]).tolist()
    graphs = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    return GraphTensors(
        op_M=torch.cat([part.op_M for part in parts]),
        code_MC=torch.cat([part.code_MC for part in parts]),
        x_MF=torch.cat([part.x_MF for part in parts]),
        edge_index=torch.cat(
            [part.edge_index + first for part, first in zip(parts, nodes, strict=False)], dim=1
        ),
        edge_type=torch.cat([part.edge_type for part in parts]),
        graph_M=torch.cat([part.graph_M + first for part, first in zip(parts, graphs, strict=False)]),
        columns_GK=torch.cat([part.columns_GK for part in parts]),
    )


def to_data(tensors: GraphTensors) -> "Data":
    """One graph for PyTorch Geometric; `Batch.from_data_list` joins several, `from_batch` reads them back.

    Fields: `op` [N], `code` [N, C], `x` [N, F], `edge_index` [2, 2E], `edge_type` [2E], `columns` [1, K].
    """
    from torch_geometric.data import Data

    return Data(
        op=tensors.op_M,
        code=tensors.code_MC,
        x=tensors.x_MF,
        edge_index=tensors.edge_index,
        edge_type=tensors.edge_type,
        columns=tensors.columns_GK,
        num_nodes=len(tensors.op_M),
    )


def from_batch(batch: "Batch") -> GraphTensors:
    """The graphs of a `Batch` of `to_data` results; equal to `join` of the parts."""
    fields: Any = batch
    return GraphTensors(
        op_M=fields.op,
        code_MC=fields.code,
        x_MF=fields.x,
        edge_index=fields.edge_index,
        edge_type=fields.edge_type,
        graph_M=fields.batch,
        columns_GK=fields.columns,
    )


@lru_cache(maxsize=64)
def _numbers(vocabulary: tuple[str, ...]) -> dict[str, int]:
    return {key: number for number, key in enumerate(vocabulary, start=UNKNOWN + 1)}


@lru_cache(maxsize=4096)
def _code(key: str) -> list[float]:
    """Signs that depend on the name alone, the same on every machine."""
    digest = int.from_bytes(shake_256(key.encode()).digest(CODE_LENGTH // 8), "big")
    return [1.0 if digest >> bit & 1 else -1.0 for bit in range(CODE_LENGTH)]


def _nodes_after(graph: ComputationalGraph) -> list[int]:
    """Edges on the longest path from each node on."""
    after = [0] * len(graph)
    for index in reversed(range(len(graph))):
        for source in graph.nodes[index].inputs:
            after[source] = max(after[source], after[index] + 1)
    return after
