"""Rank agreement from what was seen."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from nasgraph.search.reliability import Agreement, agreement_from_json, pooled, rank_agreement
from nasgraph.seeding import generator

Array = np.ndarray


def pair(rng: np.random.Generator, size: int, rho: float) -> tuple[Array, Array]:
    """Two normal scores whose Kendall's tau is 2 / pi asin(rho) (Greiner 1909)."""
    first = rng.normal(size=size)
    return first, rho * first + math.sqrt(1 - rho**2) * rng.normal(size=size)


@pytest.mark.parametrize("size", [4, 5, 17, 60])
@pytest.mark.parametrize("levels", [3, 10, 10**6])
def test_without_weights_it_is_the_tau_of_scipy(size: int, levels: int) -> None:
    rng = generator(0, "tau", size, levels)
    # At least three different values in each, below which no interval can be said.
    first, second = (
        rng.permutation(np.concatenate([np.arange(3), rng.integers(levels, size=size - 3)])) for _ in range(2)
    )
    found = rank_agreement(first.tolist(), second.tolist())
    assert found.tau == pytest.approx(kendalltau(first, second).statistic)
    assert -1 <= found.low <= found.tau <= found.high <= 1
    assert found.num_seen == size
    assert found.num_effective == pytest.approx(size)


@pytest.mark.parametrize(("rho", "size"), [(0.0, 12), (0.5, 20), (0.8, 40)])
def test_the_interval_holds_the_truth_as_often_as_it_says(rho: float, size: int) -> None:
    truth, rng = 2 / math.pi * math.asin(rho), generator(1, "coverage", size)
    held = 0
    for _ in range(400):
        found = rank_agreement(*pair(rng, size, rho), level=0.9)
        held += found.low <= truth <= found.high
    assert 0.86 <= held / 400 <= 0.96


def test_a_weight_counts_as_so_many_equal_candidates() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    weights = [1, 2, 1, 3, 1]
    found = rank_agreement(first, second, weights=[float(weight) for weight in weights])
    numerator = denominator = 0.0
    for i in range(5):
        for j in range(i):
            weight = weights[i] * weights[j]
            numerator += weight * np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
            denominator += weight
    assert found.tau == pytest.approx(numerator / denominator)
    assert found.num_effective == pytest.approx(64 / 16)


def test_a_few_random_ones_undo_the_bias_of_choosing_by_the_score() -> None:
    rng, truth = generator(2, "bias"), 2 / math.pi * math.asin(0.7)
    naive, corrected, held = [], [], 0
    for _ in range(300):
        score, result = pair(rng, 150, 0.7)
        best = np.argsort(-score)[:15]
        lucky = np.setdiff1d(rng.permutation(150)[:15], best)
        seen = np.concatenate([best, lucky])
        weights = np.concatenate([np.ones(len(best)), np.full(len(lucky), 150 / 15)])
        naive.append(rank_agreement(score[best], result[best]).tau)
        found = rank_agreement(score[seen], result[seen], weights=weights)
        corrected.append(found.tau)
        held += found.low <= truth <= found.high
    assert np.mean(naive) < truth - 0.15
    assert np.mean(corrected) == pytest.approx(truth, abs=0.03)
    assert held / 300 >= 0.82


def test_pairs_are_made_within_groups_only() -> None:
    first, second = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0], [3.0, 2.0, 1.0, 13.0, 12.0, 11.0]
    assert rank_agreement(first, second).tau > 0
    assert rank_agreement(first, second, groups=[0, 0, 0, 1, 1, 1]).tau == -1


def test_what_could_not_be_scored_stands_below_all_others() -> None:
    result = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert rank_agreement([math.nan, 1, 2, 3, 4], result).tau == 1
    assert rank_agreement([math.nan, -math.inf, 2, 3, 4], result).tau == pytest.approx(
        kendalltau([0, 0, 2, 3, 4], result).statistic
    )


@pytest.mark.parametrize(
    ("first", "second"), [([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), ([1.0] * 6, [1.0, 2, 3, 4, 5, 6]), ([], [])]
)
def test_with_too_little_nothing_is_said(first: list[float], second: list[float]) -> None:
    found = rank_agreement(first, second)
    assert not found.is_known
    assert (found.low, found.high) == (-1, 1)
    assert not math.isnan(agreement_from_json(found.to_json()).high)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one value of everything"):
        rank_agreement([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="weights above 0"):
        rank_agreement([1.0] * 4, [1.0] * 4, weights=[1.0, 0.0, 1.0, 1.0])


def test_an_agreement_is_written_and_read_back() -> None:
    found = rank_agreement(*pair(generator(3, "json"), 12, 0.5), level=0.8)
    again = agreement_from_json(found.to_json())
    assert again.tau == pytest.approx(found.tau, abs=1e-6)
    assert (again.num_seen, again.level) == (12, 0.8)


def test_rounds_are_pooled_by_what_they_rest_on() -> None:
    unknown = Agreement(math.nan, -1, 1, 0.9, 2, 2.0)
    mean = pooled([Agreement(0.2, 0.0, 0.4, 0.9, 10, 10.0), unknown, Agreement(0.5, 0.3, 0.7, 0.9, 20, 20.0)])
    assert mean.tau == pytest.approx(0.4)
    assert mean.high - mean.tau == pytest.approx(math.hypot(0.2 / 3, 0.2 * 2 / 3))
    assert mean.num_seen == 32
    assert not pooled([unknown]).is_known
    assert not pooled([]).is_known
