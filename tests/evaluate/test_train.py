"""Short real training."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from nasgraph.data import SearchData
from nasgraph.errors import CandidateError, ConfigError
from nasgraph.evaluate import Evaluation, TrainConfig, TrainEvaluator, measure, never_stop, train_graph
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.modules import Program, build, initial_parameters
from nasgraph.seeding import derive_seed
from tests.hyper.toy import tiny_config

SHORT = TrainConfig(epochs=3, batch_size=50)


def same(first: Evaluation, second: Evaluation) -> bool:
    """Whether two evaluations are equal but for the time they took."""
    numbers = [{**result.metrics, "train_seconds": 0.0} for result in (first, second)]
    return (
        numbers[0] == numbers[1]
        and first.curve == second.curve
        and first.state.keys() == second.state.keys()
        and all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    )


def test_a_sampled_network_learns_the_digits(digits: SearchData, convnet: ComputationalGraph) -> None:
    evaluator = TrainEvaluator(digits, TrainConfig(epochs=4))
    result = evaluator(convnet, seed=0, keep_going=never_stop)
    assert result.value > 0.8
    assert result.objective == "val_accuracy"
    assert result.curve[-1] > result.curve[0]
    assert result.seed == 0
    assert not result.stopped_early
    cost = cost_of(convnet)
    assert result.metrics["num_parameters"] == cost.num_parameters
    assert result.metrics["multiply_adds"] == cost.multiply_adds
    assert result.metrics["train_seconds"] > 0
    assert result.metrics["train_loss"] < 1


def test_the_result_is_that_of_the_best_epoch_and_its_state_reproduces_it_exactly(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    config = TrainConfig(epochs=8, batch_size=50, learning_rate=0.05)
    result = TrainEvaluator(few_digits, config)(small_network, seed=1, keep_going=never_stop)
    assert result.value == max(result.curve)
    epoch = int(result.metrics["epochs"])
    assert result.curve[epoch - 1] == result.value
    assert all(accuracy < result.value for accuracy in result.curve[epoch:])  # the later of equals
    assert all(not tensor.requires_grad for tensor in result.state.values())

    loss, accuracy = measure(
        Program(small_network), result.state, few_digits.validation, batch_size=config.eval_batch
    )
    assert (loss, accuracy) == (result.metrics["val_loss"], result.metrics["val_accuracy"])
    module = build(small_network).eval()
    module.load_state_dict(result.state)
    with torch.no_grad():
        logits = module(few_digits.validation.inputs)
    assert float((logits.argmax(1) == few_digits.validation.targets).double().mean()) == accuracy


def test_one_seed_gives_one_result_and_another_seed_another(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    config = replace(SHORT, noise_std=0.1, shift_pixels=1, label_smoothing=0.1)
    evaluator = TrainEvaluator(few_digits, config)
    before = torch.get_rng_state()
    first, again, other = (evaluator(small_network, seed=seed, keep_going=never_stop) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_parameters_to_start_from_are_not_changed(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    start = initial_parameters(small_network, seed=0)
    before = {name: tensor.clone() for name, tensor in start.items()}
    result = train_graph(small_network, few_digits, SHORT, start=start, seed=0, keep_going=never_stop)
    assert all(torch.equal(start[name], before[name]) for name in start)
    assert any(not torch.equal(result.state[name], before[name]) for name in start)


# ---- stopping


class Asked:
    """A `keep_going` that notes what it is told and stops at a given step."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.steps: list[int] = []
        self.values: list[float] = []

    def __call__(self, step: int, value: float) -> bool:
        self.steps.append(step)
        self.values.append(value)
        return step != self.stop_at


def test_the_pruner_is_told_the_best_so_far_after_each_epoch(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    asked = Asked()
    result = TrainEvaluator(few_digits, replace(SHORT, learning_rate=0.1))(
        small_network, seed=0, keep_going=asked
    )
    assert asked.steps == [0, 1, 2]
    assert asked.values == [max(result.curve[: epoch + 1]) for epoch in range(3)]


@pytest.mark.parametrize(("stop_at", "early"), [(0, True), (1, True), (2, False)])
def test_the_pruner_ends_a_training(
    few_digits: SearchData, small_network: ComputationalGraph, stop_at: int, early: bool
) -> None:
    asked = Asked(stop_at=stop_at)
    result = TrainEvaluator(few_digits, SHORT)(small_network, seed=0, keep_going=asked)
    assert asked.steps == list(range(stop_at + 1))
    assert len(result.curve) == stop_at + 1
    assert result.stopped_early is early


def test_a_training_that_no_longer_improves_ends_by_itself(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    # Without a learning rate to speak of, nothing changes but the running statistics.
    config = TrainConfig(epochs=50, batch_size=50, learning_rate=1e-12, patience=2)
    result = TrainEvaluator(few_digits, config)(small_network, seed=0, keep_going=never_stop)
    last_gain = max(
        epoch for epoch, value in enumerate(result.curve) if epoch == 0 or value > max(result.curve[:epoch])
    )
    assert len(result.curve) == last_gain + 1 + 2 < 50
    assert not result.stopped_early


# ---- where training starts


@pytest.fixture
def ghn() -> GraphHyperNetwork:
    return GraphHyperNetwork(tiny_config(), seed=2)


def test_a_start_from_predicted_weights_is_that_of_the_hypernetwork(
    few_digits: SearchData, small_network: ComputationalGraph, ghn: GraphHyperNetwork
) -> None:
    result = TrainEvaluator(few_digits, replace(SHORT, init="predicted"), ghn)(
        small_network, seed=5, keep_going=never_stop
    )
    (start,) = ghn.predict([small_network])
    expected = train_graph(small_network, few_digits, SHORT, start=start, seed=5, keep_going=never_stop)
    assert result.metrics["val_accuracy_predicted_init"] == result.value
    assert "val_accuracy_random_init" not in result.metrics
    assert result.curve == expected.curve


def test_both_starts_are_trained_and_the_better_one_counts(
    few_digits: SearchData, small_network: ComputationalGraph, ghn: GraphHyperNetwork
) -> None:
    asked = Asked()
    result = TrainEvaluator(few_digits, replace(SHORT, init="both"), ghn)(
        small_network, seed=5, keep_going=asked
    )
    start = initial_parameters(small_network, seed=derive_seed(5, "init"))
    by_init = {
        "random": train_graph(small_network, few_digits, SHORT, start=start, seed=5, keep_going=never_stop),
        "predicted": train_graph(
            small_network,
            few_digits,
            SHORT,
            start=ghn.predict([small_network])[0],
            seed=5,
            keep_going=never_stop,
        ),
    }
    for name, expected in by_init.items():
        assert result.metrics[f"val_accuracy_{name}_init"] == expected.value
    best = max(by_init.values(), key=lambda expected: expected.value)
    assert result.value == best.value
    assert all(torch.equal(result.state[name], best.state[name]) for name in best.state)
    assert asked.steps == list(range(6))
    assert asked.values == sorted(asked.values)
    assert result.metrics["train_seconds"] > max(e.metrics["train_seconds"] for e in by_init.values()) / 10


@pytest.mark.parametrize("stop_at", [0, 2, 3, 4])
def test_the_pruner_ends_both_trainings(
    few_digits: SearchData, small_network: ComputationalGraph, ghn: GraphHyperNetwork, stop_at: int
) -> None:
    asked = Asked(stop_at=stop_at)
    result = TrainEvaluator(few_digits, replace(SHORT, init="both"), ghn)(
        small_network, seed=5, keep_going=asked
    )
    assert asked.steps == list(range(stop_at + 1))
    assert result.stopped_early
    assert ("val_accuracy_random_init" in result.metrics) is (stop_at > 2)


def test_predicted_weights_need_a_hypernetwork(few_digits: SearchData) -> None:
    with pytest.raises(ConfigError, match="Expected a graph hypernetwork for 'init=both'"):
        TrainEvaluator(few_digits, replace(SHORT, init="both"))


# ---- what cannot be trained


def overflowing() -> ComputationalGraph:
    g = GraphBuilder()
    x = g("flatten", g("input", shape=(1, 8, 8)))
    for _ in range(12):
        x = g("mul", x, x)
    return g.finish(g("linear", x, out_features=10))


def test_a_loss_that_is_not_finite_is_the_failure_of_the_candidate(few_digits: SearchData) -> None:
    with pytest.raises(CandidateError, match=r"The training loss became (nan|inf) in epoch 1"):
        TrainEvaluator(few_digits, SHORT)(overflowing(), seed=0, keep_going=never_stop)


def test_weights_that_are_lost_in_the_last_step_are_the_failure_of_the_candidate(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    config = TrainConfig(epochs=1, batch_size=200, learning_rate=1e38)  # one step: its loss is still finite
    with pytest.raises(CandidateError, match=r"The validation loss became (nan|inf) in epoch 1"):
        TrainEvaluator(few_digits, config)(small_network, seed=0, keep_going=never_stop)


@pytest.mark.parametrize("batch_size", [199, 66])
def test_a_batch_of_one_example_does_not_stop_a_norm(
    digits: SearchData, small_network: ComputationalGraph, batch_size: int
) -> None:
    data = digits.subset(3 * 66 + 1, 50, seed=0) if batch_size == 66 else digits.subset(200, 50, seed=0)
    assert len(data.train) % batch_size == 1
    config = TrainConfig(epochs=2, batch_size=batch_size)
    result = TrainEvaluator(data, config)(small_network, seed=0, keep_going=never_stop)
    assert len(result.curve) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"'epochs' above 0 \(got 0\)"),
        ({"batch_size": -1}, "'batch_size' above 0"),
        ({"learning_rate": 0.0}, "'learning_rate' above 0"),
        ({"eval_batch": 0}, "'eval_batch' above 0"),
        ({"label_smoothing": 1.0}, "'label_smoothing'"),
        ({"weight_decay": -1.0}, "'weight_decay'"),
        ({"patience": 0}, r"'patience' of at least 1 \(got 0\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [lambda: SHORT, lambda: replace(SHORT, shift_pixels=1, noise_std=0.1)])
def test_training_works_on_the_gpu(
    few_digits: SearchData, small_network: ComputationalGraph, make: Callable[[], TrainConfig]
) -> None:
    on_cpu = TrainEvaluator(few_digits, make())(small_network, seed=0, keep_going=never_stop)
    on_gpu = TrainEvaluator(few_digits.to("cuda"), make())(small_network, seed=0, keep_going=never_stop)
    assert all(tensor.is_cuda for tensor in on_gpu.state.values())
    assert on_gpu.metrics["train_loss"] == pytest.approx(on_cpu.metrics["train_loss"], rel=0.02)


def test_a_start_that_breaks_down_does_not_condemn_the_network(
    few_digits: SearchData, small_network: ComputationalGraph, ghn: GraphHyperNetwork
) -> None:
    with torch.no_grad():
        ghn.decoder.gain.bias.fill_(float("nan"))
    result = TrainEvaluator(few_digits, replace(SHORT, init="both"), ghn)(
        small_network, seed=5, keep_going=never_stop
    )
    assert result.metrics["val_accuracy_random_init"] == result.value
    assert "val_accuracy_predicted_init" not in result.metrics
    with pytest.raises(CandidateError, match="became nan"):
        TrainEvaluator(few_digits, replace(SHORT, init="predicted"), ghn)(
            small_network, seed=5, keep_going=never_stop
        )
