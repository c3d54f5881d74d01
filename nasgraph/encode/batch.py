# ruff: noqa: N815  shape letters after tensor names, in fields too
"""Batches of graphs as tensors: a dense view for attention, PyTorch Geometric's `Data` and `Batch` at the border.

Letters in tensor names: B = graphs in the batch, N = nodes (padded), F = numeric features, E = edges,
M = nodes of all graphs together, K = windows, W = nodes of a window, V = 3 W nodes that a window sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nasgraph.encode.distances import MAX_DENSE_NODES
from nasgraph.encode.features import EncodedGraph, ParameterSlot, encode
from nasgraph.ir import ComputationalGraph

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data


@dataclass(frozen=True)
class GraphBatch:
    """Several graphs, padded to the largest.

    Attributes:
        op_BN: Operator numbers; 0 where padded.
        features_BNF: Numeric features; 0 where padded.
        distance_BNN: Signed shortest path lengths, see `EncodedGraph`; 0 where padded. None if there is a band.
        mask_BN: True where a node exists.
        level_BN: Length of the longest path to each node; -1 where padded.
        edge_index: Source and target of every edge, as indices into the flattened nodes `b * N + n`.
        slots: For each graph the parameters to predict.
        band_order_N: Of a graph that is too large for a matrix of distances, and alone in its batch: the node at each
            place of its band, see `DistanceBand`.
        band_distance_KWV: The distances of that band.
    """

    op_BN: Int[Tensor, "graphs nodes"]
    features_BNF: Float[Tensor, "graphs nodes features"]
    distance_BNN: Int[Tensor, "graphs nodes nodes"] | None
    mask_BN: Bool[Tensor, "graphs nodes"]
    level_BN: Int[Tensor, "graphs nodes"]
    edge_index: Int[Tensor, "2 edges"]
    slots: tuple[tuple[ParameterSlot, ...], ...]
    band_order_N: Int[Tensor, " nodes"] | None = None
    band_distance_KWV: Int[Tensor, "windows window seen"] | None = None

    def __len__(self) -> int:
        return len(self.slots)

    def to(self, device: str | torch.device) -> "GraphBatch":
        """The batch on another device."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return replace(
            self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None}
        )


_TENSORS = (
    "op_BN",
    "features_BNF",
    "distance_BNN",
    "mask_BN",
    "level_BN",
    "edge_index",
    "band_order_N",
    "band_distance_KWV",
)


def batch_graphs(graphs: Sequence[ComputationalGraph | EncodedGraph]) -> GraphBatch:
    """Pad graphs into one batch on the CPU. Graph b fills row b; padding comes last.

    Raises:
        ValueError: If there are no graphs, or one that is too large for a matrix of distances is not alone.
    """
    if not graphs:
        raise ValueError("Expected at least one graph")
    encoded = [graph if isinstance(graph, EncodedGraph) else encode(graph) for graph in graphs]
    bands = [graph.band for graph in encoded if graph.band is not None]
    if bands and len(encoded) > 1:
        largest = max(map(len, encoded))
        raise ValueError(
            f"A graph of {largest:,} nodes has to be alone in its batch (got {len(encoded)} graphs)"
        )
    B, N = len(encoded), max(len(graph) for graph in encoded)
    F = encoded[0].features_NF.shape[1]
    op, level = np.zeros((B, N), np.int64), np.full((B, N), -1, np.int64)
    features, mask = np.zeros((B, N, F), np.float32), np.zeros((B, N), np.bool_)
    distance = np.zeros((B, N, N) if not bands else 0, np.int8)
    for b, graph in enumerate(encoded):
        n = len(graph)
        op[b, :n], features[b, :n], level[b, :n], mask[b, :n] = (
            graph.op_N,
            graph.features_NF,
            graph.level_N,
            True,
        )
        if graph.distance_NN is not None:
            distance[b, :n, :n] = graph.distance_NN
    edges = np.concatenate([graph.edges_2E + b * N for b, graph in enumerate(encoded)], axis=1)
    return GraphBatch(
        op_BN=torch.from_numpy(op),
        features_BNF=torch.from_numpy(features),
        distance_BNN=None if bands else torch.from_numpy(distance),
        mask_BN=torch.from_numpy(mask),
        level_BN=torch.from_numpy(level),
        edge_index=torch.from_numpy(edges),
        slots=tuple(graph.slots for graph in encoded),
        band_order_N=torch.from_numpy(bands[0].order_N) if bands else None,
        band_distance_KWV=torch.from_numpy(bands[0].distance_KWV) if bands else None,
    )


def to_pyg(graph: ComputationalGraph) -> "Data":
    """The graph for PyTorch Geometric; `Batch.from_data_list` joins several.

    Fields: `op` [N], `x` [N, F] numeric features, `level` [N], `edge_index` [2, 2E] with every edge in both
    directions and `edge_type` 0 (forwards) or 1 (backwards), `virtual_edge_index` [2, V] with an edge between
    every two nodes of which one reaches the other, in both directions, and `virtual_distance` [V], signed.

    Raises:
        ValueError: If the graph has more than 4,096 nodes.
    """
    from torch_geometric.data import Data

    encoded = encode(graph)
    if encoded.distance_NN is None:
        raise ValueError(
            f"Expected at most {MAX_DENSE_NODES:,} nodes, so that every pair can have an edge (got {len(graph):,})"
        )
    edges = torch.from_numpy(encoded.edges_2E)
    source, target = np.nonzero(encoded.distance_NN)
    return Data(
        op=torch.from_numpy(encoded.op_N),
        x=torch.from_numpy(encoded.features_NF),
        level=torch.from_numpy(encoded.level_N),
        edge_index=torch.cat([edges, edges.flip(0)], dim=1),
        edge_type=torch.arange(2).repeat_interleave(edges.shape[1]),
        virtual_edge_index=torch.from_numpy(np.stack([source, target])),
        virtual_distance=torch.from_numpy(encoded.distance_NN[source, target].astype(np.int64)),
        num_nodes=len(encoded),
    )


def from_pyg(batch: "Batch", slots: Sequence[tuple[ParameterSlot, ...]]) -> GraphBatch:
    """The dense view of a `Batch` of graphs made by `to_pyg`.

    Args:
        batch: Result of `Batch.from_data_list`.
        slots: For each graph its parameters (`encode(graph).slots`); PyTorch Geometric does not carry them.
    """
    from torch_geometric.utils import to_dense_batch

    features, mask = to_dense_batch(batch.x, batch.batch)
    op, _ = to_dense_batch(batch.op, batch.batch)
    level, _ = to_dense_batch(batch.level, batch.batch, fill_value=-1)
    B, N = mask.shape
    local = torch.arange(len(batch.batch), device=mask.device) - batch.ptr[batch.batch]
    flat = batch.batch * N + local
    distance = torch.zeros(B * N, N, dtype=torch.int8, device=mask.device)
    source, target = batch.virtual_edge_index
    distance[flat[source], local[target]] = batch.virtual_distance.to(torch.int8)
    forwards = batch.edge_index[:, batch.edge_type == 0]
    return GraphBatch(op, features, distance.view(B, N, N), mask, level, flat[forwards], tuple(slots))
