"""Regularised evolution."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.strategies._draws import Draw, Draws
from nasgraph.search.strategies._follow import Follower
from nasgraph.search.strategies._gains import draw_weights, gains_of, scalar_gains
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, Candidate, SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionConfig:
    """Settings of an evolution.

    Attributes:
        population: Members at a time: the latest observations. The first are drawn at random.
        sample: Members that a parent is the best of.
        crossover: Share of children with two parents, in [0, 1]. The paper has none.
        max_steps: Changes of one choice after which a child whose graph is known gives way to a random one.

    Raises:
        ConfigError: If a number is out of its range, or the sample is larger than the population.
    """

    population: int = 30
    sample: int = 10
    crossover: float = 0.0
    max_steps: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.sample <= self.population:
            raise ConfigError(
                f"Expected 'sample' from 1 to 'population' (got {self.sample} and {self.population})"
            )
        if not 0 <= self.crossover <= 1 or self.max_steps < 1:
            raise ConfigError(
                "Expected 'crossover' from 0 to 1 and 'max_steps' of at least 1 "
                f"(got {self.crossover} and {self.max_steps})"
            )


@dataclass(eq=False)
class _State:
    draws: Draws
    num_objectives: int
    members: deque[tuple[int, Architecture, tuple[float, ...]]]


class RegularisedEvolution(ArchitectureSampler):
    """Regularised evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", 2019, Algorithm 1).

    The population is the latest observations, so that the oldest member dies whatever it is worth; one that failed or was
    pruned counts as the worst. A child changes one choice of the best of some members. As graphs are not evaluated twice, a
    child that is known is changed again, and again.

    With several objectives, the best of some members is that by a scalar with weights drawn for each child, of the ranks in
    the population. `GraphNSGA` is made for several objectives.

    Args:
        space: What is searched.
        seed: Decides everything random, together with the number of the trial.
        config: Settings.
    """

    def __init__(self, space: SearchSpace, *, seed: int, config: EvolutionConfig = EvolutionConfig()) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._follower = Follower(self._begin, self._learn)

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """A child; a random candidate while the population grows."""
        state = self._follower.state(experience)
        rng = generator(self.seed, "evolution", number, attempt)
        parent: list[int] = []  # holds the parent as long as what is drawn descends from it
        candidate = state.draws.first_new(self._draws(state, rng, parent))
        self.parents.pop(number, None)
        if parent:
            self.parents[number] = parent[0]
        return candidate

    def _draws(self, state: _State, rng: np.random.Generator, parent: list[int]) -> Iterator[Draw | None]:
        if len(state.members) == self.config.population:
            child, number = self._child(state, rng)
            parent.append(number)
            yield from state.draws.walk(child, rng, steps=self.config.max_steps)
            parent.clear()
        yield from state.draws.random(rng, tries=self.config.max_steps)

    def _child(self, state: _State, rng: np.random.Generator) -> tuple[Draw | None, int]:
        """A child, and the trial of its parent: with two parents that whose answers come first."""
        gains = np.array([gains for _, _, gains in state.members])
        scalar = scalar_gains(gains, draw_weights(state.num_objectives, rng))
        number, parent = self._parent(state, scalar, rng)
        if not self.config.crossover or rng.random() >= self.config.crossover:
            return state.draws.mutate(parent, rng), number
        preferred = dict(self._parent(state, scalar, rng)[1].choices)
        for name, answer in parent.choices:
            if name not in preferred or rng.random() < 0.5:
                preferred[name] = answer
        return state.draws.realise(preferred, rng), number

    def _parent(
        self, state: _State, scalar: np.ndarray, rng: np.random.Generator
    ) -> tuple[int, Architecture]:
        places = rng.choice(len(state.members), size=self.config.sample, replace=False)
        return state.members[int(places[np.argmax(scalar[places])])][:2]

    def _begin(self, experience: Experience) -> _State:
        members: deque[tuple[int, Architecture, tuple[float, ...]]] = deque(maxlen=self.config.population)
        return _State(Draws(self.space, experience), experience.num_objectives, members)

    def _learn(self, state: _State, observation: Observation) -> None:
        gains = gains_of(observation, state.num_objectives)
        state.members.append((observation.number, observation.candidate.architecture, gains))
