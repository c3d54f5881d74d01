"""Calibration errors and proper scores: against definitions written out in loops, and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torch.nn import functional as F

from nasgraph.evaluate.calibration import (
    adaptive_calibration_error,
    brier_score,
    class_probabilities,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)


def made(seed: int, *, count: int = 400, classes: int = 5, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=rng)
    noisy = logits + torch.randn(count, classes, generator=rng)
    return logits, noisy.argmax(1)


def by_definition(logits: Tensor, targets: Tensor, num_bins: int) -> float:
    """Equation 3 of Guo et al. 2017, example by example."""
    probabilities = F.softmax(logits.double(), 1)
    confidence, predicted = probabilities.max(1)
    total = 0.0
    for m in range(1, num_bins + 1):
        inside = [i for i in range(len(logits)) if (m - 1) / num_bins < float(confidence[i]) <= m / num_bins]
        if inside:
            accuracy = sum(int(predicted[i] == targets[i]) for i in inside) / len(inside)
            mean = sum(float(confidence[i]) for i in inside) / len(inside)
            total += len(inside) / len(logits) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("num_bins", [1, 7, 15])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expected_calibration_error_is_that_of_the_definition(seed: int, num_bins: int) -> None:
    logits, targets = made(seed)
    found = expected_calibration_error(logits, targets, num_bins=num_bins)
    assert found == pytest.approx(by_definition(logits, targets, num_bins), rel=1e-12)


def test_the_bins_are_those_of_scikit_learn() -> None:
    """Its curve has the same means, where a bin has examples."""
    logits, targets = made(3)
    probabilities = class_probabilities(logits)
    is_right = probabilities.argmax(1) == targets.numpy()
    shares, means = calibration_curve(is_right, probabilities.max(1), n_bins=10)
    bins = [one for one in reliability_bins(logits, targets, num_bins=10) if one.num_examples]
    np.testing.assert_allclose([one.accuracy for one in bins], shares, rtol=1e-12)
    np.testing.assert_allclose([one.confidence for one in bins], means, rtol=1e-12)
    assert sum(one.num_examples for one in bins) == len(targets)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    """Two equal logits: a confidence of exactly one half, which ends the first of two bins."""
    bins = reliability_bins(torch.zeros(3, 2), torch.tensor([0, 0, 1]), num_bins=2)
    assert [one.num_examples for one in bins] == [3, 0]
    assert bins[0].accuracy == pytest.approx(2 / 3)
    assert np.isnan(bins[1].accuracy)


def test_a_network_that_is_as_right_as_it_is_confident_has_no_calibration_error() -> None:
    """Confidence 3/4 on four examples, three of which are right."""
    logits = torch.log(torch.tensor([[0.75, 0.25]] * 4, dtype=torch.double))
    targets = torch.tensor([0, 0, 0, 1])
    assert expected_calibration_error(logits, targets) == pytest.approx(0, abs=1e-15)
    assert adaptive_calibration_error(logits, targets, num_bins=1) == pytest.approx(0, abs=1e-15)


def test_sure_and_wrong_has_error_one() -> None:
    logits = torch.tensor([[100.0, 0.0]] * 5)
    targets = torch.ones(5, dtype=torch.long)
    assert expected_calibration_error(logits, targets) == pytest.approx(1)
    assert adaptive_calibration_error(logits, targets) == pytest.approx(1)
    assert brier_score(logits, targets) == pytest.approx(2)
    assert negative_log_likelihood(logits, targets) == pytest.approx(100)


@pytest.mark.parametrize("seed", [0, 1])
def test_adaptive_bins_have_as_many_examples_as_each_other(seed: int) -> None:
    """With one bin both errors are the gap between accuracy and mean confidence; with one example each, a mean distance."""
    logits, targets = made(seed, count=30)
    one = expected_calibration_error(logits, targets, num_bins=1)
    assert adaptive_calibration_error(logits, targets, num_bins=1) == pytest.approx(one, rel=1e-12)
    probabilities = class_probabilities(logits)
    is_right = probabilities.argmax(1) == targets.numpy()
    alone = np.abs(is_right - probabilities.max(1)).mean()
    assert adaptive_calibration_error(logits, targets, num_bins=30) == pytest.approx(alone, rel=1e-12)
    assert adaptive_calibration_error(logits, targets, num_bins=99) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_proper_scores_are_those_of_scikit_learn(seed: int) -> None:
    logits, targets = made(seed)
    probabilities = class_probabilities(logits)
    labels = list(range(5))
    likelihood = log_loss(targets.numpy(), probabilities, labels=labels)
    assert negative_log_likelihood(logits, targets) == pytest.approx(likelihood, rel=1e-12)
    brier = brier_score_loss(targets.numpy(), probabilities, labels=labels, scale_by_half=False)
    assert brier_score(logits, targets) == pytest.approx(brier, rel=1e-12)


def test_the_likelihood_is_that_of_cross_entropy_even_for_huge_logits() -> None:
    logits, targets = made(4, scale=500.0)
    expected = float(F.cross_entropy(logits.double(), targets))
    assert negative_log_likelihood(logits, targets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_softening_all_logits_never_changes_the_accuracy_but_the_calibration(seed: int) -> None:
    """Temperature scaling (Guo et al. 2017, section 4.2)."""
    logits, targets = made(seed, scale=8.0)
    errors = {t: expected_calibration_error(logits / t, targets) for t in (1.0, 4.0)}
    assert errors[1.0] != errors[4.0]
    assert torch.equal((logits / 4.0).argmax(1), logits.argmax(1))


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    logits, targets = made(5, count=5000)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(
            (
                expected_calibration_error(logits, targets),
                negative_log_likelihood(logits, targets),
                brier_score(logits, targets),
            )
        )
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_infinite_logits_and_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="finite logits"):
        brier_score(torch.tensor([[float("inf"), 0.0]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="at least one example"):
        expected_calibration_error(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
