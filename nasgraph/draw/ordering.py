"""The order of the vertices within the rows of a layered drawing, with few crossings of edges."""

from bisect import bisect_right, insort
from collections.abc import Sequence

from nasgraph.draw.network import Network

_SWEEPS = 24
_PATIENCE = 4


def order_rows(network: Network) -> None:
    """Order `network.rows`: sweep down and up, each row sorted by the mean place of its neighbours.

    The order with the fewest crossings that was met is kept. Deterministic.
    """
    _start_depth_first(network)
    best, fewest, idle = [row.copy() for row in network.rows], _crossings(network), 0
    for sweep in range(_SWEEPS):
        if fewest == 0 or idle == _PATIENCE:
            break
        place = network.places()
        down = sweep % 2 == 0
        for row in network.rows if down else reversed(network.rows):
            _sort_row(row, place, network.above if down else network.below)
        crossings, idle = _crossings(network), idle + 1
        if crossings < fewest:
            best, fewest, idle = [row.copy() for row in network.rows], crossings, 0
    network.rows = best


def _start_depth_first(network: Network) -> None:
    """List each row in the order in which a depth-first walk from above meets its vertices."""
    rank: dict[int, int] = {}
    waiting = [vertex for vertex in reversed(range(len(network.sizes))) if not network.above[vertex]]
    while waiting:
        vertex = waiting.pop()
        if vertex not in rank:
            rank[vertex] = len(rank)
            waiting.extend(reversed(network.below[vertex]))
    for row in network.rows:
        row.sort(key=lambda vertex: rank[vertex])


def _sort_row(row: list[int], place: list[float], neighbours: Sequence[Sequence[int]]) -> None:
    def middle(vertex: int) -> float:
        near = neighbours[vertex]
        return sum(place[other] for other in near) / len(near) if near else place[vertex]

    row.sort(key=middle)
    for position, vertex in enumerate(row):
        place[vertex] = (position + 0.5) / len(row)


def _crossings(network: Network) -> int:
    place = network.places()
    total = 0
    for row in network.rows:
        seen: list[float] = []
        for vertex in row:
            ends = sorted(place[lower] for lower in network.below[vertex])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total
