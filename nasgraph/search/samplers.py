"""Search strategies by name. Each is an Optuna sampler whose randomness depends on the seed and the trial alone."""

import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from heapq import nlargest
from importlib import import_module
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.search.window import as_seen
from nasgraph.seeding import derive_seed
from nasgraph.spaces import SearchSpace

MAX_HISTORY = 200
NUM_BEST = 25
"""As many as Optuna's TPE counts as good at most."""


def _tpe(seed: int) -> BaseSampler:
    # Constant liar: parallel workers keep away from what another is just evaluating.
    return TPESampler(
        seed=seed, n_startup_trials=10, n_ei_candidates=24, multivariate=True, constant_liar=True
    )


def _nsgaii(seed: int) -> BaseSampler:
    # Optuna's default of 50 would spend a short search on the random first generation.
    return NSGAIISampler(seed=seed, population_size=20)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=10)


@dataclass(frozen=True)
class _Recipe:
    make: Callable[[int], BaseSampler]
    max_history: int | None = None


_RECIPES = {
    "gp": _Recipe(_gp),
    "nsgaii": _Recipe(_nsgaii),
    "random": _Recipe(lambda seed: RandomSampler(seed=seed)),
    "tpe": _Recipe(_tpe, MAX_HISTORY),
}


_STRATEGIES = {
    "bananas": "bananas:BananasSampler",
    "bayesian": "bayesian:BayesianSampler",
    "controller": "controller:Controller",
    "evolution": "evolution:RegularisedEvolution",
    "gflownet": "gflownet:OrderPreservingGFlowNet",
    "local-search": "local_search:LocalSearch",
    "graph-nsga": "multi_objective:GraphNSGA",
}
"""Strategies that see graphs: module in `search.strategies` and class. Loaded when they are asked for."""


def sampler_names() -> tuple[str, ...]:
    """Names that `make_sampler` knows, sorted.

    Optuna's CMA-ES and quasi-Monte Carlo samplers are not among them: they cannot propose categorical choices, of
    which search spaces consist, and would be random search under another name.
    """
    return tuple(sorted([*_RECIPES, *_STRATEGIES]))


def make_sampler(name: str, *, seed: int, space: SearchSpace | None = None) -> BaseSampler:
    """A sampler whose proposals are a pure function of the seed, the trial's number, and the finished trials.

    So a search that is killed and resumed goes on exactly as if it had not been. Tests with dozens of kills hold this.

    Args:
        name: From Optuna: `random`; `tpe`, a multivariate tree-structured Parzen estimator, which looks at the latest 200 trials
            and the best 25 before them; `nsgaii`, a genetic algorithm; or `gp`, a Gaussian process over choices (costly: about
            a second per proposal). Ours, which see graphs: `bayesian`, a Gaussian process over features of graphs; `bananas`, an
            ensemble predictor with Thompson sampling; `evolution`, regularised evolution; `local-search`; `graph-nsga`,
            evolution towards several objectives; `controller`, policy gradient; `gflownet`, for sets of good architectures.
        seed: Seed of the search.
        space: What is searched; needed by ours.

    Raises:
        UnknownNameError: If there is no sampler of that name.
        ConfigError: If the sampler needs a space.
    """
    if name in _STRATEGIES:
        if space is None:
            raise ConfigError(f"The sampler '{name}' needs the search space: make_sampler(..., space=space)")
        module, _, kind = _STRATEGIES[name].partition(":")
        strategy = getattr(import_module(f"nasgraph.search.strategies.{module}"), kind)
        sampler: BaseSampler = strategy(space, seed=seed)
        return sampler
    if name not in _RECIPES:
        raise UnknownNameError("sampler", name, sampler_names())
    recipe = _RECIPES[name]
    return ReproducibleSampler(recipe.make, seed=seed, max_history=recipe.max_history)


class ReproducibleSampler(BaseSampler):
    """Seeds a sampler anew before each draw, from the seed, the trial's number and the name of the choice.

    Optuna's samplers carry one generator through all trials, whose state is lost with the process.

    Args:
        make: Makes the sampler, given a seed. Its generators must be Optuna's `LazyRandomState`, held by it or by a
            sampler that it holds, as in all of Optuna's own.
        seed: Seed of the search.
        max_history: Latest trials that the sampler sees when it draws, beside the best before them; None: all. Bounds
            the cost of a proposal, which for TPE grows with the history.

    Attributes:
        ahead: How many trials right before a proposal are hidden from it, that one included; see `SearchConfig.ahead`.
            `run_search` sets it. 0: none.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], *, seed: int, max_history: int | None = None
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._inner = make(seed & 0xFFFFFFFF)
        self.ahead = 0
        self._seed = seed
        self._max_history = max_history
        self._best_earlier = _BestOfGrowingList()
        self._generators = _generators(self._inner)

    def __str__(self) -> str:
        return str(self._inner)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(self._view(study, trial), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._seed_with("relative", trial.number)
        seen = self._view(study, trial)
        if isinstance(self._inner, BaseGASampler):
            # The first to ask for a generation's parents gets them in order of quality, and everyone after, from the
            # storage, in order of number. Asking twice makes a trial that is cut off between the two no exception.
            self._inner.get_parent_population(seen, self._inner.get_trial_generation(seen, trial))
        return self._inner.sample_relative(seen, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._seed_with("independent", trial.number, param_name)
        return self._inner.sample_independent(self._view(study, trial), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._seed_with("before", trial.number)
        self._inner.before_trial(self._view(study, trial), trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._seed_with("after", trial.number)
        self._inner.after_trial(study, trial, state, values)

    def _view(self, study: Study, trial: FrozenTrial) -> Study:
        if self._max_history is None and not self.ahead:
            return study
        return _SeenStudy(study, trial.number, self.ahead, self._max_history, self._best_earlier)

    def _seed_with(self, *labels: str | int) -> None:
        for place, generator in enumerate(self._generators):
            generator.rng.seed(derive_seed(self._seed, *labels, place) & 0xFFFFFFFF)


class _SeenStudy(Study):
    """A study with the trials that a proposal may see, as Optuna's Hyperband shows samplers a part too: of those that may be
    seen in time (see `window`), the latest and the best of the others."""

    def __init__(
        self,
        study: Study,
        number: int,
        ahead: int,
        max_history: int | None,
        best_earlier: "_BestOfGrowingList",
    ) -> None:
        self.__dict__.update(vars(study))
        self._number = number
        self._ahead = ahead
        self._max_history = max_history
        self._best_earlier = best_earlier

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = as_seen(
            super()._get_trials(deepcopy, None, use_cache), ahead=self._ahead, number=self._number
        )
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        if self._max_history is None or len(trials) <= self._max_history or len(self.directions) > 1:
            return trials
        earlier, recent = trials[: -self._max_history], trials[-self._max_history :]
        best = self._best_earlier.update(earlier, maximize=self.direction == StudyDirection.MAXIMIZE)
        return sorted(best, key=lambda trial: trial.number) + recent


class _BestOfGrowingList:
    """The best complete trials of a list that mostly grows at its end: then only what is new is looked at."""

    def __init__(self) -> None:
        self._best: list[FrozenTrial] = []
        self._num_seen = 0
        self._last: FrozenTrial | None = None

    def update(self, trials: Sequence[FrozenTrial], *, maximize: bool) -> list[FrozenTrial]:
        """The best 25 of `trials`, the earlier of equals first."""
        if self._num_seen and (len(trials) < self._num_seen or trials[self._num_seen - 1] is not self._last):
            self._best, self._num_seen = [], 0
        new = [trial for trial in trials[self._num_seen :] if trial.state == TrialState.COMPLETE]
        sign = 1.0 if maximize else -1.0
        self._best = nlargest(NUM_BEST, self._best + new, key=lambda trial: sign * trial.values[0])
        self._num_seen, self._last = len(trials), trials[-1]
        return self._best


def _generators(sampler: BaseSampler) -> list[LazyRandomState]:
    """The generators of a sampler and of the samplers it holds."""
    found: list[LazyRandomState] = []
    for value in vars(sampler).values():
        if isinstance(value, LazyRandomState):
            found.append(value)
        elif isinstance(value, BaseSampler):
            found += _generators(value)
    return found
