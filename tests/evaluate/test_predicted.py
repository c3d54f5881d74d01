"""Scores with predicted weights."""

from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch

from nasgraph.data import SearchData, Split
from nasgraph.errors import ConfigError
from nasgraph.evaluate import PredictedWeightsConfig, PredictedWeightsScorer, measure
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.modules import Program
from tests.hyper.toy import ENCODERS, Encoder, tiny_config
from tests.modules.samples import sampled_graphs

RAW = PredictedWeightsConfig(num_examples=64, batch_size=32)
TUNED = replace(RAW, tune_steps=12, tune_batch=32)


def scorer(
    data: SearchData, config: PredictedWeightsConfig, encoder: Encoder = "transformer"
) -> PredictedWeightsScorer:
    return PredictedWeightsScorer(GraphHyperNetwork(tiny_config(encoder), seed=2), data, config)


def graphs() -> list[ComputationalGraph]:
    return [*sampled_graphs("mlp", 3), *sampled_graphs("vit", 1), *sampled_graphs("convnet", 1)]


def test_a_score_is_the_measure_of_the_network_with_predicted_weights(few_digits: SearchData) -> None:
    own = scorer(few_digits, RAW)
    split = few_digits.validation
    for graph, scores in zip(graphs(), own(graphs()), strict=True):
        (parameters,) = own.ghn.predict([graph])
        first = Split(split.inputs[:64], split.targets[:64])
        loss, accuracy = measure(Program(graph), parameters, first, batch_size=32)
        assert scores == {
            "ghn_loss": pytest.approx(loss, rel=1e-4),
            "ghn_accuracy": pytest.approx(accuracy, abs=1.01 / 64),
            "log_parameters": pytest.approx(log(cost_of(graph).num_parameters), rel=1e-6),
            "log_multiply_adds": pytest.approx(log(cost_of(graph).multiply_adds), rel=1e-6),
        }


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("config", [RAW, TUNED])
def test_scores_do_not_depend_on_the_company(
    few_digits: SearchData, encoder: Encoder, config: PredictedWeightsConfig
) -> None:
    own = scorer(few_digits, config, encoder)
    three = graphs()[:3]
    together = own(three)
    for graph, scores in zip(three, together, strict=True):
        (alone,) = own([graph])
        assert alone.keys() == scores.keys()
        for name, value in alone.items():
            margin = 2.01 / 64 if name.endswith("accuracy") else 1e-3 * abs(value)
            assert scores[name] == pytest.approx(value, abs=margin)


def test_some_steps_of_tuning_lower_the_loss(few_digits: SearchData) -> None:
    for scores in scorer(few_digits, TUNED)(graphs()):
        assert scores["tuned_loss"] < scores["ghn_loss"]
        assert 0 <= scores["tuned_accuracy"] <= 1


def test_scoring_is_reproducible_and_changes_neither_hypernetwork_nor_generator(
    few_digits: SearchData,
) -> None:
    own = scorer(few_digits, TUNED)
    before = {name: tensor.clone() for name, tensor in own.ghn.state_dict().items()}
    state = torch.get_rng_state()
    assert own(graphs()[:2]) == own(graphs()[:2])
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.ghn.state_dict().items())
    assert all(parameter.grad is None for parameter in own.ghn.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_tunes_on_other_examples(few_digits: SearchData) -> None:
    first, other = (scorer(few_digits, replace(TUNED, seed=seed))(graphs()[:1])[0] for seed in (0, 1))
    assert first["ghn_loss"] == other["ghn_loss"]
    assert first["tuned_loss"] != other["tuned_loss"]


def test_there_may_be_fewer_examples_than_asked_for(few_digits: SearchData) -> None:
    (scores,) = scorer(few_digits, replace(RAW, num_examples=10_000))(graphs()[:1])
    assert (scores["ghn_accuracy"] * 100) == pytest.approx(round(scores["ghn_accuracy"] * 100))


@pytest.mark.parametrize("config", [RAW, TUNED])
def test_a_loss_that_is_not_finite_is_nan_and_does_not_hurt_the_others(
    few_digits: SearchData, config: PredictedWeightsConfig
) -> None:
    g = GraphBuilder()
    x = g("flatten", g("input", shape=(1, 8, 8)))
    for _ in range(12):
        x = g("mul", x, x)
    bad, good = scorer(few_digits, config)([g.finish(g("linear", x, out_features=10)), graphs()[0]])
    assert bad["ghn_loss"] != bad["ghn_loss"]
    assert all(value == value for value in good.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_examples": 0}, "'num_examples' above 0"),
        ({"batch_size": 0}, "'batch_size' above 0"),
        ({"tune_batch": 0}, "'tune_batch' above 0"),
        ({"tune_learning_rate": 0.0}, "'tune_learning_rate' above 0"),
        ({"tune_steps": -1}, r"'tune_steps' of at least 0 \(got -1\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PredictedWeightsConfig(**settings)


@pytest.mark.gpu
def test_scores_on_the_gpu_are_those_on_the_cpu(few_digits: SearchData) -> None:
    own = scorer(few_digits, TUNED)
    expected = own(graphs())
    found = PredictedWeightsScorer(own.ghn.cuda(), few_digits.to("cuda"), TUNED)(graphs())
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs["ghn_loss"] == pytest.approx(ours["ghn_loss"], rel=1e-3)
        assert theirs["tuned_loss"] == pytest.approx(ours["tuned_loss"], rel=0.05)
