"""The prior: its constraints, and its moments against a direct simulation."""

import math

import numpy as np
import pytest

from nasgraph.errors import ConfigError
from nasgraph.predict.curves import PAPER_PRIOR, WIDE_PRIOR, CurvePriorConfig, draw_curves, sample_curves
from nasgraph.predict.curves.prior import REFERENCE_TIMES
from nasgraph.seeding import generator


def one_by_one(count: int, seed: int) -> np.ndarray:
    """The paper's prior written as its text has it: one curve at a time, plain arithmetic, rejected as a whole."""
    rng = np.random.default_rng(seed)
    kept: list[list[float]] = []
    while len(kept) < count:
        w = [rng.random() for _ in range(3)]
        a1, c1, alpha = rng.uniform(-0.6, 0.6), rng.uniform(0, 1.25), math.exp(rng.normal(0, 2))
        c2, a2 = rng.uniform(0, 1), rng.uniform(-0.5, 0.5)
        a3, b3 = rng.uniform(0, 1), rng.uniform(0, 2)
        k, delta = math.exp(rng.normal(-2, 1)), math.exp(rng.normal(0, 0.5))
        curve = [
            w[0] * (c1 - a1 * x**-alpha)
            + w[1] * (c2 - a2 / math.log(x + 1))
            + w[2] * (a3 - (a3 - b3) * math.exp(-k * x**delta))
            for x in range(1, 101)
        ]
        if curve[-1] > curve[0] and min(curve) >= 0 and max(curve) <= 1:
            kept.append(curve)
    return np.array(kept)


def test_moments_are_those_of_a_direct_simulation() -> None:
    ours = draw_curves(8000, PAPER_PRIOR, generator(0, "prior")).at(np.tile(REFERENCE_TIMES, (8000, 1)))
    theirs = one_by_one(2500, 1)
    tolerance = 4.5 * theirs.std(axis=0) / math.sqrt(len(theirs))
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < tolerance).all()
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.07)
    gain, their_gain = ours[:, -1] - ours[:, 0], theirs[:, -1] - theirs[:, 0]
    np.testing.assert_allclose(
        np.quantile(gain, [0.25, 0.5, 0.75]), np.quantile(their_gain, [0.25, 0.5, 0.75]), atol=0.03
    )


def test_drawn_curves_stay_in_range_and_end_above_their_start() -> None:
    heights = draw_curves(3000, PAPER_PRIOR, generator(3, "prior")).at(np.tile(REFERENCE_TIMES, (3000, 1)))
    assert (heights >= 0).all()
    assert (heights <= 1).all()
    assert (heights[:, -1] > heights[:, 0]).all()


def test_noise_is_log_normal_with_the_stated_moments() -> None:
    logarithms = draw_curves(4000, PAPER_PRIOR, generator(4, "prior")).log_noise
    assert logarithms.mean() == pytest.approx(-4, abs=0.08)
    assert logarithms.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("prior", [PAPER_PRIOR, WIDE_PRIOR], ids=["paper", "wide"])
@pytest.mark.parametrize("num_epochs", [1, 2, 30, 150])
def test_noisy_curves_lie_in_the_unit_interval(prior: CurvePriorConfig, num_epochs: int) -> None:
    curves = sample_curves(300, num_epochs, prior, generator(5, "noisy"))
    assert curves.shape == (300, num_epochs)
    assert (curves >= 0).all()
    assert (curves <= 1).all()


def test_equal_generators_give_equal_curves() -> None:
    first, second = (sample_curves(20, 30, WIDE_PRIOR, generator(6, "same")) for _ in range(2))
    assert (first == second).all()
    assert (sample_curves(20, 30, WIDE_PRIOR, generator(7, "same")) != first).any()


def test_the_length_of_a_training_is_only_how_finely_it_is_seen() -> None:
    draws = draw_curves(50, PAPER_PRIOR, generator(8, "length"))
    fine = draws.at(np.tile(np.arange(1, 101) / 100, (50, 1)))
    coarse = draws.at(np.tile(np.arange(1, 21) / 20, (50, 1)))
    np.testing.assert_allclose(fine[:, 4::5], coarse)


def test_each_extra_does_what_it_says() -> None:
    def curves(**extra: float) -> np.ndarray:
        config = CurvePriorConfig(log_noise_mean=-30.0, log_noise_std=0.0, **extra)
        return sample_curves(400, 60, config, generator(9, "extra"))

    plain = curves()
    assert (np.diff(curves(running_best=1.0), axis=1) >= 0).all()
    assert curves(schedule=1.0)[:, -1].mean() > plain[:, -1].mean() + 0.03
    assert curves(decline=1.0)[:, -1].mean() < plain[:, -1].mean() - 0.03
    delayed = curves(delay=1.0)
    assert (np.abs(np.diff(delayed[:, :2], axis=1)) < 1e-9).mean() > 0.7
    stepped = curves(steps=1.0)
    assert np.mean([len(np.unique(row)) for row in stepped]) < np.mean([len(np.unique(row)) for row in plain])


def test_a_foolish_prior_is_refused() -> None:
    with pytest.raises(ConfigError, match="probability 'decline'"):
        CurvePriorConfig(decline=1.5)
    with pytest.raises(ConfigError, match="'log_noise_std'"):
        CurvePriorConfig(log_noise_std=-1.0)
