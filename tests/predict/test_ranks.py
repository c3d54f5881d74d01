"""Ranks and normal scores."""

import numpy as np
import pytest
import torch
from scipy.stats import norm, spearmanr

from nasgraph.predict import NormalScores, Prediction, mean_of_ranks, scaled_ranks

INF, NAN = float("inf"), float("nan")


def test_ranks_lie_between_zero_and_one_and_ties_share_theirs() -> None:
    assert scaled_ranks([5.0, 1.0, 5.0, 9.0]).tolist() == [0.5, 0.125, 0.5, 0.875]


def test_failures_rank_last() -> None:
    assert scaled_ranks([NAN, -5.0, -INF, 1.0]).tolist() == [0.25, 0.625, 0.25, 0.875]


def test_the_mean_of_ranks_depends_on_the_order_of_each_score_only() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 20))
    plain, bent = mean_of_ranks([first, second]), mean_of_ranks([np.exp(3 * first), 1e6 * second - 4])
    assert torch.equal(plain.mean, bent.mean)
    expected = (np.argsort(np.argsort(first)) + np.argsort(np.argsort(second)) + 1) / 40
    np.testing.assert_allclose(plain.mean, expected)


def test_the_spread_is_the_disagreement_between_the_scores() -> None:
    score = [3.0, 1.0, 2.0]
    agreed, opposed = mean_of_ranks([score, score]), mean_of_ranks([score, [-x for x in score]])
    assert agreed.std is not None
    assert opposed.std is not None
    assert agreed.std.tolist() == [0, 0, 0]
    assert opposed.std.tolist() == pytest.approx([1 / 3, 1 / 3, 0])
    assert opposed.mean.tolist() == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.parametrize("scores", [[], [[1.0, 2.0], [1.0]]])
def test_scores_of_different_length_are_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="one number per graph"):
        mean_of_ranks(scores)


@pytest.mark.parametrize("seed", range(5))
def test_normal_scores_of_distinct_values_are_standard_normal_quantiles(seed: int) -> None:
    values = np.random.default_rng(seed).standard_cauchy(50)
    scores = NormalScores.of(values)(values)
    np.testing.assert_allclose(np.sort(scores), norm.ppf((np.arange(50) + 0.5) / 50))
    assert spearmanr(scores, values).statistic == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_the_inverse_gives_the_values_back_and_keeps_every_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_cauchy(30), 1)  # some tie
    scale = NormalScores.of(values)
    np.testing.assert_allclose(scale.inverse(scale(values)), values)
    points = np.sort(rng.uniform(-6, 6, 100))
    assert (np.diff(scale.inverse(points)) > 0).all()


def test_new_values_fall_between_their_neighbours_and_stop_at_the_ends() -> None:
    scale = NormalScores.of(np.array([1.0, 2.0, 4.0]))
    low, middle, high = scale(np.array([1.0, 2.0, 4.0]))
    assert scale(np.array([-9.0, 3.0, 99.0])).tolist() == [low, pytest.approx((middle + high) / 2), high]


def test_failures_are_known_as_the_lowest_value() -> None:
    scale = NormalScores.of(np.array([NAN, -INF, 0.0, 1.0]))
    found = scale(np.array([NAN, -INF, 0.0, 1.0]))
    assert found[0] == found[1] < found[2] < found[3]


def test_a_failure_among_values_without_any_gets_the_place_of_the_lowest() -> None:
    scale = NormalScores.of(np.array([0.0, 1.0, 2.0]))
    assert scale(np.array([-INF, NAN])).tolist() == [scale(np.array([0.0]))[0]] * 2


def test_a_column_that_never_changes_says_nothing() -> None:
    for constant in (3.0, -INF):
        assert NormalScores.of(np.full(4, constant))(np.full(2, constant)).tolist() == [0, 0]


def test_a_spread_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one 'std' per 'mean' \(got \(2,\) and \(3,\)\)"):
        Prediction(torch.zeros(3), torch.zeros(2))
