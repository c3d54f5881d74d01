"""Recurrent parts of a graph, found by grammar compression.

Pei et al., "Neural Architecture Retrieval", 2024, section 3.2: a graph is written as a sequence in topological order, each
node as its kind and how far back its inputs stand, so that repeated blocks are equal texts; frequent pairs are replaced by new
symbols, the most frequent first. The replacement is Re-Pair (Larsson and Moffat, "Off-line Dictionary-Based
Compression", 2000), nearly linear in the number of nodes. Departures: two equal symbols are never joined, so that a row of blocks stays
a row of blocks; parts have a largest length; and the order of the sequence is made from the graph alone, not
from how it happens to be written down.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from heapq import heapify, heappop, heappush

from nasgraph.files import canonical_json
from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.ir.canonical import canonical_order
from nasgraph.retrieve.words import Wiring, colours_of, surroundings, wiring_of, words_of

MAX_LENGTH = 48
"""Nodes of the longest motif."""
FAR = MAX_LENGTH + 1
"""Inputs that stand further back than this are all the same distance away: outside."""
MIN_COUNT = 3
"""Times that a pair has to occur: a new symbol costs the two that it is made of, so that only the third saves anything."""
_LOCAL_RADIUS = 3

Token = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Motif:
    """One occurrence of a recurrent part, or a single node that belongs to none.

    Attributes:
        key: Sixteen hexadecimal digits, equal for equal parts of any graphs.
        words: The kinds of its nodes, in order.
        nodes: Its nodes, in the same order.
    """

    key: str
    words: tuple[str, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class MotifGraph:
    """A graph seen as a graph of motifs.

    Attributes:
        motifs: In topological order. Every node is in exactly one.
        edges: Pairs of places in `motifs`, the source first, without repetition, sorted. All go forwards.
    """

    motifs: tuple[Motif, ...]
    edges: tuple[tuple[int, int], ...]

    @cached_property
    def kinds(self) -> tuple[tuple[Motif, int], ...]:
        """One motif of each kind that has several nodes, with the number of times it occurs; the most frequent first."""
        number = Counter(motif.key for motif in self.motifs)
        first: dict[str, Motif] = {}
        for motif in self.motifs:
            if len(motif.nodes) > 1:
                first.setdefault(motif.key, motif)
        return tuple(sorted(((m, number[k]) for k, m in first.items()), key=lambda item: -item[1]))

    @cached_property
    def motif_of(self) -> tuple[int, ...]:
        """The place in `motifs` of each node."""
        result = [0] * sum(len(motif.nodes) for motif in self.motifs)
        for place, motif in enumerate(self.motifs):
            for node in motif.nodes:
                result[node] = place
        return tuple(result)


def find_motifs(graph: ComputationalGraph, *, words: Sequence[str] | None = None) -> MotifGraph:
    """Divide a graph into motifs. Reordering its nodes renumbers them and changes nothing else.

    Args:
        graph: A checked graph.
        words: What each node is called; its kind (`words_of`) if not given.
    """
    words = words_of(graph) if words is None else tuple(words)
    order = linear_order(graph, words=words)
    tokens = _tokens(graph, order, words)
    motifs = []
    for start, end in _segments(tokens):
        text = canonical_json(tokens[start:end])
        key = blake2b(text.encode(), digest_size=8).hexdigest()
        nodes = tuple(order[start:end])
        motifs.append(Motif(key, tuple(words[node] for node in nodes), nodes))
    motif_of = {node: place for place, motif in enumerate(motifs) for node in motif.nodes}
    edges = {
        (motif_of[source], motif_of[index])
        for index, node in enumerate(graph.nodes)
        for source in node.inputs
        if motif_of[source] != motif_of[index]
    }
    return MotifGraph(tuple(motifs), tuple(sorted(edges)))


def linear_order(graph: ComputationalGraph, *, words: Sequence[str] | None = None) -> tuple[int, ...]:
    """A topological order in which blocks stand together: depth first from the outputs, the deepest input first.

    Among inputs of one depth the surroundings decide, near ones before far ones, so that equal blocks are written alike wherever
    they stand; what these do not tell apart stands in canonical order.
    """
    words = words_of(graph) if words is None else tuple(words)
    ranks = _ranks(graph, tuple(words), wiring_of(graph))
    order: list[int] = []
    done: set[int] = set()
    waiting = [(output, False) for output in reversed(graph.outputs)]
    while waiting:
        index, ready = waiting.pop()
        if index in done:
            continue
        if ready:
            done.add(index)
            order.append(index)
            continue
        waiting.append((index, True))
        sources = sorted(
            set(graph.nodes[index].inputs) - done, key=lambda source: ranks[source], reverse=True
        )
        waiting.extend((source, False) for source in sources)
    order.extend(index for index in graph.inputs if index not in done)
    return tuple(order)


def _ranks(graph: ComputationalGraph, words: tuple[str, ...], wiring: Wiring) -> list[tuple[int, ...]]:
    """What inputs of one node are sorted by."""
    level: list[int] = []
    for node in graph.nodes:
        level.append(1 + max((level[source] for source in node.inputs), default=-1))
    columns = [colour.tolist() for colour in surroundings(colours_of(words), wiring, radius=_LOCAL_RADIUS)]
    ranks = [(-deep, *colours) for deep, *colours in zip(level, *columns, strict=True)]
    tied = any(
        len({ranks[source] for source in set(node.inputs)}) < len(set(node.inputs)) for node in graph.nodes
    )
    if not tied:
        return ranks
    place = _canonical_places(graph)
    return [(*rank, place[index]) for index, rank in enumerate(ranks)]


def _canonical_places(graph: ComputationalGraph) -> list[int]:
    outputs: dict[int, list[int]] = {}
    for position, index in enumerate(graph.outputs):
        outputs.setdefault(index, []).append(position)
    inputs = {index: place for place, index in enumerate(graph.inputs)}
    labels = [
        canonical_json([node.op, node.attrs, inputs.get(index, -1), outputs.get(index, [])])
        for index, node in enumerate(graph.nodes)
    ]
    order = canonical_order(
        labels,
        [node.inputs for node in graph.nodes],
        [OPS[node.op].commutative for node in graph.nodes],
        first=0,
    )
    places = [0] * len(order)
    for place, index in enumerate(order):
        places[index] = place
    return places


def _tokens(graph: ComputationalGraph, order: Sequence[int], words: Sequence[str]) -> list[Token]:
    place = {index: position for position, index in enumerate(order)}
    tokens = []
    for position, index in enumerate(order):
        node = graph.nodes[index]
        back = [min(position - place[source], FAR) for source in node.inputs]
        tokens.append((words[index], tuple(sorted(back) if OPS[node.op].commutative else back)))
    return tokens


def _segments(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Where the motifs of a sequence begin and end."""
    names: dict[Token, int] = {}
    return _Compression([names.setdefault(token, len(names)) for token in tokens]).run()


class _Compression:
    """Re-Pair: a linked list of symbols, the places of every pair, and a heap of pairs by their number."""

    def __init__(self, symbols: list[int]) -> None:
        self.symbol = symbols
        size = len(symbols)
        self.after = [*range(1, size), -1] if size else []
        self.before = [*range(-1, size - 1)]
        self.length = dict.fromkeys(symbols, 1)
        self.next_symbol = max(symbols, default=-1) + 1
        self.places: dict[tuple[int, int], dict[int, None]] = {}
        for place in range(size - 1):
            self._note(place)
        self.heap = [(-len(places), pair) for pair, places in self.places.items()]
        heapify(self.heap)

    def run(self) -> list[tuple[int, int]]:
        """Replace until no pair occurs often enough; the spans of the symbols that are left."""
        while self.heap:
            number, pair = heappop(self.heap)
            found = len(self.places.get(pair, ()))
            if found < MIN_COUNT or self.length[pair[0]] + self.length[pair[1]] > MAX_LENGTH:
                continue
            if found != -number:  # an old count; the pair waits for its turn
                heappush(self.heap, (-found, pair))
                continue
            self._replace(pair)
        spans, place = [], 0
        while 0 <= place < len(self.symbol):
            end = place + self.length[self.symbol[place]]
            spans.append((place, end))
            place = end
        return spans

    def _note(self, place: int) -> tuple[int, int] | None:
        """Write down the pair that begins here."""
        if place < 0 or self.after[place] < 0:
            return None
        pair = (self.symbol[place], self.symbol[self.after[place]])
        if pair[0] == pair[1]:
            return None
        self.places.setdefault(pair, {})[place] = None
        return pair

    def _forget(self, place: int) -> None:
        if place >= 0 and self.after[place] >= 0:
            self.places.get((self.symbol[place], self.symbol[self.after[place]]), {}).pop(place, None)

    def _replace(self, pair: tuple[int, int]) -> None:
        """Put one new symbol in place of every occurrence."""
        new = self.next_symbol
        self.next_symbol += 1
        self.length[new] = self.length[pair[0]] + self.length[pair[1]]
        changed: dict[tuple[int, int], None] = {}
        for place in sorted(self.places[pair]):
            second, left = self.after[place], self.before[place]
            self._forget(left)
            self._forget(second)
            self._forget(place)
            self.symbol[place], self.after[place] = new, self.after[second]
            if self.after[place] >= 0:
                self.before[self.after[place]] = place
            for start in (left, place):
                noted = self._note(start)
                if noted is not None:
                    changed[noted] = None
        for noted in changed:
            heappush(self.heap, (-len(self.places[noted]), noted))
