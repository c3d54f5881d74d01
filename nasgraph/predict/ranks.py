"""Ranks: scores of unlike scales made comparable by their order alone.

Scores of networks have tails that no scaling tames: proxies are undefined or huge, losses explode. Their order is sound.

Shape letters: G = graphs, S = scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import norm, rankdata

from nasgraph.predict.prediction import Prediction

Array = np.ndarray
Scores = Sequence[float] | Float[Array, " graphs"]
"""One number per graph."""


def mean_of_ranks(scores: Sequence[Scores]) -> Prediction:
    """Combine scores without any label: the mean over scores of each graph's rank among the graphs given.

    Ranks are scaled to (0, 1), the best near 1; ties share theirs. NaN and minus infinity rank last. Depends on
    the company: means of two calls cannot be compared.

    Args:
        scores: One sequence per score, each with one number per graph. Higher is better in all of them.

    Returns:
        The mean rank, and the standard deviation between the scores: how much they disagree.

    Raises:
        ValueError: If there are no scores or their lengths differ.
    """
    if not scores or len({len(score) for score in scores}) != 1:
        raise ValueError("Expected at least one score, and one number per graph in each")
    rank_SG = np.stack([scaled_ranks(score) for score in scores])
    return Prediction(torch.from_numpy(rank_SG.mean(axis=0)), torch.from_numpy(rank_SG.std(axis=0)))


def scaled_ranks(values: Scores) -> Float[Array, " graphs"]:
    """Ranks in (0, 1), the highest value near 1, ties averaged; NaN counts as minus infinity."""
    x = bottomed(np.asarray(values, dtype=np.float64))
    ranks: Array = (rankdata(x) - 0.5) / max(1, len(x))
    return ranks


def bottomed(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The values with NaN as minus infinity: failures stand at the bottom."""
    result: Array = np.where(np.isnan(values), -np.inf, values)
    return result


@dataclass(frozen=True, eq=False)
class NormalScores:
    """Maps values to the normal quantile of their place among known values, and back.

    Monotone. Ties share a place; values between known ones are interpolated; values outside get the place of the outermost.

    Attributes:
        known: Distinct known values, rising; infinities only at the ends.
        quantile: Their normal quantiles, rising.
    """

    known: Float[Array, " distinct"]
    quantile: Float[Array, " distinct"]

    @staticmethod
    def of(values: Float[Array, " values"]) -> "NormalScores":
        """Know these values; NaN counts as minus infinity."""
        x = bottomed(values)
        distinct, first = np.unique(x, return_index=True)
        return NormalScores(distinct, norm.ppf(scaled_ranks(x))[first])

    def __call__(self, values: Float[Array, " values"]) -> Float[Array, " values"]:
        """Normal quantiles of values; NaN counts as minus infinity."""
        x, finite = bottomed(values), np.isfinite(self.known)
        if not finite.any():
            return np.zeros_like(x)
        result: Array = np.interp(x, self.known[finite], self.quantile[finite])
        for end in (-np.inf, np.inf):
            own = self.quantile[self.known == end]
            result[x == end] = own[0] if len(own) else result[x == end]
        return result

    def inverse(self, quantile: Float[Array, " values"]) -> Float[Array, " values"]:
        """The values that stand at these quantiles. For known values that are all finite.

        Strictly monotone: beyond the ends it goes on with the mean slope, so that the order survives.
        """
        width = self.quantile[-1] - self.quantile[0]
        slope = (self.known[-1] - self.known[0]) / width if width > 0 else 1.0
        inside = np.clip(quantile, self.quantile[0], self.quantile[-1])
        result: Array = np.interp(inside, self.quantile, self.known) + slope * (quantile - inside)
        return result
