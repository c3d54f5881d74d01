"""Bayesian optimisation over the rows of a table: a growing Gaussian process and the expected improvement.

Unlike a surrogate that is fitted anew at every query, the process takes one label at a time; see `GrowingProcess`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.evaluate.table_strategy import Description, OpenRows, SearchView, SeededStrategy
from nasgraph.predict.growing_process import SEARCH_LENGTH_PRIOR, GrowingProcess
from nasgraph.predict.ranks import NormalScores
from nasgraph.seeding import generator

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesianConfig:
    """Settings of a Bayesian search.

    Attributes:
        num_initial: Rows queried before there is a model.
        num_guided: How many of them side columns choose, where there are any that higher is better of; the others are random.
        fit_growth: Settings of the process are fitted anew whenever the number of labels has grown by this factor, and by
            two at least. The posterior is that of all labels at every query.
        num_draws: Settings that the expected improvement is averaged over, until there are 100 labels; 1 for the best ones alone.

    Raises:
        ConfigError: If there is no initial row, more are guided than there are, the factor is below 1, or there is no draw.
    """

    num_initial: int = 6
    num_guided: int = 3
    fit_growth: float = 1.15
    num_draws: int = 4

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ConfigError(f"Expected 'num_draws' of at least 1 (got {self.num_draws})")
        if not 0 <= self.num_guided <= self.num_initial or self.num_initial < 1 or self.fit_growth < 1:
            raise ConfigError(
                "Expected at least one initial row, no more guided ones, and 'fit_growth' of at least 1 "
                f"(got {self.num_initial}, {self.num_guided} and {self.fit_growth})"
            )


@dataclass(eq=False)
class BayesianStrategy:
    """Expected improvement under a Gaussian process over graph features and side columns. `Strategy`.

    Values enter as normal scores: accuracies have a long tail below. The improvement is over the best posterior mean of a
    queried row, and of the function without noise, so that a twin of a queried row promises little.
    """

    view: SearchView
    config: BayesianConfig
    rng: np.random.Generator
    _open: OpenRows = field(init=False)
    _process: GrowingProcess = field(init=False)
    _values: list[float] = field(default_factory=list, init=False)
    _fitted: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._open = OpenRows.all_of(self.view)
        self._process = GrowingProcess(
            self._description.numbers,
            self._description.blocks,
            num_draws=self.config.num_draws,
            length_prior=SEARCH_LENGTH_PRIOR,
            seed=int(self.rng.integers(2**31)),
        )

    def ask(self) -> Sequence[int]:
        """A guided row, a random row, or that of the highest expected improvement; ties at random."""
        if len(self._values) >= self.config.num_initial:
            return [self._open.take(self._most_promising())]
        guided = len(self._values) < self.config.num_guided and self.view.signals.shape[1] > 0
        return [self._open.take(self._signalled() if guided else self._open.draw(self.rng))]

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        """One more label for the process."""
        for row, value in zip(rows, values, strict=True):
            self._process.add(int(self._description.place[row]))
            self._values.append(value)

    @property
    def _description(self) -> Description:
        return self.view.description

    def _signalled(self) -> int:
        """The open row that a random mixture of the signals, with positive weights, puts on top."""
        weights = self.rng.dirichlet(np.ones(self.view.signals.shape[1]))
        return self._best_open(self.view.signals @ weights)

    def _most_promising(self) -> int:
        known = np.array(self._values)
        y = NormalScores.of(known)(known)
        count = len(y)
        if count >= max(self._fitted * self.config.fit_growth, self._fitted + 2) and np.ptp(y) > 0:
            self._process.fit_settings(y)
            self._fitted = count
        return self._best_open(mean_log_improvement(self._process, y)[self._description.place])

    def _best_open(self, scores: Float[Array, " rows"]) -> int:
        among = np.where(self._open.is_open, scores, -np.inf)
        return int(self.rng.choice(np.flatnonzero(among == among.max())))


def bayesian(view: SearchView, *, config: BayesianConfig = BayesianConfig()) -> SeededStrategy:
    """Bayesian optimisation over the descriptions of a view."""
    _ = view.description, view.signals
    return lambda seed: BayesianStrategy(view, config, generator(seed, "bayesian"))


def mean_log_improvement(
    process: GrowingProcess, targets: Float[Array, " labelled"]
) -> Float[Array, " rows"]:
    """Logarithm of the expected improvement over the best posterior mean of a labelled row, averaged over draws of the settings."""
    labelled = list(process.labelled)
    draws = zip(*process.posteriors(targets), strict=True)
    each = [log_expected_improvement(mean, std, mean[labelled].max()) for mean, std in draws]
    result: Array = np.logaddexp.reduce(each) - math.log(len(each))
    return result


def log_expected_improvement(
    mean: Float[Array, " rows"], std: Float[Array, " rows"], best: float
) -> Float[Array, " rows"]:
    """Logarithm of the expected improvement over `best` under normal distributions; finite however small it is.

    As in Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", 2023, eq. 9: with
    u = (mean - best) / std it is log std + log(phi(u) + u Phi(u)), written so that nothing underflows.
    """
    from scipy.special import erfcx, ndtr

    u = (mean - best) / std
    density = -(u**2) / 2 - math.log(2 * math.pi) / 2
    low, far = np.minimum(u, -1.0), np.minimum(u, -1e3)
    ratio = low * math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2))  # u Phi(u) / phi(u), near -1 far below
    below = density + np.where(u > -1e3, np.log1p(np.maximum(ratio, -1 + 1e-15)), -2 * np.log(-far))
    upper = np.maximum(u, -1.0)
    above = np.log(np.exp(-(upper**2) / 2) / math.sqrt(2 * math.pi) + upper * ndtr(upper))
    result: Array = np.log(std) + np.where(u > -1, above, below)
    return result
