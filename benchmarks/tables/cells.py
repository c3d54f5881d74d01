"""Rows of the shared tables as graphs in cell form: one cell with real operators and shapes, no dead branches.

    python -m benchmarks.tables.cells           checks the graphs against the published sizes, and times them

The macro skeleton is the same for every row of a table, so it says nothing that tells rows apart; left out, graphs have
3 to 30 nodes instead of 150.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import SHARED_DATA
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.seeding import generator
from search_spaces.nasbench201 import EDGES, OPERATIONS

Array = np.ndarray
OPERATIONS_101 = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "input", "output")
OPERATIONS_GRAPH = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
_NONE, _SKIP, _CONV_1, _CONV_3, _POOL = range(5)


# ---- NAS-Bench-201


def nasbench201_graph(ops: Sequence[int], *, channels: int = 16, side: int = 32) -> ComputationalGraph:
    """One NAS-Bench-201 cell (Dong and Yang 2020). A skip connection adds no node; a cell without any path gives `zero`.

    Args:
        ops: For each of the six edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3 its place in `OPERATIONS` of the space.
        channels: Channels of the image that the cell reads.
        side: Its height and width.
    """
    g = GraphBuilder()
    values: list[int | None] = [g("input", shape=(channels, side, side))]  # None is a node that is zero
    for target in range(1, 4):
        arriving = []
        for op, (source, its_target) in zip(map(int, ops), EDGES, strict=True):
            value = values[source] if its_target == target else None
            if op != _NONE and value is not None:
                arriving.append(_operation_201(g, op, value, channels))
        values.append(_sum(g, arriving) if arriving else None)
    return g.finish(g("zero", 0) if values[3] is None else values[3])


def _operation_201(g: GraphBuilder, op: int, x: int, channels: int) -> int:
    if op == _SKIP:
        return x
    if op == _POOL:
        return g("avg_pool2d", x, kernel_size=3, stride=1, padding=1)
    kernel = {_CONV_1: 1, _CONV_3: 3}[op]
    x = g("conv2d", g("relu", x), out_channels=channels, kernel_size=kernel, padding=kernel // 2)
    return g("batch_norm", x)


def _sum(g: GraphBuilder, values: Sequence[int]) -> int:
    return values[0] if len(values) == 1 else g("add", *values)


# ---- NAS-Bench-101


def nasbench101_graph(
    adjacency: Array, ops: Sequence[str], *, channels: int = 128, input_channels: int = 128, side: int = 32
) -> ComputationalGraph:
    """One NAS-Bench-101 cell (Ying et al. 2019, section 2 and appendix S1).

    Vertices that lie on no path from input to output are left out. A vertex adds what it reads: of the input a 1x1 projection,
    of an inner vertex the first channels. The output concatenates what it reads, and adds a projection of the input if it
    reads that too. Output channels are divided evenly among the vertices that it reads, the first getting one more where
    they do not divide; a vertex further up has as many as the widest of its readers.

    Args:
        adjacency: Upper triangular, one row per vertex; more rows than `ops` are cut off.
        ops: Operation of each vertex by name, from "input" to "output".
        channels: Channels of the result.
        input_channels: Channels of what the cell reads; fewer than `channels` in the first cell of a stack.
        side: Height and width.
    """
    edges, names = _pruned_101(np.asarray(adjacency), ops)
    last, widths = len(names) - 1, _widths_101(edges, len(names), channels)
    g = GraphBuilder()
    values = [g("input", shape=(input_channels, side, side))]
    for vertex in range(1, last):
        arriving = [
            _first_channels(g, values[s], widths[vertex]) for s in range(1, vertex) if (s, vertex) in edges
        ]
        if (0, vertex) in edges:
            arriving.append(_conv_101(g, 0, widths[vertex], 1))
        x = _sum(g, arriving)
        if names[vertex] == "maxpool3x3":
            values.append(g("max_pool2d", x, kernel_size=3, stride=1, padding=1))
        else:
            values.append(_conv_101(g, x, widths[vertex], 3 if names[vertex] == "conv3x3-bn-relu" else 1))
    joined = [values[vertex] for vertex in range(1, last) if (vertex, last) in edges]
    result = [joined[0] if len(joined) == 1 else g("concat", *joined, axis=0)] if joined else []
    if (0, last) in edges:
        result.append(_conv_101(g, 0, channels, 1))
    return g.finish(_sum(g, result))


def _pruned_101(adjacency: Array, ops: Sequence[str]) -> tuple[set[tuple[int, int]], list[str]]:
    """Edges and operations of the vertices on a path from input to output, numbered anew."""
    last = len(ops) - 1
    edges = {(i, j) for i in range(last) for j in range(i + 1, last + 1) if adjacency[i, j]}
    forward, backward = {0}, {last}
    for vertex in range(1, last + 1):
        if any((source, vertex) in edges for source in forward):
            forward.add(vertex)
    for vertex in range(last - 1, -1, -1):
        if any((vertex, target) in edges for target in backward):
            backward.add(vertex)
    kept = sorted(forward & backward)
    place = {vertex: index for index, vertex in enumerate(kept)}
    return {(place[i], place[j]) for i, j in edges if i in place and j in place}, [ops[v] for v in kept]


def _widths_101(edges: set[tuple[int, int]], num_vertices: int, channels: int) -> list[int]:
    """Channels of every vertex."""
    last = num_vertices - 1
    widths = [0] * num_vertices
    widths[last] = channels
    joined = [vertex for vertex in range(1, last) if (vertex, last) in edges]
    for place, vertex in enumerate(joined):
        widths[vertex] = channels // len(joined) + (place < channels % len(joined))
    for vertex in range(last - 1, 0, -1):
        if vertex not in joined:
            widths[vertex] = max(
                widths[target] for target in range(vertex + 1, last) if (vertex, target) in edges
            )
    return widths


def _conv_101(g: GraphBuilder, x: int, channels: int, kernel: int) -> int:
    x = g("conv2d", x, out_channels=channels, kernel_size=kernel, padding=kernel // 2)
    return g("relu", g("batch_norm", x))


def _first_channels(g: GraphBuilder, x: int, channels: int) -> int:
    return x if g.shape(x)[0] == channels else g("slice", x, axis=0, start=0, stop=channels)


# ---- NAS-Bench-Graph


def nasbench_graph_graph(
    link: Sequence[int], ops: Sequence[str], *, hidden_dim: int = 64
) -> ComputationalGraph:
    """One network of NAS-Bench-Graph (Qin et al. 2022): four nodes that read one value each, as the features of one vertex.

    `fc` is a linear map, `skip` adds no node. Graph convolutions look beyond one vertex, which the graph language cannot
    say: they are `opaque` nodes with the benchmark's name. Values that no node reads are concatenated to the output.

    Args:
        link: What each node reads: 0 the raw input, `i` node `i`.
        ops: Operation of each node by name.
        hidden_dim: Length of the features.
    """
    g = GraphBuilder()
    values = [g("input", shape=(hidden_dim,))]
    for source, name in zip(map(int, link), ops, strict=True):
        x = values[source]
        if name == "fc":
            x = g("linear", x, out_features=hidden_dim)
        elif name != "skip":
            x = g("opaque", x, name=name, shape=(hidden_dim,), dtype="float")
        values.append(x)
    read = set(map(int, link))
    results = [values[node] for node in range(1, len(values)) if node not in read]
    return g.finish(results[0] if len(results) == 1 else g("concat", *results, axis=0))


# ---- tables


def nasbench201_graphs(rows: Iterable[int] | None = None) -> list[ComputationalGraph]:
    """Cells of `nasbench201.npz`, all 15,625 or some, in the order of the benchmark."""
    ops = _load("nasbench201", "ops")
    return [nasbench201_graph(ops[row]) for row in (range(len(ops)) if rows is None else rows)]


def nasbench101_graphs(rows: Iterable[int] | None = None) -> list[ComputationalGraph]:
    """Cells of `nasbench101_sample.npz`, all 30,001 or some."""
    adjacency, ops, sizes = (_load("nasbench101_sample", key) for key in ("adjacency", "ops", "num_vertices"))
    return [
        nasbench101_graph(adjacency[row], [OPERATIONS_101[op] for op in ops[row][: sizes[row]]])
        for row in (range(len(ops)) if rows is None else rows)
    ]


def nasbench_graph_graphs(rows: Iterable[int] | None = None) -> list[ComputationalGraph]:
    """Networks of `nasbench_graph_light.npz`, all 26,206 or some."""
    link, ops = (_load("nasbench_graph_light", key) for key in ("link", "ops"))
    return [
        nasbench_graph_graph(link[row], [OPERATIONS_GRAPH[op] for op in ops[row]])
        for row in (range(len(ops)) if rows is None else rows)
    ]


def _load(name: str, key: str) -> Array:
    with np.load(SHARED_DATA / f"{name}.npz", allow_pickle=False) as file:
        result: Array = file[key]
    return result


# ---- checks


def main() -> None:
    """Check graphs against published sizes, and print seconds per graph."""
    assert tuple(_load("nasbench201", "op_names")) == OPERATIONS
    assert tuple(_load("nasbench101_sample", "op_names")) == OPERATIONS_101
    assert tuple(_load("nasbench_graph_light", "op_names")) == OPERATIONS_GRAPH
    _check_201()
    _check_101()
    _timed("NAS-Bench-Graph", nasbench_graph_graphs, _some(26_206, 1000))


def _check_201() -> None:
    alive = np.flatnonzero(_load("nasbench201", "no_unreachable_ops"))
    rows = alive[_some(len(alive), 1000)]
    costs = [cost_of(graph) for graph in _timed("NAS-Bench-201", nasbench201_graphs, rows)]
    for key, ours in (
        ("params_M", [cost.num_parameters for cost in costs]),
        ("flops_M", [cost.multiply_adds for cost in costs]),
    ):
        print(f"  {key}: Spearman {spearmanr(_load('nasbench201', key)[rows], ours).statistic:.6f}")


def _check_101() -> None:
    rows = _some(30_001, 1000)
    graphs = _timed("NAS-Bench-101", nasbench101_graphs, rows)
    published = _load("nasbench101_sample", "trainable_parameters")[rows]
    ours = [cost_of(graph).num_parameters for graph in graphs]
    print(f"  parameters of one cell: Spearman {spearmanr(published, ours).statistic:.6f}")
    whole = [_network_parameters_101(row) for row in rows]
    print(f"  parameters of the network: {np.mean(published == whole):.4f} equal; ", end="")
    print(f"largest difference {np.max(np.abs(published - whole) / published):.2%}")


def _network_parameters_101(row: int) -> int:
    """Stem, three stacks of three cells, 128, 256 and 512 channels; a linear layer."""
    size = int(_load_once("num_vertices")[row])
    cell = partial(
        nasbench101_graph,
        _load_once("adjacency")[row],
        [OPERATIONS_101[op] for op in _load_once("ops")[row][:size]],
    )
    total = 3 * 9 * 128 + 2 * 128 + 512 * 10 + 10
    for before, channels in ((128, 128), (128, 256), (256, 512)):
        first = cost_of(cell(channels=channels, input_channels=before)).num_parameters
        total += first + 2 * cost_of(cell(channels=channels, input_channels=channels)).num_parameters
    return total


_ONCE: dict[str, Array] = {}


def _load_once(key: str) -> Array:
    if key not in _ONCE:
        _ONCE[key] = _load("nasbench101_sample", key)
    return _ONCE[key]


def _some(count: int, wanted: int) -> Array:
    return np.sort(generator(0, "cells").choice(count, wanted, replace=False))


def _timed(
    name: str, make: Callable[[Iterable[int]], list[ComputationalGraph]], rows: Array
) -> list[ComputationalGraph]:
    started = time.perf_counter()
    graphs = make(map(int, rows))
    each = (time.perf_counter() - started) / len(graphs)
    sizes = [len(graph) for graph in graphs]
    print(
        f"{name}: {1e3 * each:.3f} ms per graph; {min(sizes)} to {max(sizes)} nodes, mean {np.mean(sizes):.1f}"
    )
    return graphs


if __name__ == "__main__":
    main()
