"""Scales and partial curves: what is read, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.predict.curves import (
    ACCURACY,
    PERCENT,
    CurveError,
    CurveScale,
    PartialCurve,
    loss_scale,
    scale_for,
)


@given(st.floats(-50, 50), st.floats(-50, 50), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_scale_and_its_inverse_cancel(worst: float, best: float, shares: list[float]) -> None:
    if abs(worst - best) < 1e-3:
        return
    scale = CurveScale(worst=worst, best=best)
    values = scale.restored(np.array(shares))
    np.testing.assert_allclose(scale.normalised(values), shares, atol=1e-6)


def test_percent_and_share_are_the_same_curve() -> None:
    np.testing.assert_allclose(PERCENT.normalised([10.0, 93.5]), ACCURACY.normalised([0.1, 0.935]))


def test_a_falling_loss_becomes_a_rising_height() -> None:
    scale = loss_scale(math.log(10))
    heights = scale.normalised([math.log(10), 1.0, 0.1, 0.0])
    assert (np.diff(heights) > 0).all()
    assert heights[0] == 0
    assert heights[-1] == 1


def test_a_loss_above_knowing_nothing_counts_as_knowing_nothing() -> None:
    assert loss_scale(2.3).normalised([7.0]) == [0.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(value: float) -> None:
    with pytest.raises(CurveError, match=r"finite values in the curve \(got .* at position 2\)"):
        PartialCurve((0.1, 0.2, value), horizon=10)


@pytest.mark.parametrize("value", [1.2, -0.1, 93.0])
def test_a_value_outside_the_range_is_refused_with_the_remedy(value: float) -> None:
    with pytest.raises(CurveError, match=r"between 0 and 1.*CurveScale\(worst=..., best=...\)"):
        PartialCurve((0.1, value), horizon=10)


def test_a_loss_below_its_bound_is_refused() -> None:
    with pytest.raises(CurveError, match="between 1 and 5"):
        PartialCurve((4.0, 0.5), horizon=10, scale=loss_scale(5.0, best=1.0))


def test_bounds_must_differ_and_run_the_stated_way() -> None:
    with pytest.raises(CurveError, match="two different finite bounds"):
        CurveScale(worst=1.0, best=1.0)
    with pytest.raises(CurveError, match="Expected 'worst' of a loss above 'best'"):
        loss_scale(0.0, best=2.0)
    with pytest.raises(CurveError, match="Expected 'best' below 'worst' to minimize"):
        scale_for("minimize", worst=0.0, best=1.0)
    with pytest.raises(CurveError, match="'maximize' or 'minimize' \\(got 'sideways'\\)"):
        scale_for("sideways", worst=0.0, best=1.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((1.0,), "one step per value"),
        ((2.0, 1.0), "steps above 0 that rise"),
        ((0.0, 1.0), "steps above 0 that rise"),
        ((1.0, 11.0), "at most the horizon 10"),
    ],
)
def test_steps_must_rise_within_the_horizon(steps: tuple[float, ...], message: str) -> None:
    with pytest.raises(CurveError, match=message):
        PartialCurve((0.1, 0.2), horizon=10, steps=steps)


def test_an_empty_curve_and_a_foolish_horizon_are_refused() -> None:
    with pytest.raises(CurveError, match="at least one value"):
        PartialCurve((), horizon=10)
    with pytest.raises(CurveError, match="'horizon' above 0"):
        PartialCurve((0.1,), horizon=math.nan)


def test_a_prediction_of_the_past_or_beyond_the_horizon_is_refused() -> None:
    curve = PartialCurve((0.1, 0.2), horizon=4)
    assert curve.target_time(None) == 1.0
    assert curve.target_time(3) == 0.75
    for step in (2, 5):
        with pytest.raises(CurveError, match="a step above 2"):
            curve.target_time(step)
