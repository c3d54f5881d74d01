"""Which node of one graph corresponds to which of another: an alignment of two typed graphs.

Nodes are compared by their operator and by what surrounds them, up to a few steps away in both directions, never by number. The
best order-keeping set of pairs (weighted longest common subsequence, after Needleman and Wunsch 1970) is taken first, along an
order of the nodes that follows from the structure; what is left is paired where the neighbours correspond.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nasgraph.ir import OPS, ComputationalGraph

REACH = 4
"""How many steps away a node's surroundings count."""
_ALIKE = 2.5
"""How much more equal attributes, and equal shapes of parameters, count than one step of surroundings."""
_NORMS = ("batch_norm", "group_norm", "layer_norm", "rms_norm")
"""Norms correspond to each other: they have a scale, and mostly a shift, for each unit."""
_OWNERS = 4.0
"""How much more a node with parameters counts than one without."""


def match_nodes(first: ComputationalGraph, second: ComputationalGraph) -> dict[int, int]:
    """For nodes of the first graph the node of the second that corresponds: one with the same operator, or another norm.

    Every node stands in one pair at most. Isomorphic graphs are matched completely where their surroundings tell nodes apart.

    Args:
        first: Such as the child of a mutation.
        second: Such as its parent.
    """
    orders = [_order(graph) for graph in (first, second)]
    codes = _shared_codes(first, second)
    rows, columns = codes[0][:, orders[0]], codes[1][:, orders[1]]
    score = np.zeros((len(first), len(second)))
    for level in range(1, rows.shape[0]):
        weight = _ALIKE if level <= 2 else 1.0
        score += weight * (rows[level][:, None] == columns[level][None, :])
    score = np.where(rows[0][:, None] == columns[0][None, :], 1.0 + score, 0.0)
    score *= np.where(_owns(first)[orders[0]], _OWNERS, 1.0)[:, None]
    pairs = {int(orders[0][i]): int(orders[1][j]) for i, j in _aligned(score)}
    _complete(first, second, pairs)
    return pairs


def _kind(op: str) -> str:
    return "norm" if op in _NORMS else op


def _shapes(graph: ComputationalGraph) -> dict[int, list[object]]:
    """Names and shapes of the parameters of each node."""
    found: dict[int, list[object]] = {}
    for name, spec in graph.parameters.items():
        owner, short = name[1:].split(".")
        found.setdefault(int(owner), []).append((short, spec.shape))
    return found


def _owns(graph: ComputationalGraph) -> NDArray[np.bool_]:
    found = np.zeros(len(graph), dtype=np.bool_)
    found[[int(name[1:].split(".")[0]) for name in graph.parameters]] = True
    return found


def _order(graph: ComputationalGraph) -> NDArray[np.int64]:
    """A topological order that does not depend on how the nodes are numbered, but where branches look alike."""
    depth = np.zeros(len(graph), dtype=np.int64)
    for index, node in enumerate(graph.nodes):
        depth[index] = 1 + max((depth[source] for source in node.inputs), default=-1)
    labels = _labels(graph, attrs=True)
    known = {label: rank for rank, label in enumerate(sorted(set(labels)))}
    rank = np.array([known[label] for label in labels])
    seen: set[int] = set()
    order: list[int] = []
    for output in graph.outputs:
        stack: list[tuple[int, bool]] = [(output, False)]
        while stack:
            index, is_left = stack.pop()
            if is_left:
                order.append(index)
                continue
            if index in seen:
                continue
            seen.add(index)
            stack.append((index, True))
            inputs: Sequence[int] = graph.nodes[index].inputs
            if OPS[graph.nodes[index].op].commutative:
                inputs = sorted(inputs, key=lambda source: (depth[source], rank[source]))
            stack.extend((source, False) for source in reversed(inputs) if source not in seen)
    order.extend(index for index in range(len(graph)) if index not in seen)
    return np.array(order, dtype=np.int64)


def _labels(graph: ComputationalGraph, *, attrs: bool) -> list[str]:
    return [f"{node.op} {node.attrs}" if attrs else node.op for node in graph.nodes]


def _shared_codes(
    first: ComputationalGraph, second: ComputationalGraph
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of numbers, one per node: its operator, with its attributes, with the shapes of its parameters, then with ever more of its
    surroundings. Equal numbers in one row mean the same in both graphs."""
    known: dict[tuple[object, ...], int] = {}

    def number(*parts: object) -> int:
        return known.setdefault(parts, len(known))

    found = []
    for graph in (first, second):
        readers: list[list[int]] = [[] for _ in graph.nodes]
        for index, node in enumerate(graph.nodes):
            for source in node.inputs:
                readers[source].append(index)
        outputs = set(graph.outputs)
        ops = [number("op", _kind(node.op)) for node in graph.nodes]
        owned = _shapes(graph)
        rows = [ops, [number("exact", node.op, node.attrs) for node in graph.nodes]]
        rows.append([number("owns", op, *owned.get(i, ())) for i, op in enumerate(ops)])
        before, after = ops, [number("end", op, i in outputs) for i, op in enumerate(ops)]
        for reach in range(1, REACH + 1):
            around = [[before[source] for source in node.inputs] for node in graph.nodes]
            before = [
                number("in", reach, op, *(sorted(each) if OPS[node.op].commutative else each))
                for op, node, each in zip(ops, graph.nodes, around, strict=True)
            ]
            after = [
                number("out", reach, op, i in outputs, *sorted(after[reader] for reader in readers[i]))
                for i, op in enumerate(ops)
            ]
            rows += [before, after]
        found.append(np.array(rows, dtype=np.int64))
    return found[0], found[1]


def _aligned(score: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The pairs, rising in both places, whose scores sum to the most."""
    num_rows, num_columns = score.shape
    best = np.zeros((num_rows + 1, num_columns + 1))
    for row in range(num_rows):
        with_pair = np.where(score[row] > 0, best[row, :-1] + score[row], 0.0)
        best[row + 1, 1:] = np.maximum.accumulate(np.maximum(best[row, 1:], with_pair))
    pairs = []
    row, column = num_rows, num_columns
    while row and column:
        if best[row, column] == best[row - 1, column]:
            row -= 1
        elif best[row, column] == best[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return pairs[::-1]


def _complete(first: ComputationalGraph, second: ComputationalGraph, pairs: dict[int, int]) -> None:
    """Pair what is left where operators are equal and an input or a reader corresponds: branches in another order."""
    taken = set(pairs.values())
    readers: list[list[int]] = [[] for _ in second.nodes]
    for index, node in enumerate(second.nodes):
        for source in node.inputs:
            readers[source].append(index)
    for index, node in enumerate(first.nodes):
        if index in pairs:
            continue
        near = [reader for source in node.inputs if source in pairs for reader in readers[pairs[source]]]
        free = [
            other for other in near if other not in taken and _kind(second.nodes[other].op) == _kind(node.op)
        ]
        if free:
            alike = [other for other in free if second.nodes[other].attrs == node.attrs]
            pairs[index] = (alike or free)[0]
            taken.add(pairs[index])
