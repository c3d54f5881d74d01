"""Mixtures of normal densities: full predictive distributions with moments, densities and quantiles.

Shape letters: R = rows (any leading axes), M = components, P = probabilities.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BISECTIONS = 40


@dataclass(frozen=True, eq=False)
class Mixture:
    """One mixture per row.

    Attributes:
        log_weight: Logs of weights that sum to one.
        mean: Means of the components.
        scale: Their standard deviations, above zero.
    """

    log_weight: Float[Tensor, "*rows components"]
    mean: Float[Tensor, "*rows components"]
    scale: Float[Tensor, "*rows components"]

    def log_density(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Log of the density at one value per row."""
        z = (values.unsqueeze(-1) - self.mean) / self.scale
        each = -0.5 * z**2 - self.scale.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(self.log_weight + each, dim=-1)

    def cumulative(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Probability of less than one value per row."""
        z = (values.unsqueeze(-1) - self.mean) / self.scale
        result: Tensor = (self.log_weight.exp() * torch.special.ndtr(z)).sum(dim=-1)
        return result

    def moments(self) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
        """Mean and standard deviation of each row."""
        weight = self.log_weight.exp()
        mean = (weight * self.mean).sum(dim=-1)
        second = (weight * (self.scale**2 + (self.mean - mean.unsqueeze(-1)) ** 2)).sum(dim=-1)
        return mean, second.sqrt()

    def quantile(self, probability: float) -> Float[Tensor, "*rows"]:
        """The value under which each row lies with this probability, found by bisection.

        Raises:
            ValueError: If the probability is not between 0 and 1.
        """
        if not 0.0 < probability < 1.0:
            raise ValueError(f"Expected a probability between 0 and 1 (got {probability})")
        reach = float(torch.special.ndtri(torch.tensor(probability, dtype=torch.double)))
        ends = self.mean + reach * self.scale  # the mixture's quantile lies among those of its components
        low, high = ends.amin(dim=-1), ends.amax(dim=-1)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self.cumulative(middle) < probability
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2
