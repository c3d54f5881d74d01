"""BANANAS: an ensemble of predictors, and mutations of the best."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.predict.ensemble import Blocks, EnsembleConfig, FittedEnsemble, fit_ensemble
from nasgraph.predict.gaussian_process import Block, MeanAndStd
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience
from nasgraph.search.strategies.bayesian_search import PoolConfig, PoolSearch, propose_from
from nasgraph.seeding import derive_seed
from nasgraph.spaces import Candidate, SearchSpace

Array = np.ndarray
MIN_LABELS = 8
"""What `fit_ensemble` needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BananasConfig:
    """Settings of BANANAS.

    Attributes:
        members: Members of the ensemble; see `EnsembleConfig`.
        pool: What is chosen from, and when the ensemble is fitted.

    Raises:
        ConfigError: If the ensemble would be fitted to fewer labels than it needs.
    """

    members: tuple[str, ...] = ("gaussian_process", "extra_trees")
    pool: PoolConfig = field(default_factory=lambda: PoolConfig(num_initial=10, fit_every=10, fit_growth=1.0))

    def __post_init__(self) -> None:
        EnsembleConfig(members=self.members)
        if self.pool.num_initial < MIN_LABELS:
            raise ConfigError(
                f"Expected 'num_initial' of at least {MIN_LABELS} for an ensemble (got {self.pool.num_initial})"
            )


class BananasSampler(ArchitectureSampler):
    """BANANAS (White et al., "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search", 2021).

    An ensemble predicts; every candidate's score is drawn from its own prediction (independent Thompson sampling, which makes
    batches differ); candidates are mutations of the best. It departs from the paper in the ensemble, which is that of
    `nasgraph.predict` over graph features and choices rather than of networks over paths, and in the candidates, some of which
    are mutations of promising ones and random, and which stay until better ones come.

    Args:
        space: What is searched.
        seed: Decides everything random.
        config: Settings.
    """

    def __init__(self, space: SearchSpace, *, seed: int, config: BananasConfig = BananasConfig()) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._searches: WeakKeyDictionary[Experience, PoolSearch] = WeakKeyDictionary()

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """The candidate of the pool with the highest draw."""
        if experience not in self._searches:
            self._searches[experience] = PoolSearch(
                self.space,
                seed=self.seed,
                config=self.config.pool,
                make_belief=self._belief,
                experience=experience,
            )

        def score(search: PoolSearch, rng: np.random.Generator) -> Float[Array, " rows"]:
            mean, std = search.belief.posterior(search.targets("proposal", number))
            result: Array = mean + std * rng.standard_normal(len(mean))
            return result

        return propose_from(self._searches[experience], experience, score, number=number, attempt=attempt)

    def _belief(self, rows: Float[Array, "rows columns"], blocks: Sequence[Block]) -> "EnsembleBelief":
        config = EnsembleConfig(members=self.config.members, seed=derive_seed(self.seed, "ensemble") % 2**31)
        return EnsembleBelief(rows, Blocks(tuple(blocks)), config)


@dataclass(eq=False)
class EnsembleBelief:
    """An ensemble that is fitted now and then, and what it says of every row. `Belief`.

    Labels that come between two fits, and what is underway, change nothing.

    Attributes:
        rows: All rows.
        blocks: Divide the columns.
        config: Settings of the ensemble.
    """

    rows: Float[Array, "rows columns"]
    blocks: Blocks
    config: EnsembleConfig
    _labelled: list[int] = field(default_factory=list, init=False)
    _ensemble: FittedEnsemble | None = field(default=None, init=False)
    _said: MeanAndStd = field(init=False)

    def __post_init__(self) -> None:
        self._said = self._of(self.rows)

    @property
    def labelled(self) -> tuple[int, ...]:
        """Rows that have a label."""
        return tuple(self._labelled)

    def extend(self, rows: Float[Array, "new columns"]) -> None:
        """Add rows, and say something of them."""
        self.rows = np.concatenate([self.rows, rows])
        mean, std = self._of(rows)
        self._said = np.concatenate([self._said[0], mean]), np.concatenate([self._said[1], std])

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, and all labels; what was said of them stays."""
        index = np.array(rows, dtype=int)
        self.rows, self._labelled = self.rows[index], []
        self._said = self._said[0][index], self._said[1][index]

    def add(self, row: int) -> None:
        """A label for the next fit."""
        self._labelled.append(row)

    def add_all(self, rows: Sequence[int]) -> None:
        """Labels for the next fit."""
        self._labelled += rows

    def await_labels(self, rows: Sequence[int]) -> None:
        """Change nothing."""

    def fit_settings(self, targets: Float[Array, " labelled"], *, among: Sequence[int] | None = None) -> None:
        """Fit to all labelled rows."""
        del among
        self._ensemble = fit_ensemble(self.rows[self._labelled], targets, self.config, blocks=self.blocks)
        self._said = self._of(self.rows)

    def posterior(self, targets: Float[Array, " labelled"]) -> MeanAndStd:
        """What the last fit says; the same of all rows before the first."""
        del targets
        return self._said

    def _of(self, rows: Array) -> MeanAndStd:
        if self._ensemble is None or not len(rows):
            return np.zeros(len(rows)), np.ones(len(rows))
        said = self._ensemble.predict(rows)
        assert said.std is not None
        return said.mean.numpy(), said.std.numpy()
