"""Bayesian optimisation over the graphs of a space."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.evaluate.table_bayesian import mean_log_improvement
from nasgraph.predict.gaussian_process import Block
from nasgraph.predict.growing_process import SEARCH_LENGTH_PRIOR, GrowingProcess
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience
from nasgraph.search.strategies.bayesian_search import PoolConfig, PoolSearch, propose_from
from nasgraph.spaces import Candidate, SearchSpace

Array = np.ndarray
Acquisition = Literal["log_ei", "thompson"]
THOMPSON_ROWS = 128
"""Rows that a joint sample is drawn for: those whose mean and two standard deviations are highest."""
JITTER = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesianConfig:
    """Settings of Bayesian optimisation.

    Attributes:
        acquisition: `log_ei`: the logarithm of the expected improvement over the best posterior mean of an observed candidate
            (Ament et al. 2023), averaged over draws of the settings. `thompson`: the best candidate of a joint sample of the
            posterior.
        num_draws: Settings of the process to average over, until there are 100 labels; see `GrowingProcess`.
        pool: What is chosen from, and when the process is fitted.

    Raises:
        ConfigError: If there is no such acquisition, or no draw.
    """

    acquisition: Acquisition = "log_ei"
    num_draws: int = 4
    pool: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        if self.acquisition not in get_args(Acquisition):
            raise ConfigError(
                f"Expected 'acquisition' to be one of {get_args(Acquisition)} (got {self.acquisition!r})"
            )
        if self.num_draws < 1:
            raise ConfigError(f"Expected 'num_draws' of at least 1 (got {self.num_draws})")


class BayesianSampler(ArchitectureSampler):
    """Bayesian optimisation with a Gaussian process over graph features, neighbourhoods and choices.

    Candidates that are underway condition the variance, so that a batch spreads out. A label costs one row of a factor and a pass
    over the pool; settings are fitted at fixed numbers of labels. Several objectives take turns under random weights (ParEGO).
    What the process knows is bounded, see `PoolConfig`: the cost of a proposal does not grow with the number of observations.

    Args:
        space: What is searched.
        seed: Decides everything random.
        config: Settings.
    """

    def __init__(self, space: SearchSpace, *, seed: int, config: BayesianConfig = BayesianConfig()) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._searches: WeakKeyDictionary[Experience, PoolSearch] = WeakKeyDictionary()

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """The candidate of the pool with the highest acquisition."""
        if experience not in self._searches:
            self._searches[experience] = PoolSearch(
                self.space,
                seed=self.seed,
                config=self.config.pool,
                make_belief=self._belief,
                experience=experience,
            )
        return propose_from(
            self._searches[experience],
            experience,
            lambda search, rng: self._scores(search, rng, number),
            number=number,
            attempt=attempt,
        )

    def _belief(self, rows: Float[Array, "rows columns"], blocks: Sequence[Block]) -> GrowingProcess:
        return GrowingProcess(
            rows,
            blocks,
            num_draws=self.config.num_draws,
            seed=self.seed,
            length_prior=SEARCH_LENGTH_PRIOR,
        )

    def _scores(self, search: PoolSearch, rng: np.random.Generator, number: int) -> Float[Array, " rows"]:
        assert isinstance(search.belief, GrowingProcess)
        targets = search.targets("proposal", number)
        if self.config.acquisition == "log_ei":
            return mean_log_improvement(search.belief, targets)
        return thompson(search.belief, targets, rng)


def thompson(
    process: GrowingProcess, targets: Float[Array, " labelled"], rng: np.random.Generator
) -> Float[Array, " rows"]:
    """One joint sample of the posterior, settings included, at the rows that have a chance to be the best; minus infinity at the
    others."""
    mean_SM, std_SM = process.posteriors(targets)
    draw = int(rng.integers(len(mean_SM)))
    mean, std = mean_SM[draw], std_SM[draw]
    rows = np.argsort(-(mean + 2 * std), kind="stable")[:THOMPSON_ROWS]
    covariance = process.covariances(rows.tolist())[draw]
    values, vectors = np.linalg.eigh(covariance + JITTER * np.eye(len(rows)))
    drawn = vectors @ (np.sqrt(np.maximum(values, 0)) * rng.standard_normal(len(rows)))
    scores = np.full(len(mean), -np.inf)
    scores[rows] = mean[rows] + drawn
    return scores
