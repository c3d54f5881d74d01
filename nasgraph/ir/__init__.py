"""The language of architectures: immutable operator graphs, their rules, costs and files. No torch."""

from nasgraph.ir.cost import Cost, cost_of
from nasgraph.ir.graph import (
    ComputationalGraph,
    GraphBuilder,
    Node,
    check_graph,
    infer_shapes,
    make_node,
    without_dead_nodes,
)
from nasgraph.ir.ops import OPS, Attr, Dtype, Op, ParameterSpec, Role, Scalar, Shape
from nasgraph.ir.serialize import graph_from_json, graph_to_json, read_graph

__all__ = [
    "OPS",
    "Attr",
    "ComputationalGraph",
    "Cost",
    "Dtype",
    "GraphBuilder",
    "Node",
    "Op",
    "ParameterSpec",
    "Role",
    "Scalar",
    "Shape",
    "check_graph",
    "cost_of",
    "graph_from_json",
    "graph_to_json",
    "infer_shapes",
    "make_node",
    "read_graph",
    "without_dead_nodes",
]
