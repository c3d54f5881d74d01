"""A Gaussian process that learns one label at a time."""

import numpy as np
import pytest

from nasgraph.predict.gaussian_process import GaussianProcess
from nasgraph.predict.growing_process import GrowingProcess

Array = np.ndarray
BLOCKS = ((0, 2), (2, 5))


def problem(rows: int = 60, labels: int = 25) -> tuple[Array, Array, Array]:
    """A pool, the labelled rows in some order, and their targets of mean 0 and variance 1."""
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((rows, 5))
    chosen = rng.permutation(rows)[:labels]
    y = np.sin(pool[chosen, 0]) + 0.5 * pool[chosen, 3] + 0.1 * rng.standard_normal(labels)
    return pool, chosen, (y - y.mean()) / y.std()


def grown(pool: Array, chosen: Array) -> GrowingProcess:
    process = GrowingProcess(pool, BLOCKS)
    for row in chosen.tolist():
        process.add(row)
    return process


def dense_posterior(
    process: GrowingProcess, targets: Array, variances: Array, lengths: Array
) -> tuple[Array, Array]:
    """Equations 2.25 and 2.26 of Rasmussen and Williams 2006, term by term."""
    pool, chosen = process.pool_MF, list(process.labelled)
    kernel = np.zeros((len(pool), len(pool)))
    for (low, high), variance, length in zip(BLOCKS, variances, lengths, strict=True):
        x = pool[:, low:high]
        r = np.sqrt(5 * ((x[:, None] - x) ** 2).mean(axis=-1)) / length
        kernel += variance * (1 + r + r**2 / 3) * np.exp(-r)
    across = kernel[:, chosen]
    inverse = np.linalg.inv(kernel[np.ix_(chosen, chosen)] + process.noise * np.eye(len(chosen)))
    variance = np.diag(kernel) - np.einsum("mn,nk,mk->m", across, inverse, across)
    return across @ inverse @ targets, np.sqrt(variance)


def test_growing_gives_the_posterior_of_the_textbook() -> None:
    """Before settings are fitted, every block has an even share of the variance, lengths are 1 and the noise is 0.1."""
    pool, chosen, y = problem()
    process = grown(pool, chosen)
    assert process.noise == pytest.approx(0.1)
    mean, std = process.posterior(y)
    expected_mean, expected_std = dense_posterior(process, y, np.full(2, 0.5), np.ones(2))
    np.testing.assert_allclose(mean, expected_mean, atol=1e-4)
    np.testing.assert_allclose(std, expected_std, atol=1e-4)


def test_fitted_settings_are_those_of_the_process_that_is_fitted_at_once() -> None:
    """Another implementation, with automatic derivatives, finds the same mode; its spread includes the noise."""
    pool, chosen, y = problem()
    process = grown(pool, chosen)
    process.fit_settings(y)
    at_once = GaussianProcess.fit(pool[chosen], y, BLOCKS)
    assert process.noise == pytest.approx(at_once.noise, rel=0.02)
    mean, std = process.posterior(y)
    expected_mean, expected_std = at_once.predict(pool)
    np.testing.assert_allclose(mean, expected_mean, atol=0.01)
    np.testing.assert_allclose(np.sqrt(std**2 + process.noise), expected_std, atol=0.01)


def test_the_order_of_labels_does_not_matter() -> None:
    pool, chosen, y = problem()
    one, other = grown(pool, chosen), grown(pool, chosen[::-1])
    for process, targets in ((one, y), (other, y[::-1])):
        process.fit_settings(targets)
    assert other.labelled == one.labelled[::-1]
    for a, b in zip(one.posterior(y), other.posterior(y[::-1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_label_that_comes_after_the_fit_counts_as_one_that_came_before() -> None:
    """With settings kept, nothing depends on when the settings were fitted."""
    pool, chosen, y = problem()
    process = grown(pool, chosen[:20])
    process.fit_settings(y[:20])
    for row in chosen[20:].tolist():
        process.add(row)
    late = [part.copy() for part in process.posterior(y)]
    again = GrowingProcess(pool, BLOCKS)
    for row in chosen[:20].tolist():
        again.add(row)
    again.fit_settings(y[:20])
    for row in chosen[20:].tolist():
        again.add(row)
    for a, b in zip(late, again.posterior(y), strict=True):
        np.testing.assert_array_equal(a, b)
    assert process.noise == again.noise


def test_a_row_measured_twice_is_known_better_than_one_measured_once() -> None:
    pool, _, _ = problem()
    process = GrowingProcess(pool)
    process.add(3)
    _, once = process.posterior(np.array([1.0]))
    process.add(3)
    mean, twice = process.posterior(np.array([1.0, 1.0]))
    assert twice[3] < once[3]
    assert (twice <= once + 1e-12).all()
    assert mean.argmax() == 3


def test_targets_may_be_others_at_every_call() -> None:
    pool, chosen, y = problem()
    process = grown(pool, chosen)
    mean, std = process.posterior(y)
    scaled, same = process.posterior(3 * y)
    np.testing.assert_allclose(scaled, 3 * mean)
    np.testing.assert_array_equal(same, std)


def test_more_labels_than_there_was_room_for() -> None:
    pool, _, _ = problem(rows=70)
    process = grown(pool, np.arange(70))
    y = np.sin(pool[:, 0])
    mean, _ = process.posterior(y)
    assert process.labelled == tuple(range(70))
    assert np.corrcoef(mean, y)[0, 1] > 0.95


def test_rows_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        GrowingProcess(np.zeros((3, 0)))
