"""Graphs to torch modules and back. The first layer that knows torch."""

from nasgraph.modules.around import around
from nasgraph.modules.build import (
    GraphModule,
    buffers_by_node,
    build,
    call_with,
    constants_by_node,
    initial_buffers,
    initial_parameters,
)
from nasgraph.modules.functional import Program, RunContext
from nasgraph.modules.onnx import OnnxModule, load_onnx, onnx_example_inputs
from nasgraph.modules.source import graph_to_source, source_parameters
from nasgraph.modules.state import (
    State,
    StateError,
    check_state,
    is_averaged,
    is_parameter,
    is_statistic,
    run_network,
)
from nasgraph.modules.trace import TracedGraph, trace

__all__ = [
    "GraphModule",
    "OnnxModule",
    "Program",
    "RunContext",
    "State",
    "StateError",
    "TracedGraph",
    "around",
    "buffers_by_node",
    "build",
    "call_with",
    "check_state",
    "constants_by_node",
    "graph_to_source",
    "initial_buffers",
    "initial_parameters",
    "is_averaged",
    "is_parameter",
    "is_statistic",
    "load_onnx",
    "onnx_example_inputs",
    "run_network",
    "source_parameters",
    "trace",
]
