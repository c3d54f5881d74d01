"""Measured facts: they are what they say, they can be measured again by their name, and what is no metric is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.data import DataSet, Split
from nasgraph.data.nodes import RawNodeData, prepare_nodes
from nasgraph.data.prepare import Preparation
from nasgraph.errors import ZooError
from nasgraph.evaluate.latency import LatencyConfig
from nasgraph.ir import GraphBuilder
from nasgraph.modelzoo import ZooEntry, card_from_json, card_to_json, measure_accuracy, write_entry
from nasgraph.modelzoo.facts import (
    MEASURES,
    Facts,
    default_measures,
    find_measure,
    latency_fact,
    measure_facts,
    with_facts,
)
from nasgraph.modules import build
from nasgraph.seeding import generator
from tests.modules.samples import sampled_graphs

QUICK = LatencyConfig(warmup=1, min_repeats=5, max_repeats=5)


@pytest.fixture(scope="module")
def nodes() -> DataSet:
    """Sixty nodes in two groups, with edges mostly within them."""
    rng = generator(0, "nodes")
    labels = np.repeat(np.arange(2), 30)
    pairs = [
        (i, j)
        for i in range(60)
        for j in range(i)
        if rng.random() < (0.2 if labels[i] == labels[j] else 0.02)
    ]
    columns = np.stack([labels, 2 + labels, 4 + rng.integers(0, 4, 60)], axis=1)
    order = rng.permutation(60)
    raw = RawNodeData(
        row_starts=np.arange(0, 181, 3),
        columns=columns.ravel().astype(np.int64),
        values=np.ones(180, dtype=np.float32),
        num_features=8,
        labels=labels.astype(np.int64),
        edges=np.array(pairs, dtype=np.int64).T.copy(),
        train=np.sort(order[:20]).astype(np.int64),
        validation=np.sort(order[20:40]).astype(np.int64),
        test=np.sort(order[40:]).astype(np.int64),
        class_names=("one", "two"),
        licence="CC0-1.0",
        source="made here",
    )
    return prepare_nodes(raw, name="two-groups", settings=Preparation())


def test_all_facts_come_out_again_bit_by_bit_by_the_name_of_their_metric(
    entry: ZooEntry, digits: DataSet
) -> None:
    splits = {"validation": digits.search.validation, "test": digits.test}
    facts = measure_facts(entry.graph, entry.state, splits, latency=None)
    assert [m.metric for m in facts.measurements[:7]] == list(MEASURES)
    assert len(facts.measurements) == 14
    for measurement in facts.measurements:
        again = find_measure(measurement.metric)(
            entry.graph, entry.state, splits[measurement.split], batch_size=measurement.batch_size
        )
        assert again == measurement.value
        assert find_measure(measurement.metric).protocol == measurement.protocol


def test_the_accuracy_is_the_one_that_cards_recorded_before(entry: ZooEntry, digits: DataSet) -> None:
    recorded = entry.card.measured("test")
    assert recorded is not None
    assert find_measure("accuracy")(entry.graph, entry.state, digits.test, batch_size=256) == recorded.value
    assert measure_accuracy(entry.graph, entry.state, digits.test, "test").value == recorded.value


def test_noise_of_the_size_of_the_input_costs_accuracy_and_little_noise_costs_little(
    entry: ZooEntry, digits: DataSet
) -> None:
    def accuracy(metric: str) -> float:
        return find_measure(metric)(entry.graph, entry.state, digits.test)

    clean = accuracy("accuracy")
    assert abs(accuracy("accuracy@noise=0.001") - clean) < 0.01
    assert accuracy("accuracy@noise=3") < clean - 0.2
    assert accuracy("accuracy@noise=0.5") != accuracy("accuracy@noise=0.5,seed=1")


def test_calibration_under_noise_is_a_metric_too(entry: ZooEntry, digits: DataSet) -> None:
    for metric in ("ece@noise=0.5,seed=3", "adaptive_ece", "brier@blur=1", "nll@blur=0.5"):
        value = find_measure(metric)(entry.graph, entry.state, digits.test)
        assert 0 < value < 10
        assert not find_measure(metric).higher_is_better


@pytest.mark.parametrize(
    "metric",
    [
        *("", "accuracy@", "accuracy@noise", "accuracy@noise=0", "accuracy@noise=-1", "accuracy@noise=1e3"),
        *(
            "f1",
            "accuracy@fog=1",
            "accuracy@noise=0.1,seed=x",
            "accuracy\n",
            "ACCURACY",
            "accuracy@noise=" + "9" * 400,
        ),
        "accuracy@noise=٣",
    ],
)
def test_what_is_no_metric_is_refused(metric: str) -> None:
    with pytest.raises(ZooError, match="metric"):
        find_measure(metric)


def test_a_seed_of_the_noise_stands_in_the_name() -> None:
    names = [measure.metric for measure in default_measures(seed=4, noise_levels=(0.25,))]
    assert names == ["accuracy", "ece", "nll", "brier", "accuracy@noise=0.25,seed=4"]


def test_the_number_of_threads_is_restored_and_does_not_matter(entry: ZooEntry, digits: DataSet) -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(find_measure("nll")(entry.graph, entry.state, digits.test))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_latency_names_hardware_threads_batch_and_interval(entry: ZooEntry) -> None:
    fact = latency_fact(entry.graph, LatencyConfig(batch_size=3, min_repeats=5, max_repeats=5))
    assert (fact.device, fact.threads, fact.batch_size, fact.dtype) == ("cpu", 1, 3, "float32")
    assert fact.hardware
    assert 0 < fact.low_s <= fact.median_s <= fact.high_s < 10
    assert "median of 5" in fact.protocol
    assert torch.__version__ in fact.protocol


def test_a_card_keeps_all_facts(entry: ZooEntry, digits: DataSet, tmp_path: Path) -> None:
    facts = measure_facts(entry.graph, entry.state, {"test": digits.test}, latency=QUICK)
    card = replace(entry.card, measurements=facts.measurements, latencies=facts.latencies)
    assert card_from_json(card_to_json(card)) == card
    again = write_entry(tmp_path / "again", entry.graph, entry.state, card)
    assert again.card.latencies == facts.latencies
    noisy = again.card.measured("test", "accuracy@noise=0.2")
    assert noisy is not None
    assert noisy.value == find_measure("accuracy@noise=0.2")(again.graph, again.state, digits.test)


def test_new_facts_take_the_place_of_old_ones_of_the_same_metric_and_machine(
    entry: ZooEntry, digits: DataSet
) -> None:
    facts = measure_facts(entry.graph, entry.state, {"test": digits.test}, latency=QUICK)
    card = with_facts(entry.card, facts)
    assert {(m.split, m.metric) for m in card.measurements} == {("validation", "accuracy")} | {
        ("test", metric) for metric in MEASURES
    }
    assert len(card.measurements) == 8
    again = with_facts(card, measure_facts(entry.graph, entry.state, {"test": digits.test}, latency=QUICK))
    assert again.measurements == card.measurements
    assert len(again.latencies) == 1
    larger = latency_fact(entry.graph, LatencyConfig(batch_size=2, min_repeats=5, max_repeats=5))
    assert len(with_facts(again, Facts((), (larger,))).latencies) == 2


def test_networks_over_the_nodes_of_a_graph_are_measured_but_for_robustness(nodes: DataSet) -> None:
    graph = sampled_graphs("gnn", 1, input_shape=(8,))[0]
    state = build(graph, seed=1).eval().state_dict()
    facts = measure_facts(graph, state, {"test": nodes.test}, latency=QUICK)
    assert [m.metric for m in facts.measurements] == ["accuracy", "ece", "nll", "brier"]
    (fact,) = facts.latencies
    assert fact.batch_size == 60
    assert "all 60 nodes" in fact.protocol
    with pytest.raises(ZooError, match="stand alone"):
        find_measure("accuracy@noise=0.1")(graph, state, nodes.test)
    with pytest.raises(ZooError, match="data graph"):
        latency_fact(graph, QUICK)


def test_another_split_and_infinite_logits_are_refused(entry: ZooEntry, digits: DataSet) -> None:
    with pytest.raises(ZooError, match="splits called train, validation, test"):
        measure_facts(entry.graph, entry.state, {"held-out": digits.test}, latency=None)
    state = {name: tensor.clone() for name, tensor in entry.state.items()}
    state[f"n{entry.graph.outputs[0]}.bias"].fill_(float("inf"))
    with pytest.raises(ZooError, match="finite"):
        find_measure("ece")(entry.graph, state, digits.test)


def test_two_outputs_are_refused() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4,))
    graph = g.finish(g("linear", x, out_features=2), g("linear", x, out_features=3))
    split = Split(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ZooError, match="one output"):
        find_measure("accuracy")(graph, build(graph).state_dict(), split)
