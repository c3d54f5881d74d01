"""Graphs to tensors."""

from nasgraph.encode.batch import GraphBatch, batch_graphs, from_pyg, to_pyg
from nasgraph.encode.distances import DistanceBand, signed_distances
from nasgraph.encode.features import FEATURES, OP_IDS, EncodedGraph, ParameterSlot, encode

__all__ = [
    "FEATURES",
    "OP_IDS",
    "DistanceBand",
    "EncodedGraph",
    "GraphBatch",
    "ParameterSlot",
    "batch_graphs",
    "encode",
    "from_pyg",
    "signed_distances",
    "to_pyg",
]
