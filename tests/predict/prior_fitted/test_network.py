"""The network: who sees whom, the mixture it answers with, and that training goes on where it stopped."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import norm

from nasgraph.errors import ConfigError
from nasgraph.predict.prior_fitted import Mixture, PriorFittedConfig, PriorFittedNetwork, TrainConfig
from nasgraph.predict.prior_fitted.rows import NUM_COLUMNS
from nasgraph.predict.prior_fitted.train import Progress, sample_batch, schedule, start, train
from nasgraph.seeding import generator

SMALL = TrainConfig(
    seconds=1e9,
    rows_per_step=100,
    num_queries=8,
    num_targets=2,
    num_trees=4,
    max_context=20,
    replays=0,  # what is in memory is not saved: a training that goes on begins with new tables
)


@pytest.fixture
def network() -> PriorFittedNetwork:
    made = start(PriorFittedConfig(dim=16, num_layers=2, num_heads=2), SMALL).network.double().eval()
    torch_rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch_rng, dtype=torch.double))
    return made


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_rows_to_predict_do_not_see_each_other(network: PriorFittedNetwork) -> None:
    rows, targets, others = draw(2, 9, NUM_COLUMNS), draw(2, 9), draw(2, 5, NUM_COLUMNS, seed=1)
    together = network(rows, targets, others).mean
    for index in range(5):
        alone = network(rows, targets, others[:, index : index + 1]).mean
        torch.testing.assert_close(alone[:, 0], together[:, index])


def test_the_order_of_labelled_rows_does_not_matter(network: PriorFittedNetwork) -> None:
    rows, targets, others = draw(1, 9, NUM_COLUMNS), draw(1, 9), draw(1, 5, NUM_COLUMNS, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    straight, shuffled = network(rows, targets, others), network(rows[:, order], targets[:, order], others)
    torch.testing.assert_close(straight.mean, shuffled.mean)
    torch.testing.assert_close(straight.log_weight, shuffled.log_weight)


def test_a_label_changes_the_answer(network: PriorFittedNetwork) -> None:
    rows, targets, others = draw(1, 9, NUM_COLUMNS), draw(1, 9), draw(1, 5, NUM_COLUMNS, seed=1)
    other_targets = targets.clone()
    other_targets[0, 3] += 1.0
    assert not torch.allclose(network(rows, targets, others).mean, network(rows, other_targets, others).mean)


def test_a_plain_network_does_not_hear_the_smoothers() -> None:
    config = PriorFittedConfig(dim=16, num_layers=1, num_heads=2, smoothers=False)
    plain = start(config, SMALL).network.double().eval()
    rows, targets, others = draw(1, 9, NUM_COLUMNS), draw(1, 9), draw(1, 5, NUM_COLUMNS, seed=1)
    changed = others.clone()
    changed[..., 23:] += 1.0
    torch.testing.assert_close(plain(rows, targets, others).mean, plain(rows, targets, changed).mean)


def mixture() -> Mixture:
    return Mixture(draw(3, 4).log_softmax(-1), draw(3, 4, seed=1), draw(3, 4, seed=2).exp() * 0.5)


def test_a_mixture_integrates_to_one_and_its_moments_are_those_of_its_density() -> None:
    made = mixture()
    grid = torch.linspace(-40, 40, 40001, dtype=torch.double)
    density = torch.stack([made.log_density(value.expand(3)).exp() for value in grid])
    mean, std = made.moments()
    torch.testing.assert_close(torch.trapezoid(density, grid, dim=0), torch.ones(3, dtype=torch.double))
    torch.testing.assert_close(torch.trapezoid(density * grid[:, None], grid, dim=0), mean)
    second = torch.trapezoid(density * (grid[:, None] - mean) ** 2, grid, dim=0)
    torch.testing.assert_close(second.sqrt(), std)


@pytest.mark.parametrize("probability", [0.01, 0.05, 0.5, 0.95])
def test_a_quantile_has_its_probability_below_it(probability: float) -> None:
    made = mixture()
    expected = torch.full((3,), probability, dtype=torch.double)
    torch.testing.assert_close(made.cumulative(made.quantile(probability)), expected, atol=1e-8, rtol=0)


def test_one_component_is_the_normal_distribution_of_scipy() -> None:
    one = Mixture(torch.zeros(1, 1).double(), torch.tensor([[0.3]]).double(), torch.tensor([[2.0]]).double())
    assert one.log_density(torch.tensor([1.0]).double()).item() == pytest.approx(norm.logpdf(1.0, 0.3, 2.0))
    assert one.quantile(0.9).item() == pytest.approx(norm.ppf(0.9, 0.3, 2.0))


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.2])
def test_an_impossible_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mixture().quantile(probability)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="divide"):
        PriorFittedConfig(dim=10, num_heads=4)
    with pytest.raises(ConfigError, match="between"):
        PriorFittedConfig(num_layers=0)


class Enough(Exception):  # noqa: N818  no error: ends a loop
    """Raised to end a training from its callback."""


def run(progress: Progress, num_steps: int) -> list[float]:
    losses: list[float] = []

    def after_step(progress: Progress, loss: float) -> None:
        losses.append(loss)
        if len(losses) == num_steps:
            raise Enough

    with pytest.raises(Enough):
        train(progress, SMALL, after_step=after_step)
    return losses


def test_training_from_one_seed_repeats_and_goes_on_from_a_copy() -> None:
    config = PriorFittedConfig(dim=16, num_layers=1, num_heads=2)
    whole = run(start(config, SMALL), 4)
    half = start(config, SMALL)
    first = run(half, 2)
    rest = run(copy.deepcopy(half), 2)
    np.testing.assert_allclose(whole, first + rest, rtol=1e-3)  # the rate follows the clock


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state().clone()
    run(start(PriorFittedConfig(dim=16, num_layers=1, num_heads=2), SMALL), 1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_rate_rises_then_falls_to_almost_nothing() -> None:
    assert schedule(0.0, 0.1) < 0.02
    assert schedule(0.1, 0.1) == pytest.approx(1.001)
    assert schedule(1.0, 0.1) == pytest.approx(0.001)


def test_a_batch_comes_from_its_generator() -> None:
    first, second = (sample_batch(SMALL, generator(3, "batch")) for _ in range(2))
    torch.testing.assert_close(first.others, second.others)
    torch.testing.assert_close(first.labels, second.labels)
