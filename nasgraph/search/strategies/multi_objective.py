"""Evolution towards a Pareto front, with a crossover that keeps parts of an architecture together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.strategies._additive import AdditiveModel
from nasgraph.search.strategies._draws import Draw, Draws, other_answer
from nasgraph.search.strategies._follow import Follower
from nasgraph.search.strategies._fronts import (
    crowding_distances,
    nondominated_ranks,
    reference_points,
    surviving_by_crowding,
    surviving_by_reference,
)
from nasgraph.search.strategies._gains import WORST, draw_weights, gains_of
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, Candidate, Choice, SearchSpace

Survival = Literal["crowding", "reference points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NSGAConfig:
    """Settings of a multi-objective evolution.

    Attributes:
        population: Members that survive.
        num_initial: Random candidates at the beginning.
        offspring: Children between two selections. 1 is a steady state, in which each child counts at once; `population`
            gives the generations of the papers.
        crossover: Share of children with two parents, in [0, 1].
        mutation: Share of children of two parents that are changed in one choice as well, in [0, 1].
        survival: Who stays of a front that does not fit: `crowding`, as in NSGA-II; or `reference points`, as in NSGA-III,
            for more than three objectives.
        screen: Children that are compared by a model before one is built; 1 is plain NSGA without a model. With one
            objective, every second proposal is made without.
        window: Latest observations that the model is fitted to.
        max_draws: Children until one is new; after them, changes of one choice of the last.

    Raises:
        ConfigError: If a number is out of its range, or there is no such survival.
    """

    population: int = 20
    num_initial: int = 20
    offspring: int = 1
    crossover: float = 0.5
    mutation: float = 0.5
    survival: Survival = "crowding"
    screen: int = 16
    window: int = 200
    max_draws: int = 16

    def __post_init__(self) -> None:
        for name in ("population", "num_initial", "offspring", "screen", "window", "max_draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        if not (0 <= self.crossover <= 1 and 0 <= self.mutation <= 1):
            raise ConfigError(
                f"Expected 'crossover' and 'mutation' from 0 to 1 (got {self.crossover} and {self.mutation})"
            )
        if self.survival not in get_args(Survival):
            allowed = ", ".join(map(repr, get_args(Survival)))
            raise ConfigError(f"Expected 'survival' as one of {allowed} (got {self.survival!r})")


@dataclass(eq=False)
class _State:
    draws: Draws
    num_objectives: int
    model: AdditiveModel
    num_seen: int = 0
    members: list[Architecture] = field(default_factory=list)
    gains: list[tuple[float, ...]] = field(default_factory=list)
    num_children: int = 0
    fitness: list[tuple[float, float]] | None = None


class GraphNSGA(ArchitectureSampler):
    """NSGA-II (Deb et al. 2002) or NSGA-III (Deb and Jain 2014) on architectures.

    Parents win tournaments of two by front and crowding. A child of two parents takes one region of the second and the rest
    of the first, see `cross_regions`; a child of one changes one choice. Of some children, that is evaluated which promises most
    by a model fitted to the latest observations (pre-selection; see Jin, "Surrogate-Assisted Evolutionary Computation",
    2011), in which every answer adds its share. As graphs are not evaluated twice, a child that is known gives way to
    another one. What failed, was pruned or is not a number does not enter the population.

    With one objective it is an elitist evolution, half of whose children are chosen by the model.

    Args:
        space: What is searched.
        seed: Decides everything random, together with the number of the trial.
        config: Settings.
    """

    def __init__(self, space: SearchSpace, *, seed: int, config: NSGAConfig = NSGAConfig()) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._follower = Follower(self._begin, self._learn)

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """A child; a random candidate at the beginning."""
        state = self._follower.state(experience)
        rng = generator(self.seed, "nsga", number, attempt)
        return state.draws.first_new(self._draws(state, rng))

    # ---- children

    def _draws(self, state: _State, rng: np.random.Generator) -> Iterator[Draw | None]:
        config = self.config
        if state.num_seen >= config.num_initial and state.members:
            # With several objectives, the weights that are drawn let it explore; with one, the model alone gets stuck.
            screen = config.screen if state.num_objectives > 1 or rng.random() < 0.5 else 1
            taken = max(1, screen // 4)
            for _ in range(0, config.max_draws, taken):
                children = [self._child(state, rng) for _ in range(screen)]
                for child in self._promising(state, children, rng)[:taken]:
                    yield state.draws.realise(child, rng)
            start = state.draws.realise(dict(self._parent(state, rng).choices), rng)
            yield from state.draws.walk(start, rng, steps=config.max_draws)
        yield from state.draws.random(rng, tries=config.max_draws)

    def _child(self, state: _State, rng: np.random.Generator) -> Mapping[str, Choice]:
        first = self._parent(state, rng)
        choices: Mapping[str, Choice] = dict(first.choices)
        if rng.random() < self.config.crossover:
            choices = cross_regions(first, self._parent(state, rng), rng)
            if rng.random() >= self.config.mutation:
                return choices
        questions = state.draws.questions(Architecture(self.space.name, tuple(choices.items())))
        several = [question for question in questions if len(question.options) > 1]
        if not several:
            return choices
        question = several[int(rng.integers(len(several)))]
        return {**choices, question.name: other_answer(question, rng)}

    def _promising(
        self, state: _State, children: Sequence[Mapping[str, Choice]], rng: np.random.Generator
    ) -> Sequence[Mapping[str, Choice]]:
        """The children, by the additive model the best first, with weights of the objectives drawn for this proposal."""
        if len(children) == 1:
            return children
        weighted = state.model.shortfalls(children) * draw_weights(state.num_objectives, rng)
        order = np.argsort(weighted.max(axis=1) + 0.05 * weighted.sum(axis=1), kind="stable")
        return [children[place] for place in order]

    def _parent(self, state: _State, rng: np.random.Generator) -> Architecture:
        if state.fitness is None:
            gains = np.array(state.gains)
            ranks = nondominated_ranks(gains)
            crowding = crowding_distances(gains, ranks)
            state.fitness = [(-float(r), float(c)) for r, c in zip(ranks, crowding, strict=True)]
        first, second = (int(place) for place in rng.integers(len(state.members), size=2))
        return state.members[first if state.fitness[first] >= state.fitness[second] else second]

    # ---- the population

    def _begin(self, experience: Experience) -> _State:
        model = AdditiveModel(window=self.config.window)
        return _State(Draws(self.space, experience), experience.num_objectives, model)

    def _learn(self, state: _State, observation: Observation) -> None:
        state.num_seen += 1
        gains = gains_of(observation, state.num_objectives)
        if gains[0] == WORST:
            return
        architecture = observation.candidate.architecture
        state.draws.questions(architecture)  # so that children of unbuilt parents can be changed
        state.model.learn(dict(architecture.choices), gains)
        state.members.append(architecture)
        state.gains.append(gains)
        state.num_children += 1
        state.fitness = None
        if len(state.members) > self.config.population and state.num_children >= self.config.offspring:
            stay = self._survivors(state, observation.number)
            state.members = [state.members[place] for place in stay]
            state.gains = [state.gains[place] for place in stay]
            state.num_children = 0

    def _survivors(self, state: _State, number: int) -> Sequence[int]:
        gains, size = np.array(state.gains), self.config.population
        if self.config.survival == "crowding":
            return [int(place) for place in surviving_by_crowding(gains, size)]
        points = reference_points(state.num_objectives, at_most=size)
        rng = generator(self.seed, "survival", number)
        return [int(place) for place in surviving_by_reference(gains, size, points, rng)]


def cross_regions(
    first: Architecture, second: Architecture, rng: np.random.Generator
) -> Mapping[str, Choice]:
    """The choices of `first`, but in one region those of `second`.

    A region is all choices whose names begin alike, such as `stage1.block2.` or `edge_0_`. It is drawn by way of a choice
    in which the parents differ, and of a length of its name, so that a child may take a single choice, a block, a stage; where the
    beginning is common to all names, half of the choices at random, as in a uniform crossover. Choices that only the
    second has come along if they stand in the region, so that a part keeps what depends on it.
    """
    own, other = dict(first.choices), dict(second.choices)
    different = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    if not different:
        return own
    parts = _parts(different[int(rng.integers(len(different)))])
    beginning = parts[: int(rng.integers(len(parts) + 1))]
    region = [name for name in {**own, **other} if _parts(name)[: len(beginning)] == beginning]
    if set(region) >= set(different):
        region = [name for name in region if rng.random() < 0.5]
    return {**own, **{name: other[name] for name in region if name in other}}


@lru_cache(maxsize=4096)
def _parts(name: str) -> tuple[str, ...]:
    """The words and numbers of a name: `stage1.block2.op` has five."""
    return tuple(re.findall(r"[0-9]+|[^\W\d_]+", name))
