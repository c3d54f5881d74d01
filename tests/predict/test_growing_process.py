"""A Gaussian process that learns one label at a time."""

import numpy as np
import pytest

from nasgraph.predict.gaussian_process import LENGTH_PRIOR, NOISE_PRIOR, GaussianProcess
from nasgraph.predict.growing_process import GrowingProcess
from nasgraph.predict.growing_settings import SettingsPosterior

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


def test_rows_that_come_later_count_as_rows_that_were_there() -> None:
    pool, chosen, y = problem()
    grown_pool = GrowingProcess(pool[:40], BLOCKS)
    whole = GrowingProcess(pool, BLOCKS)
    early = [row for row in chosen.tolist() if row < 40]
    for row in early[:6]:
        grown_pool.add(row)
        whole.add(row)
    grown_pool.extend(pool[40:50])
    for row in early[6:]:
        grown_pool.add(row)
        whole.add(row)
    grown_pool.extend(pool[50:])
    assert len(grown_pool) == len(whole) == len(pool)
    targets = y[: len(early)]
    for one, other in zip(grown_pool.posterior(targets), whole.posterior(targets), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_pool_grows_after_settings_were_fitted() -> None:
    pool, chosen, y = problem()
    process = GrowingProcess(np.concatenate([pool[chosen], pool[:1]]), BLOCKS)
    process.add_all(range(len(chosen)))
    process.fit_settings(y)
    process.extend(pool)
    whole = grown(pool, chosen)
    whole._settings_SP = process._settings_SP
    whole.keep(range(len(pool)))
    whole.add_all(chosen.tolist())
    for one, other in zip(process.posterior(y), whole.posterior(y), strict=True):
        np.testing.assert_allclose(one[len(chosen) + 1 :], other, atol=1e-9)


@pytest.mark.parametrize("first", [0, 1, 10])
def test_many_labels_at_once_are_many_labels_one_by_one(first: int) -> None:
    pool, chosen, y = problem()
    process = grown(pool, chosen[:first])
    process.add_all(chosen[first:].tolist())
    assert process.labelled == tuple(chosen.tolist())
    for one, other in zip(process.posterior(y), grown(pool, chosen).posterior(y), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_all_rows_labelled_in_another_order_than_theirs() -> None:
    pool, _, _ = problem(rows=30)
    order = np.random.default_rng(1).permutation(30)
    process = GrowingProcess(pool, BLOCKS)
    process.add_all(order.tolist())
    y = np.cos(pool[order, 1])
    for one, other in zip(process.posterior(y), grown(pool, order).posterior(y), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_kept_rows_take_their_places_in_order() -> None:
    pool, chosen, y = problem()
    process = grown(pool, chosen)
    process.keep([7, 3, 50])
    assert len(process) == 3
    assert process.labelled == ()
    process.add(1)
    expected = GrowingProcess(pool[[7, 3, 50]], BLOCKS)
    expected.add(1)
    for one, other in zip(process.posterior(y[:1]), expected.posterior(y[:1]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_awaited_labels_leave_the_mean_and_take_their_part_of_the_spread() -> None:
    """As if the rows had been measured and had given what was expected of them (kriging believer)."""
    pool, chosen, y = problem()
    process, believer = grown(pool, chosen), grown(pool, chosen)
    before, free = process.posterior(y)
    awaited = [row for row in range(60) if row not in chosen][:3]
    process.await_labels(awaited)
    mean, std = process.posterior(y)
    for row in awaited:
        believer.add(row)
    expected_mean, expected_std = believer.posterior(np.concatenate([y, before[awaited]]))
    np.testing.assert_allclose(mean, before, atol=1e-12)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-4)
    np.testing.assert_allclose(std, expected_std, atol=1e-9)
    assert (std[awaited] < free[awaited]).all()


def test_what_was_awaited_leaves_no_trace() -> None:
    """Bit for bit, whatever is awaited in between: a search that is resumed does not know what was underway when."""
    pool, chosen, y = problem()
    process, other = grown(pool, chosen[:10]), grown(pool, chosen[:10])
    process.await_labels([1, 2, 3])
    process.await_labels([1, 4])
    assert process.awaited == (1, 4)
    process.await_labels([1, 4, 5, 6])
    process.extend(pool[:5])
    other.extend(pool[:5])
    process.await_labels(list(range(30)))
    for row in chosen[10:].tolist():
        process.add(row)
        other.add(row)
    for a, b in zip(process.posterior(y), other.posterior(y), strict=True):
        np.testing.assert_array_equal(a, b)


def test_covariance_is_that_of_the_textbook() -> None:
    pool, chosen, y = problem()
    process = grown(pool, chosen)
    rows = [0, 5, 9]
    _, std = process.posterior(y)
    covariance = process.covariances(rows)[0]
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), std[rows], atol=1e-6)
    # Measuring one row tells of another by their covariance (Rasmussen and Williams 2006, eq. 2.24).
    process.await_labels(rows[:1])
    given = process.covariances(rows)[0]
    own = covariance[0, 0] + process.noise
    np.testing.assert_allclose(given, covariance - np.outer(covariance[0], covariance[0]) / own, atol=1e-5)


def test_settings_can_be_fitted_to_some_of_the_labels() -> None:
    pool, chosen, y = problem()
    process, half = grown(pool, chosen), grown(pool, chosen[:12])
    process.fit_settings(y, among=range(12))
    half.fit_settings(y[:12])
    assert process.noise == pytest.approx(half.noise)
    assert process.labelled == tuple(chosen.tolist())


def test_a_pool_may_begin_empty() -> None:
    pool, _, y = problem()
    process = GrowingProcess(pool[:0], BLOCKS)
    assert process.posterior(np.zeros(0))[0].shape == (0,)
    process.extend(pool)
    process.add(3)
    assert process.posterior(y[:1])[0].shape == (60,)


# ---- draws of the settings


def test_draws_are_of_the_posterior_of_the_settings() -> None:
    """Means and spreads by the chain against those by weighing draws of the prior by their likelihood."""
    from scipy.stats import multivariate_normal

    pool, chosen, y = problem(labels=8)
    x = pool[chosen]
    squared = ((x[:, None] - x) ** 2).mean(axis=-1)
    chain = SettingsPosterior.of(squared[None], y, LENGTH_PRIOR).draws(
        np.array([0.0, 0.0, -2.0]), 4000, np.random.default_rng(0)
    )
    center, width = np.array([0.0, LENGTH_PRIOR[0], NOISE_PRIOR[0]]), np.array([1.5, LENGTH_PRIOR[1], 1.0])
    prior = center + width * np.random.default_rng(1).standard_normal((20_000, 3))
    r = np.sqrt(5 * squared) / np.exp(prior[:, 1])[:, None, None]
    kernel = np.exp(prior[:, 0])[:, None, None] * (1 + r + r**2 / 3) * np.exp(-r)
    noise = np.exp(prior[:, 2])[:, None, None] * np.eye(len(y))
    weight = np.array([multivariate_normal.pdf(y, cov=cov) for cov in kernel + noise])
    weight /= weight.sum()
    mean = weight @ prior
    std = np.sqrt(weight @ (prior - mean) ** 2)
    np.testing.assert_allclose(chain.mean(axis=0), mean, atol=0.12)
    np.testing.assert_allclose(chain.std(axis=0), std, atol=0.12)


def test_a_posterior_with_draws_is_the_mixture_of_theirs() -> None:
    pool, chosen, y = problem(labels=10)
    process = GrowingProcess(pool, BLOCKS, num_draws=5, seed=3)
    process.add_all(chosen.tolist())
    process.fit_settings(y)
    mean, std = process.posterior(y)
    means, stds = process.posteriors(y)
    assert means.shape == (5, 60)
    assert len(np.unique(means[:, 0])) > 1
    np.testing.assert_allclose(mean, means.mean(axis=0))
    np.testing.assert_allclose(std**2 + mean**2, (stds**2 + means**2).mean(axis=0))
    rng = np.random.default_rng(0)
    drawn = means[:, 0] + stds[:, 0] * rng.standard_normal((40_000, 5))
    assert drawn.std() == pytest.approx(std[0], rel=0.02)


def test_every_draw_of_the_settings_gives_the_posterior_of_the_textbook() -> None:
    pool, chosen, y = problem(labels=10)
    process = GrowingProcess(pool, BLOCKS, num_draws=3)
    for row in chosen[:7].tolist():
        process.add(row)
    process.fit_settings(y[:7])
    for row in chosen[7:].tolist():
        process.add(row)
    process.await_labels([])
    for settings, mean, std in zip(process._settings_SP, *process.posteriors(y), strict=True):
        alone = GrowingProcess(pool, BLOCKS)
        alone._mode_P, alone._settings_SP = settings, settings[None]
        for row in chosen.tolist():
            alone.add(row)
        expected = dense_posterior(alone, y, np.exp(settings[:2]), np.exp(settings[2:4]))
        np.testing.assert_allclose(mean, expected[0], atol=1e-3)
        np.testing.assert_allclose(std, expected[1], atol=1e-3)


def test_draws_are_given_up_when_labels_are_many() -> None:
    pool, chosen, y = problem()
    process = GrowingProcess(pool, BLOCKS, num_draws=4, draw_until=20)
    one = GrowingProcess(pool, BLOCKS)
    for each in (process, one):
        each.add_all(chosen.tolist())
        each.fit_settings(y)
    assert process.posteriors(y)[0].shape == (1, 60)
    np.testing.assert_array_equal(process.posterior(y)[0], one.posterior(y)[0])


def test_the_seed_decides_the_draws() -> None:
    pool, chosen, y = problem(labels=8)

    def mean(seed: int) -> Array:
        process = GrowingProcess(pool, BLOCKS, num_draws=2, seed=seed)
        process.add_all(chosen.tolist())
        process.fit_settings(y)
        return process.posterior(y)[0]

    np.testing.assert_array_equal(mean(1), mean(1))
    assert not np.allclose(mean(1), mean(2))
