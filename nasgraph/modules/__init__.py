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

__all__ = [
    "GraphModule",
    "Program",
    "RunContext",
    "buffers_by_node",
    "build",
    "call_with",
    "initial_buffers",
    "initial_parameters",
]
