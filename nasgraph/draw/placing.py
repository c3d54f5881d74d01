"""Horizontal places in a layered drawing: near the neighbours, long edges and the main path straight.

Quadratic placement: each sweep moves every vertex of a row towards its neighbours in the other rows, and isotonic
regression (pool adjacent violators, exact and linear) keeps the distances within the row. At the end, chains that ought
to be straight are made so where the neighbours leave room.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from nasgraph.draw.network import Network

_SWEEPS = 12
_PULL_LONG, _PULL_MAIN, _PULL_CHAIN, _PULL_JOINT, _PULL_OTHER = 8.0, 12.0, 3.0, 2.0, 1.0
_NEARLY_STRAIGHT = 14.0

Step = tuple[int, int]


def place_rows(network: Network) -> list[float]:
    """Middle of every vertex, dummies included, in the order of its row and at the least distances or more."""
    offsets = [_offsets(network, row) for row in network.rows]
    xs = [0.0] * len(network.layer)
    for row, offset in zip(network.rows, offsets, strict=True):
        for vertex, x in zip(row, offset, strict=True):
            xs[vertex] = x - offset[-1] / 2
    main = _main_path(network)
    above = [[(o, _pull(network, main, (o, v))) for o in near] for v, near in enumerate(network.above)]
    below = [[(o, _pull(network, main, (v, o))) for o in near] for v, near in enumerate(network.below)]
    both = [[*upper, *lower] for upper, lower in zip(above, below, strict=True)]
    rows = list(zip(network.rows, offsets, strict=True))
    for sweep in range(_SWEEPS):
        last = sweep >= _SWEEPS // 2
        for row, offset in rows:
            _settle(xs, row, offset, both if last else above)
        for row, offset in reversed(rows):
            _settle(xs, row, offset, both if last else below)
    _straighten(network, xs, main)
    return xs


def _offsets(network: Network, row: Sequence[int]) -> list[float]:
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + network.separation(left, right))
    return offsets


def _main_path(network: Network) -> set[Step]:
    """Steps of the longest paths from top to bottom; where these fork, the middle one, or none if there is no middle."""
    tail = [0] * len(network.layer)
    for row in reversed(network.rows):
        for vertex in row:
            tail[vertex] = max((tail[lower] + 1 for lower in network.below[vertex]), default=0)
    longest = len(network.rows) - 1
    on_path = [
        not network.is_dummy(vertex) and network.layer[vertex] + tail[vertex] == longest
        for vertex in range(len(tail))
    ]
    place = network.places()

    def middle(vertices: Sequence[int]) -> int | None:
        found = sorted({vertex for vertex in vertices if on_path[vertex]}, key=lambda vertex: place[vertex])
        return found[len(found) // 2] if len(found) % 2 else None

    upper = {vertex: middle(network.above[vertex]) for vertex in range(len(tail)) if on_path[vertex]}
    lower = {vertex: middle(network.below[vertex]) for vertex in range(len(tail)) if on_path[vertex]}
    return {
        (above, vertex) for vertex, above in upper.items() if above is not None and lower[above] == vertex
    }


def _pull(network: Network, main: set[Step], step: Step) -> float:
    """How strongly a step asks to be straight."""
    num_dummies = network.is_dummy(step[0]) + network.is_dummy(step[1])
    if step in main:
        return _PULL_MAIN
    if num_dummies:
        return _PULL_LONG if num_dummies == 2 else _PULL_JOINT
    return _PULL_CHAIN if _is_chain(network, step) else _PULL_OTHER


def _is_chain(network: Network, step: Step) -> bool:
    return len(network.below[step[0]]) == len(network.above[step[1]]) == 1


def _settle(
    xs: list[float],
    row: Sequence[int],
    offset: Sequence[float],
    neighbours: Sequence[Sequence[tuple[int, float]]],
) -> None:
    """Move a row to the least sum of weighted squared distances from where its neighbours pull it."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of vertices
    for vertex, shift in zip(row, offset, strict=True):
        near = neighbours[vertex]
        weight = sum(pull for _, pull in near)
        wanted = sum(xs[other] * pull for other, pull in near) / weight if near else xs[vertex]
        mean, weight, count = wanted - shift, weight or 0.1, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_weight, other_count = blocks.pop()
            mean = (mean * weight + other_mean * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        blocks.append((mean, weight, count))
    index = 0
    for mean, _, count in blocks:
        for _ in range(count):
            xs[row[index]] = mean + offset[index]
            index += 1


def _straighten(network: Network, xs: list[float], main: set[Step]) -> None:
    """Give each chain one place where there is room, and as few places as it takes where there is not."""
    room = _Room(network, xs)
    for _ in range(3):
        for chain in _chains(network, xs, main):
            start = 0
            while start < len(chain):
                low, high = room.around(chain[start])
                end = start + 1
                while end < len(chain):
                    next_low, next_high = room.around(chain[end])
                    if max(low, next_low) > min(high, next_high):
                        break
                    low, high, end = max(low, next_low), min(high, next_high), end + 1
                piece = chain[start:end]
                x = min(max(sum(xs[vertex] for vertex in piece) / len(piece), low), high)
                for vertex in piece:
                    xs[vertex] = x
                start = end


def _chains(network: Network, xs: Sequence[float], main: set[Step]) -> list[list[int]]:
    """Vertices that ought to stand in one line: the main path first, then long edges and other chains by length."""
    following: dict[int, int] = dict(sorted(main))
    taken = set(following.values())

    def join(wanted: Callable[[Step], bool]) -> None:
        for step in ((vertex, lower) for vertex, below in enumerate(network.below) for lower in below):
            if step[0] not in following and step[1] not in taken and wanted(step):
                following[step[0]] = step[1]
                taken.add(step[1])

    join(lambda step: network.is_dummy(step[0]) and network.is_dummy(step[1]))
    join(lambda step: _is_chain(network, step))
    join(lambda step: not network.is_dummy(max(step)) and abs(xs[step[0]] - xs[step[1]]) < _NEARLY_STRAIGHT)
    chains = []
    for first in sorted(set(following) - taken):
        chain = [first]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        chains.append(chain)
    on_main = {vertex for step in main for vertex in step}
    return sorted(chains, key=lambda chain: (chain[0] not in on_main, -len(chain), chain[0]))


class _Room:
    """How far each vertex may move between its neighbours as they stand."""

    def __init__(self, network: Network, xs: list[float]) -> None:
        self._network, self._xs = network, xs
        self._left: dict[int, int] = {}
        self._right: dict[int, int] = {}
        for row in network.rows:
            for left, right in pairwise(row):
                self._left[right], self._right[left] = left, right

    def around(self, vertex: int) -> tuple[float, float]:
        """Least and greatest place; both equal to the present one where there is no room."""
        low, high, here = float("-inf"), float("inf"), self._xs[vertex]
        if vertex in self._left:
            low = self._xs[self._left[vertex]] + self._network.separation(self._left[vertex], vertex)
        if vertex in self._right:
            high = self._xs[self._right[vertex]] - self._network.separation(vertex, self._right[vertex])
        return min(low, here), max(high, here)
