"""Why two architectures match: the parts that they have in common, node by node.

A *common part* is a set of nodes of each graph and a pairing of them, such that paired nodes are of one kind (`words_of`: operator, kernel,
stride, grouping; not width), the edges among the nodes of one set are those among the other, with the places of arguments where
these matter, and the nodes hang together: the maximum common connected induced subgraph, of labelled directed graphs. To find
the largest is NP-hard. It is found exactly in small graphs, by branch and bound (as McCreesh, Prosser and Trimble, "A
Partitioning Algorithm for Maximum Common Subgraph Problems", 2017, section 4, but node by node). In others it is grown greedily from pairs whose
Weisfeiler-Lehman surroundings agree furthest. What is left is searched for further parts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.retrieve.motifs import find_motifs, linear_order
from nasgraph.retrieve.words import colours_of, surroundings, wiring_of, words_of

EXACT_NODES = 10
"""Graphs of at most so many nodes are searched through."""
MAX_VISITS = 200_000
RADIUS = 6
"""Surroundings are compared up to this radius."""
FIRST_SEEDS, LATER_SEEDS = 12, 4
LEAST_PART = 3
"""Nodes of a part that is worth a mention, beside the largest."""
MAX_PARTS = 24
MAX_BLOCKS = 6
MAX_WORDS = 9
"""Kinds in the name of a block; longer names are cut."""

Pair = tuple[int, int]
Pairs = dict[int, int]


@dataclass(frozen=True, slots=True)
class Match:
    """What two graphs have in common.

    Attributes:
        pairs: Index of a node in the first graph and of its counterpart in the second, sorted. No node occurs twice.
        parts: The same pairs, by common connected part, the largest part first.
        share_a: Share of the first graph's nodes that have a counterpart.
        share_b: Share of the second's.
        blocks: What recurs in the common nodes, in words, such as `3x conv3x3-bn-relu`; the most nodes first.
        is_exact: Whether the first part is known to be the largest there is.
    """

    pairs: tuple[Pair, ...]
    parts: tuple[tuple[Pair, ...], ...]
    share_a: float
    share_b: float
    blocks: tuple[str, ...]
    is_exact: bool


def explain_match(a: ComputationalGraph, b: ComputationalGraph) -> Match:
    """Find common parts of two checked graphs.

    Guaranteed: every part is a common part as the module says; equal graphs, however their nodes are ordered, have one part that
    covers both if they are connected; with graphs of up to `EXACT_NODES` nodes the first part is as large as can be.
    """
    one, other = _Side.of(a), _Side.of(b)
    used_a: set[int] = set()
    used_b: set[int] = set()
    parts: list[Pairs] = []
    is_exact = False
    while len(parts) < MAX_PARTS:
        part = _largest(one, other, used_a, used_b, seeds=LATER_SEEDS if parts else FIRST_SEEDS)
        if not parts and max(len(a), len(b)) <= EXACT_NODES:
            search = _Search(one, other, part)
            part, is_exact = search.best, search.is_complete
        if len(part) < (LEAST_PART if parts else 1):
            break
        parts.append(part)
        used_a |= set(part)
        used_b |= set(part.values())
    pairs = tuple(sorted(pair for part in parts for pair in part.items()))
    return Match(
        pairs=pairs,
        parts=tuple(tuple(sorted(part.items())) for part in sorted(parts, key=len, reverse=True)),
        share_a=len(pairs) / len(a),
        share_b=len(pairs) / len(b),
        blocks=_blocks(a, {x for x, _ in pairs}, one.words),
        is_exact=is_exact,
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """One graph as the search reads it."""

    words: tuple[str, ...]
    labels: tuple[
        dict[int, tuple[int, ...]], ...
    ]  # neighbour -> what ties it to the node; read: 1 + place, user: -1 - place
    colours: tuple[list[int], ...]  # by radius
    order: tuple[int, ...]
    depth: tuple[float, ...]  # place in the order, from 0 to 1

    @staticmethod
    def of(graph: ComputationalGraph) -> "_Side":
        words = words_of(graph)
        labels: list[dict[int, tuple[int, ...]]] = [{} for _ in range(len(graph))]
        for index, node in enumerate(graph.nodes):
            for position, source in enumerate(node.inputs):
                place = 1 if OPS[node.op].commutative else 2 + position
                labels[index][source] = (*labels[index].get(source, ()), place)
                labels[source][index] = (*labels[source].get(index, ()), -place)
        colours = surroundings(colours_of(words), wiring_of(graph), radius=RADIUS)
        order = linear_order(graph, words=words)
        depth = [0.0] * len(graph)
        for place, index in enumerate(order):
            depth[index] = place / max(1, len(graph) - 1)
        return _Side(words, tuple(labels), tuple(c.tolist() for c in colours), order, tuple(depth))


def _agreement(one: _Side, other: _Side, x: int, y: int) -> int:
    """The largest radius at which two nodes look alike; -1 if they are of different kinds."""
    for radius, (left, right) in enumerate(zip(one.colours, other.colours, strict=True)):
        if left[x] != right[y]:
            return radius - 1
    return RADIUS


def _fits(one: _Side, other: _Side, pairs: Pairs, inverse: Pairs, x: int, y: int) -> bool:
    """Whether a pair can join: same kind, and the same edges to the pairs that are there."""
    if one.words[x] != other.words[y]:
        return False
    tied = 0
    for neighbour, label in one.labels[x].items():
        if neighbour in pairs:
            tied += 1
            if other.labels[y].get(pairs[neighbour]) != label:
                return False
    return tied == sum(neighbour in inverse for neighbour in other.labels[y])


def _grow(one: _Side, other: _Side, seed: Pair, used_a: set[int], used_b: set[int]) -> Pairs:
    """Add neighbours, those that look most alike and stand at most alike places first, while any fits."""
    pairs: Pairs = {}
    inverse: Pairs = {}
    waiting: list[tuple[int, float, int, int]] = [(0, 0.0, *seed)]
    seen = {seed}
    while waiting:
        _, _, x, y = heappop(waiting)
        if x in pairs or y in inverse or not _fits(one, other, pairs, inverse, x, y):
            continue
        pairs[x], inverse[y] = y, x
        for next_x, label in one.labels[x].items():
            if next_x in pairs or next_x in used_a:
                continue
            for next_y, other_label in other.labels[y].items():
                if label != other_label or next_y in inverse or next_y in used_b or (next_x, next_y) in seen:
                    continue
                agreement = _agreement(one, other, next_x, next_y)
                if agreement >= 0:
                    seen.add((next_x, next_y))
                    heappush(
                        waiting, (-agreement, abs(one.depth[next_x] - other.depth[next_y]), next_x, next_y)
                    )
    return pairs


def _largest(one: _Side, other: _Side, used_a: set[int], used_b: set[int], *, seeds: int) -> Pairs:
    """The largest part that grows from one of the best seeds."""
    best: Pairs = {}
    tried: set[Pair] = set()
    for seed in _seeds(one, other, used_a, used_b):
        if len(tried) == seeds:
            break
        if best.get(seed[0]) == seed[1] or seed in tried:
            continue
        tried.add(seed)
        grown = _grow(one, other, seed, used_a, used_b)
        if len(grown) > len(best):
            best = grown
    return best


def _seeds(one: _Side, other: _Side, used_a: set[int], used_b: set[int]) -> Iterator[Pair]:
    """Pairs that look alike as far as possible, rare ones first; of several the first ones, the last and the middle."""
    for radius in range(RADIUS, -1, -1):
        left, right = (_occurrences(side, radius, used) for side, used in ((one, used_a), (other, used_b)))
        common = sorted(
            (max(len(left[colour]), len(right[colour])), left[colour][0], colour)
            for colour in left.keys() & right.keys()
        )
        for _, _, colour in common:
            xs, ys = left[colour], right[colour]
            yield xs[0], ys[0]
            yield xs[-1], ys[-1]
            yield xs[len(xs) // 2], ys[len(ys) // 2]


def _occurrences(side: _Side, radius: int, used: set[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for index in side.order:
        if index not in used:
            found[side.colours[radius][index]].append(index)
    return found


class _Search:
    """Branch and bound over connected common parts: take a neighbour of the part, pair it in every way, or leave it out."""

    def __init__(self, one: _Side, other: _Side, start: Pairs) -> None:
        self.one, self.other = one, other
        self.best = start
        self.visits = 0
        left_out: set[int] = set()
        for x in range(len(one.words)):
            for y in range(len(other.words)):
                if one.words[x] == other.words[y]:
                    self._extend({x: y}, {y: x}, set(left_out))
            left_out.add(x)

    @property
    def is_complete(self) -> bool:
        """Whether nothing was cut short."""
        return self.visits <= MAX_VISITS

    def _extend(self, pairs: Pairs, inverse: Pairs, left_out: set[int]) -> None:
        self.visits += 1
        if len(pairs) > len(self.best):
            self.best = dict(pairs)
        if self.visits > MAX_VISITS or len(pairs) + self._bound(pairs, inverse, left_out) <= len(self.best):
            return
        x = next((n for m in pairs for n in self.one.labels[m] if n not in pairs and n not in left_out), None)
        if x is None:
            return
        for y in range(len(self.other.words)):
            if y not in inverse and _fits(self.one, self.other, pairs, inverse, x, y):
                self._extend({**pairs, x: y}, {**inverse, y: x}, left_out)
        self._extend(pairs, inverse, left_out | {x})

    def _bound(self, pairs: Pairs, inverse: Pairs, left_out: set[int]) -> int:
        """Pairs that the numbers of each kind would still allow."""
        left = Counter(w for x, w in enumerate(self.one.words) if x not in pairs and x not in left_out)
        right = Counter(w for y, w in enumerate(self.other.words) if y not in inverse)
        return (left & right).total()


_SHORT = {
    "batch_norm": "bn", "layer_norm": "ln", "group_norm": "gn", "rms_norm": "rms", "global_avg_pool2d": "global pool",
    "avg_pool2d": "avg pool", "max_pool2d": "max pool", "conv2d": "conv", "mul": "multiply",
}  # fmt: skip


def block_name(words: Sequence[str]) -> str:
    """A row of kinds in a few words, such as `conv3x3-bn-relu`."""
    short = [_short(word) for word in words]
    return "-".join(
        short if len(short) <= MAX_WORDS else [*short[: MAX_WORDS - 1], f"... ({len(short)} nodes)"]
    )


def _short(word: str) -> str:
    op, *rest = word.split(" ")
    if op in ("conv1d", "conv2d", "conv3d") and rest:
        dims = "" if op == "conv2d" else op[4:]
        return " ".join((f"conv{dims}{rest[0]}", *rest[1:]))
    return " ".join((_SHORT.get(op, op.replace("_", " ")), *rest))


def _blocks(graph: ComputationalGraph, common: set[int], words: Sequence[str]) -> tuple[str, ...]:
    """The motifs of a graph that are common as a whole, with their numbers; if there are none, the most frequent kinds."""
    number: Counter[str] = Counter()
    size: dict[str, int] = {}
    for motif in find_motifs(graph, words=words).motifs:
        if len(motif.nodes) > 1 and common.issuperset(motif.nodes):
            name = block_name(motif.words)
            number[name] += 1
            size[name] = len(motif.nodes)
    if not number:
        number = Counter(_short(words[index]) for index in common)
        size = dict.fromkeys(number, 1)
    ordered = sorted(number, key=lambda name: (-number[name] * size[name], name))
    return tuple(f"{number[name]}x {name}" if number[name] > 1 else name for name in ordered[:MAX_BLOCKS])
