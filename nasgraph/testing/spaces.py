"""What every search space must do."""

import pickle
from itertools import islice

import numpy as np
import pytest

from nasgraph.files import parse_json
from nasgraph.ir import check_graph, graph_from_json, graph_to_json
from nasgraph.spaces import (
    Architecture,
    Candidate,
    Choice,
    Question,
    SamplingChooser,
    SearchSpace,
    architecture_from_json,
    crossover,
    enumerate_candidates,
    mutate,
    neighbours,
    realise,
    replay,
    sample,
)
from nasgraph.testing.graphs import reordered

SEEDS = range(12)
NUM_SAMPLES = 100
"""Candidates that are looked at together where a claim is about many."""


def candidate_of(space: SearchSpace, seed: int) -> Candidate:
    """The candidate that a seed gives."""
    return sample(space, np.random.default_rng(seed))


def differing(one: Architecture, other: Architecture) -> list[str]:
    """Names of the choices that both architectures have and that differ, sorted."""
    first, second = dict(one.choices), dict(other.choices)
    return sorted(
        name
        for name in set(first) & set(second)
        if first[name] != second[name] or type(first[name]) is not type(second[name])
    )


class SearchSpaceContract:
    """Tests of the contract of `SearchSpace`. Subclass it, name the class `Test...` and give the fixture `space`.

    Example:
        class TestMySpace(SearchSpaceContract):
            @pytest.fixture
            def space(self) -> SearchSpace:
                return MySpace(input_shape=(3, 32, 32), num_classes=10)

    Spaces need at least two architectures. Tests are parametrised by seeds and take some seconds.
    """

    @pytest.mark.parametrize("seed", SEEDS)
    def test_samples_are_valid_graphs_with_the_right_ends(self, space: SearchSpace, seed: int) -> None:
        graph = candidate_of(space, seed).graph
        check_graph(graph)
        assert [graph.shapes[index] for index in graph.inputs] == [space.input_shape]
        assert [graph.shapes[index] for index in graph.outputs] == [(space.num_classes,)]

    @pytest.mark.parametrize("seed", SEEDS)
    def test_replaying_the_choices_gives_the_same_graph(self, space: SearchSpace, seed: int) -> None:
        candidate = candidate_of(space, seed)
        assert replay(space, candidate.architecture) == candidate

    def test_building_leaves_no_trace(self, space: SearchSpace) -> None:
        forwards = [candidate_of(space, seed) for seed in SEEDS]
        backwards = [candidate_of(space, seed) for seed in reversed(SEEDS)]
        assert forwards == backwards[::-1]

    def test_a_pickled_space_builds_the_same_graphs(self, space: SearchSpace) -> None:
        copy: SearchSpace = pickle.loads(pickle.dumps(space))
        assert [candidate_of(copy, seed) for seed in SEEDS] == [candidate_of(space, seed) for seed in SEEDS]

    def test_each_name_is_asked_once_and_always_with_the_same_options(self, space: SearchSpace) -> None:
        rng = np.random.default_rng(0)
        options: dict[str, list[Choice]] = {}
        for _ in range(NUM_SAMPLES):
            _, questions = realise(space, SamplingChooser(rng))
            assert len({question.name for question in questions}) == len(questions)
            for question in questions:
                assert options.setdefault(question.name, list(question.options)) == list(question.options)

    def test_no_question_offers_an_option_twice(self, space: SearchSpace) -> None:
        for question in self._questions(space):
            assert len({(type(option), option) for option in question.options}) == len(question.options), (
                question
            )

    def test_samples_differ(self, space: SearchSpace) -> None:
        rng = np.random.default_rng(0)
        assert len({sample(space, rng).architecture for _ in range(NUM_SAMPLES)}) > 1

    @pytest.mark.parametrize("seed", SEEDS)
    def test_mutation_changes_one_choice(self, space: SearchSpace, seed: int) -> None:
        parent = candidate_of(space, seed).architecture
        child = mutate(space, parent, np.random.default_rng(seed))
        check_graph(child.graph)
        # Choices that became necessary, or are no longer asked for, belong to one parent or child only.
        assert len(differing(parent, child.architecture)) == 1
        assert replay(space, child.architecture) == child

    @pytest.mark.parametrize("seed", SEEDS)
    def test_crossover_takes_each_choice_from_a_parent(self, space: SearchSpace, seed: int) -> None:
        first, second = (candidate_of(space, seed + offset).architecture for offset in (0, 1000))
        child = crossover(space, first, second, np.random.default_rng(seed))
        check_graph(child.graph)
        for name, answer in child.architecture.choices:
            offered = [
                dict(parent.choices)[name] for parent in (first, second) if name in dict(parent.choices)
            ]
            assert not offered or answer in offered, name
        assert replay(space, child.architecture) == child

    @pytest.mark.parametrize("seed", SEEDS)
    def test_crossing_an_architecture_with_itself_changes_nothing(
        self, space: SearchSpace, seed: int
    ) -> None:
        parent = candidate_of(space, seed)
        assert (
            crossover(space, parent.architecture, parent.architecture, np.random.default_rng(seed)) == parent
        )

    def test_neighbours_differ_in_one_choice_and_from_each_other(self, space: SearchSpace) -> None:
        centre = candidate_of(space, 0).architecture
        found = [candidate.architecture for candidate in neighbours(space, centre, np.random.default_rng(0))]
        _, questions = realise(space, SamplingChooser(np.random.default_rng(0)))
        assert len(found) == sum(len(question.options) - 1 for question in questions)
        assert all(len(differing(centre, neighbour)) == 1 for neighbour in found)
        assert len(set(found)) == len(found)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_json_keeps_architecture_and_graph(self, space: SearchSpace, seed: int) -> None:
        candidate = candidate_of(space, seed)
        assert architecture_from_json(parse_json(candidate.architecture.to_json())) == candidate.architecture
        assert graph_from_json(graph_to_json(candidate.graph)) == candidate.graph

    def test_enumeration_has_no_repeats(self, space: SearchSpace) -> None:
        found = [candidate.architecture for candidate in islice(enumerate_candidates(space), 300)]
        assert len(set(found)) == len(found) > 1

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_fingerprint_does_not_depend_on_the_order_of_nodes(
        self, space: SearchSpace, seed: int
    ) -> None:
        graph = candidate_of(space, seed).graph
        other = reordered(graph, np.random.default_rng(seed))
        check_graph(other)
        assert other.fingerprint == graph.fingerprint
        assert other.canonical() == graph.canonical()

    def _questions(self, space: SearchSpace) -> list[Question]:
        rng = np.random.default_rng(0)
        return [question for _ in range(NUM_SAMPLES) for question in realise(space, SamplingChooser(rng))[1]]
