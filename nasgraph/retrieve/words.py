# ruff: noqa: N815  shape letters after array names, in fields too
"""What a node is called, and what it is called together with its surroundings.

Surroundings are the colours of Weisfeiler-Lehman refinement (Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", 2011,
section 3), for a graph whose edges have a direction and whose arguments may have an order. They are computed for all nodes
at once, as 64-bit numbers that are the same on every machine. Two surroundings that differ have different colours but for
a chance of 2**-64.

Shape letters: N = nodes of one graph, E = edges.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.predict.graph_features import kind_of

Colours = NDArray[np.uint64]

_MIX = tuple(
    np.uint64(number) for number in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)  # of splitmix64 (Steele et al. 2014)
_READ, _USED, _OWN = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xA0761D6478BD642F)
)


@dataclass(frozen=True)
class Wiring:
    """The edges of one graph.

    Attributes:
        num_nodes: Number of nodes.
        source_E: What is read.
        target_E: Who reads it.
        position_E: Which argument it is, from 1; 0 where the order of arguments has no meaning.
    """

    num_nodes: int
    source_E: NDArray[np.int64]
    target_E: NDArray[np.int64]
    position_E: NDArray[np.uint64]


def wiring_of(graph: ComputationalGraph) -> Wiring:
    """The edges of a graph, in the order of nodes and arguments."""
    rows = [
        (source, index, 0 if OPS[node.op].commutative else 1 + place)
        for index, node in enumerate(graph.nodes)
        for place, source in enumerate(node.inputs)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Wiring(len(graph), table[:, 0], table[:, 1], table[:, 2].astype(np.uint64))


def words_of(graph: ComputationalGraph) -> tuple[str, ...]:
    """The kind of every node, such as `conv2d 3x3 strided`. Widths are no part of it."""
    return tuple([kind_of(graph, index) for index in range(len(graph))])


def width_words(graph: ComputationalGraph, words: tuple[str, ...]) -> tuple[str, ...]:
    """The kind of every node with how much wider its value is than what it reads, in steps of half a doubling."""
    width = [_width(shape) for shape in graph.shapes]
    return tuple(
        [
            f"{word} x{round(2 * np.log2(width[index] / width[node.inputs[0]]))}" if node.inputs else word
            for index, (word, node) in enumerate(zip(words, graph.nodes, strict=True))
        ]
    )


def stage_words(graph: ComputationalGraph, words: tuple[str, ...]) -> tuple[str, ...]:
    """The kind of every node with how often its value was halved in length since the input, as log2 of positions."""
    first = max(_positions(graph.shapes[index]) for index in graph.inputs)
    return tuple(
        [
            f"{word} /{round(np.log2(first / _positions(shape)))}"
            for word, shape in zip(words, graph.shapes, strict=True)
        ]
    )


def _width(shape: tuple[int, ...]) -> int:
    """Channels of an image, features of tokens or of a vector."""
    return 1 if not shape else shape[0] if len(shape) == 3 else shape[-1]


def _positions(shape: tuple[int, ...]) -> int:
    """Pixels of an image, number of tokens, 1 of a vector."""
    if len(shape) < 2:
        return 1
    return max(1, int(np.prod(shape[1:] if len(shape) == 3 else shape[:-1], dtype=np.int64)))


def colours_of(words: tuple[str, ...]) -> Colours:
    """One number per word."""
    return np.array([colour_of(word) for word in words], dtype=np.uint64)


@lru_cache(maxsize=65536)
def colour_of(word: str) -> int:
    """A number in [0, 2**64) that depends on the text alone."""
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")


def refine(colour_N: Colours, wiring: Wiring) -> Colours:
    """One round: the new colour of a node tells its colour, those of what it reads (with the places of arguments, where they
    matter) and those of who reads it. The order of the nodes plays no part: sums of integers are exact."""
    source, target, position = wiring.source_E, wiring.target_E, wiring.position_E
    read_N, used_N = (np.zeros(wiring.num_nodes, np.uint64) for _ in range(2))
    np.add.at(read_N, target, mix(colour_N[source] + position * _READ))
    np.add.at(used_N, source, mix(colour_N[target] + position * _USED + _OWN))
    return mix(colour_N * _OWN + mix(read_N + _READ) * _READ + mix(used_N + _USED) * _USED)


def surroundings(colour_N: Colours, wiring: Wiring, *, radius: int) -> tuple[Colours, ...]:
    """Colours of radius 0 (as given) up to `radius`."""
    result = [colour_N]
    for _ in range(radius):
        result.append(refine(result[-1], wiring))
    return tuple(result)


def mix(x: Colours) -> Colours:
    """A bijection of the 64-bit numbers that leaves no pattern."""
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))
