"""Columns that describe graphs: against every path counted by networkx, and for graphs of all kinds."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import product
from math import exp, log

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of, make_node
from nasgraph.modules import trace
from nasgraph.predict.graph_features import (
    CLASSES,
    GraphFeatures,
    NeighbourhoodFeatures,
    class_of,
    kind_of,
)
from nasgraph.testing import reordered
from tests.ir.making import random_graph
from tests.modules.samples import sampled_graphs, wide_graph

KINDS = ("add", "attention", "input", "linear", "mul", "relu")
LANDMARKS = ("attention", "linear", "relu")
TOY = GraphFeatures(KINDS, LANDMARKS)
"""For the graphs of `random_graph`."""
SPACES = ("convnet", "gpt", "handmade", "mlp", "nasbench201", "vit")
SEEDS = st.integers(0, 2**32 - 1)


@cache
def graphs_of(space: str) -> tuple[ComputationalGraph, ...]:
    return sampled_graphs(space, 6, input_shape=(16,) if space == "gpt" else (1, 8, 8))


def graph_of(seed: int) -> ComputationalGraph:
    return random_graph(np.random.default_rng(seed), most=8)


def told(features: GraphFeatures, graph: ComputationalGraph) -> dict[str, float]:
    """The row of one graph, by name."""
    return dict(zip(features.names, features([graph])[0].tolist(), strict=True))


def chain(ops: str) -> ComputationalGraph:
    """Operators one after another: r is relu, t is tanh, l is linear."""
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    for op in ops:
        x = graph("linear", x, out_features=4) if op == "l" else graph({"r": "relu", "t": "tanh"}[op], x)
    return graph.finish(x)


# ---- what is promised of every row


@given(SEEDS)
def test_a_row_does_not_depend_on_the_order_of_the_nodes(seed: int) -> None:
    graph = graph_of(seed)
    other = reordered(graph, np.random.default_rng(seed))
    around = NeighbourhoodFeatures.of([graph], min_graphs=1)
    for features in (TOY, GraphFeatures.universal(), around):
        np.testing.assert_array_equal(features([graph]), features([other]))  # exactly: columns are ranked


@pytest.mark.parametrize("space", SPACES)
def test_rows_of_a_space_do_not_depend_on_the_order_of_the_nodes(space: str) -> None:
    graphs, rng = graphs_of(space), np.random.default_rng(0)
    features = GraphFeatures.of(graphs)
    np.testing.assert_array_equal(features(graphs), features([reordered(graph, rng) for graph in graphs]))


@pytest.mark.parametrize("space", SPACES)
def test_every_column_of_a_space_is_finite_and_has_a_name_of_its_own(space: str) -> None:
    graphs = graphs_of(space)
    for features in (GraphFeatures.of(graphs), GraphFeatures.universal()):
        rows = features(graphs)
        assert rows.shape == (len(graphs), len(features.names))
        assert np.isfinite(rows).all()
        assert len(set(features.names)) == len(features.names)


@given(SEEDS)
def test_rows_of_random_graphs_are_finite(seed: int) -> None:
    graph = graph_of(seed)
    for features in (TOY, GraphFeatures.universal(), GraphFeatures.of([graph, chain("rl")])):
        assert np.isfinite(features([graph, chain("t")])).all()


@pytest.mark.parametrize("space", SPACES)
def test_blocks_cover_every_column_once_in_order(space: str) -> None:
    for features in (GraphFeatures.of(graphs_of(space)), GraphFeatures.universal(), TOY):
        columns = [column for low, high in features.blocks for column in range(low, high)]
        assert columns == list(range(len(features.names)))
        assert all(high > low for low, high in features.blocks)


def test_a_row_depends_on_its_graph_alone() -> None:
    graphs = [graph_of(seed) for seed in range(5)]
    np.testing.assert_array_equal(TOY(graphs), np.concatenate([TOY([graph]) for graph in graphs]))
    assert TOY([]).shape == (0, len(TOY.names))


# ---- numbers, against networkx


def paths_between(graph: ComputationalGraph) -> dict[tuple[int, int], list[list[int]]]:
    """Every path between every two nodes, as nodes; N is behind every output. Parallel edges make different paths."""
    net = graph.to_networkx()
    for output in graph.outputs:
        net.add_edge(output, len(graph))
    found = {}
    for start, end in product(net, net):
        edges = [] if start == end else networkx.all_simple_edge_paths(net, start, end)
        found[start, end] = [[start, *(edge[1] for edge in path)] for path in edges]
    return found


def kinds_on(graph: ComputationalGraph, path: Sequence[int]) -> list[str]:
    return [kind_of(graph, node) if node < len(graph) else "output" for node in path]


@given(SEEDS)
def test_columns_of_sets_are_those_of_all_paths_from_input_to_output(seed: int) -> None:
    graph, row = graph_of(seed), told(TOY, graph_of(seed))
    between = paths_between(graph)
    by_output: list[list[list[str]]] = []
    for end in graph.outputs:
        ways = [path[:-1] for start in graph.inputs for path in between[start, len(graph)] if path[-2] == end]
        by_output.append([kinds_on(graph, path) for path in ways])
    for size in (1, 2, 3):
        for members in (LANDMARKS[:size], LANDMARKS[-size:]):
            number = [[sum(kind in members for kind in path) for path in paths] for paths in by_output]
            every = [count for counts in number for count in counts]
            name = "|".join(members)
            assert row[f"fewest on a path: {name}"] == min(every)
            assert row[f"most on a path: {name}"] == max(every)
            assert row[f"mean on a path: {name}"] == pytest.approx(np.mean([np.mean(n) for n in number]))
            assert row[f"paths without: {name}"] == pytest.approx(np.log1p(every.count(0)))


@given(SEEDS)
def test_columns_of_pairs_are_those_of_all_paths_between_two_kinds(seed: int) -> None:
    graph, row = graph_of(seed), told(TOY, graph_of(seed))
    between = paths_between(graph)
    kinds = kinds_on(graph, range(len(graph) + 1))
    ends = ("input", *LANDMARKS, "output")
    for first, last in product(ends[:-1], ends[1:]):
        ways = [path for (a, b), paths in between.items() if kinds[a] == first and kinds[b] == last for path in paths]  # fmt: skip
        lengths = [sum(kinds[node] in ends[1:] for node in path[1:]) for path in ways]
        direct = [path for path in ways if not any(kinds[node] in LANDMARKS for node in path[1:-1])]
        name = f"{first} -> {last}"
        assert row[f"direct: {name}"] == pytest.approx(np.log1p(len(direct)))
        assert row[f"paths: {name}"] == pytest.approx(np.log1p(len(ways)))
        assert row[f"shortest: {name}"] == min(lengths, default=-1)
        assert row[f"longest: {name}"] == max(lengths, default=-1)


@given(SEEDS)
def test_depth_and_height_are_the_longest_paths_of_networkx(seed: int) -> None:
    graph, row = graph_of(seed), told(TOY, graph_of(seed))
    net = networkx.DiGraph(graph.to_networkx())
    weight = {node: float(kind_of(graph, node) in LANDMARKS) for node in net}

    for kind in LANDMARKS:
        own = [node for node in net if kind_of(graph, node) == kind]
        depth = [longest_to(net, weight, node) for node in own]
        height = [longest_from(net, weight, node) for node in own]
        for where, values in (("depth", depth), ("height", height)):
            expected = [np.mean(values), min(values), max(values)] if own else [-1, -1, -1]
            found = [row[f"{what} {where} of {kind}"] for what in ("mean", "least", "largest")]
            assert found == pytest.approx(expected)


def longest_to(net: networkx.DiGraph, weight: dict[int, float], node: int) -> float:
    """Landmarks on the longest path that ends at a node, itself among them. From a virtual node before all."""
    part = networkx.DiGraph(net.subgraph({*networkx.ancestors(net, node), node}))
    part.add_edges_from([(-1, start) for start in list(part)])
    for _, target, data in part.edges(data=True):
        data["weight"] = weight[target]
    return float(networkx.dag_longest_path_length(part))


def longest_from(net: networkx.DiGraph, weight: dict[int, float], node: int) -> float:
    """Landmarks on the longest path that begins at a node, itself not among them."""
    part = networkx.DiGraph(net.subgraph({*networkx.descendants(net, node), node}))
    for _, target, data in part.edges(data=True):
        data["weight"] = weight[target]
    return float(networkx.dag_longest_path_length(part))


@given(SEEDS)
def test_columns_of_the_whole_graph_are_those_of_networkx(seed: int) -> None:
    graph, row = graph_of(seed), told(TOY, graph_of(seed))
    net, between = graph.to_networkx(), paths_between(graph)
    assert row["nodes"] == net.number_of_nodes()
    assert row["edges"] == net.number_of_edges()
    assert row["longest path"] == len(networkx.dag_longest_path(networkx.DiGraph(net), weight=None))
    assert row["most inputs"] == max(degree for _, degree in net.in_degree())
    assert row["most readers"] == max(degree for _, degree in net.out_degree())
    ways = [path for start in graph.inputs for path in between[start, len(graph)]]
    number = {end: [sum(kind in LANDMARKS for kind in kinds_on(graph, path)) for path in ways if path[-2] == end] for end in graph.outputs}  # fmt: skip
    assert row["log paths"] == pytest.approx(log(len(ways)))
    assert row["landmarks on the longest path"] == max(map(max, number.values()))
    assert row["landmarks on a mean path"] == pytest.approx(np.mean([np.mean(n) for n in number.values()]))
    spread = np.mean([np.std(n) for n in number.values()])
    assert row["spread of landmarks between paths"] == pytest.approx(spread, abs=1e-9)


@given(SEEDS)
def test_totals_are_those_of_the_cost(seed: int) -> None:
    graph, row = graph_of(seed), told(TOY, graph_of(seed))
    cost = cost_of(graph)
    assert row["log parameters"] == pytest.approx(np.log1p(cost.num_parameters))
    assert row["log multiply-adds"] == pytest.approx(np.log1p(cost.multiply_adds))
    assert sum(row[f"number of {kind}"] for kind in KINDS) == len(graph)
    shares = sum(exp(row[f"parameters of {kind}"]) - 1 for kind in LANDMARKS)
    assert shares == pytest.approx(cost.num_parameters)


@given(SEEDS)
def test_what_flows_into_the_output_is_what_the_input_sends(seed: int) -> None:
    whole = graph_of(seed)
    everything = GraphBuilder()  # the same, with all outputs joined and then read by one last node
    for node in whole.nodes:
        everything(node.op, *node.inputs, **dict(node.attrs))
    loose = set(range(len(whole))) - {source for node in whole.nodes for source in node.inputs}
    joined = everything("add", *loose) if len(loose) > 1 else loose.pop()
    graph = everything.finish(everything("sigmoid", joined))
    row = told(GraphFeatures(("sigmoid",), ("sigmoid",)), graph)
    assert row["flow of sigmoid"] == pytest.approx(1)
    assert row["reverse flow of sigmoid"] == pytest.approx(1)


def test_networks_with_more_paths_than_a_number_can_hold_have_finite_rows() -> None:
    depth = 1200
    graph = GraphBuilder()
    x = graph("input", shape=(2,))
    for _ in range(depth):
        x = graph("add", graph("linear", x, out_features=2), graph("tanh", x))
    row = told(GraphFeatures(("linear",), ("linear",)), graph.finish(x))
    assert np.isfinite(list(row.values())).all()
    assert row["log paths"] == pytest.approx(depth * log(2))
    assert row["paths: input -> output"] == pytest.approx(depth * log(2))
    assert row["mean on a path: linear"] == pytest.approx(depth / 2)  # binomial
    assert row["spread of landmarks between paths"] == pytest.approx(np.sqrt(depth / 4))
    assert (row["fewest on a path: linear"], row["most on a path: linear"]) == (0, depth)
    assert row["paths without: linear"] == pytest.approx(log(2))
    assert row["flow of linear"] == pytest.approx(depth / 2)


# ---- which kinds there are


def test_kinds_are_counted_and_paths_are_measured_between_those_that_vary() -> None:
    features = GraphFeatures.of([chain("llr"), chain("lr"), chain("rrrt")])
    assert features.kinds == ("input", "linear", "relu", "tanh")
    assert features.landmarks == ("linear",)  # activations are no landmarks, however much their number varies
    assert GraphFeatures.of([chain("lr"), chain("lrr")]).landmarks == ()  # always one linear


def test_the_landmarks_that_vary_most_are_kept() -> None:
    def graph(widths: Sequence[int]) -> ComputationalGraph:
        builder = GraphBuilder()
        x = builder("input", shape=(4, 8, 8))
        for size, number in zip((1, 3, 5, 7), widths, strict=True):
            for _ in range(number):
                x = builder("conv2d", x, out_channels=4, kernel_size=size, padding=size // 2)
        return builder.finish(x)

    graphs = [graph((0, 1, 3, 1)), graph((1, 1, 0, 3)), graph((0, 1, 1, 1))]
    assert GraphFeatures.of(graphs, max_landmarks=2).landmarks == ("conv2d 5x5", "conv2d 7x7")
    assert GraphFeatures.of(graphs).landmarks == ("conv2d 1x1", "conv2d 5x5", "conv2d 7x7")


def test_unknown_kinds_are_counted_together() -> None:
    features = GraphFeatures.of([chain("lr"), chain("llr")])
    row = told(features, chain("lttrt"))
    assert row["other kinds"] == 3
    assert row["nodes"] == 6


def test_kinds_tell_windows_strides_and_groups_apart_but_not_sizes() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4, 16, 16))
    names = {
        graph("conv2d", x, out_channels=8, kernel_size=3): "conv2d 3x3",
        graph("conv2d", x, out_channels=6, kernel_size=3): "conv2d 3x3",
        graph("conv2d", x, out_channels=4, kernel_size=(1, 3), stride=2): "conv2d 1x3 strided",
        graph("conv2d", x, out_channels=4, kernel_size=3, groups=4): "conv2d 3x3 depthwise",
        graph("conv2d", x, out_channels=4, kernel_size=3, groups=2): "conv2d 3x3 grouped",
        graph("conv2d", x, out_channels=4, kernel_size=3, dilation=2): "conv2d 3x3 dilated",
    }
    last = [graph("global_avg_pool2d", index) for index in names]
    whole = graph.finish(*last)
    assert [kind_of(whole, index) for index in names] == list(names.values())


def test_opaque_nodes_are_kinds_by_their_names_and_landmarks() -> None:
    def graph(names: Sequence[str]) -> ComputationalGraph:
        builder = GraphBuilder()
        x = builder("input", shape=(1,))
        for name in names:
            x = builder("opaque", x, name=name, shape=(1,))
        return builder.finish(x)

    features = GraphFeatures.of([graph(["conv", "pool", "conv"]), graph(["pool", "conv"]), graph(["pool"])])
    assert features.kinds == ("conv", "input", "pool")
    assert features.landmarks == ("conv",)
    row = told(features, graph(["conv", "conv", "pool", "conv"]))
    assert (row["number of conv"], row["number of pool"], row["longest: input -> output"]) == (3, 1, 4)


def test_no_graph_has_no_kinds() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        GraphFeatures.of([])


# ---- words for all spaces


def test_every_space_speaks_the_same_universal_words() -> None:
    features = GraphFeatures.universal()
    assert features.names == GraphFeatures.universal().names
    for space in SPACES:
        graphs = graphs_of(space)
        assert {class_of(graph, i) for graph in graphs for i in range(len(graph))} <= set(CLASSES)
        rows = features(graphs)
        assert rows.shape[1] == len(features.names)
        counted = rows[:, [features.names.index(f"number of {name}") for name in CLASSES]]
        np.testing.assert_array_equal(counted.sum(axis=1), [len(graph) for graph in graphs])
        assert not rows[:, features.names.index("other kinds")].any()


class Tied(nn.Module):
    """Uses two convolutions' weights twice."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.zeros(4, 4, 3, 3))
        self.narrow = nn.Parameter(torch.zeros(4, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.conv2d(F.conv2d(x, self.wide, padding=1), self.narrow)
        return x


def test_convolutions_that_share_a_weight_are_convolutions_by_its_size() -> None:
    graph = trace(Tied(), torch.zeros(1, 4, 8, 8)).graph
    kinds = [kind_of(graph, i) for i in range(len(graph))]
    classes = [class_of(graph, i) for i in range(len(graph))]
    assert classes.count("spatial convolution") == classes.count("pointwise convolution") == 2
    assert sum(kind.endswith("3x3") for kind in kinds) == sum(kind.endswith("1x1") for kind in kinds) == 2


# ---- graphs of all shapes


def test_traced_modules_have_rows() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    graph = trace(module, torch.zeros(2, 3, 16, 16)).graph
    features = GraphFeatures.of([graph, chain("l")])
    row = told(features, graph)
    assert row["number of conv2d 3x3"] == 2
    assert row["most on a path: conv2d 3x3"] == 2
    assert row["log parameters"] == pytest.approx(np.log1p(sum(p.numel() for p in module.parameters())))
    universal = told(GraphFeatures.universal(), graph)
    assert universal["number of spatial convolution"] == 2
    assert universal["paths: spatial convolution -> linear"] == pytest.approx(log(3))


def test_one_node_is_a_graph() -> None:
    graph = GraphBuilder()
    alone = graph.finish(graph("input", shape=(3,)))
    for features in (GraphFeatures.of([alone]), GraphFeatures.universal()):
        row = told(features, alone)
        assert np.isfinite(list(row.values())).all()
        assert row["nodes"] == row["longest path"] == row["shortest: input -> output"] == 1
        assert row["edges"] == row["log paths"] == row["landmarks"] == 0


def test_several_inputs_and_outputs_are_told() -> None:
    features = GraphFeatures.of([wide_graph(), chain("l")])
    row = told(features, wide_graph())
    assert np.isfinite(list(row.values())).all()
    assert row["number of input"] == 2
    assert row["most on a path: linear"] == row["fewest on a path: linear"] == 1


def test_what_no_input_reaches_has_no_paths() -> None:
    graph = GraphBuilder()
    image = graph("input", shape=(4,))
    bias = graph("parameter", shape=(4,))
    fed, starved = graph("linear", image, out_features=4), graph("linear", bias, out_features=4)
    row = told(TOY, graph.finish(graph("relu", fed), graph("relu", starved)))
    assert np.isfinite(list(row.values())).all()
    assert row["log paths"] == 0
    assert row["mean on a path: linear"] == 0.5  # one on the only path to the first output, none to the other
    assert row["landmarks on a mean path"] == 1
    assert row["number of linear"] == 2
    nodes = (make_node("parameter", shape=(4,)), make_node("tanh", (0,)))
    without = ComputationalGraph(nodes, (1,))  # 'check_graph' refuses it; a part of a graph may be so
    nothing = told(TOY, without)
    assert np.isfinite(list(nothing.values())).all()
    assert (
        nothing["log paths"] == nothing["fewest on a path: linear"] == nothing["most on a path: linear"] == -1
    )
    assert nothing["paths without: linear"] == nothing["mean on a path: linear"] == 0


# ---- neighbourhoods


@given(SEEDS)
def test_isomorphic_graphs_have_equal_neighbourhoods(seed: int) -> None:
    graphs = [graph_of(seed), graph_of(seed + 1)]
    features = NeighbourhoodFeatures.of(graphs, min_graphs=1, max_known=1000, radius=3)
    others = [reordered(graph, np.random.default_rng(seed)) for graph in graphs]
    np.testing.assert_array_equal(features(graphs), features(others))
    assert (features(graphs) ** 2).sum(axis=1) == pytest.approx([3 * len(graph) for graph in graphs])


def test_neighbourhoods_tell_apart_what_counts_alone_cannot() -> None:
    pair = [chain("rtrt"), chain("rrtt")]
    counts = GraphFeatures(("input", "relu", "tanh"), ())
    np.testing.assert_array_equal(*counts(pair))
    around = NeighbourhoodFeatures.of(pair, min_graphs=1)
    assert not np.array_equal(*around(pair))


def test_a_larger_radius_tells_more_apart() -> None:
    pair = [chain("rrrtrrr"), chain("rrtrrrr")]  # equal windows of three, unequal ones of five
    near = NeighbourhoodFeatures.of(pair, min_graphs=1, radius=1)
    far = NeighbourhoodFeatures.of(pair, min_graphs=1, radius=2)
    np.testing.assert_array_equal(*near(pair))
    assert not np.array_equal(*far(pair))


def test_rare_neighbourhoods_are_left_out_and_the_most_frequent_kept() -> None:
    graphs = [chain("r" * length) for length in range(1, 8)]
    every = NeighbourhoodFeatures.of(graphs, min_graphs=1)
    some = NeighbourhoodFeatures.of(graphs, min_graphs=5)
    few = NeighbourhoodFeatures.of(graphs, min_graphs=1, max_known=3)
    assert set(some.known) < set(every.known)
    assert ((some(graphs) > 0).sum(axis=0) >= 5).all()
    assert len(few.known) == 3
    assert NeighbourhoodFeatures.of(graphs[:3])(graphs).shape == (7, 0)


def test_another_process_with_another_hash_seed_gives_the_same_rows() -> None:
    program = """
from tests.predict.test_graph_features import GraphFeatures, NeighbourhoodFeatures, graph_of
graphs = [graph_of(seed) for seed in range(6)]
for made in (GraphFeatures.of(graphs), NeighbourhoodFeatures.of(graphs, min_graphs=1)):
    print(made(graphs).tolist())
"""
    graphs = [graph_of(seed) for seed in range(6)]
    here = [made(graphs).tolist() for made in (GraphFeatures.of(graphs), NeighbourhoodFeatures.of(graphs, min_graphs=1))]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "4321"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [str(rows) for rows in here]
