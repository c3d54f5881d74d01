"""Which nodes of a parameter graph are rescaled with a unit, so that edges go with the factor of their target over that of their source."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nasgraph.meta.graph.kinds import NODE_COLUMNS, NUM_SLOTS, SCALINGS
from nasgraph.meta.graph.sites import Book, Ids, Placed
from nasgraph.seeding import generator
from nasgraph.symmetry import SymmetryTable, UnitGroup

_KEPT = tuple(NODE_COLUMNS.index(name) for name in ("running_mean", "running_var"))
"""Columns that no factor changes: behind a norm only its scale and shift do."""


def scalings(
    book: Book, table: SymmetryTable, node_gather: Ids, edge_gather: Ids, placed: Sequence[Placed]
) -> tuple[Ids, Ids]:
    """By which factors each node may be rescaled (an index in `SCALINGS`), and a number for the unit whose factor it has, or -1.

    What is given is checked: with random factors for all units every parameter changes as the nodes at its ends say. Groups for
    which that is not so, as those that a bilinear layer multiplies, count as not rescaled.
    """
    groups = [group for group in table.groups if group.scaling != "none"]
    rng = generator(0, "scalings")
    while True:
        factors = [rng.standard_normal(group.size) for group in groups]
        node, expected = _of_nodes(book, groups, factors)
        elements = _of_elements(groups, factors, placed)
        wrong = _differing(book, node, elements, node_gather, edge_gather, placed)
        if not wrong:
            return expected
        kept = [group for group in groups if not any(m.parameter in wrong and m.power for m in group.members)]
        touched = len(kept) < len(groups)
        groups = kept if touched else []


def _of_nodes(
    book: Book, groups: Sequence[UnitGroup], factors: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], tuple[Ids, Ids]]:
    """Logarithm of each node's factor; the kind of scaling and the number of its unit."""
    node = np.zeros(book.num_nodes)
    scaling = np.zeros(book.num_nodes, dtype=np.int64)
    unit = np.full(book.num_nodes, -1, dtype=np.int64)
    first = 0
    for group, factor in zip(groups, factors, strict=True):
        for member in group.members:
            key = (member.parameter, member.axis)
            if member.power and book.sides.get(key) == member.power:
                nodes = book.axes[key].nodes
                assert nodes is not None
                places = member.places().numpy()
                node[nodes[places]] = factor[:, None]
                scaling[nodes[places]] = SCALINGS.index(group.scaling)
                unit[nodes[places]] = first + np.arange(group.size)[:, None]
        first += group.size
    return node, (scaling, unit)


def _of_elements(
    groups: Sequence[UnitGroup], factors: Sequence[NDArray[np.float64]], placed: Sequence[Placed]
) -> NDArray[np.float64]:
    """Logarithm of the factor of each element of all tensors; 0 for the constants 0 and 1 behind them."""
    found = {each.name: np.zeros(each.shape) for each in placed}
    for group, factor in zip(groups, factors, strict=True):
        for member in group.members:
            if member.power:
                tensor = found[member.parameter]
                along = np.zeros(tensor.shape[member.axis])
                along[member.places().numpy()] = member.power * factor[:, None]
                tensor += along.reshape([-1 if axis == member.axis else 1 for axis in range(tensor.ndim)])
    return np.concatenate([*(found[each.name].ravel() for each in placed), np.zeros(2)])


def _differing(
    book: Book,
    node: NDArray[np.float64],
    elements: NDArray[np.float64],
    node_gather: Ids,
    edge_gather: Ids,
    placed: Sequence[Placed],
) -> set[str]:
    """Parameters that do not change as the nodes at their ends say."""
    wrong: set[str] = set()
    total = len(elements) - 2
    columns = np.array([column for column in range(len(NODE_COLUMNS)) if column not in _KEPT])
    there = node_gather[:, columns]
    is_wrong = (there < total) & (np.abs(elements[there] - node[:, None]) > 1e-9)
    ends = np.cumsum([each.numel for each in placed])
    wrong |= {
        placed[place].name
        for place in np.unique(np.searchsorted(ends, there[is_wrong], side="right")).tolist()
    }
    first = 0
    for each in book.edges:
        if each.parameter:
            there = edge_gather[first : first + len(each.source)]
            change = (node[each.target] - node[each.source])[:, None]
            if ((there < total) & (np.abs(elements[there] - change) > 1e-9)).any():
                wrong.add(each.parameter)
        first += len(each.source)
    assert edge_gather.shape == (first, NUM_SLOTS)
    return wrong
