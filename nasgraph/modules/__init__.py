"""Graphs to torch modules and back. The first layer that knows torch."""

from nasgraph.modules.build import (
    GraphModule,
    buffers_by_node,
    build,
    call_with,
    initial_buffers,
    initial_parameters,
)
from nasgraph.modules.functional import Program, RunContext
from nasgraph.modules.trace import TracedGraph, trace

__all__ = [
    "GraphModule",
    "Program",
    "RunContext",
    "TracedGraph",
    "buffers_by_node",
    "build",
    "call_with",
    "initial_buffers",
    "initial_parameters",
    "trace",
]
