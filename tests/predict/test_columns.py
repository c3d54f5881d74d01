"""Columns on one scale, and rows that are unlike what is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from nasgraph.predict.columns import MAX_KNOWN, ColumnScale, Familiarity

Array = np.ndarray


def pool(count: int = 60, *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 5))


# ---- scales


def test_columns_of_the_pool_have_mean_zero_and_variance_one() -> None:
    x = np.exp(3 * pool())
    scaled = ColumnScale.of(x)(x)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), 1)


@given(st.lists(st.floats(allow_nan=False), min_size=3, max_size=20, unique=True))
def test_the_order_of_values_is_kept(values: list[float]) -> None:
    x = np.array(values)[:, None]
    scaled = ColumnScale.of(x)(x)[:, 0]
    assert (np.diff(scaled[np.argsort(x[:, 0])]) > 0).all()


def test_neither_units_nor_bends_matter() -> None:
    x = pool()
    np.testing.assert_allclose(ColumnScale.of(x)(x), ColumnScale.of(np.exp(x) * 1e6)(np.exp(x) * 1e6))


def test_new_values_lie_between_their_neighbours_and_never_beyond_the_ends() -> None:
    scale = ColumnScale.of(np.arange(10.0)[:, None])
    found = scale(np.array([3.0, 3.5, 4.0, 9.0, 1e9, -5.0, 0.0])[:, None])[:, 0]
    assert found[0] < found[1] < found[2]
    assert found[3] == found[4]
    assert found[5] == found[6]


def test_constant_columns_are_dropped_and_so_are_those_in_the_order_of_an_earlier_one() -> None:
    x = pool()
    x[:, 1] = 7
    x[:, 3] = np.exp(x[:, 0])  # another unit, the same order
    x[:, 4] = -x[:, 0]  # the opposite order is another one
    assert ColumnScale.of(x).kept == (0, 2, 4)
    missing = np.full((20, 2), np.nan)
    missing[:, 1] = -np.inf
    assert ColumnScale.of(missing).kept == ()


def test_blocks_lie_where_their_columns_went() -> None:
    x = np.column_stack([pool(), pool(seed=1)])
    x[:, 1] = 7
    x[:, 2] = x[:, 0] * 3
    x[:, 5:7] = 1.5
    x[:, 8] = x[:, 0]  # in another block: kept
    scale = ColumnScale.of(x, ((0, 3), (3, 5), (5, 7), (7, 10)))
    assert scale.kept == (0, 3, 4, 7, 8, 9)
    assert scale.blocks == ((0, 1), (1, 3), (3, 3), (3, 6))
    assert scale(x).shape == (60, 6)


def test_missing_values_stand_at_the_bottom_and_infinities_at_the_ends() -> None:
    x = pool(20)[:, :1]
    x[0], x[1], x[2] = np.nan, -np.inf, np.inf
    scaled = ColumnScale.of(x)(x)[:, 0]
    assert np.isfinite(scaled).all()
    assert scaled[0] == scaled[1] == scaled.min()
    assert scaled[2] == scaled.max()
    assert (scaled == scaled.max()).sum() == 1
    assert np.isfinite(ColumnScale.of(pool())(np.full((1, 5), np.nan))).all()


def test_a_scale_without_columns_gives_rows_without_columns() -> None:
    scale = ColumnScale.of(np.ones((9, 3)), ((0, 2), (2, 3)))
    assert scale.kept == ()
    assert scale.blocks == ((0, 0), (0, 0))
    assert scale(pool(4)[:, :3]).shape == (4, 0)


def test_rows_are_scaled_one_by_one() -> None:
    scale, other = ColumnScale.of(pool()), pool(7, seed=2)
    np.testing.assert_array_equal(scale(other), np.concatenate([scale(other[[i]]) for i in range(7)]))
    assert scale(other[:0]).shape == (0, 5)


# ---- familiarity


@pytest.mark.parametrize("count", [300, MAX_KNOWN + 500])
def test_about_one_in_a_hundred_rows_of_the_same_kind_is_far(count: int) -> None:
    familiarity = Familiarity.of(pool(count))
    assert 0.003 <= (familiarity.distance(pool(4000, seed=1)) > 1).mean() <= 0.03


def test_known_rows_are_at_distance_zero() -> None:
    x = 1e3 + pool(50)
    np.testing.assert_array_equal(Familiarity.of(x).distance(x), 0)


def test_the_distance_is_that_of_scipy_in_units_of_the_99th_percentile() -> None:
    x, other = pool(40) * [1, 10, 100, 1, 1], pool(10, seed=3)
    known, asked = (x - x.mean(0)) / x.std(0), (other - x.mean(0)) / x.std(0)
    among = cdist(known, known) + np.diag(np.full(40, np.inf))
    expected = cdist(asked, known).min(axis=1) / np.quantile(among.min(axis=1), 0.99)
    np.testing.assert_allclose(Familiarity.of(x).distance(other), expected)


def test_a_shifted_row_is_far_and_the_columns_are_named_the_farthest_first() -> None:
    familiarity = Familiarity.of(pool(200))
    row = pool(1, seed=4).clip(-1, 1)
    shifted = row + np.array([0, 20, 0, -50, 0])
    assert familiarity.distance(shifted)[0] > 1 > familiarity.distance(row)[0]
    assert familiarity.outside(np.concatenate([row, shifted])) == [[], [3, 1]]


def test_a_column_that_never_varied_counts_once_it_does() -> None:
    x = pool(100)
    x[:, 2] = 0.1  # a mean of these is not exactly 0.1
    familiarity = Familiarity.of(x)
    row = x[[0]].copy()
    row[0, 2] += 1e-15  # rounding is no difference
    assert familiarity.distance(row)[0] < 0.01
    assert familiarity.outside(row) == [[]]
    row[0, 2] = 9
    assert familiarity.distance(row)[0] > 1
    assert familiarity.outside(row) == [[2]]


def test_rows_that_are_all_alike_make_every_other_row_far() -> None:
    x = np.full((10, 3), 0.1)
    familiarity = Familiarity.of(x)
    np.testing.assert_array_equal(familiarity.distance(x), 0)
    assert familiarity.distance(x + 0.5).min() > 1


def test_missing_values_do_not_spread() -> None:
    x = pool(50)
    x[3, 1] = np.nan
    familiarity = Familiarity.of(x)
    assert np.isfinite(familiarity.distance(np.array([[0, np.nan, np.inf, 0, 0]]))).all()
