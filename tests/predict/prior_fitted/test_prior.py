"""The prior: what tables look like, and that they come from their seed alone."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from nasgraph.predict.prior_fitted.functions import FUNCTIONS, ODDS, add_noise, sample_function, warp
from nasgraph.predict.prior_fitted.matrices import MAX_FEATURES, normal_scores, sample_matrix
from nasgraph.predict.prior_fitted.prior import sample_tables
from nasgraph.seeding import generator


@pytest.mark.parametrize("seed", range(12))
def test_tables_are_finite_and_scaled_by_the_labelled_rows(seed: int) -> None:
    tables = sample_tables(30, 20, 3, generator(seed, "tables"))
    assert tables.known.shape[0] == 30
    assert tables.others.shape == (20, tables.known.shape[1])
    assert tables.labels.shape == (3, 30)
    assert tables.hidden.shape == (3, 20)
    for values in (tables.known, tables.others, tables.labels, tables.hidden):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(tables.labels.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(tables.labels.std(axis=1), 1, atol=1e-9)


def test_equal_seeds_give_equal_tables_and_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # numpy types it as a union
    first, second = (sample_tables(20, 10, 2, generator(5, "same")) for _ in range(2))
    np.testing.assert_array_equal(first.known, second.known)
    np.testing.assert_array_equal(first.hidden, second.hidden)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # as above


@pytest.mark.parametrize("kind", FUNCTIONS, ids=lambda kind: kind.__name__)
def test_every_kind_of_function_depends_on_the_features_only(kind: object) -> None:
    assert callable(kind)
    x = generator(0, "rows").standard_normal((40, 6))
    twice = np.concatenate([x, x])
    values = kind(twice, generator(1, "function"))
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[:40], values[40:])


def test_the_odds_of_the_kinds_sum_to_one() -> None:
    assert len(ODDS) == len(FUNCTIONS)
    assert sum(ODDS) == pytest.approx(1.0)


def test_functions_are_standardised() -> None:
    x = generator(0, "rows").standard_normal((200, 4))
    for seed in range(10):
        values = sample_function(x, generator(seed, "function"))
        assert values.mean() == pytest.approx(0.0, abs=0.1)
        assert values.std() == pytest.approx(1.0, abs=0.1)


def test_a_warp_is_monotone_and_noise_keeps_values_finite() -> None:
    rng = generator(0, "warp")
    values = np.sort(rng.standard_normal(50))
    for _ in range(10):
        assert (np.diff(warp(values, rng)) >= 0).all()
        assert np.isfinite(add_noise(values, rng)).all()


def test_normal_scores_of_known_values_are_quantiles_of_their_mean_ranks() -> None:
    known = generator(0, "scores").integers(0, 5, size=(30, 3)).astype(float)
    expected = norm.ppf((rankdata(known, axis=0) - 0.5) / 30)
    np.testing.assert_allclose(normal_scores(known, known), expected, atol=1e-12)


def test_matrices_from_a_bank_hold_its_rows() -> None:
    bank = [np.arange(20.0)[:, None] * np.array([[1.0, 10.0]])]
    hits = 0
    for seed in range(40):
        x = sample_matrix(10, generator(seed, "bank"), bank=bank)
        hits += x.shape[1] <= 2 and bool(np.isin(x, bank[0]).all())
        assert x.shape[1] <= MAX_FEATURES
    assert hits >= 5
