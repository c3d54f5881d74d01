"""The shipped network as a regressor: invariances, bad input, files, and what it must be able to predict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import zoo
from nasgraph.errors import CheckpointError
from nasgraph.predict.prior_fitted import (
    PriorFittedPosterior,
    PriorFittedRegressor,
    load_prior_fitted,
    prior_fitted,
)
from nasgraph.seeding import generator

FOLDER = Path(zoo.__file__).parent / "pfn-performance"
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def regressor() -> PriorFittedRegressor:
    return prior_fitted(FOLDER)


def linear_gaussian(size: int, seed: int, *, num_features: int = 5, noise: float = 0.5) -> Data:
    """Rows and noisy values of a linear function whose weights are standard normal; 200 more without noise."""
    rng = generator(seed, "linear Gaussian", size)
    x = rng.standard_normal((size + 200, num_features))
    clean = x @ rng.standard_normal(num_features)
    return x[:size], clean[:size] + noise * rng.standard_normal(size), x[size:], clean[size:]


def wavy(size: int, seed: int) -> Data:
    rng = generator(seed, "wavy", size)
    x = rng.standard_normal((size + 300, 4))
    clean = np.sin(1.5 * x[:, 0] + rng.uniform(0, 6)) + 0.5 * x[:, 1] * x[:, 2]
    return x[:size], clean[:size] + 0.2 * rng.standard_normal(size), x[size:], clean[size:]


def fitted(regressor: PriorFittedRegressor, data: Data) -> PriorFittedPosterior:
    return regressor(data[0], data[1], seed=0)


def test_rows_to_predict_do_not_influence_each_other(regressor: PriorFittedRegressor) -> None:
    data = wavy(40, 0)
    posterior = fitted(regressor, data)
    mean, std = posterior(data[2])
    for index in (0, 7):
        alone_mean, alone_std = posterior(data[2][index : index + 1])
        assert alone_mean[0] == pytest.approx(mean[index], abs=1e-5)
        assert alone_std[0] == pytest.approx(std[index], abs=1e-5)


@pytest.mark.parametrize("size", [12, 60])
def test_the_order_of_rows_and_columns_does_not_matter(regressor: PriorFittedRegressor, size: int) -> None:
    rng = generator(size, "orders")
    x = rng.standard_normal((size + 50, 20))
    x[:, 5:12] = np.round(x[:, 5:12])
    y = x[:, 0] * x[:, 6] + x[:, 1] + 0.2 * rng.standard_normal(size + 50)
    rows, columns = rng.permutation(size), rng.permutation(20)
    mean, std = regressor(x[:size], y[:size], seed=0)(x[size:])
    other_mean, other_std = regressor(x[:size][rows][:, columns], y[:size][rows], seed=0)(
        x[size:][:, columns]
    )
    np.testing.assert_allclose(other_mean, mean, atol=1e-4)
    np.testing.assert_allclose(other_std, std, atol=1e-4)


def test_equal_arguments_give_equal_results(regressor: PriorFittedRegressor) -> None:
    data = wavy(30, 1)
    np.testing.assert_array_equal(fitted(regressor, data)(data[2])[0], fitted(regressor, data)(data[2])[0])


def test_the_predictive_distribution_integrates_to_one_and_agrees_with_moments_and_quantiles(
    regressor: PriorFittedRegressor,
) -> None:
    data = wavy(30, 2)
    posterior = fitted(regressor, data)
    row = data[2][:1]
    grid = np.linspace(-60, 60, 24001)
    density = np.exp(posterior.log_density(np.repeat(row, len(grid), axis=0), grid))
    mean, std = posterior(row)
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-3)
    assert np.trapezoid(density * grid, grid) == pytest.approx(mean[0], abs=1e-3)
    assert np.sqrt(np.trapezoid(density * (grid - mean) ** 2, grid)) == pytest.approx(std[0], rel=1e-2)
    for probability in (0.05, 0.5, 0.9):
        cut = posterior.quantiles(row, [probability])[0, 0]
        below = grid <= cut
        assert np.trapezoid(density[below], grid[below]) == pytest.approx(probability, abs=5e-3)


def test_more_labels_lower_the_error_on_functions_it_never_saw(regressor: PriorFittedRegressor) -> None:
    errors = []
    for size in (10, 40, 160):
        found = [
            fitted(regressor, data)(data[2])[0] - data[3] for data in (wavy(size, seed) for seed in range(6))
        ]
        errors.append(float(np.mean(np.square(found))))
    assert errors[0] > 1.2 * errors[1] > 1.4 * errors[2]


def exact_posterior(data: Data, *, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Bayesian linear regression with the true prior and noise (Bishop 2006, equations 3.53, 3.54, 3.59)."""
    x, y, others, _ = data
    covariance = np.linalg.inv(np.eye(x.shape[1]) + x.T @ x / noise**2)
    mean = others @ covariance @ x.T @ y / noise**2
    return mean, np.sqrt(noise**2 + ((others @ covariance) * others).sum(axis=1))


@pytest.mark.parametrize(("size", "far", "wide"), [(20, 0.8, 2.1), (60, 0.35, 1.5), (200, 0.2, 1.25)])
def test_on_linear_gaussian_functions_it_comes_close_to_the_exact_posterior(
    regressor: PriorFittedRegressor, size: int, far: float, wide: float
) -> None:
    """The exact posterior knows that functions are linear, and the noise; the network must find out from the rows.

    Tolerance: the root mean square distance of the means, in exact standard deviations, is at most 0.8, 0.35 and 0.2 for 20, 60
    and 200 rows (8 tables, the function itself spreads over 4.5 noise deviations); standard deviations are at most 2.1,
    1.5 and 1.25 times the exact ones on average, and not under 0.8.
    """
    distances, ratios = [], []
    for seed in range(8):
        data = linear_gaussian(size, seed)
        mean, std = fitted(regressor, data)(data[2])
        exact_mean, exact_std = exact_posterior(data)
        distances.append(np.mean(((mean - exact_mean) / exact_std) ** 2))
        ratios.append(np.mean(std / exact_std))
    assert np.sqrt(np.mean(distances)) < far
    assert 0.8 < np.mean(ratios) < wide


def test_the_middle_ninety_percent_hold_about_ninety_percent(regressor: PriorFittedRegressor) -> None:
    inside = []
    for seed in range(10):
        x, y, others, clean = linear_gaussian(50, seed)
        low, high = regressor(x, y, seed=0).quantiles(others, [0.05, 0.95]).T
        noisy = clean + 0.5 * generator(seed, "noise").standard_normal(len(clean))
        inside.append(np.mean((low <= noisy) & (noisy <= high)))
    assert 0.84 < np.mean(inside) < 0.96


def test_targets_in_other_units_change_the_answer_by_these_units(regressor: PriorFittedRegressor) -> None:
    data = wavy(30, 3)
    mean, std = fitted(regressor, data)(data[2])
    far_mean, far_std = regressor(data[0], 7.0 + 100.0 * data[1], seed=0)(data[2])
    np.testing.assert_allclose(far_mean, 7.0 + 100.0 * mean, atol=1e-2)
    np.testing.assert_allclose(far_std, 100.0 * std, rtol=1e-4)


def test_a_constant_column_is_left_out(regressor: PriorFittedRegressor) -> None:
    data = wavy(30, 4)
    wide, wide_others = (np.insert(x, 2, 3.5, axis=1) for x in (data[0], data[2]))
    wide_others[:, 2] = 99.0
    mean, _ = fitted(regressor, data)(data[2])
    np.testing.assert_allclose(regressor(wide, data[1], seed=0)(wide_others)[0], mean, atol=1e-6)


def test_without_any_telling_column_every_row_gets_about_the_mean(regressor: PriorFittedRegressor) -> None:
    y = generator(0, "targets").standard_normal(40) + 3.0
    for columns in (0, 2):
        mean, std = regressor(np.ones((40, columns)), y, seed=0)(np.ones((5, columns)))
        assert np.ptp(mean) == pytest.approx(0.0, abs=1e-5)
        assert mean[0] == pytest.approx(3.0, abs=0.6)
        assert 0.5 < std[0] < 1.6


def test_no_rows_to_predict_give_empty_answers(regressor: PriorFittedRegressor) -> None:
    data = wavy(20, 5)
    mean, std = fitted(regressor, data)(data[2][:0])
    assert mean.shape == std.shape == (0,)


def test_chunks_do_not_show(regressor: PriorFittedRegressor) -> None:
    data = wavy(20, 6)
    posterior = fitted(regressor, data)
    many = np.tile(data[2], (15, 1))  # 4,500 rows: more than a chunk
    np.testing.assert_allclose(posterior(many)[0][-300:], posterior(data[2])[0], atol=1e-5)
    assert posterior.log_density(many, np.zeros(len(many))).shape == (4500,)


@pytest.mark.parametrize(("size", "words"), [(0, "4 to 1024"), (1, "4 to 1024"), (1025, "4 to 1024")])
def test_too_few_and_too_many_labels_are_refused(
    regressor: PriorFittedRegressor, size: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        regressor(np.zeros((size, 3)), np.arange(float(size)), seed=0)


def test_equal_targets_are_refused(regressor: PriorFittedRegressor) -> None:
    with pytest.raises(ValueError, match="targets that differ"):
        regressor(wavy(20, 0)[0], np.full(20, 0.3), seed=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(
    regressor: PriorFittedRegressor, bad: float
) -> None:
    x, y, others, _ = wavy(20, 0)
    x[3, 1] = bad
    with pytest.raises(ValueError, match="row 3, column 1"):
        regressor(x, y, seed=0)
    x[3, 1], y[2] = 0.0, bad
    with pytest.raises(ValueError, match="finite targets"):
        regressor(x, y, seed=0)
    y[2] = 0.0
    others[0, 0] = bad
    with pytest.raises(ValueError, match="row 0, column 0"):
        regressor(x, y, seed=0)(others)


def test_rows_of_another_width_are_refused(regressor: PriorFittedRegressor) -> None:
    x, y, _, _ = wavy(20, 0)
    with pytest.raises(ValueError, match="4 features"):
        regressor(x, y, seed=0)(np.zeros((3, 5)))


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    load_prior_fitted(folder)
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged or changed"):
        load_prior_fitted(folder)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="No prior-fitted network"):
        prior_fitted(folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schema", "nasgraph/ghn/1", "schema"),
        ("columns", 3, "other descriptions"),
        ("config", {"dim": 96}, "exactly the fields"),
        ("config", {"dim": 96.5, "num_layers": 4, "num_heads": 4, "smoothers": True}, "type int"),
        ("config", {"dim": 90, "num_layers": 4, "num_heads": 4, "smoothers": True}, "divide"),
        ("config", {"dim": 64, "num_layers": 4, "num_heads": 4, "smoothers": True}, "shape"),
    ],
)
def test_a_foreign_configuration_is_refused(tmp_path: Path, field: str, value: object, words: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, field: value}))
    with pytest.raises(CheckpointError, match=words):
        load_prior_fitted(folder)


def test_a_loaded_network_is_shared(regressor: PriorFittedRegressor) -> None:
    assert load_prior_fitted(FOLDER) is regressor.network


def test_shipped_files_are_small_and_trained_without_labels() -> None:
    recipe = json.loads((FOLDER / "config.json").read_text())["recipe"]
    assert (FOLDER / "weights.safetensors").stat().st_size <= 10 * 2**20
    assert recipe["tables"] > 1000


def test_the_spread_of_noise_is_found(regressor: PriorFittedRegressor) -> None:
    """With many labels of a simple function nearly all that is left is noise."""
    for noise in (0.1, 0.5):
        x, y, others, _ = linear_gaussian(300, 1, num_features=2, noise=noise)
        low, high = regressor(x, y, seed=0).quantiles(others, [0.159, 0.841]).T
        assert np.median(high - low) == pytest.approx(2 * noise * norm.ppf(0.841), rel=0.3)
