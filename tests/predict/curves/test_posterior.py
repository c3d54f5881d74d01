"""The bar distribution: a distribution, and consistent with itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from nasgraph.predict.curves import CurvePosterior, loss_scale


def made(seed: int) -> CurvePosterior:
    rng = np.random.default_rng(seed)
    borders = np.sort(rng.uniform(0, 1, 13))
    return CurvePosterior(borders, rng.dirichlet(np.ones(12)))


def drawn(posterior: CurvePosterior, count: int) -> np.ndarray:
    """Samples by another road: pick a bar, then a place in it."""
    rng = np.random.default_rng(1)
    bars = rng.choice(len(posterior.probabilities), size=count, p=posterior.probabilities)
    low, high = posterior.borders[bars], posterior.borders[bars + 1]
    samples: np.ndarray = low + (high - low) * rng.random(count)
    return samples


@pytest.mark.parametrize("seed", range(3))
def test_the_density_integrates_to_one(seed: int) -> None:
    posterior = made(seed)
    total, _ = quad(
        lambda value: np.exp(posterior.log_density(value)),
        posterior.borders[0],
        posterior.borders[-1],
        points=list(posterior.borders[1:-1]),
        limit=200,
    )
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_all_statements_agree_with_sampling(seed: int) -> None:
    posterior, samples = made(seed), drawn(made(seed), 200_000)
    assert posterior.mean == pytest.approx(samples.mean(), abs=2e-3)
    assert posterior.std == pytest.approx(samples.std(), abs=2e-3)
    for threshold in (0.1, 0.35, 0.5, 0.8):
        assert posterior.probability_above(threshold) == pytest.approx((samples > threshold).mean(), abs=5e-3)
    for share in (0.05, 0.5, 0.9):
        assert posterior.quantile(share) == pytest.approx(np.quantile(samples, share), abs=5e-3)


@given(st.integers(0, 50), st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_quantiles_rise_and_invert_the_distribution(seed: int, shares: list[float]) -> None:
    posterior = made(seed)
    values = [posterior.quantile(share) for share in sorted(shares)]
    assert (np.diff(values) >= -1e-12).all()
    for share, value in zip(sorted(shares), values, strict=True):
        assert posterior.probability_below(value) == pytest.approx(share, abs=1e-9)


def test_bars_without_mass_do_no_harm() -> None:
    posterior = CurvePosterior(np.array([0.0, 0.2, 0.4, 1.0]), np.array([0.0, 1.0, 0.0]))
    assert (posterior.quantile(0), posterior.quantile(1)) == (0.2, 0.4)
    assert posterior.log_density(0.1) == -np.inf
    assert posterior.log_density(2.0) == -np.inf
    assert posterior.probability_above(0.4) == 0


def test_a_loss_turns_the_bars_around() -> None:
    posterior = made(0)
    loss = posterior.in_units(loss_scale(5.0, best=1.0))
    assert loss.mean == pytest.approx(5 - 4 * posterior.mean)
    assert loss.std == pytest.approx(4 * posterior.std)
    assert loss.probability_below(3.0) == pytest.approx(posterior.probability_above(0.5))
    assert loss.quantile(0.1) == pytest.approx(5 - 4 * posterior.quantile(0.9))


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="one border more than bars"):
        CurvePosterior(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="borders that rise"):
        CurvePosterior(np.array([0.0, 0.0, 1.0]), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="sum to one"):
        CurvePosterior(np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.2]))
    with pytest.raises(ValueError, match="share between 0 and 1"):
        made(0).quantile(1.5)
