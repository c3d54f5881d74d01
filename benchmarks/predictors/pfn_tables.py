"""Tables that the prior-fitted network is judged on, with plain features computed from the cells.

Features: operator counts, operators by place, and for sets of operators the shortest and longest path, the number of paths
and the degrees at both ends, on the graph that holds these operators only (in the spirit of GRAF, Kadlecova et al. 2024).

Shape letters: N = architectures, V = vertices, F = features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks.common import SHARED_DATA

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class LabelledTable:
    """Features, the label that predictors learn from, and the one they are ranked on.

    Attributes:
        name: Short name.
        features: One row per architecture; NaN where a feature is unknown.
        label: Measured performance that is learnt from.
        truth: Performance that the ranking is compared with.
    """

    name: str
    features: Array
    label: Array
    truth: Array


def tables() -> Iterator[LabelledTable]:
    """All tables, one after the other."""
    plain, proxies = _nasbench201_features()
    data = np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False)
    label, truth = data["cifar10_valid_200ep"], data["cifar10_test_200ep"]
    yield LabelledTable(
        "nasbench201 graph and proxies", np.concatenate([plain, proxies], axis=1), label, truth
    )
    yield LabelledTable("nasbench201 graph", plain, label, truth)
    yield _nasbench101()
    yield from _nasbench_graph()


def path_features(adjacency: Array) -> Array:
    """Shortest and longest path from first to last vertex, number of paths, degrees at the ends, number of edges."""
    num_rows, num_vertices, _ = adjacency.shape
    count, far = np.zeros((num_rows, num_vertices)), float(num_vertices)
    low, high = np.full((num_rows, num_vertices), far), np.full((num_rows, num_vertices), -1.0)
    count[:, 0], low[:, 0], high[:, 0] = 1.0, 0.0, 0.0
    for vertex in range(1, num_vertices):
        edge = adjacency[:, :vertex, vertex]
        count[:, vertex] = (count[:, :vertex] * edge).sum(axis=1)
        low[:, vertex] = np.minimum(np.where(edge, low[:, :vertex] + 1, far).min(axis=1), far)
        longest = np.where(edge & (high[:, :vertex] >= 0), high[:, :vertex] + 1, -1.0)
        high[:, vertex] = longest.max(axis=1)
    ends = adjacency[:, 0].sum(axis=1), adjacency[:, :, -1].sum(axis=1), adjacency.sum(axis=(1, 2))
    return np.stack([low[:, -1], high[:, -1], count[:, -1], *ends], axis=1)


def _op_sets(num_ops: int, sizes: range) -> list[list[int]]:
    return [list(chosen) for size in sizes for chosen in combinations(range(num_ops), size)]


def _nasbench201_features() -> tuple[Array, Array]:
    """Graph features of all cells after dead edges are removed, and stored proxies of the cell that remains."""
    data = np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False)
    names, edges, ops = list(data["op_names"]), data["edges"], data["ops"].astype(int)
    none = names.index("none")
    ops = _without_dead_edges(ops, edges, none)
    scored = np.load(SHARED_DATA / "nasbench201_zero_cost.npz", allow_pickle=False)
    codes = {tuple(ops[index]): place for place, index in enumerate(scored["index"])}
    known = scored["cifar10"]  # an archive reads its member anew at each access
    unknown = np.full(known.shape[1], np.nan)
    proxies = np.stack([known[codes[key]] if (key := tuple(row)) in codes else unknown for row in ops])
    one_hot = ops[:, :, None] == np.arange(len(names))
    parts = [one_hot.sum(axis=1), one_hot.reshape(len(ops), -1)]
    real = [index for index in range(len(names)) if index != none]
    for chosen in _op_sets(len(real), range(1, len(real) + 1)):
        adjacency = np.zeros((len(ops), 4, 4), dtype=bool)
        adjacency[:, edges[:, 0], edges[:, 1]] = np.isin(ops, [real[i] for i in chosen])
        parts.append(path_features(adjacency))
    return np.concatenate(parts, axis=1).astype(float), proxies


def _without_dead_edges(ops: Array, edges: Array, none: int) -> Array:
    """Operators with `none` on every edge that is on no way from input to output."""
    sources, targets = edges[:, 0], edges[:, 1]
    alive = ops != none
    for _ in range(3):
        fed = np.stack([(alive & (targets == v)).any(axis=1) | (v == 0) for v in range(4)], axis=1)
        used = np.stack([(alive & (sources == v)).any(axis=1) | (v == 3) for v in range(4)], axis=1)
        alive &= fed[:, sources] & used[:, targets]
    return np.where(alive, ops, none)


def _nasbench101() -> LabelledTable:
    """Cells of up to seven vertices; the label is validation accuracy after 108 epochs, best of three runs."""
    data = np.load(SHARED_DATA / "nasbench101_sample.npz", allow_pickle=False)
    count, ops = data["num_vertices"].astype(int), data["ops"].astype(int)
    adjacency = data["adjacency"].astype(bool)
    rows = np.arange(len(count))
    moved = np.zeros_like(adjacency)  # the output of a small cell moves to the last place
    moved[:, :6, :6] = adjacency[:, :6, :6]
    moved[rows, count - 1, :] = False
    moved[rows, :, count - 1] = False
    last = adjacency[rows, :, count - 1]
    last[rows, count - 1] = False
    moved[:, :, 6] = last
    inner = ops.copy()
    inner[rows, count - 1] = -1
    inner[:, 0] = -1
    kinds = [kind for kind in np.unique(inner) if kind >= 0 and "put" not in str(data["op_names"][kind])]
    parts = [np.stack([(inner == kind).sum(axis=1) for kind in kinds], axis=1)]
    parts.append(moved[:, *np.triu_indices(7, 1)])
    for chosen in _op_sets(len(kinds), range(0, len(kinds) + 1)):
        usable = np.isin(inner, [kinds[i] for i in chosen])
        usable[:, [0, 6]] = True
        parts.append(path_features(moved & usable[:, :, None] & usable[:, None, :]))
    parts += [count[:, None], np.log(data["trainable_parameters"])[:, None]]
    accuracy = data["valid_accuracy"][:, -1]
    return LabelledTable("nasbench101", np.concatenate(parts, axis=1).astype(float), accuracy, accuracy)


def _nasbench_graph() -> Iterator[LabelledTable]:
    """Graph networks of four layers; the label is the published test metric, as in the published search protocol."""
    data = np.load(SHARED_DATA / "nasbench_graph_light.npz", allow_pickle=False)
    link, ops = data["link"].astype(int), data["ops"].astype(int)
    names, rows = data["op_names"], np.arange(len(link))
    adjacency = np.zeros((len(link), 6, 6), dtype=bool)
    for place in range(4):
        adjacency[rows, link[:, place], place + 1] = True
    adjacency[:, 1:5, 5] = ~adjacency[:, 1:5, 1:5].any(axis=2)
    depth = np.zeros((len(link), 5))
    for place in range(4):
        depth[:, place + 1] = depth[rows, link[:, place]] + 1
    one_hot = ops[:, :, None] == np.arange(len(names))
    leaf = adjacency[:, 1:5, 5]
    first = link == 0
    parts = [
        one_hot.sum(axis=1),
        (one_hot & leaf[..., None]).sum(axis=1),
        (one_hot & first[..., None]).sum(axis=1),
    ]
    parts += [(one_hot * depth[:, 1:, None]).sum(axis=1), depth[:, 1:], link, one_hot.reshape(len(link), -1)]
    parts.append(path_features(adjacency))
    for chosen in _op_sets(len(names), range(1, 2)):
        usable = np.ones((len(link), 6), dtype=bool)
        usable[:, 1:5] = ~np.isin(ops, chosen)
        parts.append(path_features(adjacency & usable[:, :, None] & usable[:, None, :])[:, :4])
    for name in ("cora", "arxiv", "cs"):
        cost = np.log(np.maximum(data[f"{name}_params_M"], 1e-9))[:, None]
        features = np.concatenate([*parts, cost], axis=1).astype(float)
        label = data[f"{name}_test_perf"]
        yield LabelledTable(f"nasbench-graph {name}", features, label, label)
