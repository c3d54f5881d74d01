"""Plain extrapolations: exact where an exact answer is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from nasgraph.errors import UnknownNameError
from nasgraph.predict.curves import (
    PAPER_PRIOR,
    CurvePosterior,
    CurvePredictor,
    LastValue,
    LeastSquares,
    PartialCurve,
    SampledPrior,
    draw_curves,
    loss_scale,
)
from nasgraph.predict.curves.baselines import effective_draws, student_posterior, weighted_posterior
from nasgraph.seeding import generator

MAKERS: list[Callable[[], CurvePredictor]] = [
    LastValue,
    LeastSquares,
    lambda: LeastSquares("mmf"),
    lambda: SampledPrior(num_draws=3000),
]


@pytest.mark.parametrize("make", MAKERS, ids=["last", "pow3", "mmf", "sampled"])
def test_every_extrapolation_keeps_the_contract(make: Callable[[], CurvePredictor]) -> None:
    curves = [PartialCurve(tuple(0.8 - 0.5 / np.arange(1, n + 1)), horizon=30) for n in (1, 2, 6, 29)]
    for step in (None, 30):
        first, again = make().predict(curves, step=step), make().predict(curves, step=step)
        for one, other in zip(first, again, strict=True):
            assert (one.borders == other.borders).all()
            assert (one.probabilities == other.probabilities).all()
            assert 0 <= one.borders[0] < one.mean < one.borders[-1] <= 1
    assert first[-1].mean == pytest.approx(0.8 - 0.5 / 30, abs=0.03)
    assert first[-1].std < first[0].std


@pytest.mark.parametrize("make", MAKERS, ids=["last", "pow3", "mmf", "sampled"])
def test_a_loss_is_the_mirror_of_its_height(make: Callable[[], CurvePredictor]) -> None:
    heights = np.array([0.3, 0.5, 0.55, 0.6, 0.61, 0.63])
    (height,) = make().predict([PartialCurve(tuple(heights), horizon=20)])
    (loss,) = make().predict([PartialCurve(tuple(4 - 4 * heights), horizon=20, scale=loss_scale(4.0))])
    assert loss.mean == pytest.approx(4 - 4 * height.mean, abs=1e-6)
    assert loss.std == pytest.approx(4 * height.std, rel=1e-4)


@pytest.mark.parametrize(
    ("family", "truth"),
    [
        ("pow3", lambda x: 0.9 - 0.6 * x**-0.7),
        ("mmf", lambda x: 0.85 - (0.85 - 0.1) / (1 + 0.08 * x**1.3)),
    ],
)
def test_least_squares_recovers_its_own_family(
    family: str, truth: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = np.arange(1, 101)
    values = truth(x) + 0.003 * generator(0, family).normal(size=100)
    (posterior,) = LeastSquares(family).predict([PartialCurve(tuple(values[:40]), horizon=100)])
    low, high = posterior.interval(0.99)
    assert low < truth(np.array([100.0]))[0] < high
    assert posterior.mean == pytest.approx(truth(np.array([100.0]))[0], abs=0.03)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"No family of curves named 'pow9'\. Close: 'pow3'"):
        LeastSquares("pow9")


def test_a_cut_normal_is_that_of_scipy() -> None:
    posterior = student_posterior(0.6, 0.1, freedom=None)
    law = norm(0.6, 0.1)
    inside = law.cdf(1) - law.cdf(0)
    for share in (0.3, 0.55, 0.8):
        assert posterior.probability_below(share) == pytest.approx(
            (law.cdf(share) - law.cdf(0)) / inside, abs=1e-3
        )
    assert posterior.mean == pytest.approx(0.6, abs=1e-3)
    far = student_posterior(7.0, 0.01, freedom=3)
    assert far.mean == pytest.approx(1, abs=0.02)


def test_importance_sampling_agrees_with_the_conjugate_answer() -> None:
    """A constant curve with a normal prior and known noise: the posterior is normal, with textbook moments."""
    prior_mean, prior_std, noise = 0.5, 0.1, 0.05
    values = np.array([0.62, 0.55, 0.66, 0.6])
    constants = generator(0, "toy").normal(prior_mean, prior_std, 200_000)
    posterior = weighted_posterior(
        np.tile(constants[:, None], (1, len(values))),
        constants,
        values,
        noise_S=np.array([noise]),
        log_prior_S=np.zeros(1),
    )
    precision = 1 / prior_std**2 + len(values) / noise**2
    mean = (prior_mean / prior_std**2 + values.sum() / noise**2) / precision
    std = np.sqrt(1 / precision + noise**2)
    assert posterior.mean == pytest.approx(mean, abs=1e-3)
    assert posterior.std == pytest.approx(std, rel=0.01)
    for share in (0.05, 0.5, 0.95):
        assert posterior.quantile(share) == pytest.approx(norm(mean, std).ppf(share), abs=2e-3)


def test_unknown_noise_is_inferred() -> None:
    """With two possible sizes of the noise, Bayes' rule over both: checked against direct integration."""
    values, noises = np.array([0.4, 0.6, 0.35, 0.62]), np.array([0.02, 0.12])
    constants = generator(1, "toy").normal(0.5, 0.2, 200_000)
    posterior = weighted_posterior(
        np.tile(constants[:, None], (1, 4)), constants, values, noise_S=noises, log_prior_S=np.log([0.5, 0.5])
    )
    grid = np.linspace(-1, 2, 6001)
    joint = np.stack(
        [norm(0.5, 0.2).pdf(grid) * norm(values[:, None], s).pdf(grid).prod(axis=0) for s in noises]
    )
    joint /= joint.sum()
    expected = (joint.sum(axis=0) * grid).sum()
    above = sum(float(mass @ norm(grid, s).sf(0.6)) for mass, s in zip(joint, noises, strict=True))
    assert posterior.mean == pytest.approx(expected, abs=2e-3)
    assert posterior.probability_above(0.6) == pytest.approx(above, abs=5e-3)


def test_too_few_effective_draws_only_widen_the_answer() -> None:
    draws = draw_curves(400, PAPER_PRIOR, generator(2, "few"))
    x = np.arange(1, 31) / 30
    heights = draws.at(np.tile(x, (400, 1)))
    values = 0.3 + 0.4 * x**0.5

    def answer(min_effective: float) -> CurvePosterior:
        return weighted_posterior(
            heights[:, :20],
            heights[:, -1],
            values[:20],
            noise_S=np.array([0.003]),
            log_prior_S=np.zeros(1),
            min_effective=min_effective,
        )

    sharp, wide = answer(1.0), answer(30.0)
    assert wide.std > sharp.std
    likelihood = -((heights[:, :20] - values[:20]) ** 2).sum(axis=1, keepdims=True) / (2 * 0.003**2)
    assert effective_draws(np.zeros(1), likelihood, 1.0) < 30
    assert effective_draws(np.zeros(1), likelihood, 0.0) == pytest.approx(400)


def test_the_posterior_of_prior_curves_is_calibrated() -> None:
    """Curves of the prior itself: the true end lies below the posterior's q-quantile in a share q of the cases."""
    rng = generator(3, "calibration")
    model = SampledPrior(num_draws=20_000, min_effective=1.0, seed=9)
    draws = draw_curves(150, PAPER_PRIOR, rng)
    times = np.arange(1, 21) / 20
    noisy = draws.at(np.tile(times, (150, 1))) + np.exp(draws.log_noise)[:, None] * rng.normal(size=(150, 20))
    noisy = np.clip(noisy, 0, 1)
    said = model.predict([PartialCurve(tuple(row[:5]), horizon=20) for row in noisy])
    ranks = np.array(
        [posterior.probability_below(row[-1]) for posterior, row in zip(said, noisy, strict=True)]
    )
    for share in (0.1, 0.5, 0.9):
        assert (ranks < share).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 150))
