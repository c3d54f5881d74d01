"""What networks cost, by name."""

import math
from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np
import pytest
import torch

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.evaluate import Evaluation, KeepGoing, Metric, TableInfo, make_table, never_stop
from nasgraph.evaluate.costs import (
    GRAPH_COSTS,
    CostedEvaluator,
    GraphCosts,
    measured_latency,
    peak_memory_bytes,
    predicted_cost,
    tabulated_cost,
    training_flops,
)
from nasgraph.evaluate.latency import LatencyConfig
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.modules import build
from nasgraph.predict import HardwarePredictor
from tests.modules.samples import sampled_graphs

QUICK = LatencyConfig(warmup=1, min_repeats=3, max_repeats=3)


def chain(*widths: int) -> ComputationalGraph:
    g = GraphBuilder()
    node = g("input", shape=(widths[0],))
    for width in widths[1:]:
        node = g("linear", node, out_features=width, bias=False)
    return g.finish(node)


def graphs() -> list[ComputationalGraph]:
    return [graph for space in ("mlp", "convnet", "vit") for graph in sampled_graphs(space, 4)]


def test_the_sizes_are_those_of_the_graph_and_of_the_module() -> None:
    for graph in graphs():
        cost = cost_of(graph)
        (row,) = GraphCosts()([graph], names=("num_parameters", "multiply_adds", "depth", "num_nodes"))
        assert row["num_parameters"] == sum(p.numel() for p in build(graph).parameters())
        assert (row["multiply_adds"], row["depth"], row["num_nodes"]) == (
            cost.multiply_adds,
            cost.depth,
            len(graph),
        )


def test_a_chain_needs_its_widest_pair_of_neighbours() -> None:
    for widths in [(3, 5, 2), (10, 1, 1, 10), (4, 4), (7,)]:
        pair = max((a + b for a, b in pairwise(widths)), default=widths[0])
        weights = sum(a * b for a, b in pairwise(widths))
        assert peak_memory_bytes(chain(*widths)) == 4 * (pair + weights)


def test_a_shortcut_stays_alive_until_it_is_added() -> None:
    g = GraphBuilder()
    x = g("input", shape=(8,))
    inner = g("relu", g("linear", x, out_features=32, bias=False))
    graph = g.finish(g("add", x, g("linear", inner, out_features=8, bias=False)))
    assert peak_memory_bytes(graph) == 4 * (8 + 32 + 32 + 2 * 8 * 32)


def test_views_need_nothing_and_keep_alive_what_they_look_at() -> None:
    g = GraphBuilder()
    x = g("input", shape=(2, 3))
    view = g("flatten", g("identity", x))
    graph = g.finish(g("add", view, g("relu", g("relu", view))))
    assert peak_memory_bytes(graph) == 4 * (6 + 6 + 6)  # the input, and two of the others at a time


def test_the_peak_is_what_the_definition_says_node_by_node() -> None:
    views = {"identity", "dropout", "reshape", "flatten", "permute", "slice", "expand"}
    for graph in graphs():
        readers: dict[int, list[int]] = {index: [] for index in range(len(graph))}
        for index, node in enumerate(graph.nodes):
            for source in node.inputs:
                readers[source].append(index)

        def last(
            index: int, graph: ComputationalGraph = graph, readers: dict[int, list[int]] = readers
        ) -> int:
            """When the memory of a node is last looked at, through views."""
            if index in graph.outputs:
                return len(graph)
            ends = [max(r, last(r)) if graph.nodes[r].op in views else r for r in readers[index]]
            return max(ends, default=index)

        def begins(index: int, graph: ComputationalGraph = graph) -> int:
            return 0 if index in graph.inputs else index

        own = [i for i, node in enumerate(graph.nodes) if node.op not in views and node.op != "parameter"]
        peak = max(
            sum(prod(graph.shapes[i]) for i in own if begins(i) <= time <= last(i))
            for time in range(len(graph))
        )
        assert peak_memory_bytes(graph) == 4 * (peak + cost_of(graph).num_parameters)
        assert peak_memory_bytes(graph) <= cost_of(graph).activation_bytes + 4 * cost_of(graph).num_parameters


def test_a_device_is_a_source_of_its_own() -> None:
    some = sampled_graphs("mlp", 12)
    predictor = HardwarePredictor()
    labels = torch.tensor([1e-3 * cost_of(graph).multiply_adds + 1 for graph in some])
    predictor.fit(some, labels)
    costs = GraphCosts({"latency:toy": predicted_cost(predictor)})
    found = costs(some, names=("latency:toy", "depth"))
    assert [row["latency:toy"] for row in found] == predictor.predict(some).mean.tolist()
    assert set(found[0]) == {"latency:toy", "depth"}
    assert costs([], names=("latency:toy",)) == []


def test_a_table_knows_its_own_graphs_and_says_so_of_others() -> None:
    some = [chain(3, width, 2) for width in (1, 2, 3)]
    info = TableInfo(
        name="toy",
        metrics=(
            Metric(name="energy", higher_is_better=False),
            Metric(name="accuracy", higher_is_better=True),
        ),
    )
    energy, accuracy = np.array([1.5, np.nan, 3.5]), np.array([0.1, 0.2, 0.3])
    table = make_table(some, {"energy": energy, "accuracy": accuracy}, info)
    costs = GraphCosts({"energy:toy": tabulated_cost(table, "energy")})
    first, second, third, other = costs.of([*some, chain(3, 9, 2)], "energy:toy")
    assert (first, third) == (1.5, 3.5)
    assert math.isnan(second)
    assert math.isnan(other)
    with pytest.raises(ConfigError, match="where lower is better"):
        tabulated_cost(table, "accuracy")
    with pytest.raises(UnknownNameError, match="energi"):
        tabulated_cost(table, "energi")


def test_latency_can_be_measured() -> None:
    costs = GraphCosts({"latency_ms": measured_latency(QUICK)})
    small, large = costs.of([chain(4, 4), chain(512, 2048, 2048, 512)], "latency_ms")
    assert 0 < small < large


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("num_parameter", "Close: 'num_parameters'"),
        ("latency:pixel3", "Give a predictor or a table of that device"),
        ("latency_ms", r"give it as a source, 'measured_latency\(\)'"),
    ],
)
def test_an_unknown_cost_is_refused_with_a_way_out(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        GraphCosts().of([chain(2, 2)], name)


def test_a_source_cannot_take_the_name_of_a_cost_of_the_graph() -> None:
    for name in GRAPH_COSTS:
        with pytest.raises(ConfigError, match=f"'{name}' is decided by the graph"):
            GraphCosts({name: measured_latency(QUICK)})


def test_a_source_that_loses_graphs_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected 2 values of 'latency:x'"):
        GraphCosts({"latency:x": lambda _: [1.0]}).of([chain(2, 2)] * 2, "latency:x")


def test_training_costs_three_passes_of_two_operations() -> None:
    graph = chain(10, 20)
    forward = 2 * cost_of(graph).multiply_adds
    assert training_flops(cost_of(graph).multiply_adds, num_examples=7, epochs=3) == 3 * forward * 7 * 3
    x = torch.randn(7, 10, requires_grad=True)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        build(graph)(x).sum().backward()
    assert counter.get_total_flops() == training_flops(cost_of(graph).multiply_adds, num_examples=7, epochs=1)


def test_costs_join_what_is_measured_and_do_not_overwrite_it() -> None:
    def measured(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        return Evaluation("val_accuracy", {"val_accuracy": 0.5, "depth": -1.0}, (), seed)

    evaluate = CostedEvaluator(measured, ("depth", "num_parameters"))
    result = evaluate(chain(3, 4), seed=7, keep_going=never_stop)
    assert result.metrics == {"val_accuracy": 0.5, "depth": -1.0, "num_parameters": 12.0}
    assert (result.value, result.seed) == (0.5, 7)
    with pytest.raises(UnknownNameError, match="latency:a"):
        CostedEvaluator(measured, ("latency:a",))


def test_settings_are_not_shared() -> None:
    assert replace(GraphCosts(), sources={"latency:a": lambda _: []}).names[-1] == "latency:a"
    assert GraphCosts().names == tuple(GRAPH_COSTS)
