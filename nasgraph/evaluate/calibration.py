"""Whether a network's confidence is what it is worth: calibration errors and proper scores from logits.

All sums are taken by numpy in double precision and in one thread, so equal logits give equal bits whatever the number of
threads.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int64
from torch import Tensor

NUM_BINS = 15
"""As many bins as Guo et al. 2017 have in their tables."""

_Reals = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Examples of like confidence.

    Attributes:
        low, high: Confidences above `low` and up to `high`.
        num_examples: How many there are.
        confidence: Mean confidence; nan if there are none.
        accuracy: Share of right answers; nan if there are none.
    """

    low: float
    high: float
    num_examples: int
    confidence: float
    accuracy: float


def class_probabilities(logits: Float[Tensor, "examples classes"]) -> _Reals:
    """Softmax over the classes, `[examples, classes]`, in double precision.

    Raises:
        ValueError: If a logit is not finite.
    """
    values = logits.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise ValueError("Expected finite logits (got NaN or an infinity)")
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities: _Reals = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def reliability_bins(
    logits: Float[Tensor, "examples classes"],
    targets: Int64[Tensor, " examples"],
    *,
    num_bins: int = NUM_BINS,
) -> tuple[ReliabilityBin, ...]:
    """The rows of a reliability diagram (Guo et al. 2017, section 2): accuracy against confidence.

    The confidence of an example is the largest of its class probabilities. Bin m of M has those in ((m - 1) / M, m / M].

    Args:
        logits: One row per example.
        targets: The right classes.
        num_bins: Number of bins of equal width.
    """
    confidence, is_right = _confidence(logits, targets)
    edges = np.arange(num_bins + 1) / num_bins
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(place, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # an empty bin has no mean
        means = np.bincount(place, weights=confidence, minlength=num_bins) / counts
        shares = np.bincount(place, weights=is_right, minlength=num_bins) / counts
    return tuple(
        ReliabilityBin(
            float(edges[i]), float(edges[i + 1]), int(counts[i]), float(means[i]), float(shares[i])
        )
        for i in range(num_bins)
    )


def expected_calibration_error(
    logits: Float[Tensor, "examples classes"],
    targets: Int64[Tensor, " examples"],
    *,
    num_bins: int = NUM_BINS,
) -> float:
    """Expected calibration error (Guo et al. 2017, "On calibration of modern neural networks", eq. 3), in [0, 1].

    The mean over bins of equal width, weighted by the number of examples n_m in each, of the gap between accuracy and mean
    confidence: sum_m n_m / n |accuracy_m - confidence_m|. 0 is best. It depends on the number of bins, and is biased
    upwards where bins have few examples.

    Args:
        logits: One row per example.
        targets: The right classes.
        num_bins: Number of bins of equal width.
    """
    bins = [one for one in reliability_bins(logits, targets, num_bins=num_bins) if one.num_examples]
    gaps = [one.num_examples * abs(one.accuracy - one.confidence) for one in bins]
    return float(sum(gaps) / len(targets))


def adaptive_calibration_error(
    logits: Float[Tensor, "examples classes"],
    targets: Int64[Tensor, " examples"],
    *,
    num_bins: int = NUM_BINS,
) -> float:
    """Calibration error over bins with equal numbers of examples (Nguyen and O'Connor 2015, section 3), in [0, 1].

    Most networks are confident on most examples, which then share a few of the bins of equal width; here each bin says equally
    much. Examples are sorted by confidence and, where it is equal, stand in their order. The first bins have one example
    more where the number of bins does not divide that of the examples.

    Args:
        logits: One row per example.
        targets: The right classes.
        num_bins: Number of bins; with fewer examples, one bin each.
    """
    confidence, is_right = _confidence(logits, targets)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(num_bins, len(order)))
    gaps = [len(part) * abs(is_right[part].mean() - confidence[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def negative_log_likelihood(
    logits: Float[Tensor, "examples classes"], targets: Int64[Tensor, " examples"]
) -> float:
    """Mean of minus the natural logarithm of the right class's probability, at least 0. A proper score; 0 is best."""
    values = logits.detach().cpu().double().numpy()
    shifted = values - values.max(axis=1, keepdims=True)
    right = shifted[np.arange(len(shifted)), targets.cpu().numpy()]
    return float((np.log(np.exp(shifted).sum(axis=1)) - right).mean())


def brier_score(logits: Float[Tensor, "examples classes"], targets: Int64[Tensor, " examples"]) -> float:
    """Brier score (Brier 1950, eq. 2), in [0, 2]: the squared distance between the class probabilities and the truth.

    The sum over classes, and the mean over examples. A proper score; 0 is best.
    """
    probabilities = class_probabilities(logits)
    probabilities[np.arange(len(probabilities)), targets.cpu().numpy()] -= 1.0
    return float(np.square(probabilities).sum(axis=1).mean())


def _confidence(logits: Tensor, targets: Tensor) -> tuple[_Reals, _Flags]:
    """The largest class probability of each example, and whether its class is right. Of equal ones the first counts."""
    probabilities = class_probabilities(logits)
    if not len(probabilities):
        raise ValueError("Expected at least one example (got 0)")
    is_right: _Flags = probabilities.argmax(axis=1) == targets.cpu().numpy()
    return probabilities.max(axis=1), is_right


__all__ = [
    "NUM_BINS",
    "ReliabilityBin",
    "adaptive_calibration_error",
    "brier_score",
    "class_probabilities",
    "expected_calibration_error",
    "negative_log_likelihood",
    "reliability_bins",
]
