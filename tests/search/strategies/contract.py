"""What every `ArchitectureSampler` keeps. Subclass `SamplerContract` and `OptunaContract` in a test module and give
them the fixture `make`."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import optuna
import pytest
import torch
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.search import TrialChooser
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.records import TrialState
from nasgraph.spaces import (
    Architecture,
    Candidate,
    Chooser,
    SearchSpace,
    enumerate_candidates,
    realise,
    replay,
)
from tests.search.toys import Chain, Conditional, quality


class Make(Protocol):
    """Makes the sampler under test, with settings that reach its own way of proposing within 20 trials."""

    def __call__(self, space: SearchSpace, *, seed: int) -> ArchitectureSampler: ...


class Blocks(SearchSpace):
    """Blocks of different kinds, whose choices have names of their own; numbers, truth values and text as answers."""

    @property
    def name(self) -> str:
        return "blocks"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        node = graph("input", shape=self.input_shape)
        for stage in range(2):
            kind = choose.categorical(f"stage{stage}.kind", ("deep", "wide", "none"))
            if kind == "wide":
                node = graph("linear", node, out_features=choose.integer(f"stage{stage}.wide.width", 5, 9))
            for layer in range(2 if kind == "deep" else 0):
                name = f"stage{stage}.deep.layer{layer}"
                node = graph("linear", node, out_features=choose.categorical(f"{name}.width", (2, 3, 4)))
                if choose.categorical(f"{name}.relu", (False, True)):
                    node = graph("relu", node)
        return graph.finish(graph("linear", node, out_features=self.num_classes))


class Single(SearchSpace):
    """One architecture: a question with one answer."""

    @property
    def name(self) -> str:
        return "single"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        node = graph("input", shape=self.input_shape)
        width = choose.integer("width", 3, 3)
        return graph.finish(graph("linear", node, out_features=width))


SPACES: tuple[SearchSpace, ...] = (
    Chain(),
    Conditional(input_shape=(4,), num_classes=3),
    Blocks(input_shape=(4,), num_classes=3),
)


@dataclass(eq=False)
class Search:
    """A search in memory, which knows each result before it asks for the next proposal."""

    sampler: ArchitectureSampler
    num_objectives: int = 1
    ends: Callable[[int], TrialState] = lambda number: TrialState.COMPLETE  # noqa: ARG005
    admits: Callable[[ComputationalGraph], bool] = lambda graph: True  # noqa: ARG005
    observations: list[Observation] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    candidates: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.experience = Experience(
            self.sampler.space,
            num_objectives=self.num_objectives,
            observations=self.observations,
            known=self.known,
            admits=self.admits,
        )

    def run(self, num_trials: int) -> Sequence[Architecture]:
        """Go on by some trials, and return all that was proposed."""
        for _ in range(num_trials):
            number = len(self.candidates)
            candidate = self.sampler.propose(self.experience, number=number)
            self.candidates.append(candidate)
            self.known.add(candidate.graph.fingerprint)
            self.observations.append(self._observe(number, candidate))
        return [candidate.architecture for candidate in self.candidates]

    def _observe(self, number: int, candidate: Candidate) -> Observation:
        state = self.ends(number)
        values = (quality(candidate.graph), -float(len(candidate.graph)), 0.0)[: self.num_objectives]
        gains = values if state == TrialState.COMPLETE else ()
        last_report = values[0] if state == TrialState.PRUNED else None
        return Observation(number, candidate, state, gains, last_report)


def as_it_was(search: Search, num_trials: int) -> Experience:
    """The experience of a search when it had done some trials, in new objects."""
    return Experience(
        search.sampler.space,
        num_objectives=search.num_objectives,
        observations=search.observations[:num_trials],
        known={candidate.graph.fingerprint for candidate in search.candidates[:num_trials]},
        admits=search.admits,
    )


def in_turn(number: int) -> TrialState:
    """Every second trial fails or is pruned."""
    return (TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE, TrialState.PRUNED)[number % 4]


class OptunaContract(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """What Optuna asks of every sampler of relations that serves several objectives. Give it the fixture `make`."""

    @pytest.fixture
    def sampler(self, make: Make) -> Callable[[], BaseSampler]:
        return lambda: make(Chain(), seed=0)


class SamplerContract:
    """What we ask. Give it the fixture `make`."""

    num_trials = 45
    """Length of the searches."""

    @pytest.fixture
    def make(self) -> Make:
        pytest.fail(
            "A class that inherits this contract says how its sampler is made: give it the fixture 'make'"
        )

    @pytest.mark.parametrize("num_objectives", [1, 2, 3])
    @pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
    def test_a_fresh_sampler_with_the_same_experience_proposes_the_same(
        self, make: Make, space: SearchSpace, num_objectives: int
    ) -> None:
        search = Search(make(space, seed=3), num_objectives, in_turn)
        search.run(self.num_trials)
        for number in (0, 1, 7, self.num_trials // 2, self.num_trials - 1):
            fresh = make(space, seed=3).propose(as_it_was(search, number), number=number)
            assert fresh == search.candidates[number]

    def test_two_studies_at_once_do_not_disturb_each_other(self, make: Make) -> None:
        alone = [Search(make(SPACES[0], seed=1), ends=ends).run(20) for ends in (in_turn, _complete)]
        shared = make(SPACES[0], seed=1)
        both = [Search(shared, ends=in_turn), Search(shared, ends=_complete)]
        for _ in range(20):
            for search in both:
                search.run(1)
        assert [search.run(0) for search in both] == alone

    def test_asking_again_gives_the_same(self, make: Make) -> None:
        search = Search(make(SPACES[2], seed=5))
        search.run(30)
        first, second = (search.sampler.propose(search.experience, number=30) for _ in range(2))
        assert first == second

    def test_the_seed_matters(self, make: Make) -> None:
        first, second = (Search(make(SPACES[0], seed=seed)).run(20) for seed in (0, 1))
        assert first != second

    @pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
    def test_proposals_are_of_the_space_and_new(self, make: Make, space: SearchSpace) -> None:
        search = Search(make(space, seed=0))
        architectures = search.run(self.num_trials)
        assert [replay(space, architecture) for architecture in architectures] == search.candidates
        assert len(search.known) == self.num_trials

    @pytest.mark.parametrize(
        "space",
        [Chain(num_layers=1, widths=3), Single(input_shape=(4,), num_classes=3)],
        ids=lambda space: space.name,
    )
    def test_a_tiny_space_is_proposed_to_its_end_and_beyond(self, make: Make, space: SearchSpace) -> None:
        graphs = {candidate.graph.fingerprint for candidate in enumerate_candidates(space)}
        search = Search(make(space, seed=0))
        search.run(len(graphs))
        assert search.known == graphs
        search.run(3)
        assert search.known == graphs

    @pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.PRUNED])
    def test_it_goes_on_when_nothing_succeeds(self, make: Make, state: TrialState) -> None:
        search = Search(make(SPACES[0], seed=0), ends=lambda number: state)  # noqa: ARG005
        search.run(self.num_trials)
        assert len(search.known) == self.num_trials

    def test_values_that_are_not_finite_are_like_failures(self, make: Make) -> None:
        space = SPACES[0]
        strange, failed = (Search(make(space, seed=2)) for _ in range(2))
        for candidate, gain in zip(islice(_distinct(space), 30), (np.nan, np.inf, -np.inf) * 10, strict=True):
            number = len(strange.observations)
            if number % 2:
                seen = [Observation(number, candidate, TrialState.COMPLETE, (quality(candidate.graph),))] * 2
            else:
                seen = [
                    Observation(number, candidate, TrialState.COMPLETE, (gain,)),
                    Observation(number, candidate, TrialState.FAILED, ()),
                ]
            for search, observation in zip((strange, failed), seen, strict=True):
                search.observations.append(observation)
                search.known.add(candidate.graph.fingerprint)
        first, second = (search.sampler.propose(search.experience, number=30) for search in (strange, failed))
        assert first == second

    def test_constraints_are_kept(self, make: Make) -> None:
        search = Search(make(SPACES[0], seed=0), admits=lambda graph: len(graph) <= 5)
        search.run(self.num_trials // 2)
        assert all(len(candidate.graph) <= 5 for candidate in search.candidates)
        assert len(search.known) == len(search.candidates)

    def test_constraints_that_nothing_keeps_do_not_hang(self, make: Make) -> None:
        search = Search(make(SPACES[0], seed=0), admits=lambda graph: False)  # noqa: ARG005
        [architecture] = search.run(1)
        assert replay(SPACES[0], architecture).architecture == architecture

    def test_global_generators_are_left_alone(self, make: Make) -> None:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        Search(make(SPACES[0], seed=0)).run(self.num_trials)
        assert random.getstate() == before[0]
        assert str(np.random.get_state()) == str(before[1])
        assert torch.equal(torch.get_rng_state(), before[2])

    @pytest.mark.parametrize(
        "directions",
        [(StudyDirection.MAXIMIZE,), (StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)],
        ids=["one", "two"],
    )
    def test_a_study_of_optuna_goes_on_with_a_fresh_sampler(
        self, make: Make, directions: Sequence[StudyDirection]
    ) -> None:
        space = SPACES[2]
        whole, parts = (optuna.create_study(directions=directions) for _ in range(2))
        whole.sampler = make(space, seed=7)
        whole.optimize(_objective(space, len(directions)), n_trials=30)
        for num_trials in (10, 20):
            parts.sampler = make(space, seed=7)
            parts.optimize(_objective(space, len(directions)), n_trials=num_trials)
        assert [trial.params for trial in whole.trials] == [trial.params for trial in parts.trials]
        assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in whole.trials)


def _complete(number: int) -> TrialState:
    return TrialState.COMPLETE


def _distinct(space: SearchSpace) -> Iterator[Candidate]:
    seen: set[str] = set()
    for candidate in enumerate_candidates(space):
        if candidate.graph.fingerprint not in seen:
            seen.add(candidate.graph.fingerprint)
            yield candidate


def _objective(
    space: SearchSpace, num_objectives: int
) -> Callable[[optuna.Trial], float | tuple[float, ...]]:
    def objective(trial: optuna.Trial) -> float | tuple[float, ...]:
        graph = realise(space, TrialChooser(trial))[0].graph
        return quality(graph) if num_objectives == 1 else (float(len(graph)), quality(graph))

    return objective
