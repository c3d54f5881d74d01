"""Graphs to tensors."""

from nasgraph.encode.batch import GraphBatch, batch_graphs, from_pyg, to_pyg
from nasgraph.encode.features import FEATURES, OP_IDS, EncodedGraph, ParameterSlot, encode, signed_distances

__all__ = [
    "FEATURES",
    "OP_IDS",
    "EncodedGraph",
    "GraphBatch",
    "ParameterSlot",
    "batch_graphs",
    "encode",
    "from_pyg",
    "signed_distances",
    "to_pyg",
]
