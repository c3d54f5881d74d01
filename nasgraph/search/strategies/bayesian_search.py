"""What model-based samplers share: a pool, a belief about it, and the schedule by which both follow what was observed.

Everything is a function of the space, the seed and the observations in their order, read one at a time. So a new object that is
given all observations at once goes the same way as one that saw them come, fits at the same counts included, and ends in the same
state; that takes as long as it took the first time, less the proposals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.evaluate.table_bayesian import log_expected_improvement
from nasgraph.predict.gaussian_process import Block, MeanAndStd
from nasgraph.predict.ranks import NormalScores, scaled_ranks
from nasgraph.search.experience import Admits, Experience, Observation
from nasgraph.search.records import TrialState
from nasgraph.search.strategies.bayesian_pool import CandidatePool
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace, sample

Array = np.ndarray
LATE = 100
"""Labels beyond which settings are fitted less often, and fewer candidates come to the pool at a time."""
LATE_GROWTH = 1.5
MAX_FITTED = 150
"""Labelled rows that settings are fitted to: the best half and the latest half."""
AUGMENTATION = 0.05
"""Weight of the sum in the augmented Chebyshev function (Knowles 2006)."""
SLACK = 1.25
"""By what factor a pool outgrows its size before it is cut back."""
SHARE_RANDOM = 0.1
SHARE_BEST = 0.5
"""Shares of the new candidates that are random, and that are mutations of the best observed ones; the others are mutations of the
most promising ones."""
NUM_BEST = 4
NUM_PROMISING = 8
MAX_DRAWS = 64
"""Random candidates that are drawn where no row of the pool will do."""


@runtime_checkable  # so that the type checker of the tests can look
class Belief(Protocol):
    """What a sampler believes of the rows of a pool. `GrowingProcess` is one; see there for what each function does."""

    @property
    def labelled(self) -> tuple[int, ...]:
        """Rows that have a label, in the order in which they came."""

    def extend(self, rows: Float[Array, "new columns"], /) -> None:
        """Add rows to the pool."""

    def keep(self, rows: Sequence[int], /) -> None:
        """Drop all rows but these, and all labels."""

    def add(self, row: int, /) -> None:
        """Take a row among the labelled ones."""

    def add_all(self, rows: Sequence[int], /) -> None:
        """Take many."""

    def await_labels(self, rows: Sequence[int], /) -> None:
        """Know that these rows are being measured."""

    def fit_settings(
        self, targets: Float[Array, " labelled"], /, *, among: Sequence[int] | None = None
    ) -> None:
        """Fit anew what `add` leaves as it is."""

    def posterior(self, targets: Float[Array, " labelled"], /) -> MeanAndStd:
        """Mean and standard deviation of every row of the pool."""


MakeBelief = Callable[[Float[Array, "rows columns"], Sequence[Block]], Belief]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Settings of the pool and of the schedule.

    Attributes:
        num_initial: Labels before there is a model. Until then rows of the pool are drawn at random.
        pool_size: Candidates to choose from, beside the observed ones, in a space that is not looked at as a whole.
        enumerate_limit: A space of at most so many architectures is looked at as a whole. Each costs what building and describing
            a graph costs, once.
        renewals: New candidates per observation; from 100 labels on they become fewer.
        fit_every: Labels at least between two fits.
        fit_growth: The number of labels grows at least by this factor between two fits; by 1.5 from 100 labels on.
        max_labelled: The model knows at most so many labels. When there are more it goes on with the best half of the number and
            the latest quarter, and forgets the others.

    Raises:
        ConfigError: If a number is below 1, or there may be fewer labels than 8.
    """

    num_initial: int = 6
    pool_size: int = 512
    enumerate_limit: int = 2000
    renewals: int = 4
    fit_every: int = 2
    fit_growth: float = 1.15
    max_labelled: int = 400

    def __post_init__(self) -> None:
        least = min(self.num_initial, self.pool_size, self.renewals, self.fit_every, self.fit_growth)
        if least < 1 or self.enumerate_limit < 0 or self.max_labelled < 8:
            raise ConfigError(
                "Expected numbers of at least 1, 'enumerate_limit' of at least 0 and 'max_labelled' of at least 8 (got "
                f"{self})"
            )


class PoolSearch:
    """The state of a search after some observations. See the module.

    Args:
        space: What is searched.
        seed: Decides everything random.
        config: Settings.
        make_belief: Makes the belief from the rows of a pool and their blocks.
        experience: What the first call of `learn` will be given; nothing is read from it but its facts.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        config: PoolConfig,
        make_belief: MakeBelief,
        experience: Experience,
    ) -> None:
        self.config, self.seed = config, seed
        self.num_objectives = experience.num_objectives
        self.pool = CandidatePool.of(
            space,
            seed=seed,
            size=config.pool_size,
            enumerate_limit=config.enumerate_limit,
            admits=experience.admits,
        )
        self.belief = make_belief(self.pool.describe(self.pool.candidates), self.pool.columns.blocks)
        self.num_labels = 0
        self._gains: list[tuple[float, ...]] = []
        self._scores: Float[Array, " labelled"] | None = None
        self._seen: set[str] = set()
        self._read = 0
        self._next_fit = config.num_initial

    def learn(self, experience: Experience) -> None:
        """Follow all observations that are not known yet, one at a time."""
        for observation in experience.observations[self._read :]:
            self._read += 1
            self._learn(observation, experience.admits)

    @property
    def is_ready(self) -> bool:
        """Whether there is a model."""
        return self.num_labels >= self.config.num_initial

    def targets(self, *purpose: str | int) -> Float[Array, " labelled"]:
        """What the labelled rows reached, as normal scores: accuracies have a long tail below.

        With several objectives it is their augmented Chebyshev function under random weights, as in ParEGO (Knowles 2006, eq. 2),
        of ranks rather than of values, whose scales are unlike.

        Args:
            purpose: What the weights are drawn for.
        """
        values = np.array(self._gains).reshape(len(self._gains), -1)
        if self.num_objectives == 1:
            if self._scores is None:
                self._scores = NormalScores.of(values[:, 0])(values[:, 0])
            return self._scores
        weights = generator(self.seed, "weights", *purpose).dirichlet(np.ones(self.num_objectives))
        merit = chebyshev(values, weights)
        return NormalScores.of(merit)(merit)

    # ---- one observation

    def _learn(self, observation: Observation, admits: Admits) -> None:
        fingerprint = observation.candidate.graph.fingerprint
        self._seen.add(fingerprint)
        gains = self._gains_of(observation)
        if gains is None:
            return
        if fingerprint not in self.pool.place:
            self.belief.extend(self.pool.add([observation.candidate]))
        self.belief.add(self.pool.place[fingerprint])
        self._gains.append(gains)
        self._scores = None
        self.num_labels += 1
        if not self.is_ready:
            return
        if self.num_labels >= self._next_fit:
            self._fit()
        elif len(self._gains) > self.config.max_labelled:
            self._condense()
        if not self.pool.is_whole:
            self._renew(admits)

    def _gains_of(self, observation: Observation) -> tuple[float, ...] | None:
        """What counts as a label; None if nothing does. What a pruned trial had reached is a sign that it is bad, which is worth
        knowing; numbers that are not finite are those of failures."""
        gains = observation.gains
        if observation.state == TrialState.PRUNED and self.num_objectives == 1:
            gains = () if observation.last_report is None else (observation.last_report,)
        return gains if gains and np.isfinite(gains).all() else None

    def _fit(self) -> None:
        count = self.num_labels
        growth = self.config.fit_growth if count < LATE else LATE_GROWTH
        self._next_fit = max(count + self.config.fit_every, ceil(count * growth))
        targets = self.targets("fit", count)
        if np.ptp(targets) > 0:
            self.belief.fit_settings(targets, among=self._best_and_latest(MAX_FITTED // 2, MAX_FITTED // 2))
        if len(self._gains) > self.config.max_labelled or self._outgrown:
            self._condense()

    @property
    def _outgrown(self) -> bool:
        return not self.pool.is_whole and len(self.pool) > SLACK * self.config.pool_size + len(self._gains)

    def _best_and_latest(self, num_best: int, num_latest: int) -> list[int]:
        """Places of labelled rows, rising."""
        count = len(self._gains)
        ranks = np.stack([scaled_ranks(column) for column in np.array(self._gains).T], axis=1)
        merit = ranks.mean(axis=1) + ranks.max(
            axis=1
        )  # for one objective the rank; for several the ends count too
        best = np.argsort(-merit, kind="stable")[:num_best].tolist()
        return sorted({*best, *range(max(0, count - num_latest), count)})

    def _condense(self) -> None:
        """Forget labels and candidates that matter least."""
        limit = self.config.max_labelled
        if len(self._gains) > limit:
            places = self._best_and_latest(limit // 2, limit // 4)
        else:
            places = list(range(len(self._gains)))
        labelled = [self.belief.labelled[place] for place in places]
        if self.pool.is_whole:
            rows = list(range(len(self.pool)))
        else:
            used = dict.fromkeys(labelled)
            rows = [*used, *self._promising("condense", self.config.pool_size)]
        now = {row: place for place, row in enumerate(rows)}
        self.pool.keep(rows)
        self.belief.keep(rows)
        self.belief.add_all([now[row] for row in labelled])
        self._gains = [self._gains[place] for place in places]
        self._scores = None

    def _promising(self, purpose: str, count: int) -> list[int]:
        """Rows that were not observed, those of the highest expected improvement first."""
        mean, std = self.belief.posterior(self.targets(purpose, self.num_labels))
        best = mean[list(self.belief.labelled)].max()
        scores = log_expected_improvement(mean, std, best)
        order = np.argsort(-scores, kind="stable").tolist()
        free = (row for row in order if self.pool.candidates[row].graph.fingerprint not in self._seen)
        return [row for row, _ in zip(free, range(count), strict=False)]

    def _renew(self, admits: Admits) -> None:
        """Add mutations of the best and of the most promising candidates to the pool, and random ones."""
        rng = generator(self.seed, "renewal", self.num_labels)
        count = int(self.config.renewals * min(1.0, LATE / self.num_labels) + rng.random())
        if count == 0:
            return
        merit = np.argsort(-self.targets("renewal", self.num_labels), kind="stable")[:NUM_BEST]
        best = [self.belief.labelled[place] for place in merit.tolist()]
        promising = self._promising("renewal", NUM_PROMISING) or best
        parents: list[Candidate | None] = []
        for draw in rng.random(count).tolist():
            rows = best if draw < SHARE_BEST else promising
            row = rows[int(rng.integers(len(rows)))]
            parents.append(None if draw > 1 - SHARE_RANDOM else self.pool.candidates[row])
        fresh = self.pool.fresh(
            parents, rng, lambda c: c.graph.fingerprint not in self._seen and admits(c.graph)
        )
        if fresh:
            self.belief.extend(self.pool.add(fresh))


def chebyshev(
    values: Float[Array, "rows objectives"], weights: Float[Array, " objectives"]
) -> Float[Array, " rows"]:
    """Augmented Chebyshev function of ranks, higher is better: every optimal trade-off is the best for some weights."""
    loss = 1 - np.stack([scaled_ranks(column) for column in values.T], axis=1)
    result: Array = -(weights * loss).max(axis=1) - AUGMENTATION * (loss @ weights)
    return result


Score = Callable[[PoolSearch, np.random.Generator], Float[Array, " rows"]]
"""How much every row of the pool is worth to be proposed; asked only if there is a model."""


def propose_from(
    search: PoolSearch, experience: Experience, score: Score, *, number: int, attempt: int
) -> Candidate:
    """The new candidate of the pool with the highest score, ties at random; a random one where the pool has none.

    Until there is a model all scores are random. Candidates that are underway condition the belief if the pool has them.
    """
    search.learn(experience)
    rng = generator(search.seed, "proposal", number, attempt)
    awaited = [candidate.graph.fingerprint for candidate in experience.pending]
    if attempt == 0:
        place = search.pool.place
        search.belief.await_labels([place[name] for name in awaited if name in place])
        scores = score(search, rng) if search.is_ready else np.zeros(len(search.pool))
        order = np.lexsort((rng.random(len(scores)), -scores))
        for row in order.tolist():
            candidate: Candidate = search.pool.candidates[row]
            if candidate.graph.fingerprint not in awaited and experience.is_new(candidate.graph):
                return candidate
    for _ in range(MAX_DRAWS):
        candidate = sample(experience.space, rng)
        if experience.is_new(candidate.graph):
            break
    return candidate
