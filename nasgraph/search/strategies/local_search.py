"""Local search over the neighbours of architectures, with restarts."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.strategies._draws import Draw, Draws
from nasgraph.search.strategies._follow import Follower
from nasgraph.search.strategies._fronts import nondominated_ranks
from nasgraph.search.strategies._gains import WORST, dominates, draw_weights, gains_of, scalar_gains
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, Candidate, Choice, SearchSpace

MAX_CENTRES = 64
"""Latest places of climbs to which a new observation may belong."""
MAX_CLIMBS = 200
"""When there are more, the better half stays, so that a proposal costs the same after thousands of trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSearchConfig:
    """Settings of a local search.

    Attributes:
        num_initial: Random candidates at the beginning; the best is climbed from first.
        max_draws: Random candidates drawn for a restart until one is new.

    Raises:
        ConfigError: If a number is below 1.
    """

    num_initial: int = 10
    max_draws: int = 16

    def __post_init__(self) -> None:
        if min(self.num_initial, self.max_draws) < 1:
            raise ConfigError(
                "Expected 'num_initial' and 'max_draws' of at least 1 "
                f"(got {self.num_initial} and {self.max_draws})"
            )


@dataclass(eq=False)
class _Climb:
    """Where a climb has got to, and which neighbours of that place are still to be tried."""

    number: int
    architecture: Architecture
    gains: tuple[float, ...]
    waiting: list[tuple[str, Choice]] | None = None


@dataclass(eq=False)
class _State:
    draws: Draws
    num_objectives: int
    num_seen: int = 0
    climbs: list[_Climb] = field(default_factory=list)
    centres: deque[tuple[dict[str, Choice], _Climb]] = field(
        default_factory=lambda: deque(maxlen=MAX_CENTRES)
    )


class LocalSearch(ArchitectureSampler):
    """Local search with restarts (White et al., "Exploring the Loss Landscape in Neural Architecture Search", 2021, who look
    at all neighbours before they move; this moves to the first that is better).

    An observation that is no neighbour of where a climb has been begins a climb of its own. A proposal is a neighbour,
    in random order, of the best place that has a new one; where there is none, a random candidate, from which the next climb
    begins. In parallel, several climbs begin and the best goes on first.

    With several objectives it is Pareto local search (Paquete et al. 2004): a climb moves to a neighbour that dominates its
    place; a neighbour that neither dominates nor is dominated begins a climb; and weights drawn for each proposal say which
    place is the best.

    Args:
        space: What is searched.
        seed: Decides everything random, together with the number of the trial.
        config: Settings.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, config: LocalSearchConfig = LocalSearchConfig()
    ) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._follower = Follower(self._begin, self._learn)

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """A neighbour of the best place, or a random candidate."""
        state = self._follower.state(experience)
        rng = generator(self.seed, "local search", number, attempt)
        return state.draws.first_new(self._draws(state, rng))

    def _draws(self, state: _State, rng: np.random.Generator) -> Iterator[Draw | None]:
        if state.num_seen >= self.config.num_initial and state.climbs:
            gains = np.array([climb.gains for climb in state.climbs])
            scalar = scalar_gains(gains, draw_weights(state.num_objectives, rng))
            for place in np.argsort(-scalar, kind="stable"):
                if state.climbs[place].waiting != []:
                    yield from self._neighbours(state, state.climbs[place])
        yield from state.draws.random(rng, tries=self.config.max_draws)

    def _neighbours(self, state: _State, climb: _Climb) -> Iterator[Draw | None]:
        """The neighbours in an order, and with answers to newly necessary questions, that hold for this place for ever.

        So a neighbour that is known remains so, and is dropped.
        """
        if climb.waiting is None:
            changes = [
                (question.name, option)
                for question in state.draws.questions(climb.architecture)
                for option in question.options
                if option != question.answer or isinstance(option, bool) != isinstance(question.answer, bool)
            ]
            order = generator(self.seed, "neighbours", climb.number).permutation(len(changes))
            climb.waiting = [changes[place] for place in order]
        choices = dict(climb.architecture.choices)
        while climb.waiting:
            name, answer = climb.waiting[-1]
            rng = generator(self.seed, "neighbour", climb.number, len(climb.waiting))
            yield state.draws.realise({**choices, name: answer}, rng)
            climb.waiting.pop()

    def _begin(self, experience: Experience) -> _State:
        return _State(Draws(self.space, experience), experience.num_objectives)

    def _learn(self, state: _State, observation: Observation) -> None:
        state.num_seen += 1
        gains = gains_of(observation, state.num_objectives)
        if gains[0] == WORST:
            return
        architecture = observation.candidate.architecture
        choices = dict(architecture.choices)
        climb = next((climb for centre, climb in reversed(state.centres) if _are_near(centre, choices)), None)
        if climb is None or not (dominates(climb.gains, gains) or dominates(gains, climb.gains)):
            if climb is not None and climb.gains == gains:
                return
            climb = _Climb(observation.number, architecture, gains)
            state.climbs.append(climb)
        elif dominates(gains, climb.gains):
            climb.number, climb.architecture, climb.gains = observation.number, architecture, gains
            climb.waiting = None
        else:
            return
        state.centres.append((choices, climb))
        _forget_worst(state)


def _forget_worst(state: _State) -> None:
    if len(state.climbs) <= MAX_CLIMBS:
        return
    ranks = nondominated_ranks(np.array([climb.gains for climb in state.climbs]))
    youngest_first = np.lexsort((-np.arange(len(ranks)), ranks))
    state.climbs = [state.climbs[place] for place in sorted(youngest_first[: MAX_CLIMBS // 2])]
    kept = {id(climb) for climb in state.climbs}
    state.centres = deque((pair for pair in state.centres if id(pair[1]) in kept), maxlen=MAX_CENTRES)


def _are_near(first: dict[str, Choice], second: dict[str, Choice]) -> bool:
    """Whether at most one question that both answer is answered differently."""
    different = sum(second.get(name, answer) != answer for name, answer in first.items())
    return different <= 1
