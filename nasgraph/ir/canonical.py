"""Canonical order of a labelled directed acyclic graph.

Two graphs get the same canonical form exactly when they are isomorphic: labels equal, edges kept, positions of
arguments kept where they matter. Colour refinement in both directions does nearly all the work. What it leaves
tied falls into connected components that do not influence each other. A component whose nodes all differ, such as
one of many equal branches, is settled at once; in others a node is individualised and refinement goes on, over all
nodes of a tied colour but those that an automorphism maps to one already tried (McKay and Piperno, "Practical graph
isomorphism, II", 2014).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import TypeVar

from nasgraph.errors import InvalidGraphError

T = TypeVar("T", int, bytes)
Colours = list[bytes]
Form = tuple[tuple[bytes, tuple[bytes, ...]], ...]

MAX_VISITS = 10_000_000
"""Visits of nodes before the search gives up, some seconds. Graphs of networks need two or four per node."""


def canonical_order(
    labels: Sequence[str], inputs_of: Sequence[tuple[int, ...]], unordered: Sequence[bool], *, first: int
) -> tuple[int, ...]:
    """Order the nodes so that isomorphic graphs become equal. The order is topological.

    Args:
        labels: One label per node. Only nodes with equal labels are ever exchanged.
        inputs_of: For each node the nodes it reads, all of smaller index.
        unordered: For each node whether the order of its inputs is without meaning.
        first: Nodes `0 .. first - 1` have no inputs and distinct labels, and keep their places.

    Returns:
        Node indices in canonical order.

    Raises:
        InvalidGraphError: If the graph is so symmetric that the search was given up. No network is.
    """
    canoniser = _Canoniser(inputs_of, unordered, first)
    nodes = range(len(labels))
    try:
        colours = canoniser.refine([_digest([label.encode()]) for label in labels], nodes)
        return canoniser.topological(canoniser.settle(colours, nodes))
    except RecursionError as error:
        raise InvalidGraphError(_TOO_SYMMETRIC) from error


_TOO_SYMMETRIC = "The graph is too symmetric to be put into canonical order"


@dataclass(slots=True)
class _Canoniser:
    inputs_of: Sequence[tuple[int, ...]]
    unordered: Sequence[bool]
    first: int
    uses_of: list[list[tuple[int, bytes]]] = field(init=False)  # consumer, position of the argument
    automorphisms: list[dict[int, int]] = field(init=False, default_factory=list)  # only nodes that move
    num_visits: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.uses_of = [[] for _ in self.inputs_of]
        for node, inputs in enumerate(self.inputs_of):
            for position, source in enumerate(inputs):
                mark = (0 if self.unordered[node] else 1 + position).to_bytes(4)
                self.uses_of[source].append((node, mark))

    def refine(self, colours: Colours, nodes: Sequence[int]) -> Colours:
        """Split the colours of `nodes` until neither inputs nor uses tell two nodes of one colour apart.

        Each round is one pass down and one pass up the graph, so that news crosses the whole graph in
        one round: a chain of n nodes costs one or two rounds, not n.
        """
        colours = colours.copy()
        num_classes = len({colours[node] for node in nodes})
        while True:
            for node in nodes:
                read = self._arranged(node, [colours[source] for source in self.inputs_of[node]])
                colours[node] = _digest([colours[node], *read])
            for node in reversed(nodes):
                colours[node] = _digest(
                    [colours[node], *sorted(colours[user] + mark for user, mark in self.uses_of[node])]
                )
            self.num_visits += 2 * len(nodes)
            if self.num_visits > MAX_VISITS:
                raise InvalidGraphError(_TOO_SYMMETRIC)
            before, num_classes = num_classes, len({colours[node] for node in nodes})
            if num_classes in (before, len(nodes)):
                return colours

    def settle(self, colours: Colours, nodes: Sequence[int], *, greedy: bool = False) -> Colours:
        """Give each of `nodes` a colour of its own, below a refined colouring.

        For isomorphic graphs the results differ by an isomorphism only: components are ranked by their forms, and
        which of two components with equal forms comes first does not matter, since they can be exchanged.
        With `greedy` that holds for some isomorphic graphs only, but no search is made.
        """
        sizes = Counter(colours[node] for node in nodes)
        tied = [node for node in nodes if sizes[colours[node]] > 1]
        forms = [
            (*self._settle_component(colours, component, greedy=greedy), component)
            for component in self._components(tied)
        ]
        settled = colours.copy()
        for rank, (_, own, component) in enumerate(sorted(forms, key=lambda item: item[0])):
            for node in component:
                settled[node] = _digest([own[node], rank.to_bytes(4)])
        return settled

    def _components(self, nodes: list[int]) -> Iterator[list[int]]:
        """Connected parts of the graph induced on `nodes`, each in topological order."""
        waiting = set(nodes)
        for start in nodes:
            if start not in waiting:
                continue
            waiting.remove(start)
            component = [start]
            for node in component:  # grows
                for other in (*self.inputs_of[node], *(user for user, _ in self.uses_of[node])):
                    if other in waiting:
                        waiting.remove(other)
                        component.append(other)
            yield sorted(component)

    def _settle_component(
        self, colours: Colours, component: list[int], *, greedy: bool
    ) -> tuple[Form, Colours]:
        """Smallest form of a component, and the colouring that gives it."""
        sizes = Counter(colours[node] for node in component)
        tied = min(((size, colour) for colour, size in sizes.items() if size > 1), default=None)
        if tied is None:
            return self._form(colours, component), colours
        members = [node for node in component if colours[node] == tied[1]]
        first_known = len(self.automorphisms)
        seen: set[int] = set()
        leaves: dict[Form, Colours] = {}
        found: list[tuple[Form, Colours]] = []
        for member in members[:1] if greedy else members:
            if seen & self._orbit(member, first_known):
                continue
            seen.add(member)
            branch = colours.copy()
            branch[member] = _digest([branch[member], b"individual"])
            branch = self.refine(branch, component)
            leaf = self.settle(branch, component, greedy=True)
            form = self._form(leaf, component)
            if greedy:
                return form, leaf
            if form in leaves:  # equal forms are isomorphic: this member does what an earlier one did
                self._remember(leaves[form], leaf, component)
            else:
                leaves[form] = leaf
                settled = self.settle(branch, component)
                found.append((self._form(settled, component), settled))
        return min(found, key=lambda item: item[0])

    def _remember(self, one: Colours, other: Colours, component: list[int]) -> None:
        """Note the automorphism between two colourings that give equal forms."""
        node_of = {other[node]: node for node in component}
        image = {node: node_of[one[node]] for node in component}
        self.automorphisms.append({node: target for node, target in image.items() if node != target})

    def _orbit(self, node: int, first: int) -> set[int]:
        """Where the automorphisms noted since `first` take a node. They keep all that was individualised before."""
        orbit = {node}
        waiting = [node]
        while waiting:
            current = waiting.pop()
            for image in self.automorphisms[first:]:
                target = image.get(current, current)
                if target not in orbit:
                    orbit.add(target)
                    waiting.append(target)
        return orbit

    def _form(self, colours: Colours, component: list[int]) -> Form:
        """A component whose nodes all differ, as a value. What lies outside is implied by the colours."""
        inside = set(component)
        return tuple(
            sorted(
                (
                    colours[node],
                    tuple(self._arranged(node, [colours[s] for s in self.inputs_of[node] if s in inside])),
                )
                for node in component
            )
        )

    def _arranged(self, node: int, inputs: list[T]) -> list[T]:
        return sorted(inputs) if self.unordered[node] else inputs

    def topological(self, colours: Colours) -> tuple[int, ...]:
        """Topological order in which ties are broken by colour; all colours differ."""
        waiting = [len(inputs) for inputs in self.inputs_of]
        ready = [
            (node >= self.first, node if node < self.first else 0, colours[node], node)
            for node, count in enumerate(waiting)
            if count == 0
        ]
        heapify(ready)
        order = []
        while ready:
            node = heappop(ready)[-1]
            order.append(node)
            for user, _ in self.uses_of[node]:
                waiting[user] -= 1
                if waiting[user] == 0:
                    heappush(ready, (True, 0, colours[user], user))
        return tuple(order)


def _digest(parts: list[bytes]) -> bytes:
    return blake2b(b"|".join(parts), digest_size=16).digest()
