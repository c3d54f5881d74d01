"""What two architectures have in common, as the page says it."""

from dataclasses import dataclass

from nasgraph.errors import ZooError
from nasgraph.ir import ComputationalGraph
from nasgraph.retrieve.explain import explain_match
from nasgraph.web.difference import MAX_NODES


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonStructure:
    """The part of a graph that another one has too.

    Attributes:
        nodes: Nodes of the first graph that have a counterpart.
        share: Their share of the first graph.
        other_share: The share of the second graph's nodes that have one.
        blocks: What recurs in them, in words.
    """

    nodes: tuple[int, ...]
    share: float
    other_share: float
    blocks: tuple[str, ...]


def common_structure(graph: ComputationalGraph, other: ComputationalGraph) -> CommonStructure:
    """Common parts of two graphs; see `nasgraph.retrieve.explain_match`.

    Raises:
        ZooError: If one is too large to compare while a reader waits.
    """
    if max(len(graph), len(other)) > MAX_NODES:
        raise ZooError(
            f"Architectures of more than {MAX_NODES:,} nodes are not compared node by node on this page"
        )
    match = explain_match(graph, other)
    return CommonStructure(
        nodes=tuple(node for node, _ in match.pairs),
        share=match.share_a,
        other_share=match.share_b,
        blocks=match.blocks,
    )
