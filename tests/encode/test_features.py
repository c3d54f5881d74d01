"""What encoders read of a graph: features, distances, levels, and the list of parameters to predict."""

from math import log2

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nasgraph.encode import FEATURES, OP_IDS, encode, signed_distances
from nasgraph.encode.distances import MAX_DENSE_NODES, MAX_DISTANCE, distance_band
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, Node, make_node
from tests.modules.samples import SPACES, permuted, sampled_graphs, wide_graph

GRAPHS = [wide_graph(), *(graph for space in SPACES for graph in sampled_graphs(space, 4))]


edges = st.lists(st.lists(st.integers(0, 2**16), max_size=4), max_size=14)
"""What each node but the first reads: numbers, to be taken modulo the number of earlier nodes."""


def graph_of(edges: list[list[int]]) -> ComputationalGraph:
    """A directed acyclic graph of any form: each node adds up some earlier ones, maybe one of them twice."""
    nodes: list[Node] = [make_node("input", shape=(3,))]
    for index, numbers in enumerate(edges, start=1):
        sources = [number % index for number in numbers]
        if len(sources) == 0:
            nodes.append(make_node("parameter", shape=(3,)))
        else:
            nodes.append(make_node("relu" if len(sources) == 1 else "add", sources))
    return ComputationalGraph(tuple(nodes), (len(nodes) - 1,))


def dense_distances(graph: ComputationalGraph) -> NDArray[np.int8]:
    """The matrix of distances of a graph that is small enough to have one."""
    distance_NN = encode(graph).distance_NN
    assert distance_NN is not None
    return distance_NN


def distances_of_networkx(graph: ComputationalGraph) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Signed distances from breadth-first searches, as the docstring of `EncodedGraph` describes them."""
    result = np.zeros((len(graph), len(graph)), np.int64)
    for source, lengths in networkx.all_pairs_shortest_path_length(networkx.DiGraph(graph.to_networkx())):
        for target, length in lengths.items():
            result[source, target] += min(length, MAX_DISTANCE)
            result[target, source] -= min(length, MAX_DISTANCE)
    return result


@given(edges)
def test_distances_are_those_of_networkx(edges: list[list[int]]) -> None:
    graph = graph_of(edges)
    assert np.array_equal(signed_distances(graph), distances_of_networkx(graph))


@pytest.mark.parametrize("space", SPACES)
def test_distances_in_networks_are_those_of_networkx(space: str) -> None:
    for graph in sampled_graphs(space, 4):
        assert np.array_equal(dense_distances(graph), distances_of_networkx(graph))


@given(edges, st.integers(1, 6))
def test_a_band_holds_the_exact_distances_of_all_nodes_that_stand_near_each_other(
    edges: list[list[int]], window: int
) -> None:
    graph = graph_of(edges)
    encoded = encode(graph)
    band = distance_band(graph, encoded.level_N, window=window)
    assert sorted(band.order_N) == list(range(len(graph)))
    assert (np.diff(encoded.level_N[band.order_N]) >= 0).all()
    ordered = distances_of_networkx(graph)[np.ix_(band.order_N, band.order_N)]
    for k, distance in enumerate(band.distance_KWV):
        for w, v in np.ndindex(distance.shape):
            row, column = k * window + w, (k - 1) * window + v
            inside = row < len(graph) and 0 <= column < len(graph)
            assert distance[w, v] == (ordered[row, column] if inside else 0)


def test_large_graphs_have_a_band_in_place_of_a_matrix() -> None:
    graph = GRAPHS[1]
    for limit, is_dense in ((len(graph), True), (len(graph) - 1, False)):
        encoded = encode(graph, max_dense_nodes=limit)
        assert (encoded.distance_NN is not None, encoded.band is None) == (is_dense, is_dense)
    g = GraphBuilder()
    x = g("input", shape=(3,))
    for _ in range(MAX_DENSE_NODES):
        x = g("relu", x)
    encoded = encode(g.finish(x))
    assert encoded.distance_NN is None
    assert encoded.band is not None
    assert encoded.band.distance_KWV.nbytes <= 768 * (len(encoded) + encoded.band.window)


def test_distances_stop_at_their_maximum() -> None:
    g = GraphBuilder()
    x = g("input", shape=(3,))
    for _ in range(MAX_DISTANCE + 10):
        x = g("relu", x)
    distance = signed_distances(g.finish(x))
    assert distance[0].tolist() == [*range(MAX_DISTANCE), *[MAX_DISTANCE] * 11]
    assert np.array_equal(distance, -distance.T)


@given(edges)
def test_levels_are_longest_paths(edges: list[list[int]]) -> None:
    graph = graph_of(edges)
    digraph = networkx.DiGraph(graph.to_networkx())
    levels = encode(graph).level_N
    for node in digraph:
        ancestors = digraph.subgraph({*networkx.ancestors(digraph, node), node})
        assert levels[node] == networkx.dag_longest_path_length(ancestors)


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_reordering_the_nodes_reorders_the_rows_and_changes_nothing_else(index: int) -> None:
    graph = GRAPHS[index]
    other, order = permuted(graph, seed=index)
    before, after = encode(graph), encode(other)
    assert np.array_equal(after.op_N, before.op_N[order])
    assert np.array_equal(after.features_NF, before.features_NF[order])
    assert np.array_equal(after.level_N, before.level_N[order])
    assert np.array_equal(dense_distances(other), dense_distances(graph)[np.ix_(order, order)])
    assert sorted((order[source], order[target]) for source, target in after.edges_2E.T) == sorted(
        map(tuple, before.edges_2E.T.tolist())
    )
    assert sorted(
        (order[slot.node], slot.name.split(".")[1], slot.shape, slot.role, slot.fan_in, slot.is_head)
        for slot in after.slots
    ) == sorted(
        (slot.node, slot.name.split(".")[1], slot.shape, slot.role, slot.fan_in, slot.is_head)
        for slot in before.slots
    )


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_the_slots_are_the_parameters_of_the_graph_each_once(index: int) -> None:
    graph = GRAPHS[index]
    slots = encode(graph).slots
    assert [slot.name for slot in slots] == list(graph.parameters)
    for slot in slots:
        spec = graph.parameters[slot.name]
        assert (slot.shape, slot.role) == (spec.shape, spec.role)
        assert slot.name.startswith(f"n{slot.node}.")
        assert slot.is_head == (slot.node in graph.outputs)
        if slot.role == "bias":
            assert slot.fan_in == graph.parameters[f"n{slot.node}.weight"].fan_in
        if slot.role == "weight":
            assert slot.fan_in == spec.fan_in
        if slot.role not in ("weight", "bias"):
            assert slot.fan_in == 1


@pytest.mark.parametrize(
    ("op", "shape", "attrs", "expected"),
    [
        ("conv1d", (4, 9), {"kernel_size": 5, "stride": 2}, (5, 1, 2)),
        ("conv3d", (4, 9, 9, 9), {"kernel_size": (2, 3, 5), "stride": (1, 2, 3)}, (3, 5, 2)),
    ],
)
def test_windows_along_one_or_three_axes_have_a_height_and_a_width(
    op: str, shape: tuple[int, ...], attrs: dict[str, object], expected: tuple[int, int, int]
) -> None:
    g = GraphBuilder()
    graph = g.finish(g(op, g("input", shape=shape), out_channels=6, **attrs))
    features = dict(zip(FEATURES, encode(graph).features_NF[1].tolist(), strict=True))
    sizes = [float(np.float32(log2(number) / 8)) for number in expected]
    assert [features[name] for name in ("kernel height", "kernel width", "stride")] == sizes


def test_an_explicit_fan_in_is_kept_and_tells_stacks_of_matrices_from_kernels() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4, 3, 7))
    experts = g("parameter", shape=(4, 3, 7), role="weight", fan_in=7)
    kernel = g("parameter", shape=(4, 3, 7), role="weight", fan_in=21)
    alone = g("parameter", shape=(4, 3, 7), role="bias", fan_in=5)
    graph = g.finish(g("add", x, experts, kernel, alone))
    stack, conv, bias = encode(graph).slots
    assert (stack.role, stack.fan_in, stack.is_kernel) == ("weight", 7, False)
    assert (conv.role, conv.fan_in, conv.is_kernel) == ("weight", 21, True)
    assert (bias.role, bias.fan_in) == ("bias", 5)


def test_every_operator_has_a_number_of_its_own() -> None:
    assert sorted(OP_IDS.values()) == list(range(len(OPS)))
    assert set(OP_IDS) == set(OPS)


def test_features_are_what_they_are_called() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4, 8, 6))
    y = g(
        "conv2d",
        x,
        out_channels=16,
        kernel_size=(3, 5),
        stride=2,
        dilation=(2, 1),
        padding=4,
        groups=2,
        bias=True,
    )
    pooled = g("global_avg_pool2d", y)
    graph = g.finish(g("linear", g("add", pooled, pooled), out_features=10, bias=False))
    encoded = encode(graph)
    conv, head = (dict(zip(FEATURES, row.tolist(), strict=True)) for row in encoded.features_NF[[1, 4]])

    def size(number: int) -> float:
        return float(np.float32(log2(number) / 8))

    assert graph.shapes[1] == (16, 6, 5)
    assert conv == {
        "output elements": size(480), "output first axis": size(16), "output last axis": size(5),
        "weight outputs": size(16), "weight inputs per output": size(2 * 3 * 5),
        "kernel height": size(3), "kernel width": size(5), "stride": size(2), "dilation": size(2),
        "groups": size(2), "heads": 0.0, "concat or softmax or mean axis": 0.0, "has bias": 1.0,
        "inputs": size(2), "uses": size(2), "is output": 0.0,
    }  # fmt: skip
    assert (head["is output"], head["has bias"], head["uses"]) == (1.0, 0.0, 0.0)
    assert encoded.edges_2E.T.tolist() == [[0, 1], [1, 2], [2, 3], [2, 3], [3, 4]]
