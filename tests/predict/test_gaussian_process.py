"""The Gaussian process: scikit-learn's with the same kernel, and what leaving rows out really gives."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from nasgraph.predict import gaussian_process
from nasgraph.predict.gaussian_process import JITTER, Block, GaussianProcess

Array = np.ndarray
WHOLE = ((0, 4),)
TWO = ((0, 1), (1, 4))


def rows(count: int, *, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 4))


def wavy(x: Array, *, noise: float = 0.0) -> Array:
    """Of about mean 0 and variance 1."""
    clean = 1.3 * np.sin(1.5 * x[:, 0]) + 0.4 * x[:, 1]
    found: Array = clean + noise * np.random.default_rng(9).standard_normal(len(x))
    return found


def variances_and_lengths(process: GaussianProcess) -> tuple[Array, Array]:
    """What was found, in the order of the blocks."""
    found = process._settings_P.exp().numpy()
    B = len(process._blocks)
    return found[:B], found[B : 2 * B]


def kernel(process: GaussianProcess, first: Array, second: Array) -> Array:
    """By scikit-learn's Matérn kernels. Ours measures distances per column, so lengths differ by a root."""
    total = np.zeros((len(first), len(second)))
    for (low, high), variance, length in zip(process._blocks, *variances_and_lengths(process), strict=True):
        matern = Matern(length * np.sqrt(high - low), nu=2.5)
        total += variance * matern(first[:, low:high], second[:, low:high])
    return total


def test_mean_and_spread_are_scikit_learns_with_the_same_kernel() -> None:
    x, other = rows(40, seed=0), rows(25, seed=1)
    y = wavy(x, noise=0.2)
    process = GaussianProcess.fit(x, y)
    (variance,), (length,) = variances_and_lengths(process)
    theirs = GaussianProcessRegressor(
        ConstantKernel(variance) * Matern(length * np.sqrt(4), nu=2.5), alpha=process.noise + JITTER, optimizer=None
    )  # fmt: skip
    expected, spread = theirs.fit(x, y).predict(other, return_std=True)
    mean, std = process.predict(other)
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(std, np.sqrt(spread**2 + process.noise), rtol=1e-5)


@pytest.mark.parametrize("blocks", [WHOLE, TWO])
def test_leaving_one_out_is_what_fitting_without_the_row_gives(blocks: tuple[Block, ...]) -> None:
    x = rows(15, seed=2)
    y = wavy(x, noise=0.3)
    process = GaussianProcess.fit(x, y, blocks)
    means, stds = process.leave_one_out()
    for left_out in range(len(x)):
        rest = np.delete(np.arange(len(x)), left_out)
        gram = kernel(process, x[rest], x[rest]) + (process.noise + JITTER) * np.eye(len(rest))
        across = kernel(process, x[[left_out]], x[rest])[0]
        itself = kernel(process, x[[left_out]], x[[left_out]])[0, 0] + process.noise + JITTER
        assert means[left_out] == pytest.approx(across @ np.linalg.solve(gram, y[rest]))
        assert stds[left_out] ** 2 == pytest.approx(itself - across @ np.linalg.solve(gram, across))


def test_kernels_of_blocks_are_added_up() -> None:
    x, other = rows(30, seed=3), rows(10, seed=4)
    y = wavy(x, noise=0.1)
    process = GaussianProcess.fit(x, y, TWO)
    gram = kernel(process, x, x) + (process.noise + JITTER) * np.eye(len(x))
    across = kernel(process, other, x)
    mean, std = process.predict(other)
    np.testing.assert_allclose(mean, across @ np.linalg.solve(gram, y), rtol=1e-5, atol=1e-8)
    explained = np.sum(across * np.linalg.solve(gram, across.T).T, axis=1)
    total = variances_and_lengths(process)[0].sum() + process.noise
    np.testing.assert_allclose(std, np.sqrt(total - explained), rtol=1e-5)


def test_a_smooth_function_without_noise_is_reached() -> None:
    x = np.linspace(-2, 2, 40)[:, None]
    other = np.linspace(-1.9, 1.9, 33)[:, None]
    mean, std = GaussianProcess.fit(x, np.sin(2 * x[:, 0])).predict(other)
    np.testing.assert_allclose(mean, np.sin(2 * other[:, 0]), atol=0.02)
    assert std.max() < 0.2


def test_noise_is_found() -> None:
    x = rows(150, seed=5)
    quiet = GaussianProcess.fit(x, wavy(x)).noise
    loud = GaussianProcess.fit(x, wavy(x, noise=0.7)).noise
    assert quiet < 0.02
    assert loud == pytest.approx(0.49, rel=0.4)


def test_far_from_all_rows_the_prior_is_left() -> None:
    x = rows(30, seed=6)
    process = GaussianProcess.fit(x, wavy(x))
    mean, std = process.predict(np.full((1, 4), 1e4))
    assert mean[0] == pytest.approx(0, abs=1e-6)
    assert std[0] ** 2 == pytest.approx(variances_and_lengths(process)[0].sum() + process.noise)


def test_rows_predicted_in_parts_are_those_predicted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, other = rows(20, seed=7), rows(23, seed=8)
    process = GaussianProcess.fit(x, wavy(x))
    whole = process.predict(other)
    monkeypatch.setattr(gaussian_process, "CHUNK", 7)
    np.testing.assert_allclose(process.predict(other), whole, rtol=1e-10, atol=1e-10)
    assert [len(part) for part in process.predict(other[:0])] == [0, 0]


@pytest.mark.parametrize("count", [8, 30, 80])
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("blocks", [WHOLE, TWO])
def test_settings_that_are_found_are_likelier_than_those_at_the_start(
    count: int, noise: float, blocks: tuple[Block, ...]
) -> None:
    x = rows(count, seed=count)
    y = torch.from_numpy(wavy(x, noise=noise))
    distances = [
        gaussian_process._distances(part, part)
        for part in (torch.from_numpy(x[:, low:high]) for low, high in blocks)
    ]

    def surprise(settings: torch.Tensor) -> float:
        return float(gaussian_process._surprise(distances, y, settings))

    found = GaussianProcess.fit(x, y.numpy(), blocks)._settings_P
    assert surprise(found) < surprise(gaussian_process._start(len(blocks)))
    rng = np.random.default_rng(0)  # a mode: no step away from it is better
    for _ in range(20):
        step = torch.from_numpy(0.05 * rng.standard_normal(len(found)))
        assert surprise(found + step) > surprise(found) - 1e-4


def test_equal_rows_with_different_targets_are_averaged() -> None:
    x = np.repeat(rows(10, seed=11), 4, axis=0)
    y = wavy(x, noise=0.5)
    mean, std = GaussianProcess.fit(x, y).predict(x)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    np.testing.assert_allclose(mean.reshape(10, 4).std(axis=1), 0, atol=1e-9)
    assert np.corrcoef(mean, y.reshape(10, 4).mean(axis=1).repeat(4))[0, 1] > 0.9


@pytest.mark.parametrize("targets", ["equal rows", "two levels"])
def test_rows_that_are_all_alike_give_the_mean_and_the_spread(targets: str) -> None:
    x = np.zeros((12, 3))
    y = (
        np.random.default_rng(12).standard_normal(12)
        if targets == "equal rows"
        else np.repeat([1.0, -1.0], 6)
    )
    mean, std = GaussianProcess.fit(x, y - y.mean()).predict(x[:1])
    assert mean[0] == pytest.approx(0, abs=1e-6)
    assert std[0] == pytest.approx(y.std(), rel=0.5)


def test_blocks_without_columns_are_left_out() -> None:
    x, other = rows(20, seed=13), rows(5, seed=14)
    y = wavy(x)
    plain = GaussianProcess.fit(x, y, TWO).predict(other)
    np.testing.assert_array_equal(
        GaussianProcess.fit(x, y, ((0, 1), (1, 1), (1, 4), (4, 4))).predict(other), plain
    )
    with pytest.raises(ValueError, match="at least one column"):
        GaussianProcess.fit(x[:, :0], y)


def test_equal_calls_give_equal_results_and_change_nothing() -> None:
    x = rows(20, seed=15)
    y = wavy(x)
    before, state = (x.copy(), y.copy()), torch.get_rng_state()
    first, second = (GaussianProcess.fit(x, y, TWO).predict(x[:5]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert torch.equal(torch.get_rng_state(), state)
