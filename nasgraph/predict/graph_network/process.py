"""A Gaussian process around scores that are known beforehand, averaged over its settings.

Shape letters: L = labelled graphs, G = others, F = features of a block, S = known scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from jaxtyping import Float

Array = np.ndarray
MeanAndStd = tuple[Float[Array, " graphs"], Float[Array, " graphs"]]

LENGTHS = (0.5, 1.0, 2.0, 4.0)
SCALES = (0.0, 0.1, 0.3, 1.0)
NOISES = (0.05, 0.2, 0.5)
SLOPES = {0.0: -4.0, 0.3: -1.5, 0.6: 0.0, 0.9: 0.0}
"""Slopes of the known score, and the logarithm of how likely each is beforehand: a score is given because it is believed to tell
something. With the same chances for all, ten unlucky labels could overrule a base that ranks well."""
OFFSET = 0.1
"""Variance of the constant."""
MOST_SETTINGS = 24
"""Settings that are kept for prediction; the evidence is rarely spread over more."""


@dataclass(frozen=True)
class _Setting:
    """One process: which blocks it compares, its kernel, its prior mean, and what the labels made of it."""

    blocks: tuple[int, ...]
    length: float
    scale: float
    noise: float
    score: int
    slope: float
    evidence: float
    alpha: Float[Array, " labels"]


def fit_process(
    blocks: Sequence[Float[Array, "labels _"]],
    scores: Float[Array, "labels scores"],
    targets: Float[Array, " labels"],
    *,
    beliefs: Sequence[float],
) -> Callable[[Sequence[Float[Array, "others _"]], Float[Array, "others scores"]], MeanAndStd]:
    """Fit targets by `slope * score + f(features)`, f a Gaussian process with a radial kernel.

    Which score, its slope (never negative), which blocks of features are compared, the kernel's length and scale and the noise
    are not chosen but averaged over a fixed grid, each setting with the weight of its marginal likelihood times its prior (Rasmussen and
    Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.7 and 5.4). With ten labels one best setting is an
    accident; the average leans on the scores until labels speak. No optimiser and no seed. Time grows with the third power
    of the labels: up to about a thousand.

    Args:
        blocks: Features near unit variance, column by column; the first block is always compared. A block counts as one,
            however many columns it has.
        scores: Known scores of the graphs, each near zero mean and unit variance.
        targets: Near standard normal.
        beliefs: For each score the logarithm of how likely it is the one to build on.

    Returns:
        What gives mean and standard deviation (noise included) for other graphs, described alike.
    """
    within = [_square_distances(block, block) for block in blocks]
    settings = _settings(within, scores, targets, beliefs)
    best = max(setting.evidence for setting in settings)
    kept = sorted(settings, key=lambda setting: -setting.evidence)[:MOST_SETTINGS]
    weights = np.exp([setting.evidence - best for setting in kept])
    weights /= weights.sum()
    inverses = [_inverse(_noisy_kernel(within, setting))[0] for setting in kept]

    def predict(
        others: Sequence[Float[Array, "others _"]], known: Float[Array, "others scores"]
    ) -> MeanAndStd:
        distances = [_square_distances(other, block) for other, block in zip(others, blocks, strict=True)]
        means, variances = [], []
        for setting, inverse in zip(kept, inverses, strict=True):
            kernel_GL = _kernel(distances, setting.blocks, setting.length, setting.scale)
            means.append(setting.slope * known[:, setting.score] + kernel_GL @ setting.alpha)
            explained = np.einsum("gl,lm,gm->g", kernel_GL, inverse, kernel_GL, optimize=True)
            variances.append(np.maximum(setting.scale + OFFSET - explained, 0.0) + setting.noise)
        mean = weights @ np.stack(means)
        spread = weights @ (np.stack(variances) + (np.stack(means) - mean) ** 2)
        return mean, np.sqrt(spread)

    return predict


def _settings(
    distances: Sequence[Float[Array, "labels labels"]],
    scores: Float[Array, "labels scores"],
    targets: Float[Array, " labels"],
    beliefs: Sequence[float],
) -> list[_Setting]:
    """Every setting of the grid with its evidence: logarithms of marginal likelihood and prior."""
    # A slope of zero has no score to choose, a scale of zero no length and no blocks.
    means = [(0, slope, prior) for slope, prior in SLOPES.items() if not slope]
    for score, belief in enumerate(beliefs):
        means += [(score, slope, prior + belief) for slope, prior in SLOPES.items() if slope]
    optional = range(1, len(distances))
    subsets = [
        (0, *rest) for rest in chain.from_iterable(combinations(optional, k) for k in range(len(distances)))
    ]
    kernels = [
        (blocks, length, scale)
        for blocks in subsets
        for length in LENGTHS
        for scale in SCALES
        if scale > 0 or (blocks == (0,) and length == LENGTHS[0])
    ]
    settings = []
    for blocks, length, scale in kernels:
        kernel_LL = _kernel(distances, blocks, length, scale)
        for noise in NOISES:
            inverse, log_root = _inverse(kernel_LL + noise * np.eye(len(targets)))
            for score, slope, prior in means:
                rest = targets - slope * scores[:, score] if slope else targets
                alpha = inverse @ rest
                evidence = prior - 0.5 * float(rest @ alpha) - log_root
                settings.append(_Setting(blocks, length, scale, noise, score, slope, evidence, alpha))
    return settings


def _kernel(
    distances: Sequence[Float[Array, "rows columns"]], blocks: Sequence[int], length: float, scale: float
) -> Float[Array, "rows columns"]:
    mean = sum(distances[block] for block in blocks) / len(blocks)
    kernel: Array = scale * np.exp(-0.5 * mean / length**2) + OFFSET
    return kernel


def _noisy_kernel(
    distances: Sequence[Float[Array, "labels labels"]], setting: _Setting
) -> Float[Array, "labels labels"]:
    kernel = _kernel(distances, setting.blocks, setting.length, setting.scale)
    noisy: Array = kernel + setting.noise * np.eye(len(kernel))
    return noisy


def _inverse(matrix: Float[Array, "labels labels"]) -> tuple[Float[Array, "labels labels"], float]:
    """Inverse of a positive matrix, and half the logarithm of its determinant."""
    root = np.linalg.cholesky(matrix)
    root_inverse = np.linalg.inv(root)
    return root_inverse.T @ root_inverse, float(np.log(np.diag(root)).sum())


def _square_distances(
    rows: Float[Array, "rows features"], columns: Float[Array, "columns features"]
) -> Float[Array, "rows columns"]:
    """Mean over features of the squared difference."""
    squares = (rows**2).sum(axis=1)[:, None] + (columns**2).sum(axis=1)[None, :] - 2 * rows @ columns.T
    distance: Array = np.maximum(squares, 0.0) / max(1, rows.shape[1])
    return distance
