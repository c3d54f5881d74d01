"""Random feature matrices that look like those of architectures: the first half of the prior.

Four sources: cells with operators on their edges, graphs with operators on their nodes, factors with correlated and
discretised columns, and a bank of real features of graphs (without any label). Nothing is read from a benchmark.

Shape letters: N = rows, V = vertices of a cell, F = features.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.special import ndtri

Array = np.ndarray
MAX_FEATURES = 250


def sample_matrix(
    num_rows: int, rng: np.random.Generator, *, bank: Sequence[Float[Array, "_ _"]] = ()
) -> Float[Array, "rows features"]:
    """A matrix of features, not scaled; columns may be constant, equal, discrete or heavy in the tail."""
    source = rng.random()
    if bank and source < 0.3:
        whole = bank[int(rng.integers(len(bank)))]
        x = whole[rng.choice(len(whole), size=num_rows, replace=num_rows > len(whole))]
        x = x[:, _some_columns(x.shape[1], rng)]
    elif source < 0.55:
        x = _edge_cells(num_rows, rng)
    elif source < 0.78:
        x = _node_cells(num_rows, rng)
    else:
        x = _factor_columns(num_rows, rng)
    if rng.random() < 0.15:  # features of two kinds side by side
        x = np.concatenate([x, _factor_columns(num_rows, rng)[:, :20]], axis=1)
    if x.shape[1] > MAX_FEATURES:
        x = x[:, rng.choice(x.shape[1], MAX_FEATURES, replace=False)]
    return x.astype(np.float64)


def _some_columns(num_columns: int, rng: np.random.Generator) -> Int[Array, " some"]:
    """All columns, or a random part of them."""
    share = 1.0 if rng.random() < 0.5 else rng.uniform(0.2, 1.0)
    return rng.choice(num_columns, max(1, int(share * num_columns)), replace=False)


def _edge_cells(num_rows: int, rng: np.random.Generator) -> Float[Array, "rows features"]:
    """Cells whose edges carry operators, one of which may be no edge at all."""
    num_vertices, num_ops = int(rng.integers(3, 6)), int(rng.integers(3, 8))
    sources, targets = np.triu_indices(num_vertices, 1)
    op_NE = _draw_ops((num_rows, len(sources)), num_ops, rng)
    one_hot = op_NE[:, :, None] == np.arange(num_ops)
    parts = [one_hot.sum(axis=1)]
    if rng.random() < 0.7:
        parts.append(one_hot.reshape(num_rows, -1))
    for allowed in _op_sets(num_ops, rng):
        adjacency = np.zeros((num_rows, num_vertices, num_vertices), dtype=bool)
        adjacency[:, sources, targets] = allowed[op_NE]
        parts.append(_path_features(adjacency))
    parts.append(_costs(parts[0], rng))
    return np.concatenate(parts, axis=1)


def _node_cells(num_rows: int, rng: np.random.Generator) -> Float[Array, "rows features"]:
    """Directed acyclic graphs whose inner vertices carry operators, with the free sizes that spaces have."""
    num_vertices, num_ops = int(rng.integers(4, 9)), int(rng.integers(2, 6))
    op_NV = _draw_ops((num_rows, num_vertices), num_ops, rng)
    exists = rng.random((num_rows, num_vertices, num_vertices)) < rng.uniform(0.25, 0.8)
    adjacency = np.triu(exists, 1)
    index = np.arange(num_vertices - 1)
    if rng.random() < 0.7:
        adjacency[:, index, index + 1] |= rng.random((num_rows, num_vertices - 1)) < 0.7
    one_hot = op_NV[:, 1:-1, None] == np.arange(num_ops)
    parts = [one_hot.sum(axis=1)]
    if rng.random() < 0.5:
        parts += [one_hot.reshape(num_rows, -1), adjacency[:, *np.triu_indices(num_vertices, 1)]]
    for allowed in _op_sets(num_ops, rng):
        usable = allowed[op_NV]
        usable[:, [0, -1]] = True
        parts.append(_path_features(adjacency & usable[:, :, None] & usable[:, None, :]))
    width = rng.integers(1, 6, size=(num_rows, int(rng.integers(0, 5))))
    parts += [width, _costs(np.concatenate([parts[0], width], axis=1), rng)]
    return np.concatenate(parts, axis=1)


def _draw_ops(shape: tuple[int, int], num_ops: int, rng: np.random.Generator) -> Int[Array, "rows places"]:
    """Operators, evenly or with a favourite."""
    odds = np.ones(num_ops) if rng.random() < 0.6 else rng.dirichlet(np.ones(num_ops))
    return np.searchsorted(np.cumsum(odds / odds.sum())[:-1], rng.random(shape))


def _op_sets(num_ops: int, rng: np.random.Generator) -> Bool[Array, "sets ops"]:
    """Some sets of operators, among them that of all."""
    sets = rng.random((int(rng.integers(1, 9)), num_ops)) < rng.uniform(0.3, 0.8)
    sets[0] = True
    return sets


def _path_features(adjacency: Bool[Array, "rows vertices vertices"]) -> Float[Array, "rows features"]:
    """Shortest and longest path from first to last vertex, number of paths, degrees at the ends, number of edges."""
    num_rows, num_vertices, _ = adjacency.shape
    count = np.zeros((num_rows, num_vertices))
    low, high = np.full((2, num_rows, num_vertices), float(num_vertices) + 1)
    count[:, 0], low[:, 0], high[:, :] = 1.0, 0.0, -1.0
    high[:, 0] = 0.0
    for vertex in range(1, num_vertices):
        edge = adjacency[:, :vertex, vertex]
        count[:, vertex] = (count[:, :vertex] * edge).sum(axis=1)
        low[:, vertex] = np.minimum(
            np.where(edge, low[:, :vertex], num_vertices + 1).min(axis=1) + 1, num_vertices + 1
        )
        longest = np.where(edge & (high[:, :vertex] >= 0), high[:, :vertex], -1.0).max(axis=1)
        high[:, vertex] = np.where(longest >= 0, longest + 1, -1.0)
    degrees = adjacency[:, 0].sum(axis=1), adjacency[:, :, -1].sum(axis=1), adjacency.sum(axis=(1, 2))
    result: Array = np.stack([low[:, -1], high[:, -1], count[:, -1], *degrees], axis=1)
    return result


def _costs(counts: Real[Array, "rows kinds"], rng: np.random.Generator) -> Float[Array, "rows costs"]:
    """Totals and logarithms of totals in which each kind has its own price."""
    price = rng.lognormal(0.0, 1.5, size=(counts.shape[1], int(rng.integers(1, 5))))
    total = counts @ price
    return np.log1p(total) if rng.random() < 0.6 else total


def _factor_columns(num_rows: int, rng: np.random.Generator) -> Float[Array, "rows features"]:
    """Columns that share a few hidden factors; some discrete, heavy in the tail, doubled or constant."""
    num_columns = int(np.exp(rng.uniform(np.log(3), np.log(120))))
    rank = int(rng.integers(1, 16))
    factors = rng.standard_normal((num_rows, rank))
    if rng.random() < 0.3:
        factors = np.where(rng.random(rank) < 0.5, rng.integers(0, 4, size=factors.shape), factors)
    loading = rng.standard_normal((rank, num_columns)) * (
        rng.random((rank, num_columns)) < rng.uniform(0.15, 1.0)
    )
    x = factors @ loading + rng.uniform(0.0, 1.0) * rng.standard_normal((num_rows, num_columns))
    kind = rng.choice(6, size=num_columns, p=rng.dirichlet(np.ones(6)))
    made = (
        x,
        np.exp(np.clip(x, -6, 6)),
        np.round(x),
        (x > rng.standard_normal(num_columns)).astype(float),
        np.floor(np.exp(np.clip(np.abs(x), 0, 5))),
        np.tanh(3 * x),
    )
    x = np.choose(kind, made)
    if rng.random() < 0.4:
        x = np.concatenate([x, x[:, rng.integers(num_columns, size=int(rng.integers(1, 6)))]], axis=1)
    return x


def normal_scores(
    known: Float[Array, "known columns"], values: Float[Array, "values columns"]
) -> Float[Array, "values columns"]:
    """Column by column, the normal quantiles of the places of values among known values; ties share their place."""
    num_known = len(known)
    places = np.empty(values.shape)
    ordered = np.sort(known, axis=0)
    for column in range(known.shape[1]):
        low = np.searchsorted(ordered[:, column], values[:, column], side="left")
        high = np.searchsorted(ordered[:, column], values[:, column], side="right")
        places[:, column] = low + high
    result: Array = ndtri(np.clip(places / (2 * num_known), 0.5 / num_known, 1 - 0.5 / num_known))
    return result
