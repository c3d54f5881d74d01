"""Searching with a combination of scores."""

import math
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from nasgraph.errors import CandidateError
from nasgraph.predict import robot_search
from nasgraph.predict.robot import _Combiner, _Explorer, _Record, normalised_scores
from nasgraph.seeding import generator

Scores = NDArray[np.float64]
MODES = pytest.mark.parametrize("explore", [None, 0.5, 1.0])


def zero(row: int) -> float:
    return 0.0


def problem(seed: int, *, rows: int = 200, noise: float = 0.3) -> tuple[Scores, Scores]:
    """Five scores, and a truth that is a hidden combination of the first two with noise."""
    rng = generator(seed, "problem")
    scores = rng.normal(size=(rows, 5))
    return scores, scores[:, 0] - 0.5 * scores[:, 1] + noise * rng.normal(size=rows)


@MODES
def test_every_query_goes_to_another_row(explore: float | None) -> None:
    scores, truth = problem(0)
    asked: list[int] = []

    def query(row: int) -> float:
        asked.append(row)
        return float(truth[row])

    result = robot_search(scores, query, num_queries=20, seed=0, explore=explore)
    assert tuple(asked) == result.queried
    assert len(set(asked)) == 20
    assert result.values == tuple(truth[list(result.queried)])
    assert result.best_value == max(result.values)
    assert result.best_so_far[-1] == result.best_value
    assert 1 <= result.num_explored <= 20


@pytest.mark.parametrize(("explore", "normalise"), [(None, "rank"), (0.5, "minmax"), (1.0, "none")])
def test_equal_arguments_give_equal_results(explore: float | None, normalise: str) -> None:
    scores, truth = problem(1)
    first, again = (
        robot_search(
            scores,
            truth.item,
            num_queries=12,
            seed=5,
            normalise=normalise,  # type: ignore[arg-type]  # parametrised
            explore=explore,
        )
        for _ in range(2)
    )
    assert first == again


def test_it_beats_random_queries_where_scores_tell_something() -> None:
    found, at_random = [], []
    for seed in range(5):
        scores, truth = problem(seed)
        found.append(robot_search(scores, truth.item, num_queries=20, seed=seed).best_value)
        at_random.append(truth[generator(seed, "random").permutation(len(truth))[:20]].max())
    assert np.mean(found) > np.mean(at_random) + 0.3


def test_a_misleading_score_gets_a_negative_weight() -> None:
    rng = generator(0, "misleading")
    truth = rng.normal(size=300)
    scores = np.column_stack([-truth, rng.normal(size=300)])
    result = robot_search(scores, truth.item, num_queries=20, seed=0, normalise="rank")
    assert result.weights[0] < 0
    assert result.best_row == int(truth.argmax())
    unsigned = robot_search(scores, truth.item, num_queries=20, seed=0, signed=False)
    assert min(unsigned.weights) >= 0


def test_one_perfect_score_among_useless_ones_finds_the_best_row() -> None:
    rng = generator(1, "perfect")
    truth = rng.normal(size=500)
    scores = np.column_stack([rng.normal(size=(500, 4)), truth**3])
    result = robot_search(scores, truth.item, num_queries=10, seed=0)
    assert result.best_row == int(truth.argmax())


def test_the_budget_never_exceeds_the_rows() -> None:
    scores, truth = problem(2, rows=6)
    result = robot_search(scores, truth.item, num_queries=50, seed=0)
    assert sorted(result.queried) == list(range(6))
    assert result.best_row == int(truth.argmax())


@MODES
def test_failed_queries_cost_a_query_and_are_told(explore: float | None) -> None:
    scores, truth = problem(3)

    def query(row: int) -> float:
        if row % 3 == 0:
            raise CandidateError("out of memory")
        return math.nan if row % 3 == 1 else float(truth[row])

    result = robot_search(scores, query, num_queries=15, seed=0, explore=explore)
    assert len(result.queried) == 15
    assert result.best_row % 3 == 2
    assert dict(result.reasons).keys() == {row for row in result.queried if row % 3 != 2}
    assert {text for row, text in result.reasons if row % 3 == 0} <= {"out of memory"}
    assert all(
        math.isnan(value) == (row % 3 != 2) for row, value in zip(result.queried, result.values, strict=True)
    )
    assert not any(math.isnan(value) for value in result.best_so_far)


def test_if_every_query_fails_the_first_reason_is_told() -> None:
    def query(row: int) -> float:
        raise CandidateError("no device")

    with pytest.raises(CandidateError, match=r"All 5 queries failed.*no device"):
        robot_search(problem(4)[0], query, num_queries=5, seed=0)


def test_other_errors_of_a_query_are_not_swallowed() -> None:
    def query(row: int) -> float:
        raise KeyError(row)

    with pytest.raises(KeyError):
        robot_search(problem(4)[0], query, num_queries=5, seed=0)


def test_missing_scores_stand_at_the_bottom_under_either_sign() -> None:
    scores = problem(5, rows=50)[0]
    scores[7] = np.nan
    scores[8] = -np.inf
    combine = _Combiner.of(scores, "minmax")
    weights = generator(0, "weights").normal(size=(100, 5))
    combined = combine(weights).T
    assert (combined[7] <= combined.min(axis=0) + 1e-12).all()
    assert (combined[8] == combined[7]).all()


def test_without_missing_scores_combining_is_a_product_of_matrices() -> None:
    scores, weights = problem(6)[0], generator(1, "weights").normal(size=(20, 5))
    np.testing.assert_allclose(_Combiner.of(scores, "none")(weights), weights @ scores.T)


def test_directions_with_one_top_row_form_a_cone() -> None:
    scores = problem(7)[0]
    combine = _Combiner.of(scores, "minmax")
    weights = generator(2, "weights").normal(size=(300, 5))
    tops = combine.tops(weights)
    for one, other in combinations(range(60), 2):
        if tops[one] == tops[other]:
            assert combine.tops((weights[one] + weights[other])[None]) == [tops[one]]


def test_exploration_passes_over_directions_whose_top_is_known() -> None:
    scores, truth = problem(8)
    result = robot_search(scores, truth.item, num_queries=20, seed=0, explore=0.5)
    assert result.num_explored == 10
    tops = _Combiner.of(scores, "minmax").tops(np.eye(5))
    assert set(result.queried[:5]) == set(tops)  # the single proxies come first


def test_exploration_ends_when_no_direction_shows_a_new_row() -> None:
    scores = np.array([[0.0], [1.0], [0.5]])  # one score: only its two ends can be on top
    record = _Record(float)
    explorer = _Explorer(_Combiner.of(scores, "none"), record, generator(0, "x"), signed=True)
    explorer.seek(3)
    assert sorted(record.values) == [0, 1]


def test_minmax_and_rank_keep_the_order_of_every_column() -> None:
    scores = problem(9)[0] ** 3
    for how in ("minmax", "rank"):
        x = normalised_scores(scores, how)
        assert (np.argsort(x, axis=0) == np.argsort(scores, axis=0)).all()
        assert x.min() >= 0
        assert x.max() <= 1


def test_the_best_of_the_top_has_the_expected_rank_that_the_docstring_states() -> None:
    rng, T, k = generator(0, "theorem"), 20, 4
    best = [rng.permutation(T)[:k].min() + 1 for _ in range(5_000)]
    assert np.mean(best) == pytest.approx((T + 1) / (k + 1), rel=0.05)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((3, 0)), np.full((3, 2), np.nan)])
def test_scores_without_anything_to_go_by_are_refused(bad: Scores) -> None:
    with pytest.raises(ValueError, match="Expected"):
        robot_search(bad, zero, num_queries=3, seed=0)


@pytest.mark.parametrize(("field", "value"), [("num_queries", 0), ("explore", 0.0), ("explore", 1.5)])
def test_settings_out_of_bounds_are_refused(field: str, value: object) -> None:
    settings = {"num_queries": 3, "seed": 0, field: value}
    with pytest.raises(ValueError, match=field):
        robot_search(problem(0)[0], zero, **settings)  # type: ignore[arg-type]  # the point


def test_constant_scores_and_values_still_give_a_result() -> None:
    result = robot_search(np.ones((30, 3)), zero, num_queries=8, seed=0)
    assert result.queried == tuple(range(8))
    assert result.best_row == 0
