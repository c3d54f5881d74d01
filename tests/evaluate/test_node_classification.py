"""Training on the nodes of one graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nasgraph.data import DataSet, Preparation, load_dataset
from nasgraph.data.nodes import RawNodeData, prepare_nodes
from nasgraph.errors import CandidateError, ConfigError
from nasgraph.evaluate import TrainConfig, TrainEvaluator, measure, never_stop
from nasgraph.evaluate.node_classification import (
    NodeClassificationEvaluator,
    NodeTrainConfig,
    glorot_parameters,
    trainer_for,
)
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, build
from nasgraph.seeding import generator

CLASSES, WORDS, NODES = 3, 8, 90
QUICK = NodeTrainConfig(epochs=40, patience=None)


def communities(*, informative: bool, seed: int = 0) -> DataSet:
    """Three groups of nodes that link to their own. Words tell the group, or nothing."""
    rng = generator(seed, "communities")
    labels = np.arange(NODES) % CLASSES
    words = rng.random((NODES, WORDS)) < 0.4
    if informative:
        words[np.arange(NODES), labels] = True
    one, other = np.triu_indices(NODES, k=1)
    chance = np.where(labels[one] == labels[other], 0.25, 0.01)
    linked = rng.random(len(one)) < chance
    rows, columns = words.nonzero()
    order = rng.permutation(NODES)
    raw = RawNodeData(
        row_starts=np.concatenate([[0], np.bincount(rows, minlength=NODES).cumsum()]),
        columns=columns,
        values=np.ones(len(columns), dtype=np.float32),
        num_features=WORDS,
        labels=labels,
        edges=np.stack([one[linked], other[linked]]),
        train=order[:30],
        validation=order[30:60],
        test=order[60:],
        class_names=("a", "b", "c"),
        licence="none",
        source="made up",
    )
    return prepare_nodes(raw, name="communities", settings=Preparation())


def network(op: str = "gcn_conv", *, norm: bool = True, p: float = 0.2) -> ComputationalGraph:
    g = GraphBuilder()
    x = g(op, g("dropout", g("input", shape=(WORDS,)), p=p), out_features=16)
    x = g("relu", g("batch_norm", x) if norm else x)
    return g.finish(g(op, g("dropout", x, p=p), out_features=CLASSES))


DATA = communities(informative=False)


def test_messages_find_what_a_node_alone_does_not_tell() -> None:
    evaluator = NodeClassificationEvaluator(DATA.search, QUICK)
    with_edges = evaluator(network(), seed=0, keep_going=never_stop)
    alone = evaluator(network("linear"), seed=0, keep_going=never_stop)
    assert with_edges.value > 0.8
    assert alone.value < 0.65


@pytest.mark.parametrize("norm", [False, True])
def test_the_returned_state_measures_as_reported_to_the_last_bit(norm: bool) -> None:
    graph = network(norm=norm)
    result = NodeClassificationEvaluator(DATA.search, QUICK)(graph, seed=1, keep_going=never_stop)
    for batch_size in (1, 1000):
        loss, accuracy = measure(Program(graph), result.state, DATA.search.validation, batch_size=batch_size)
        assert accuracy == result.value == max(result.curve)
        assert loss == pytest.approx(result.metrics["val_loss"], rel=1e-6)
    module = build(graph)
    module.load_state_dict(dict(result.state))
    nodes = DATA.test.nodes
    assert nodes is not None
    logits = module.eval()(nodes.graph.features, edges=nodes.graph.edges)[nodes.index]
    found = float((logits.argmax(1) == DATA.test.targets).float().mean())
    assert measure(Program(graph), result.state, DATA.test, batch_size=1)[1] == pytest.approx(found)


def test_equal_arguments_give_an_equal_result_and_touch_no_global_generator() -> None:
    before = torch.get_rng_state()
    evaluator = NodeClassificationEvaluator(DATA.search, NodeTrainConfig(epochs=5))
    one, two, other = (evaluator(network(), seed=seed, keep_going=never_stop) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.curve == two.curve
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    assert any(not torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_keep_going_hears_the_best_value_of_each_epoch_and_can_stop() -> None:
    heard: list[tuple[int, float]] = []

    def three_epochs(epoch: int, value: float) -> bool:
        heard.append((epoch, value))
        return epoch < 2

    evaluator = NodeClassificationEvaluator(DATA.search, QUICK)
    result = evaluator(network(), seed=0, keep_going=three_epochs)
    assert result.stopped_early
    assert len(result.curve) == 3
    assert heard == [(epoch, max(result.curve[: epoch + 1])) for epoch in range(3)]


def test_patience_ends_a_training_that_no_longer_gets_better() -> None:
    config = NodeTrainConfig(epochs=300, learning_rate=0.1, patience=4)
    result = NodeClassificationEvaluator(DATA.search, config)(network(), seed=0, keep_going=never_stop)
    assert 4 < len(result.curve) < 300
    assert not result.stopped_early
    assert result.metrics["epochs"] <= len(result.curve)


def test_labels_of_other_nodes_change_nothing() -> None:
    """Only the labels of the training nodes are learnt from: with others for validation, the parameters are the same."""
    config = NodeTrainConfig(epochs=3, patience=None)
    shuffled = replace(DATA.search.validation, targets=DATA.search.validation.targets.flip(0))
    states = [
        NodeClassificationEvaluator(data, config)(
            network(), seed=0, keep_going=lambda epoch, _: epoch < 0
        ).state
        for data in (DATA.search, replace(DATA.search, validation=shuffled))
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_running_statistics_follow_small_values_from_the_first_step() -> None:
    """After one step the statistics are those of that step, not a variance near one."""
    evaluator = NodeClassificationEvaluator(DATA.search, NodeTrainConfig(epochs=1))
    result = evaluator(network(p=0.0), seed=0, keep_going=never_stop)
    variance = result.state[next(name for name in result.state if name.endswith("running_var"))]
    assert float(variance.max()) < 0.5


def test_weights_start_as_glorot_and_biases_at_zero() -> None:
    g = GraphBuilder()
    graph = g.finish(g("gcn_conv", g("input", shape=(300,)), out_features=200))
    start = glorot_parameters(graph, seed=0)
    bound = (6 / 500) ** 0.5
    weight = start["n1.weight"]
    assert bound * 0.99 < float(weight.abs().max()) <= bound
    assert float(weight.var()) == pytest.approx(2 / 500, rel=0.02)
    assert not start["n1.bias"].any()


def test_a_training_that_breaks_down_is_a_failed_candidate() -> None:
    config = NodeTrainConfig(epochs=30, learning_rate=1e30, patience=None)
    g = GraphBuilder()
    x = g("gcn_conv", g("gcn_conv", g("input", shape=(WORDS,)), out_features=8), out_features=CLASSES)
    with pytest.raises(CandidateError, match="loss became"):
        NodeClassificationEvaluator(DATA.search, config)(g.finish(x), seed=0, keep_going=never_stop)


def test_examples_that_stand_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nodes of a graph, such as 'cora' \(got 'digits'\)"):
        NodeClassificationEvaluator(load_dataset("digits").search)


def test_the_trainer_fits_the_data() -> None:
    config = TrainConfig(epochs=2)
    assert trainer_for(DATA.search, config, nodes=QUICK) == NodeClassificationEvaluator(DATA.search, QUICK)
    digits = load_dataset("digits").search
    assert trainer_for(digits, config) == TrainEvaluator(digits, config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "'epochs' above 0"),
        ({"learning_rate": -1.0}, "'learning_rate' above 0"),
        ({"weight_decay": -1.0}, "'weight_decay' of at least 0"),
        ({"patience": 0}, "'patience' of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NodeTrainConfig(**settings)  # type: ignore[arg-type]  # that is the point
