"""Scaling laws: known parameters come back, intervals cover, and pitfalls are refused."""

import logging

import numpy as np
import pytest

from nasgraph.predict.curves import ScalingConfig, ScalingError, fit_scaling_law, what_if_larger
from nasgraph.seeding import generator

QUICK = ScalingConfig(num_resamples=40, starts_kept=1)


def power_law(count: int, *, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.geomspace(1e6, 1e8, count)
    rng = generator(seed, "law")
    return sizes, (1.7 + 400 / sizes**0.34) * np.exp(noise * rng.normal(size=count))


def chinchilla(count: int, *, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The law of Hoffmann et al. 2022 with their published parameters."""
    rng = generator(seed, "chinchilla")
    n, d = (
        np.exp(rng.uniform(np.log(5e7), np.log(1e10), count)),
        np.exp(rng.uniform(np.log(1e9), np.log(3e11), count)),
    )
    return n, d, (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28) * np.exp(noise * rng.normal(size=count))


def test_a_power_law_without_noise_is_recovered_exactly() -> None:
    sizes, losses = power_law(10, noise=0.0, seed=0)
    law = fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK)
    assert law.floor == pytest.approx(1.7, rel=1e-3)
    assert law.exponents[0] == pytest.approx(0.34, rel=1e-3)
    assert law.factors[0] == pytest.approx(400, rel=1e-2)
    assert law.loss({"parameters": 1e9}) == pytest.approx(1.7 + 400 / 1e9**0.34, rel=1e-4)


def test_the_law_of_parameters_and_tokens_is_recovered() -> None:
    n, d, losses = chinchilla(60, noise=0.0, seed=1)
    law = fit_scaling_law(losses.tolist(), {"parameters": n.tolist(), "tokens": d.tolist()}, QUICK)
    assert law.floor == pytest.approx(1.69, abs=0.01)
    assert law.exponents == pytest.approx((0.34, 0.28), abs=0.005)
    assert law.loss({"parameters": 7e10, "tokens": 1.4e12}) == pytest.approx(
        1.69 + 406.4 / 7e10**0.34 + 410.7 / 1.4e12**0.28, rel=1e-3
    )


def test_one_wild_point_does_not_move_the_law() -> None:
    sizes, losses = power_law(12, noise=0.002, seed=2)
    clean = fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK)
    losses[4] *= 1.5
    wild = fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK)
    assert wild.loss({"parameters": 2e8}) == pytest.approx(clean.loss({"parameters": 2e8}), rel=0.01)


def test_intervals_cover_in_simulation() -> None:
    """40 simulated studies, extrapolated by half their range; 90 % intervals. Binomial: 40 draws rarely have fewer than 31."""
    inside = []
    for seed in range(40):
        sizes, losses = power_law(12, noise=0.01, seed=seed)
        said = what_if_larger(
            losses.tolist(), {"parameters": sizes.tolist()}, {"parameters": 1e9}, config=QUICK
        )
        truth = (1.7 + 400 / 1e9**0.34) * np.exp(0.01 * generator(seed, "new model").normal())
        inside.append(said.low <= truth <= said.high)
    assert sum(inside) >= 31


def test_the_law_itself_is_surer_than_one_more_model_and_both_less_sure_far_away() -> None:
    sizes, losses = power_law(14, noise=0.01, seed=3)
    law = fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK)
    near, far = {"parameters": 1e8}, {"parameters": 1e12}
    average, model = law.predict(near, of="average"), law.predict(near)
    assert model.low <= average.low <= average.mean <= average.high <= model.high
    assert np.log(law.predict(far).high / law.predict(far).low) > np.log(model.high / model.low)


def test_distance_is_told_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    sizes, losses = power_law(10, noise=0.0, seed=4)
    law = fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK)
    with caplog.at_level(logging.WARNING):
        assert law.predict({"parameters": 5e7}).distance == 0
        assert law.predict({"parameters": 1e9}).distance == pytest.approx(0.5)
        assert not caplog.records
        assert law.predict({"parameters": 1e12}).distance == pytest.approx(2)
    assert "2.0 times the measured range" in caplog.text


def test_a_law_that_bends_is_punished_by_its_record() -> None:
    sizes = np.geomspace(1e5, 1e9, 24)
    bent = 1.0 + 60 / sizes**0.3 + 0.3 / (1 + (1e8 / sizes) ** 3)
    law = fit_scaling_law(bent.tolist(), {"parameters": sizes.tolist()}, QUICK)
    assert law.widening > 2


def test_equal_calls_give_equal_laws() -> None:
    sizes, losses = power_law(10, noise=0.01, seed=5)
    first, again = (fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK) for _ in range(2))
    assert first.exponents == again.exponents
    assert (first.resampled == again.resampled).all()


def test_data_that_determine_no_law_are_refused() -> None:
    sizes, losses = power_law(10, noise=0.0, seed=6)
    x, y = sizes.tolist(), losses.tolist()
    with pytest.raises(ScalingError, match="at least 5 points to fit 3 parameters"):
        fit_scaling_law(y[:4], {"parameters": x[:4]})
    with pytest.raises(ScalingError, match="three different values of 'parameters'"):
        fit_scaling_law(y, {"parameters": [1e6] * 10})
    with pytest.raises(ScalingError, match=r"three different values of 'tokens'.*leave it out"):
        fit_scaling_law(y, {"parameters": x, "tokens": [1e9] * 10})
    with pytest.raises(ScalingError, match="vary in proportion"):
        fit_scaling_law(y, {"parameters": x, "tokens": [20 * value for value in x]})
    with pytest.raises(ScalingError, match=r"fall with 'parameters'.*1 - accuracy"):
        fit_scaling_law([0.5 + 0.01 * i for i in range(10)], {"parameters": x})
    with pytest.raises(ScalingError, match="finite values of 'losses' above 0"):
        fit_scaling_law([*y[:-1], float("nan")], {"parameters": x})
    with pytest.raises(ScalingError, match="one value of 'parameters' per loss"):
        fit_scaling_law(y, {"parameters": x[:-1]})
    with pytest.raises(ScalingError, match="at least one size"):
        fit_scaling_law(y, {})


def test_questions_that_a_law_cannot_answer_are_refused() -> None:
    sizes, losses = power_law(8, noise=0.0, seed=7)
    law = fit_scaling_law(losses.tolist(), {"parameters": sizes.tolist()}, QUICK)
    for question in ({}, {"tokens": 1e9}, {"parameters": 1e9, "tokens": 1e9}):
        with pytest.raises(ScalingError, match="Expected the sizes parameters"):
            law.predict(question)
    with pytest.raises(ScalingError, match="finite sizes above 0"):
        law.predict({"parameters": -1.0})
    with pytest.raises(ScalingError, match="coverage between 0 and 1"):
        law.predict({"parameters": 1e9}, coverage=1.0)
