"""Sampling, replay, mutation, crossover, neighbours and enumeration, on a space that is known by heart."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest

from nasgraph.errors import InvalidChoiceError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import (
    Architecture,
    Choice,
    Chooser,
    ReplayChooser,
    SamplingChooser,
    SearchSpace,
    crossover,
    enumerate_candidates,
    mutate,
    neighbours,
    realise,
    replay,
    sample,
)
from nasgraph.testing import SearchSpaceContract
from nasgraph.testing.spaces import differing
from tests.spaces.making import Toy, toy

C = TypeVar("C", bound=Choice)


class TestToy(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return toy()


def architecture(**choices: Choice) -> Architecture:
    return Architecture("toy", tuple(choices.items()))


SMALL = architecture(depth=1, width0=2)
LARGE = architecture(depth=3, bias=True, width0=2, width1=4, width2=4)


def rngs(number: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng(seed) for seed in range(number))


def test_the_same_seed_gives_the_same_sample() -> None:
    assert sample(toy(), np.random.default_rng(3)) == sample(toy(), np.random.default_rng(3))


def test_sampling_draws_each_option_equally_often() -> None:
    rng = np.random.default_rng(0)
    drawn = [dict(sample(toy(), rng).architecture.choices) for _ in range(1_200)]
    depths = Counter(choices["depth"] for choices in drawn)
    assert set(depths) == {1, 2, 3}
    assert all(abs(count - 400) < 80 for count in depths.values())  # five standard deviations
    assert abs(sum(choices["width0"] == 2 for choices in drawn) - 600) < 90


def test_samples_hold_plain_python_values() -> None:
    chooser = SamplingChooser(np.random.default_rng(0))
    assert type(chooser.integer("n", 1, 3)) is int
    assert type(chooser.categorical("x", (1.5, 2.5))) is float


def test_choices_stand_in_the_order_in_which_they_were_asked() -> None:
    candidate = replay(toy(), architecture(width1=4, width0=2, depth=2, bias=False))
    assert [name for name, _ in candidate.architecture.choices] == ["depth", "bias", "width0", "width1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Architecture("mlp", ()), "Expected an architecture of 'toy' .got one of 'mlp'."),
        (architecture(depth=1), "lacks the choice 'width0'"),
        (architecture(depth=1, width0=3), "'width0' cannot be 3. Allowed: 2, 4"),
        (architecture(depth=4, width0=2), "'depth' cannot be 4. Allowed: 1 to 3"),
        (architecture(depth=0, width0=2), "'depth' cannot be 0. Allowed: 1 to 3"),
        (architecture(depth="1", width0=2), "'depth' cannot be '1'. Allowed: 1 to 3"),
        (architecture(depth=True, width0=2), "'depth' cannot be True. Allowed: 1 to 3"),
        (architecture(depth=1, width0=2, width1=2), "does not ask for 'width1' here"),
        (architecture(depth=2, bias=1, width0=2, width1=2), "'bias' cannot be 1. Allowed: False, True"),
        (Architecture("toy", (("depth", 1), ("width0", 2), ("width0", 4))), "names a choice twice"),
    ],
)
def test_replay_refuses_what_does_not_fit(wrong: Architecture, message: str) -> None:
    with pytest.raises(InvalidChoiceError, match=message):
        replay(toy(), wrong)


def test_mutation_draws_every_question_and_every_other_option() -> None:
    changed = Counter(differing(LARGE, mutate(toy(), LARGE, rng).architecture)[0] for rng in rngs(300))
    assert set(changed) == {"depth", "bias", "width0", "width1", "width2"}
    assert min(changed.values()) > 30
    depths = {dict(mutate(toy(), SMALL, rng).architecture.choices)["depth"] for rng in rngs(60)}
    assert depths == {1, 2, 3}


def test_mutation_samples_choices_that_become_necessary_and_drops_others() -> None:
    grown = [mutate(toy(), SMALL, rng).architecture for rng in rngs(200)]
    deep = [dict(each.choices) for each in grown if dict(each.choices)["depth"] == 3]
    assert {choices["width2"] for choices in deep} == {2, 4}
    assert all(choices["width0"] == 2 for choices in deep)
    shrunk = [mutate(toy(), LARGE, rng).architecture for rng in rngs(200)]
    assert SMALL in shrunk


class Single(Toy):
    """A space with one element."""

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        width = choose.categorical("width", (4,))
        x = graph("linear", graph("input", shape=self.input_shape), out_features=width)
        return graph.finish(graph("linear", x, out_features=self.num_classes))


def test_a_space_with_one_element_has_one_candidate_no_neighbour_and_no_mutant() -> None:
    space = Single(input_shape=(3,), num_classes=2)
    (only,) = enumerate_candidates(space)
    assert mutate(space, only.architecture, np.random.default_rng(0)) == only
    assert list(neighbours(space, only.architecture, np.random.default_rng(0))) == []


def test_crossover_takes_about_half_from_each_parent() -> None:
    first = architecture(depth=3, bias=True, width0=2, width1=2, width2=2)
    second = architecture(depth=3, bias=False, width0=4, width1=4, width2=4)
    children = [crossover(toy(), first, second, rng).architecture for rng in rngs(200)]
    from_first = sum(
        choice in first.choices for child in children for choice in child.choices if choice[0] != "depth"
    )
    assert abs(from_first - 400) < 100
    assert {child.choices[0] for child in children} == {("depth", 3)}


class Both(Toy):
    """Asks for a width only where two other answers agree."""

    def build(self, choose: Chooser) -> ComputationalGraph:
        both = choose.categorical("left", (False, True)) and choose.categorical("right", (False, True))
        graph = GraphBuilder()
        x = graph("input", shape=self.input_shape)
        width = choose.categorical("width", (2, 4)) if both else 1
        return graph.finish(
            graph("linear", graph("linear", x, out_features=width), out_features=self.num_classes)
        )


def test_crossover_samples_what_neither_parent_knows() -> None:
    first = Architecture("toy", (("left", True), ("right", False)))
    second = Architecture("toy", (("left", False), ("right", True)))
    space = Both(input_shape=(3,), num_classes=2)
    children = [dict(crossover(space, first, second, rng).architecture.choices) for rng in rngs(60)]
    assert {child.get("width") for child in children} == {None, 2, 4}


def test_neighbours_come_in_the_order_of_questions_and_options() -> None:
    found = [dict(each.architecture.choices) for each in neighbours(toy(), SMALL, np.random.default_rng(0))]
    assert [(each["depth"], each["width0"]) for each in found] == [(2, 2), (3, 2), (1, 4)]


def test_enumeration_gives_every_candidate_once_in_order() -> None:
    found = [candidate.architecture for candidate in enumerate_candidates(toy())]
    assert len(found) == len(set(found)) == 2 + 8 + 16
    assert found[0] == SMALL
    assert found[1] == architecture(depth=1, width0=4)
    assert found[-1] == architecture(depth=3, bias=True, width0=4, width1=4, width2=4)
    assert [dict(each.choices)["depth"] for each in found] == [1] * 2 + [2] * 8 + [3] * 16


def test_enumeration_is_lazy() -> None:
    class Endless(Toy):
        def build(self, choose: Chooser) -> ComputationalGraph:
            for question in range(30):
                choose.integer(f"number{question}", 0, 1000)
            return replay(toy(), SMALL).graph

    candidates = enumerate_candidates(Endless(input_shape=(3,), num_classes=2))
    assert [next(candidates).architecture.choices[-1] for _ in range(2)] == [("number29", 0), ("number29", 1)]


class Recorder:
    """A chooser that gives the last option and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def categorical(self, name: str, options: Sequence[C]) -> C:
        self.asked.append(name)
        return options[-1]

    def integer(self, name: str, low: int, high: int) -> int:
        self.asked.append(name)
        return high


def test_any_chooser_will_do() -> None:
    recorder = Recorder()
    candidate, questions = realise(toy(), recorder)
    assert (
        recorder.asked
        == [question.name for question in questions]
        == [n for n, _ in candidate.architecture.choices]
    )
    assert [list(question.options) for question in questions] == [
        [1, 2, 3],
        [False, True],
        [2, 4],
        [2, 4],
        [2, 4],
    ]


def test_a_space_that_asks_twice_is_reported() -> None:
    class Forgetful(Toy):
        def build(self, choose: Chooser) -> ComputationalGraph:
            choose.integer("depth", 1, 3)
            choose.integer("depth", 1, 3)
            return replay(toy(), SMALL).graph

    with pytest.raises(InvalidChoiceError, match="asks for 'depth' twice"):
        sample(Forgetful(input_shape=(3,), num_classes=2), np.random.default_rng(0))


def test_replay_tells_true_from_one_and_one_from_one_point_zero() -> None:
    assert ReplayChooser({"x": True}).categorical("x", (1, True)) is True
    assert type(ReplayChooser({"x": 1.0}).categorical("x", (1.0, 2.0))) is float
