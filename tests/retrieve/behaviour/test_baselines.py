"""LogME, LEEP and the linear probe against slow and independent ways to the same numbers."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from nasgraph.retrieve.behaviour import leep, linear_probe, log_me
from nasgraph.retrieve.behaviour.baselines import RIDGES


def draw(n: int, d: int, classes: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn((classes, d), generator=rng, dtype=torch.double)
    return centres[labels] + torch.randn((n, d), generator=rng, dtype=torch.double), labels


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 20)])
def test_log_me_is_the_maximum_of_the_marginal_likelihood(n: int, d: int) -> None:
    features, labels = draw(n, d, 3, seed=n)
    f = features.numpy()
    values = []
    for label in range(3):
        y = (labels.numpy() == label).astype(float)

        def negative(logs: np.ndarray, y: np.ndarray = y) -> float:
            covariance = np.eye(n) / np.exp(logs[1]) + f @ f.T / np.exp(logs[0])
            return -float(multivariate_normal(np.zeros(n), covariance).logpdf(y))

        starts = ([0.0, 0.0], [2.0, 2.0], [4.0, 1.0])
        values.append(-min(minimize(negative, start, method="Nelder-Mead").fun for start in starts) / n)
    assert log_me(features, labels) == pytest.approx(np.mean(values), abs=2e-3)


def test_log_me_prefers_features_that_tell_the_classes_apart() -> None:
    features, labels = draw(60, 8, 3, seed=0)
    mixed = features[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert log_me(features, labels) > log_me(mixed, labels)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_log_me_is_finite_for_very_small_and_very_large_features(scale: float) -> None:
    features, labels = draw(20, 5, 2, seed=1)
    assert np.isfinite(log_me(scale * features, labels))


def test_leep_of_a_model_that_names_each_class_is_zero() -> None:
    labels = torch.arange(12) % 3
    logits = torch.nn.functional.one_hot((labels + 1) % 3).double() * 200
    assert leep(logits, labels) == pytest.approx(0)


def test_leep_of_a_model_that_says_the_same_of_all_is_the_entropy_of_the_labels() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert leep(torch.zeros(4, 5), labels) == pytest.approx((3 * np.log(0.75) + np.log(0.25)) / 4)


def test_leep_is_the_sum_over_dummy_labels_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 4)), np.arange(9) % 2
    source = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for i in range(9):
        likelihood = 0.0
        for z in range(4):
            joint = sum(source[k, z] for k in range(9) if labels[k] == labels[i]) / 9
            likelihood += joint / (source[:, z].sum() / 9) * source[i, z]
        total += np.log(likelihood)
    assert leep(torch.from_numpy(logits), torch.from_numpy(labels)) == pytest.approx(total / 9)


@pytest.mark.parametrize(("n", "d"), [(15, 3), (10, 24)])
def test_the_probe_predicts_each_example_as_a_probe_fitted_to_all_others_does(n: int, d: int) -> None:
    features, labels = draw(n, d, 3, seed=n)
    probe = linear_probe(features, labels)
    targets = torch.nn.functional.one_hot(labels).double()
    centred = features - features.mean(0)
    scale = float((centred**2).sum()) / min(n, d)
    penalty = probe.ridge * scale
    predictions = []
    for left in range(n):
        kept = torch.arange(n) != left
        x, y = features[kept], targets[kept]
        design = torch.cat([x, torch.ones(n - 1, 1, dtype=torch.double)], 1)
        shrink = penalty * torch.eye(d + 1, dtype=torch.double)
        shrink[-1, -1] = 0
        weights = torch.linalg.solve(design.T @ design + shrink, design.T @ y)
        predictions.append(torch.cat([features[left], torch.ones(1, dtype=torch.double)]) @ weights)
    refitted = torch.stack(predictions)
    assert probe.error == pytest.approx(float(((refitted - targets) ** 2).mean()), rel=1e-6)
    assert probe.accuracy == pytest.approx(float((refitted.argmax(1) == labels).double().mean()))
    assert probe.ridge in RIDGES


def test_a_probe_of_constant_features_is_finite_and_knows_nothing() -> None:
    labels = torch.arange(8) % 2
    probe = linear_probe(torch.ones(8, 3), labels)
    assert np.isfinite(probe.error)
    assert probe.accuracy <= 0.5
