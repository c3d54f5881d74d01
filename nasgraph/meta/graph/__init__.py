"""The parameter graph of a network: units as nodes, weights as edges, and back again bit by bit."""

from nasgraph.meta.graph.kinds import (
    ACTIVATIONS,
    EDGE_KINDS,
    NODE_COLUMNS,
    NUM_EDGE_KINDS,
    NUM_NODE_KINDS,
    NUM_PARAMETER_EDGE_KINDS,
    NUM_SLOTS,
    SCALINGS,
    SITES,
)
from nasgraph.meta.graph.layers import STATISTICS, TENSORS, LayerGraph, layer_graph, tensor_statistics
from nasgraph.meta.graph.layout import GraphLayout, ParameterGraphError, graph_layout
from nasgraph.meta.graph.parameters import (
    Member,
    ParameterGraph,
    collate,
    parameter_graph,
    stack_parameter_graphs,
)

__all__ = [
    "ACTIVATIONS",
    "EDGE_KINDS",
    "NODE_COLUMNS",
    "NUM_EDGE_KINDS",
    "NUM_NODE_KINDS",
    "NUM_PARAMETER_EDGE_KINDS",
    "NUM_SLOTS",
    "SCALINGS",
    "SITES",
    "STATISTICS",
    "TENSORS",
    "GraphLayout",
    "LayerGraph",
    "Member",
    "ParameterGraph",
    "ParameterGraphError",
    "collate",
    "graph_layout",
    "layer_graph",
    "parameter_graph",
    "stack_parameter_graphs",
    "tensor_statistics",
]
