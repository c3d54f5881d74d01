"""How wrong a network is on new data without labels, told from how sure it is.

All functions work on logits of one or many networks at once: the leading axes of `logits` are kept.

Shape letters: N = examples of the source (labelled), M = examples of the target (not labelled), K = classes.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Score = Literal["confidence", "entropy"]


def confidence(logits: Float[Tensor, "*networks examples classes"]) -> Float[Tensor, "*networks examples"]:
    """The share of the most likely class."""
    return logits.double().softmax(-1).amax(-1)


def negative_entropy(
    logits: Float[Tensor, "*networks examples classes"],
) -> Float[Tensor, "*networks examples"]:
    """Less the entropy of the classes' shares, in nats: larger is surer."""
    entropy: Tensor = torch.special.entr(logits.double().softmax(-1)).sum(-1)
    return -entropy


_SCORES: Mapping[Score, Callable[[Tensor], Tensor]] = {
    "confidence": confidence,
    "entropy": negative_entropy,
}


def average_confidence(target: Float[Tensor, "*networks examples classes"]) -> Float[Tensor, "*networks"]:
    """One less the mean confidence: the error of a calibrated network (Hendrycks and Gimpel 2017)."""
    return 1 - confidence(target).mean(-1)


def mean_entropy(target: Float[Tensor, "*networks examples classes"]) -> Float[Tensor, "*networks"]:
    """Mean entropy over its largest value: no estimate of the error, but a number that rises with it. In [0, 1]."""
    return -negative_entropy(target).mean(-1) / torch.log(torch.tensor(float(target.shape[-1]))).double()


def difference_of_confidences(
    source: Float[Tensor, "*networks examples classes"],
    source_targets: Int64[Tensor, " examples"],
    target: Float[Tensor, "*networks others classes"],
) -> Float[Tensor, "*networks"]:
    """The error on the source and what mean confidence has lost since (Guillory, Shankar, Ebrahimi, Darrell and Schmidt, "Predicting with
    Confidence on Unseen Distributions", 2021, with slope one). In [0, 1]."""
    lost = confidence(source).mean(-1) - confidence(target).mean(-1)
    return (source_error(source, source_targets) + lost).clamp(0, 1)


def average_thresholded_confidence(
    source: Float[Tensor, "*networks examples classes"],
    source_targets: Int64[Tensor, " examples"],
    target: Float[Tensor, "*networks others classes"],
    *,
    score: Score = "entropy",
) -> Float[Tensor, "*networks"]:
    """Share of the target that is less sure than a threshold, below which lies as large a share of the source as is wrong.

    ATC: Garg, Balakrishnan, Lipton, Neyshabur and Sedghi, "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance", 2022, equations 1 and 2; their
    best score is the negative entropy. On the source itself the estimate is exact, if no two scores are equal.

    Args:
        source: Logits on labelled data that were not trained on.
        source_targets: Their labels.
        target: Logits on new data.
        score: What says how sure a network is.
    """
    scores_N = _SCORES[score](source).sort(-1).values
    wrong = (source_error(source, source_targets) * scores_N.shape[-1]).round().long()
    infinite = torch.full_like(scores_N[..., :1], float("inf"))
    threshold = torch.cat([scores_N, infinite], dim=-1).gather(-1, wrong.unsqueeze(-1))
    return (_SCORES[score](target) < threshold).double().mean(-1)


def source_error(
    logits: Float[Tensor, "*networks examples classes"], targets: Int64[Tensor, " examples"]
) -> Float[Tensor, "*networks"]:
    """Share of labelled examples that are wrong."""
    return (logits.argmax(-1) != targets).double().mean(-1)


def label_free_estimates(
    source: Float[Tensor, "*networks examples classes"],
    source_targets: Int64[Tensor, " examples"],
    target: Float[Tensor, "*networks others classes"],
) -> dict[str, Float[Tensor, "*networks"]]:
    """All estimates of this file by name. `mean_entropy` only ranks; the others are errors.

    Args:
        source: Logits on labelled data that were not trained on.
        source_targets: Their labels.
        target: Logits on new data without labels.

    Raises:
        ValueError: If shapes do not fit, an axis is empty, or a number is not finite.
    """
    if source.shape[:-2] != target.shape[:-2] or source.shape[-1:] != target.shape[-1:] or source.dim() < 2:
        raise ValueError(
            f"Expected logits of the same networks and classes (got {tuple(source.shape)} and {tuple(target.shape)})"
        )
    if source_targets.shape != source.shape[-2:-1] or 0 in source.shape or 0 in target.shape:
        raise ValueError(
            f"Expected a label for each of at least one example (got {tuple(source_targets.shape)} for {tuple(source.shape)})"
        )
    if not (torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise ValueError("Expected finite logits: a network that diverged cannot be judged")
    return {
        "average_confidence": average_confidence(target),
        "difference_of_confidences": difference_of_confidences(source, source_targets, target),
        "atc_entropy": average_thresholded_confidence(source, source_targets, target),
        "atc_confidence": average_thresholded_confidence(source, source_targets, target, score="confidence"),
        "mean_entropy": mean_entropy(target),
    }
