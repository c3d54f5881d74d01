"""Whether two parameter graphs are the same but for the order of nodes and edges: colour refinement, with values as colours."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.meta.graph import ParameterGraph, collate

Ids = NDArray[np.int64]


def are_isomorphic(first: ParameterGraph, second: ParameterGraph, *, rounds: int = 8) -> bool:
    """Whether refinement finds no difference between two graphs.

    Exact if afterwards no two nodes of a graph look alike, which `num_alike` tells; else a necessary condition.
    """
    if (first.num_nodes, first.num_edges) != (second.num_nodes, second.num_edges):
        return False
    nodes, edges = _refined(collate([first, second]), rounds)
    halves = first.num_nodes, first.num_edges
    return _same(nodes, halves[0]) and _same(edges, halves[1])


def num_alike(graph: ParameterGraph, *, rounds: int = 8) -> int:
    """How many nodes look like another node of the same graph."""
    nodes, _ = _refined(graph, rounds)
    counts = np.bincount(nodes)
    return int(counts[counts > 1].sum())


def _same(colours: Ids, half: int) -> bool:
    return bool(np.array_equal(np.sort(colours[:half]), np.sort(colours[half:])))


def _refined(graph: ParameterGraph, rounds: int) -> tuple[Ids, Ids]:
    colours = _rows(
        *_bits(graph.node_values),
        graph.node_mask,
        graph.node_kind,
        graph.node_depth,
        graph.node_position,
        graph.node_scaling,
    )
    edges = _rows(
        *_bits(graph.edge_values), graph.edge_mask, graph.edge_kind, graph.edge_place, graph.edge_fan_in
    )
    source, target = graph.edge_index.numpy()
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        seen = _numbers(np.stack([colours[source], edges, colours[target]], axis=1))
        codes = rng.integers(2**62, size=(2, int(seen.max(initial=0)) + 1))
        sums = np.zeros((len(colours), 2), dtype=np.int64)
        np.add.at(sums[:, 0], source, codes[0][seen])
        np.add.at(sums[:, 1], target, codes[1][seen])
        colours = _numbers(np.concatenate([colours[:, None], sums], axis=1))
    return colours, _numbers(np.stack([colours[source], edges, colours[target]], axis=1))


def _bits(values: Tensor) -> tuple[NDArray[np.int64]]:
    return (values.double().detach().numpy().view(np.int64),)


def _rows(*columns: object) -> Ids:
    arrays = [np.asarray(column).astype(np.int64) for column in columns]
    return _numbers(np.concatenate([each.reshape(len(each), -1) for each in arrays], axis=1))


def _numbers(rows: Ids) -> Ids:
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel().astype(np.int64)
