"""Scores at any time."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nasgraph.data import SearchData, Split
from nasgraph.errors import ConfigError
from nasgraph.evaluate import AnytimeConfig, AnytimeScorer, TuningCurve, measure, tuning_curve
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import generator
from tests.hyper.toy import ENCODERS, Encoder, tiny_config
from tests.modules.samples import sampled_graphs

CONFIG = AnytimeConfig(steps=(0, 1, 2, 4, 8), num_examples=64, batch_size=32, tune_batch=32)


def scorer(
    data: SearchData, config: AnytimeConfig = CONFIG, encoder: Encoder = "transformer"
) -> AnytimeScorer:
    return AnytimeScorer(GraphHyperNetwork(tiny_config(encoder), seed=2), data, config)


def graphs() -> list[ComputationalGraph]:
    return [*sampled_graphs("mlp", 2), *sampled_graphs("nasbench201", 1), *sampled_graphs("convnet", 1)]


def same(first: TuningCurve, second: TuningCurve) -> bool:
    """Equal in all but the time they took."""
    return replace(first, cpu_seconds=()) == replace(second, cpu_seconds=())


def test_the_score_at_zero_is_the_measure_of_the_predicted_weights(few_digits: SearchData) -> None:
    own = scorer(few_digits)
    split = few_digits.validation
    for graph, curve in zip(graphs(), own(graphs()), strict=True):
        (parameters,) = own.ghn.predict([graph])
        first = Split(split.inputs[:64], split.targets[:64])
        loss, accuracy = measure(Program(graph), parameters, first, batch_size=32)
        assert curve.losses[0] == pytest.approx(loss, rel=1e-4)
        assert curve.accuracies[0] == pytest.approx(accuracy, abs=1.01 / 64)


def test_a_curve_is_what_a_loop_written_by_hand_finds(few_digits: SearchData) -> None:
    graph = sampled_graphs("convnet", 1)[0]
    start = initial_parameters(graph, seed=0)
    own = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimizer, rng = torch.optim.AdamW(own.values(), lr=CONFIG.learning_rate), generator(0, "tune")
    split = few_digits.validation
    losses, training = [], []
    for step in range(9):
        if step in CONFIG.steps:
            first = Split(split.inputs[:64], split.targets[:64])
            losses.append(measure(Program(graph), own, first, batch_size=32)[0])
        if step == 8:
            break
        batch = few_digits.train.pick(torch.from_numpy(rng.integers(len(few_digits.train), size=32)))
        context = RunContext(batch_size=32, training=True, generator=torch.Generator().manual_seed(0))
        loss = F.cross_entropy(Program(graph)(own, [batch.inputs], context)[0], batch.targets)
        training.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    curve = tuning_curve(graph, start, few_digits, CONFIG)
    assert curve.steps == CONFIG.steps
    assert curve.losses == pytest.approx(losses, rel=1e-3)
    assert curve.training_losses == pytest.approx(training, rel=1e-3)
    assert curve.training_loss_sum(4) == pytest.approx(sum(training[:4]), rel=1e-3)


def test_a_longer_curve_begins_as_the_shorter_one(few_digits: SearchData) -> None:
    short = replace(CONFIG, steps=(0, 2))
    for graph in graphs():
        start = initial_parameters(graph, seed=0)
        long, brief = (tuning_curve(graph, start, few_digits, config) for config in (CONFIG, short))
        assert (long.losses[0], long.losses[2]) == brief.losses
        assert (long.accuracies[0], long.accuracies[2]) == brief.accuracies
        assert long.training_losses[:2] == brief.training_losses


def test_steps_lower_the_loss(few_digits: SearchData) -> None:
    for curve in scorer(few_digits, replace(CONFIG, steps=(0, 20)))(graphs()):
        assert curve.losses[1] < curve.losses[0]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_curves_do_not_depend_on_the_company(few_digits: SearchData, encoder: Encoder) -> None:
    own = scorer(few_digits, replace(CONFIG, steps=(0, 2)), encoder)
    for graph, curve in zip(graphs(), own(graphs()), strict=True):
        (alone,) = own([graph])
        assert alone.losses == pytest.approx(curve.losses, rel=1e-2)


def test_curves_are_reproducible_and_change_neither_start_nor_generator(few_digits: SearchData) -> None:
    graph, state = graphs()[-1], torch.get_rng_state()
    start = initial_parameters(graph, seed=0)
    before = {name: tensor.clone() for name, tensor in start.items()}
    first, second = (tuning_curve(graph, start, few_digits, CONFIG) for _ in range(2))
    assert same(first, second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.items())
    assert not any(tensor.requires_grad for tensor in start.values())
    assert torch.equal(torch.get_rng_state(), state)
    other = tuning_curve(graph, start, few_digits, replace(CONFIG, seed=1))
    assert other.losses[0] == first.losses[0]
    assert other.losses[1] != first.losses[1]


def test_a_measurement_ends_where_it_is_told_to(few_digits: SearchData) -> None:
    asked: list[tuple[int, float]] = []

    def until_two(step: int, value: float) -> bool:
        asked.append((step, value))
        return step < 2

    whole = scorer(few_digits)(graphs()[:1])[0]
    (curve,) = scorer(few_digits)(graphs()[:1], keep_going=until_two)
    assert curve.steps == (0, 1, 2)
    assert curve.losses == whole.losses[:3]
    assert asked == [(k, -loss) for k, loss in zip(curve.steps, curve.losses, strict=True)]
    assert len(curve.training_losses) == 2
    with pytest.raises(ValueError, match=r"at most 2 steps \(got 4\)"):
        curve.training_loss_sum(4)


def test_time_rises_along_a_curve(few_digits: SearchData) -> None:
    (curve,) = scorer(few_digits)(graphs()[:1])
    assert len(curve.cpu_seconds) == len(CONFIG.steps)
    assert curve.cpu_seconds[0] > 0
    assert list(curve.cpu_seconds) == sorted(curve.cpu_seconds)


def test_losses_that_are_not_finite_are_nan(few_digits: SearchData) -> None:
    g = GraphBuilder()
    x = g("flatten", g("input", shape=(1, 8, 8)))
    for _ in range(12):
        x = g("mul", x, x)
    (curve,) = scorer(few_digits)([g.finish(g("linear", x, out_features=10))])
    assert curve.losses[0] != curve.losses[0]
    assert curve.training_loss_sum(1) != curve.training_loss_sum(1)


def test_a_network_without_parameters_is_measured_too(few_digits: SearchData) -> None:
    g = GraphBuilder()
    graph = g.finish(g("flatten", g("input", shape=(1, 8, 8))))
    curve = tuning_curve(graph, {}, few_digits, CONFIG)
    assert len(set(curve.losses)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_examples": 0}, "'num_examples' above 0"),
        ({"learning_rate": 0.0}, "'learning_rate' above 0"),
        ({"steps": ()}, r"'steps' to rise from at least 0 \(got \(\)\)"),
        ({"steps": (0, 4, 4)}, "'steps' to rise"),
        ({"steps": (-1, 4)}, "'steps' to rise"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnytimeConfig(**settings)
