# ruff: noqa: N815  shape letters after array names, in fields too
"""Shortest paths between the nodes of a graph: all of them, or along a band where there are too many.

Letters in array names: N = nodes of one graph, K = windows, W = nodes of a window, V = 3 W nodes that a window sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nasgraph.files import canonical_json
from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.ir.canonical import canonical_order

MAX_DISTANCE = 50
MAX_DENSE_NODES = 4096
"""Largest graph whose distances are kept as a matrix (16 MiB). Larger ones have a `DistanceBand`."""
WINDOW = 256
_BLOCK = 256


@dataclass(frozen=True)
class DistanceBand:
    """Distances between nodes that stand near each other, for graphs too large for a matrix: 768 bytes per node.

    Nodes are put in order of their level, those of one level in canonical order, so that the order in which the graph
    was written down has no influence. The order is cut into windows; a node knows its distance to
    all nodes of its own window and of the two beside it: 256 to 512 nodes on either side. What lies on a path
    between two nodes stands between them in the order, so these distances are exact.

    Attributes:
        order_N: The node at each place of the order.
        distance_KWV: Signed distance, as in `EncodedGraph`, from the node at place `k W + w` to the node at place
            `(k - 1) W + v`; 0 where no such place exists.
    """

    order_N: NDArray[np.int64]
    distance_KWV: NDArray[np.int8]

    @property
    def window(self) -> int:
        """Nodes of a window."""
        return int(self.distance_KWV.shape[1])


def signed_distances(graph: ComputationalGraph) -> NDArray[np.int8]:
    """Signed shortest path lengths between all nodes, by dynamic programming along the topological order.

    See `EncodedGraph.distance_NN`. One vector minimum per edge, over the nodes that come before it only; equal to
    networkx's breadth-first search.
    """
    return _signed([node.inputs for node in graph.nodes])


def _signed(inputs_of: Sequence[Sequence[int]]) -> NDArray[np.int8]:
    """Kept as nearness, 51 - d for d up to 50, 1 beyond and 0 where there is no path: one byte, and no overflow."""
    size = len(inputs_of)
    near_NN = np.zeros((size, size), dtype=np.int8)  # row v: from every u before v
    rows, is_far = list(near_NN), np.empty(size, np.bool_)
    step = is_far.view(np.int8)
    for node, inputs in enumerate(inputs_of):
        row = rows[node]
        if inputs:
            reach = max(inputs) + 1  # no later node reaches any source
            if len(inputs) == 1:
                nearest = rows[inputs[0]][:reach]
            elif len(inputs) == 2:
                nearest = np.maximum(rows[inputs[0]][:reach], rows[inputs[1]][:reach], out=row[:reach])
            else:
                nearest = near_NN[list(set(inputs)), :reach].max(axis=0)
            np.greater(nearest, 1, out=is_far[:reach])
            np.subtract(nearest, step[:reach], out=row[:reach])
        row[node] = MAX_DISTANCE + 1
    return _mirrored(near_NN)


def _mirrored(near_NN: NDArray[np.int8]) -> NDArray[np.int8]:
    """Turn nearness below the diagonal into signed distances on both sides, in place, in blocks that fit a cache."""
    size = len(near_NN)
    for top in range(0, size, _BLOCK):
        for left in range(0, top + 1, _BLOCK):
            here = (slice(top, top + _BLOCK), slice(left, left + _BLOCK))
            part = near_NN[here]
            distance = (MAX_DISTANCE + 1 - part) * (part > 0).view(np.int8)
            if left == top:
                near_NN[here] = distance.T - distance  # above the diagonal nothing is reached
            else:
                np.negative(distance, out=part)
                near_NN[here[::-1]] = distance.T
    return near_NN


def distance_band(
    graph: ComputationalGraph, level_N: NDArray[np.int64], *, window: int = WINDOW
) -> DistanceBand:
    """Distances of a large graph, in time and memory proportional to its nodes.

    Args:
        graph: Any checked graph.
        level_N: Level of every node, see `EncodedGraph`.
        window: Nodes of a window.

    Raises:
        InvalidGraphError: If the graph is too symmetric to be put into canonical order. No network is.
    """
    rank_N = _canonical_rank(graph)
    order_N = np.lexsort((rank_N, level_N))
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N))
    inputs_of = [place_N[list(graph.nodes[node].inputs)].tolist() for node in order_N]
    num_windows = -(-len(order_N) // window)
    distance_KWV = np.zeros((num_windows, window, 3 * window), np.int8)
    for k in range(num_windows):
        start = k * window
        near = [
            [source - start for source in inputs if source >= start]
            for inputs in inputs_of[start : start + 2 * window]
        ]
        signed = _signed(near)
        own = min(window, len(near))
        distance_KWV[k, :own, window : window + len(near)] = signed[:own]
        if len(near) > window:
            distance_KWV[k + 1, : len(near) - window, :window] = signed[window:, :window]
    return DistanceBand(order_N, distance_KWV)


def _canonical_rank(graph: ComputationalGraph) -> NDArray[np.int64]:
    inputs = graph.inputs
    first = [*inputs, *(index for index in range(len(graph)) if graph.nodes[index].op != "input")]
    place = {old: new for new, old in enumerate(first)}
    outputs: dict[int, list[int]] = {}
    for position, index in enumerate(graph.outputs):
        outputs.setdefault(index, []).append(position)
    nodes = [graph.nodes[old] for old in first]
    order = canonical_order(
        [
            canonical_json([node.op, node.attrs, new if new < len(inputs) else -1, outputs.get(old, [])])
            for new, (old, node) in enumerate(zip(first, nodes, strict=True))
        ],
        [tuple(place[source] for source in node.inputs) for node in nodes],
        [OPS[node.op].commutative for node in nodes],
        first=len(inputs),
    )
    rank_N = np.empty(len(first), np.int64)
    rank_N[np.asarray(first)[list(order)]] = np.arange(len(first))
    return rank_N
