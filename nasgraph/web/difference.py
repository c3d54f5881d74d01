"""What differs between two architectures, node by node: kept, changed, added, removed.

Nodes are counterparts if they are so in a common part of both graphs (`nasgraph.retrieve.explain_match`), or if they are of one
operator and stand beside counterparts: the changed kernel of a convolution between the same neighbours is a change, not one
node removed and another added.
"""

from dataclasses import dataclass

from nasgraph.ir import ComputationalGraph
from nasgraph.retrieve.explain import explain_match

MAX_NODES = 1500
"""Nodes of the larger graph up to which two graphs are compared while a reader waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDifference:
    """How to get from one graph to another. Every node of both is in exactly one list.

    Attributes:
        kept: Counterparts with equal settings and shapes: index before, index after.
        changed: Counterparts with different settings or shapes.
        added: Nodes of the later graph only.
        removed: Nodes of the earlier graph only.
    """

    kept: tuple[tuple[int, int], ...]
    changed: tuple[tuple[int, int], ...]
    added: tuple[int, ...]
    removed: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether all nodes are equal."""
        return not (self.changed or self.added or self.removed)


def graph_difference(before: ComputationalGraph, after: ComputationalGraph) -> GraphDifference | None:
    """Compare two graphs; None if they are too large."""
    if max(len(before), len(after)) > MAX_NODES:
        return None
    pairs = dict(explain_match(before, after).pairs)
    _pair_neighbours(before, after, pairs)
    kept = {a: b for a, b in pairs.items() if _is_equal(before, a, after, b)}
    theirs = set(pairs.values())
    return GraphDifference(
        kept=tuple(sorted(kept.items(), key=lambda pair: pair[1])),
        changed=tuple(sorted((p for p in pairs.items() if p[0] not in kept), key=lambda pair: pair[1])),
        added=tuple(index for index in range(len(after)) if index not in theirs),
        removed=tuple(index for index in range(len(before)) if index not in pairs),
    )


def _is_equal(before: ComputationalGraph, a: int, after: ComputationalGraph, b: int) -> bool:
    return before.nodes[a].attrs == after.nodes[b].attrs and before.shapes[a] == after.shapes[b]


def _pair_neighbours(before: ComputationalGraph, after: ComputationalGraph, pairs: dict[int, int]) -> None:
    """Pair what is left, operator by operator, beside pairs; those with the most neighbours in common first."""
    beside, beside_after = _neighbours(before), _neighbours(after)
    while True:
        free = set(range(len(after))) - set(pairs.values())
        found: list[tuple[int, int, int]] = []
        for a, node in enumerate(before.nodes):
            if a in pairs:
                continue
            counterparts = {pairs[other] for other in beside[a] if other in pairs}
            for b in free:
                shared = len(counterparts & beside_after[b])
                if shared and after.nodes[b].op == node.op:
                    found.append((-shared, a, b))
        if not found:
            return
        taken: set[int] = set()
        for _, a, b in sorted(found):
            if a not in pairs and b not in taken:
                pairs[a] = b
                taken.add(b)


def _neighbours(graph: ComputationalGraph) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in graph.nodes]
    for index, node in enumerate(graph.nodes):
        for source in node.inputs:
            found[index].add(source)
            found[source].add(index)
    return found
