"""The learned optimiser as torch's: it starts as Adam, resumes bit by bit, and refuses what it cannot do before it changes anything."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from math import sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.optimiser import (
    LearnedOptimiser,
    LearnedRule,
    MetaTrainConfig,
    OptimiserError,
    OptimiserTask,
    RuleConfig,
    initial_rule,
    load_rule,
    meta_train,
    num_numbers,
    save_rule,
)
from nasgraph.meta.optimiser.meta_train import Trainings, estimated_gradient
from nasgraph.meta.optimiser.rule import CHUNK, learned_step, no_moments


def random_rule(seed: int = 0) -> LearnedRule:
    """A rule of random numbers: no part of it is zero."""
    config = RuleConfig(hidden_dim=4)
    rng = torch.Generator().manual_seed(seed)
    numbers = initial_rule(config).numbers + 0.1 * torch.randn(num_numbers(config), generator=rng)
    return LearnedRule(config, numbers)


def regression(dtype: torch.dtype = torch.float32) -> tuple[list[nn.Parameter], Callable[[], Tensor]]:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 5, generator=rng, dtype=torch.double).to(dtype)
    targets = inputs.sum(1, keepdim=True).sin()
    sizes = ((8, 5), (8,), (1, 8))
    weights = [
        nn.Parameter(torch.randn(size, generator=rng, dtype=torch.double).to(dtype) / 3) for size in sizes
    ]

    def loss() -> Tensor:
        return F.mse_loss(torch.tanh(inputs @ weights[0].t() + weights[1]) @ weights[2].t(), targets)

    return weights, loss


def train(optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]  # torch's
        optimiser.step()


def test_an_untrained_rule_is_adam_with_a_step_that_falls_with_the_root_of_the_fan_in() -> None:
    (ours, our_loss), (theirs, their_loss) = regression(torch.double), regression(torch.double)
    rule = initial_rule(RuleConfig(initial_step=0.02))
    rates = [0.02 * sqrt(32 / 5), 0.02, 0.02 * sqrt(32 / 8)]
    adam = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in zip(theirs, rates, strict=True)])
    train(LearnedOptimiser(ours, rule), our_loss, 30)
    train(adam, their_loss, 30)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)


def test_a_run_that_resumes_goes_on_bit_by_bit(tmp_path: Path) -> None:
    (first, first_loss), (second, second_loss) = regression(), regression()
    rule = random_rule()
    whole, part = LearnedOptimiser(first, rule), LearnedOptimiser(second, rule)
    train(whole, first_loss, 12)
    train(part, second_loss, 5)
    torch.save(part.state_dict(), tmp_path / "state.pt")
    third = [nn.Parameter(p.detach().clone()) for p in second]
    resumed = LearnedOptimiser(third, rule)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        for own, other in zip(second, third, strict=True):
            assert torch.equal(own, other)
    for _ in range(7):
        for own, other in zip(second, third, strict=True):
            own.data.copy_(other)
        part.zero_grad()
        second_loss().backward()  # type: ignore[no-untyped-call]  # torch's
        for own, other in zip(second, third, strict=True):
            assert own.grad is not None
            other.grad = own.grad.clone()
        resumed.step()
    for own, other in zip(first, third, strict=True):
        assert torch.equal(own, other)


def test_a_copy_goes_on_as_the_original() -> None:
    weights, loss = regression()
    optimiser = LearnedOptimiser(weights, random_rule())
    train(optimiser, loss, 3)
    copied = deepcopy(optimiser)
    for own, other in zip(weights, copied.param_groups[0]["params"], strict=True):
        assert own.grad is not None
        other.grad = own.grad.clone()
    optimiser.step()
    copied.step()
    assert all(
        torch.equal(own, other) for own, other in zip(weights, copied.param_groups[0]["params"], strict=True)
    )


def test_lr_is_a_factor_and_weight_decay_is_decoupled() -> None:
    changes = []
    for lr, decay in ((1.0, 0.0), (0.5, 0.0), (1.0, 0.1)):
        weights, loss = regression(torch.double)
        before = [weight.detach().clone() for weight in weights]
        train(LearnedOptimiser(weights, random_rule(), lr=lr, weight_decay=decay), loss, 1)
        changes.append([w.detach() - b for w, b in zip(weights, before, strict=True)])
    for one, half, decayed, weight in zip(*changes, before, strict=True):
        torch.testing.assert_close(half, one / 2)
        torch.testing.assert_close(decayed, one - 0.1 * weight)


def test_parameters_without_a_gradient_are_left_alone() -> None:
    weights, loss = regression()
    extra = nn.Parameter(torch.ones(3))
    optimiser = LearnedOptimiser([*weights, extra], random_rule())
    train(optimiser, loss, 2)
    assert torch.equal(extra, torch.ones(3))
    assert extra not in optimiser.state


def test_no_parameters_a_scalar_and_an_empty_tensor_are_stepped() -> None:
    scalar, empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    scalar.grad, empty.grad = torch.tensor(1.0), torch.zeros(0, 3)
    LearnedOptimiser([scalar, empty], initial_rule()).step()
    assert float(scalar.detach()) < 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_before_anything_changes(bad: float) -> None:
    weights, loss = regression()
    optimiser = LearnedOptimiser(weights, random_rule())
    train(optimiser, loss, 1)
    loss().backward()  # type: ignore[no-untyped-call]  # torch's
    assert weights[2].grad is not None
    weights[2].grad[0, 3] = bad
    before = [weight.detach().clone() for weight in weights]
    with pytest.raises(
        OptimiserError, match=r"parameter 2 of group 0 \(shape \(1, 8\)\) has numbers that are not"
    ):
        optimiser.step()
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_sparse_gradients_and_other_types_are_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(OptimiserError, match="is sparse: make its embedding with 'sparse=False'"):
        LearnedOptimiser(table.parameters(), initial_rule()).step()
    half = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    half.grad = torch.ones(2, dtype=torch.bfloat16)
    with pytest.raises(OptimiserError, match=r"as float32 or float64 \(got bfloat16\)"):
        LearnedOptimiser([half], initial_rule()).step()
    with pytest.raises(ValueError, match="at least 0"):
        LearnedOptimiser([half], initial_rule(), lr=-1.0)


def test_the_state_of_another_model_or_rule_is_refused() -> None:
    weights, loss = regression()
    optimiser = LearnedOptimiser(weights, random_rule())
    train(optimiser, loss, 1)
    state = optimiser.state_dict()
    others = [nn.Parameter(torch.ones(4, 4)) for _ in weights]
    for other in others:
        other.grad = torch.ones(4, 4)
    foreign = LearnedOptimiser(others, random_rule())
    foreign.load_state_dict(state)
    with pytest.raises(OptimiserError, match="it is the state of another model"):
        foreign.step()
    another = LearnedOptimiser(weights, random_rule(seed=1))
    another.load_state_dict(state)
    with pytest.raises(OptimiserError, match="is that of the learned rule"):
        another.step()


def test_a_closure_and_a_scheduler_work() -> None:
    weights, loss = regression()
    optimiser = LearnedOptimiser(weights, initial_rule())
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5)

    def closure() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]  # torch's
        return float(value.detach())

    values = []
    for _ in range(4):
        values.append(optimiser.step(closure))
        schedule.step()
    assert values == sorted(values, reverse=True)
    assert optimiser.param_groups[0]["lr"] == 0.5**4


def test_rules_side_by_side_do_not_influence_each_other_nor_do_chunks() -> None:
    rules = torch.stack([random_rule(seed).numbers for seed in range(3)])
    config, count = random_rule().config, CHUNK + 5
    rng = torch.Generator().manual_seed(0)
    values, gradients = torch.randn(3, count, generator=rng), torch.randn(3, count, generator=rng)
    steps = torch.tensor([0.0, 4.0, 9.0])
    together, _ = learned_step(
        config, rules, values, gradients, no_moments(3, count, values), steps, shape=(count,)
    )
    for row in range(3):
        one = slice(row, row + 1)
        alone, _ = learned_step(
            config,
            rules[one],
            values[one],
            gradients[one],
            no_moments(1, count, values),
            steps[one],
            shape=(count,),
        )
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-6)


def scaled(loss: Callable[[], Tensor], factor: float) -> Tensor:
    return factor * loss()


def test_steps_do_not_depend_on_the_size_of_the_loss() -> None:
    changes = []
    for factor in (1.0, 1000.0):
        weights, loss = regression(torch.double)
        before = [weight.detach().clone() for weight in weights]
        train(LearnedOptimiser(weights, random_rule()), partial(scaled, loss, factor), 5)
        changes.append([w.detach() - b for w, b in zip(weights, before, strict=True)])
    for small, large in zip(*changes, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-6)


def test_a_saved_rule_is_the_same_when_it_is_read_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    rule = random_rule()
    save_rule(rule, tmp_path, recipe={"steps": 3})
    read = load_rule(tmp_path)
    assert read.config == rule.config
    assert torch.equal(read.numbers, rule.numbers)
    assert read.fingerprint == rule.fingerprint
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("0.999", "0.998"))
    with pytest.raises(CheckpointError, match="reads other features"):
        load_rule(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"hidden_dim": 4', '"hidden_dim": 5'))
    with pytest.raises(CheckpointError, match="finite numbers for a rule"):
        load_rule(tmp_path)
    (tmp_path / "config.json").write_text(text)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="checksum"):
        load_rule(tmp_path)
    with pytest.raises(NasGraphError, match="finite numbers"):
        LearnedRule(RuleConfig(), torch.full((num_numbers(RuleConfig()),), torch.nan))


def perceptron(width: int = 8, op: str = "relu") -> ComputationalGraph:
    g = GraphBuilder()
    return g.finish(
        g("linear", g(op, g("linear", g("input", shape=(6,)), out_features=width)), out_features=2)
    )


def task(**changes: object) -> OptimiserTask:
    inputs = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    data = Split(inputs, (inputs[:, 0] > 0).long())
    return OptimiserTask("sign", perceptron(), data, 16, **changes)  # type: ignore[arg-type]  # input_scales


def test_the_trainings_side_by_side_are_those_of_the_optimiser() -> None:
    rule, sign = random_rule(), task(input_scales=(1.0, 1.0))
    config = MetaTrainConfig(pairs=2, truncation=6, min_horizon=50, max_horizon=50)
    trainings = Trainings(sign, config, rule.config, seed=3)
    assert trainings.restart_finished() == [0, 1]
    values = {name: nn.Parameter(tensor[1].clone()) for name, tensor in trainings._values.items()}
    batches = torch.Generator()
    batches.set_state(trainings._rng.get_state())
    losses = trainings.advance(rule.numbers.expand(4, -1))
    optimiser = LearnedOptimiser(values.values(), rule)
    total = 0.0
    for _ in range(6):
        index = torch.randint(100, (2, 16), generator=batches)[1]
        loss = trainings._loss_of_one(dict(values), sign.data.inputs[index], sign.data.targets[index])
        total += float(loss.detach())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimiser.step()
    assert float(losses[1]) == pytest.approx(total / 6, rel=1e-4)
    torch.testing.assert_close(losses[:2], losses[2:])  # equal rules, equal batches
    for name, value in values.items():
        torch.testing.assert_close(value.detach(), trainings._values[name][1], rtol=1e-3, atol=1e-5)


def test_meta_training_lowers_the_loss_and_is_repeatable() -> None:
    config = MetaTrainConfig(
        steps=40, pairs=8, truncation=10, min_horizon=10, max_horizon=20, learning_rate=0.05
    )
    start = initial_rule(RuleConfig(hidden_dim=4, initial_step=0.001))
    seen: list[tuple[int, float, LearnedRule]] = []
    first = meta_train([task()], config, rule=start, on_step=lambda *what: seen.append(what))
    losses = [loss for _, loss, _ in seen]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert torch.equal(seen[-1][2].numbers, first.numbers)
    short = MetaTrainConfig(steps=3, pairs=2, truncation=2, min_horizon=2, max_horizon=4)
    assert torch.equal(meta_train([task()], short).numbers, meta_train([task()], short).numbers)
    assert first.config == start.config


def test_the_estimated_gradient_of_an_unrolled_quadratic_is_unbiased() -> None:
    # The state after two truncations is the sum of the rules that each saw. Without the sum of perturbations half would be missing.
    rng = torch.Generator().manual_seed(0)
    noise, theta, pairs = 0.1, 0.7, 200_000
    first, second = (torch.randn(pairs, generator=rng) * noise for _ in range(2))
    losses = torch.cat([(2 * theta + sign * (first + second)).square() for sign in (1, -1)])
    estimate = estimated_gradient(losses, (first + second).unsqueeze(1), noise=noise)
    assert float(estimate) == pytest.approx(2 * 2 * 2 * theta, rel=0.02)


def test_tasks_that_cannot_be_trained_are_named() -> None:
    config = MetaTrainConfig(steps=1)
    with pytest.raises(NasGraphError, match="at least one task"):
        meta_train([], config)
    data = task().data
    with pytest.raises(NasGraphError, match=r"Cannot train 'dropout' \(node 2 of task 'a'\)"):
        meta_train([OptimiserTask("a", perceptron(op="dropout"), data)], config)
    with pytest.raises(NasGraphError, match=r"inputs of shape \(6,\) for task 'a'"):
        meta_train([OptimiserTask("a", perceptron(), Split(data.inputs[:, :5], data.targets))], config)
    with pytest.raises(ConfigError, match="'max_horizon'"):
        MetaTrainConfig(min_horizon=10, max_horizon=5)
    with pytest.raises(ConfigError, match="'hidden_dim'"):
        RuleConfig(hidden_dim=0)
