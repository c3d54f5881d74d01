"""Measures of rankings, on rankings made by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from nasgraph.retrieve.measures import average_precision, ndcg, recall, reciprocal_rank

RANKED = [[0, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]


def test_reciprocal_ranks_by_hand() -> None:
    assert reciprocal_rank(RANKED, k=5).tolist() == [1 / 2, 1, 0, 0]
    assert reciprocal_rank(RANKED, k=6).tolist() == [1 / 2, 1, 1 / 6, 0]


def test_recall_by_hand() -> None:
    assert recall(RANKED, k=2).tolist() == [1 / 2, 1, 0, 0]
    assert recall(RANKED, k=4).tolist() == [1, 1, 0, 0]


def test_average_precision_by_hand() -> None:
    assert average_precision(RANKED, k=6).tolist() == [(1 / 2 + 2 / 4) / 2, 1, 1 / 6, 0]
    # of four relevant items only two can be among the first two: a perfect ranking has 1
    assert average_precision([[1, 1, 1, 1]], k=2).tolist() == [1]


def test_ndcg_by_hand() -> None:
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    np.testing.assert_allclose(ndcg([[1, 2, 3, 0]], k=3), [(1 + 2 / np.log2(3) + 3 / 2) / ideal])
    np.testing.assert_allclose(ndcg([[3, 2, 1, 0], [0, 0, 0, 0]], k=3), [1, 0])
    exponential = (1 + 3 / np.log2(3) + 7 / 2) / (7 + 3 / np.log2(3) + 1 / 2)
    np.testing.assert_allclose(ndcg([[1, 2, 3, 0]], k=3, gain="exponential"), [exponential])


@pytest.mark.parametrize("seed", range(10))
def test_scikit_learn_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, (1, 30))
    grades[0, :2] = 1, 0
    scores = -np.arange(30.0)[None]
    np.testing.assert_allclose(ndcg(grades, k=10), ndcg_score(grades, scores, k=10))
    np.testing.assert_allclose(
        average_precision(grades, k=30), average_precision_score(grades[0] > 0, scores[0])
    )


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="grades of at least 0"):
        recall([[-1, 0]], k=1)
    with pytest.raises(ValueError, match="'k' of at least 1"):
        reciprocal_rank([[1, 0]], k=0)
