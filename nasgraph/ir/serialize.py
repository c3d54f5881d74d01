"""Graphs as JSON: versioned, canonical text, and a reader that trusts nobody.

    {"schema": "nasgraph/graph/1",
     "nodes": [{"op": "input", "inputs": [], "attrs": {"shape": [1, 8, 8], "dtype": "float"}}, ...],
     "outputs": [12]}

Nodes stand in topological order. Attributes with defaults may be left out.
"""

from pathlib import Path
from typing import cast

from nasgraph.errors import InvalidGraphError
from nasgraph.files import Json, canonical_json, parse_json, read_json
from nasgraph.ir.graph import MAX_NODES, ComputationalGraph, Node, check_graph, make_node

SCHEMA = "nasgraph/graph/1"


def graph_to_json(graph: ComputationalGraph) -> str:
    """Canonical JSON text of a graph. Reading it back gives an equal graph."""
    nodes = [{"op": node.op, "inputs": node.inputs, "attrs": dict(node.attrs)} for node in graph.nodes]
    return canonical_json({"schema": SCHEMA, "nodes": nodes, "outputs": graph.outputs})


def graph_from_json(text: str | bytes, *, source: str = "text") -> ComputationalGraph:
    """Read and check a graph that may come from a stranger.

    Raises:
        NasGraphError: If the text is not JSON, too long, or nested too deeply.
        InvalidGraphError: If it is not a graph of this schema, or breaks a rule of `check_graph`.
    """
    return _graph(parse_json(text, source=source), source)


def read_graph(path: Path) -> ComputationalGraph:
    """Read and check a graph file. See `graph_from_json` for errors."""
    return _graph(read_json(path), f"'{path}'")


def _graph(value: Json, source: str) -> ComputationalGraph:
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        schema = value.get("schema") if isinstance(value, dict) else type(value).__name__
        raise InvalidGraphError(f"Expected a graph with schema '{SCHEMA}' in {source} (got {schema!r:.80})")
    unknown = sorted(set(value) - {"schema", "nodes", "outputs"})
    if unknown:
        raise InvalidGraphError(f"Unknown field {unknown[0]!r:.80} in {source}")
    nodes, outputs = value.get("nodes"), value.get("outputs")
    if not isinstance(nodes, list) or not 1 <= len(nodes) <= MAX_NODES:
        raise InvalidGraphError(f"Expected 'nodes' in {source} to be a list of 1 to {MAX_NODES:,}")
    graph = ComputationalGraph(
        tuple(_node(index, node) for index, node in enumerate(nodes)), _indices(outputs, "'outputs'")
    )
    check_graph(graph)
    return graph


def _node(index: int, value: Json) -> Node:
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise InvalidGraphError(f"Node {index}: expected an object with 'op'")
    unknown = sorted(set(value) - {"op", "inputs", "attrs"})
    attrs = value.get("attrs", {})
    if unknown or not isinstance(attrs, dict):
        raise InvalidGraphError(f"Node {index}: expected 'op', 'inputs' and 'attrs' only, the last an object")
    inputs = _indices(value.get("inputs", []), f"'inputs' of node {index}")
    try:
        return make_node(cast(str, value["op"]), inputs, **attrs)
    except InvalidGraphError as error:
        raise InvalidGraphError(f"Node {index}: {error}") from error


def _indices(value: Json, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or any(
        not isinstance(item, int) or isinstance(item, bool) for item in value
    ):
        raise InvalidGraphError(f"Expected {what} to be a list of node indices")
    return tuple(cast(list[int], value))
