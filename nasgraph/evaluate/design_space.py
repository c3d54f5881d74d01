"""How good is a design space? Error distributions of random samples, compared, and which choices they speak for.

After Radosavovic et al., "On Network Design Spaces for Visual Recognition", 2019, and "Designing Network Design Spaces", 2020:
a space is judged by the distribution of errors of networks drawn from it at random, not by its best network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from nasgraph.errors import NasGraphError
from nasgraph.evaluate.design_space_models import SampledModel
from nasgraph.evaluate.good_ranges import GoodRange, good_ranges
from nasgraph.seeding import generator

Array = np.ndarray


# ---- distributions


@dataclass(frozen=True, eq=False)
class ErrorDistribution:
    """An empirical distribution function of errors, maybe weighted.

    Attributes:
        errors: Rising.
        weights: Of each, with the sum one.
    """

    errors: Float[Array, " models"]
    weights: Float[Array, " models"]

    @property
    def min(self) -> float:
        """The least error."""
        return float(self.errors[0])

    @property
    def mean(self) -> float:
        """The mean error."""
        return float(self.errors @ self.weights)

    def quantile(self, share: float) -> float:
        """The least error that at least this share of the models does not exceed."""
        place = int(np.searchsorted(np.cumsum(self.weights), share - 1e-9))
        return float(self.errors[min(place, len(self.errors) - 1)])

    def share_up_to(self, errors: Float[Array, " points"]) -> Float[Array, " points"]:
        """Share of the models whose error is not above each of `errors` (2019, eq. 1, with equality)."""
        shares: Array = np.concatenate([[0.0], np.cumsum(self.weights)])
        return shares[np.searchsorted(self.errors, errors, side="right")]


def error_distribution(
    errors: Sequence[float] | Float[Array, " models"],
    weights: Sequence[float] | Float[Array, " models"] | None = None,
) -> ErrorDistribution:
    """The distribution of some errors.

    Raises:
        NasGraphError: If there is none, or a number is not finite, or weights are negative or all zero.
    """
    values = np.asarray(errors, dtype=float)
    given = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    if not len(values) or given.shape != values.shape or not np.isfinite(values).all():
        raise NasGraphError("Expected at least one error, all of them finite, and as many weights")
    if (given < 0).any() or not given.sum() > 0:
        raise NasGraphError("Expected weights of at least 0 that are not all 0")
    order = np.argsort(values, kind="stable")
    return ErrorDistribution(values[order], given[order] / given.sum())


def ks_statistic(first: ErrorDistribution, second: ErrorDistribution) -> float:
    """The Kolmogorov-Smirnov statistic: the largest vertical distance of two distribution functions."""
    points = np.concatenate([first.errors, second.errors])
    return float(np.abs(first.share_up_to(points) - second.share_up_to(points)).max())


def equal_cost_weights(
    first: Sequence[int], second: Sequence[int], *, num_bins: int = 10
) -> tuple[Float[Array, " first"], Float[Array, " second"]] | None:
    """Weights that give two populations one distribution of costs (2019, where complexity is controlled for).

    The range of costs that both have is cut into bins of equal width on a logarithmic scale; in each bin in which both have
    models, each population's models share the weight of one. Models elsewhere weigh nothing.

    Args:
        first: A cost of each model of one population.
        second: The same cost of the other.
        num_bins: Bins.

    Returns:
        Weights of the models of both; None if no bin has models of both.
    """
    one, other = (np.log(np.maximum(np.asarray(costs, dtype=float), 1.0)) for costs in (first, second))
    low, high = max(one.min(), other.min()), min(one.max(), other.max())
    if low > high:
        return None
    bins = [_bins(costs, low, high, num_bins) for costs in (one, other)]
    counts = [np.bincount(places[places >= 0], minlength=num_bins) for places in bins]
    shared = (counts[0] > 0) & (counts[1] > 0)
    if not shared.any():
        return None
    weights = []
    for places, count in zip(bins, counts, strict=True):
        per_bin = np.where(shared, 1.0 / np.maximum(count, 1), 0.0)
        weights.append(np.where(places >= 0, per_bin[np.maximum(places, 0)], 0.0))
    return weights[0], weights[1]


def _bins(costs: Float[Array, " models"], low: float, high: float, number: int) -> Int[Array, " models"]:
    """The bin of each model; -1 outside."""
    width = (high - low) / number or 1.0
    places = np.minimum(((costs - low) / width).astype(int), number - 1)
    return np.where((costs >= low) & (costs <= high), places, -1)


# ---- the whole


@dataclass(frozen=True, kw_only=True)
class PopulationSummary:
    """What a random sample says about a space.

    Attributes:
        name: Of the space.
        num_models: Models with an error.
        num_failed: Models without one.
        distribution: Of the errors.
        ranges: Good values of costs and choices.
    """

    name: str
    num_models: int
    num_failed: int
    distribution: ErrorDistribution
    ranges: tuple[GoodRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two populations side by side.

    Attributes:
        first, second: Their names.
        ks: Kolmogorov-Smirnov statistic.
        p_value: Chance of so large a statistic if both came from one distribution.
        ks_at_equal_cost: The statistic when both have one distribution of multiply-adds; None if they share no range.
        mean_at_equal_cost: Mean errors of both then.
    """

    first: str
    second: str
    ks: float
    p_value: float
    ks_at_equal_cost: float | None
    mean_at_equal_cost: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class DesignSpaceAnalysis:
    """Every population by itself, and every pair."""

    populations: tuple[PopulationSummary, ...]
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        return {
            "populations": [_summary_json(summary) for summary in self.populations],
            "comparisons": [
                {
                    name: getattr(comparison, name)
                    for name in ("first", "second", "ks", "p_value", "ks_at_equal_cost", "mean_at_equal_cost")
                }
                for comparison in self.comparisons
            ],
        }


def _summary_json(summary: PopulationSummary) -> dict[str, object]:
    errors = summary.distribution
    return {
        "name": summary.name,
        "num_models": summary.num_models,
        "num_failed": summary.num_failed,
        "min_error": errors.min,
        "mean_error": errors.mean,
        "quantiles": {f"{share:g}": errors.quantile(share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)},
        "good_ranges": [
            {field: getattr(each, field) for field in GoodRange.__slots__} for each in summary.ranges
        ],
    }


def analyse_design_spaces(
    populations: Mapping[str, Sequence[SampledModel]], *, seed: int = 0, resamples: int = 10_000
) -> DesignSpaceAnalysis:
    """Judge random samples of one or more spaces.

    Args:
        populations: Models by the name of their space.
        seed: Decides the draws of the bootstrap.
        resamples: How many.

    Raises:
        NasGraphError: If a population has no model with an error.
    """
    summaries = []
    for name, models in populations.items():
        measured = [model.error for model in models if model.error is not None]
        if not measured:
            raise NasGraphError(f"No model of '{name}' has an error, so there is nothing to analyse")
        rng = generator(seed, "good-ranges", name)
        summaries.append(
            PopulationSummary(
                name=name,
                num_models=len(measured),
                num_failed=len(models) - len(measured),
                distribution=error_distribution(measured),
                ranges=good_ranges(models, rng=rng, resamples=resamples),
            )
        )
    names = list(populations)
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
    return DesignSpaceAnalysis(
        populations=tuple(summaries),
        comparisons=tuple(_compare(one, other, populations[one], populations[other]) for one, other in pairs),
    )


def _compare(
    first: str, second: str, one: Sequence[SampledModel], other: Sequence[SampledModel]
) -> Comparison:
    from scipy.stats import ks_2samp  # slow to import

    errors, costs = [], []
    for models in (one, other):
        measured = [
            (model.error, model.costs["multiply_adds"]) for model in models if model.error is not None
        ]
        errors.append([error for error, _ in measured])
        costs.append([cost for _, cost in measured])
    plain = [error_distribution(values) for values in errors]
    weights = equal_cost_weights(costs[0], costs[1])
    equal = None
    if weights is not None:
        equal = [error_distribution(values, weight) for values, weight in zip(errors, weights, strict=True)]
    return Comparison(
        first=first,
        second=second,
        ks=ks_statistic(plain[0], plain[1]),
        p_value=float(ks_2samp(errors[0], errors[1]).pvalue),
        ks_at_equal_cost=None if equal is None else ks_statistic(equal[0], equal[1]),
        mean_at_equal_cost=None if equal is None else (equal[0].mean, equal[1].mean),
    )
