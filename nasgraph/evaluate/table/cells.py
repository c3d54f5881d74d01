"""What stands in the graph cell of a foreign table: a graph, a labelled DAG, or an architecture."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from nasgraph.evaluate.table.records import TableError
from nasgraph.files import Json, canonical_json, parse_json
from nasgraph.ir import ComputationalGraph, GraphBuilder, graph_from_json
from nasgraph.ir.canonical import canonical_order
from nasgraph.ir.graph import MAX_NODES
from nasgraph.spaces import Architecture, SearchSpace, architecture_from_json, replay

INPUT = "input"
MAX_LABEL = 120
_PLAIN = re.compile(r"[A-Za-z0-9_.:,>+\- ]+")
_NASBENCH201 = re.compile(
    r"\|([^|~+]+)~0\|\+\|([^|~+]+)~0\|([^|~+]+)~1\|\+\|([^|~+]+)~0\|([^|~+]+)~1\|([^|~+]+)~2\|"
)


def graph_of_cell(cell: str | Json) -> ComputationalGraph:
    """The graph of a cell: JSON of a graph (schema `nasgraph/graph/1`) or of a labelled DAG, as text or parsed.

    Raises:
        NasGraphError: If it is neither, or breaks a rule.
    """
    value = parse_json(cell, source="the graph") if isinstance(cell, str) else cell
    if isinstance(value, dict) and "schema" not in value and "edges" in value:
        return graph_of_labelled_dag(value)
    return graph_from_json(cell if isinstance(cell, str) else canonical_json(value), source="the graph")


def graph_of_labelled_dag(value: Mapping[str, Json]) -> ComputationalGraph:
    """The graph of `{"nodes": ["input", "conv3x3", ...], "edges": [[0, 1], ...]}` with free labels.

    A node labelled `input` becomes an input; every other becomes an `opaque` node with the label as its name, and shape `(1,)`.
    Nodes that no node reads are the outputs. Where no node is labelled `input`, an input is added, which the nodes read that
    read nothing else. Isomorphic DAGs give equal graphs: neither the numbers of nodes nor the order of edges matters.

    Raises:
        TableError: If it has another form, an edge is a loop, repeated or leads nowhere, there is a cycle, or an input reads.
    """
    labels, sources = _labels_and_sources(value)
    _check_inputs(labels, sources)
    order = _topological(sources)
    place = {old: new for new, old in enumerate(order)}
    ordered = [tuple(sorted(place[source] for source in sources[old])) for old in order]
    texts = [labels[old] for old in order]
    canonical = canonical_order(texts, ordered, [True] * len(texts), first=0)
    g = GraphBuilder()
    added = g(INPUT, shape=(1,)) if INPUT not in labels else None
    made: dict[int, int] = {}
    for node in canonical:
        if texts[node] == INPUT:
            made[node] = g(INPUT, shape=(1,))
            continue
        reads = sorted(made[source] for source in ordered[node])
        if not reads and added is not None:
            reads = [added]
        made[node] = g("opaque", *reads, name=_name(texts[node]), shape=(1,), dtype="float")
    read = {source for each in ordered for source in each}
    return g.finish(*(made[node] for node in canonical if node not in read))


def _labels_and_sources(value: Mapping[str, Json]) -> tuple[list[str], list[list[int]]]:
    """Label of every node, and what it reads."""
    nodes, edges = value.get("nodes"), value.get("edges")
    if set(value) != {"nodes", "edges"} or not isinstance(nodes, list) or not isinstance(edges, list):
        raise TableError(
            "Expected a labelled DAG as an object with the lists 'nodes' and 'edges', and nothing else"
        )
    if not 1 <= len(nodes) <= MAX_NODES:
        raise TableError(f"Expected 1 to {MAX_NODES:,} nodes (got {len(nodes):,})")
    labels = []
    for place, label in enumerate(nodes):
        if not isinstance(label, str) or not label.strip():
            raise TableError(f"Expected the label of node {place} to be text (got {label!r:.60})")
        labels.append(INPUT if label.strip().lower() == INPUT else label.strip())
    sources: list[set[int]] = [set() for _ in labels]
    for edge in edges:
        if not isinstance(edge, list) or len(edge) != 2:
            raise TableError(f"Expected each edge as a pair of nodes (got {edge!r:.60})")
        source, target = edge
        if (
            not isinstance(source, int)
            or not isinstance(target, int)
            or not _all_in((source, target), len(labels))
        ):
            raise TableError(f"Expected edges between nodes 0 to {len(labels) - 1} (got {edge!r:.60})")
        if source == target or source in sources[target]:
            raise TableError(
                f"The edge {source} to {target} is {'a loop' if source == target else 'there twice'}"
            )
        sources[target].add(source)
    return labels, [sorted(reads) for reads in sources]


def _all_in(nodes: Sequence[int], count: int) -> bool:
    return all(not isinstance(node, bool) and 0 <= node < count for node in nodes)


def _check_inputs(labels: Sequence[str], sources: Sequence[Sequence[int]]) -> None:
    for node, (label, reads) in enumerate(zip(labels, sources, strict=True)):
        if label == INPUT and reads:
            raise TableError(f"Node {node} is labelled 'input' but reads node {reads[0]}")


def _topological(sources: Sequence[Sequence[int]]) -> list[int]:
    users: list[list[int]] = [[] for _ in sources]
    for node, reads in enumerate(sources):
        for source in reads:
            users[source].append(node)
    waiting = [len(reads) for reads in sources]
    order = [node for node, count in enumerate(waiting) if count == 0]
    for node in order:  # grows
        for user in users[node]:
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
    if len(order) < len(sources):
        raise TableError("The labelled DAG has a cycle")
    return order


@cache
def _name(label: str) -> str:
    """The label as the name of an `opaque` node: characters that names cannot have become their numbers, as in `[2f]`."""
    name = "".join(part if _PLAIN.fullmatch(part) else f"[{ord(part):x}]" for part in label)
    if len(name) > MAX_LABEL:
        raise TableError(f"Expected labels of at most {MAX_LABEL} characters (got {label!r:.60}...)")
    return name


def architecture_of_cell(cell: str | Json, space: SearchSpace) -> ComputationalGraph:
    """The graph of an architecture of a known space.

    Args:
        cell: A NAS-Bench-201 string, or JSON, as text or parsed: the architecture as nasgraph writes it, the same with
            `choices` as an object, or the object of choices alone.
        space: Builds the graph.

    Raises:
        NasGraphError: If it has another form, or the space does not allow it.
    """
    if isinstance(cell, str) and cell.strip().startswith("|"):
        return replay(space, _nasbench201(cell.strip())).graph
    value = parse_json(cell, source="the architecture") if isinstance(cell, str) else cell
    if isinstance(value, dict) and "choices" not in value:
        value = {"choices": value}
    if isinstance(value, dict) and "space" not in value:
        value = {"space": space.name, **value}
    if isinstance(value, dict) and isinstance(value.get("choices"), dict):
        choices = value["choices"]
        assert isinstance(choices, dict)
        value = {**value, "choices": [[name, choice] for name, choice in choices.items()]}
    return replay(space, architecture_from_json(value)).graph


def _nasbench201(text: str) -> Architecture:
    """The architecture of the benchmark's own text (Dong and Yang 2020)."""
    found = _NASBENCH201.fullmatch(text)
    if found is None:
        raise TableError(
            f"Expected a NAS-Bench-201 string '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|' (got {text!r:.120})"
        )
    edges = [(source, target) for target in range(1, 4) for source in range(target)]
    choices = ((f"edge_{s}_{t}", op) for (s, t), op in zip(edges, found.groups(), strict=True))
    return Architecture("nasbench201", tuple(choices))
