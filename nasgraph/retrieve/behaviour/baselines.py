"""How transferable the outputs of a model are, in closed form: LogME, LEEP, and a linear probe.

All three look at what a model says of the labelled query examples, and at nothing else. Higher is better; values of different
measures, or of different queries, cannot be compared.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties that a probe chooses from, in units of the mean square of the features."""
_ROUNDS = 50


def log_me(features: Tensor, labels: Tensor) -> float:
    """Logarithm of maximum evidence per example, the mean over classes one against the rest.

    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", 2021, equation 2 and algorithm 1: the
    evidence of a Bayesian linear model, maximised over the precisions of its weights and its noise by MacKay's fixed
    point, which one singular value decomposition makes cheap. Features are used as they are, without intercept, as there.

    Args:
        features: `[n, d]`.
        labels: `[n]`, classes from 0.
    """
    f = features.double()
    u, s, _ = torch.linalg.svd(f, full_matrices=False)
    keep = s > s.max() * 1e-10
    targets = torch.nn.functional.one_hot(labels).double()
    return float(_evidence(u[:, keep], s[keep, None] ** 2, targets, f.shape[1]).mean())


def _evidence(u: Tensor, squares: Tensor, targets: Tensor, num_features: int) -> Tensor:
    """Evidence per example of each target, maximised over alpha (weights) and beta (noise)."""
    n = len(targets)
    along = (u.T @ targets) ** 2  # squared target along each left singular vector
    across = ((targets**2).sum(0) - along.sum(0)).clamp(min=0)
    alpha = beta = targets.new_ones(targets.shape[1])
    for _ in range(_ROUNDS):
        ratio = alpha / beta
        gamma = (squares / (squares + ratio)).sum(0)
        weights, residual = _sums(squares, along, across, ratio)
        alpha = (gamma / weights.clamp(min=1e-12)).clamp(1e-10, 1e10)
        beta = ((n - gamma).clamp(min=1e-6) / residual.clamp(min=1e-12)).clamp(1e-10, 1e10)
        if bool((abs(alpha / beta - ratio) <= 1e-6 * ratio).all()):
            break
    weights, residual = _sums(squares, along, across, alpha / beta)
    log_det = torch.log(alpha + beta * squares).sum(0) + (num_features - len(squares)) * torch.log(alpha)
    value = n * (torch.log(beta) - math.log(2 * math.pi)) + num_features * torch.log(alpha) - log_det
    return (value - beta * residual - alpha * weights) / (2 * n)


def _sums(squares: Tensor, along: Tensor, across: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norm of the best weights, and squared error that they leave, per target."""
    share = along / (squares + ratio) ** 2
    return (squares * share).sum(0), (ratio**2 * share).sum(0) + across


def leep(logits: Tensor, labels: Tensor) -> float:
    """Log expected empirical prediction (Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", 2020, equation 2): mean log likelihood of a classifier that reads the model's label as a dummy.

    Args:
        logits: `[n, source classes]`.
        labels: `[n]`, classes from 0.
    """
    source = logits.double().softmax(1)
    joint = torch.nn.functional.one_hot(labels).double().T @ source / len(labels)
    given = joint / joint.sum(0).clamp(min=1e-300)
    likelihood = (source @ given.T).gather(1, labels[:, None])
    return float(likelihood.clamp(min=1e-300).log().mean())


@dataclass(frozen=True, slots=True)
class Probe:
    """What a linear probe found, every example predicted by the probe of all others.

    Attributes:
        accuracy: Share of examples that are predicted right.
        error: Mean squared error of the predicted class indicators.
        ridge: The penalty that it chose: that of the least error.
    """

    accuracy: float
    error: float
    ridge: float


def linear_probe(features: Tensor, labels: Tensor) -> Probe:
    """Fit class indicators by ridge regression with a free intercept, and predict each example without itself.

    The left-out predictions are exact and need no second fit: `(p - h y) / (1 - h)`, where `p` is the fit and `h` the
    example's own weight in it (Allen, "The relationship between variable selection and data augmentation and a method for
    prediction", 1974; PRESS). The penalty is the one of `RIDGES` of the least squared error.

    Args:
        features: `[n, d]`.
        labels: `[n]`, classes from 0.
    """
    targets = torch.nn.functional.one_hot(labels).double()
    centred = features.double() - features.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    scale = float((s**2).sum()) / max(s.numel(), 1) or 1.0
    best: Probe | None = None
    for ridge in RIDGES:
        shrunk = s**2 / (s**2 + ridge * scale)
        own = (u**2 * shrunk).sum(1) + 1 / len(labels)
        fit = (u * shrunk) @ (u.T @ targets) + targets.mean(0)
        left_out = (fit - own[:, None] * targets) / (1 - own[:, None]).clamp(min=1e-9)
        error = float(((left_out - targets) ** 2).mean())
        if best is None or error < best.error:
            accuracy = float((left_out.argmax(1) == labels).double().mean())
            best = Probe(accuracy, error, ridge)
    assert best is not None
    return best
