"""Kernels in closed form against scikit-learn, leave-one-out against refitting, forests against their guarantees."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from nasgraph.predict.prior_fitted import kernels
from nasgraph.predict.prior_fitted.forest import correlations, grow
from nasgraph.predict.prior_fitted.kernels import fit_smoother, squared_distances
from nasgraph.seeding import generator


def radial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.exp(-0.5 * squared_distances(a, b))
    return result


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = generator(0, "smoothers")
    x = rng.standard_normal((20, 3))
    return x, np.sin(x[:, 0]) + 0.1 * rng.standard_normal(20)


@pytest.mark.parametrize("noise", [0.02, 0.6])
def test_one_noise_level_is_the_gaussian_process_of_scikit_learn(
    data: tuple[np.ndarray, np.ndarray], noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "NOISE", (noise,))
    x, y = data
    smoother = fit_smoother(np.linalg.eigh(radial(x, x)), y)
    scale = float(smoother.scale[0])
    kernel = ConstantKernel(scale, "fixed") * (RBF(1.0, "fixed") + WhiteKernel(noise, "fixed"))
    reference = GaussianProcessRegressor(kernel, alpha=1e-12, optimizer=None).fit(x, y)
    others = generator(1, "others").standard_normal((7, 3))
    mean, std = smoother.predict(radial(others, x), np.ones(7))
    expected_mean, expected_std = reference.predict(others, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(std, expected_std, rtol=1e-6)


def test_left_out_predictions_are_those_of_a_fit_without_the_row(
    data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "NOISE", (0.2,))
    x, y = data
    whole = fit_smoother(np.linalg.eigh(radial(x, x)), y)
    rest = np.arange(20) != 4
    alone = fit_smoother(np.linalg.eigh(radial(x[rest], x[rest])), y[rest])
    mean, std = alone.predict(radial(x[4:5], x[rest]), np.ones(1))
    assert whole.own_mean[4] == pytest.approx(mean[0])
    assert whole.own_std[4] / np.sqrt(whole.scale[0]) == pytest.approx(std[0] / np.sqrt(alone.scale[0]))


def test_the_noise_that_made_the_data_gets_the_most_weight() -> None:
    rng = generator(2, "noise")
    x = rng.standard_normal((300, 2))
    clean = np.linalg.cholesky(radial(x, x) + 1e-8 * np.eye(300)) @ rng.standard_normal(300)
    for index in (1, 3):
        y = clean + np.sqrt(kernels.NOISE[index]) * rng.standard_normal(300)
        assert fit_smoother(np.linalg.eigh(radial(x, x)), y).level_weight.argmax() == index


def test_a_forest_learns_an_interaction_and_its_left_out_error_is_that_on_new_rows() -> None:
    rng = generator(3, "forest")
    x = rng.standard_normal((1300, 5))
    y = np.where(x[:, 0] > 0, np.sign(x[:, 1]), 0.0)
    forest = grow(x[:300], y[:300], num_trees=50, rng=rng)
    error = float(((forest.predict(x[300:])[0] - y[300:]) ** 2).mean())
    assert error < 0.35 * y.var()
    own = float(((forest.own_mean - y[:300]) ** 2).mean())
    assert own == pytest.approx(error, rel=0.3)


def test_rows_of_one_leaf_are_predicted_by_their_mean() -> None:
    x, y = np.zeros((6, 2)), np.arange(6.0)
    forest = grow(x, y, num_trees=300, rng=generator(0, "flat"))
    mean, _ = forest.predict(np.zeros((1, 2)))
    assert mean[0] == pytest.approx(2.5, abs=0.4)  # drawn a little to zero


def test_correlations_are_those_of_numpy_and_zero_for_constants() -> None:
    rng = generator(0, "correlations")
    x, y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    x[:, 2] = 7.0
    found = correlations(x, y)
    for column in range(2):
        assert found[column] == pytest.approx(np.corrcoef(x[:, column], y)[0, 1])
    assert found[2] == 0.0
