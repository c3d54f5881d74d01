"""Growing a space: old architectures stay what they were."""

import pickle
from itertools import islice

import pytest

from nasgraph.errors import InvalidChoiceError, NasGraphError, UnknownNameError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.seeding import generator
from nasgraph.spaces import (
    Architecture,
    Chooser,
    SearchSpace,
    crossover,
    enumerate_candidates,
    load_space,
    mutate,
    replay,
    sample,
)
from nasgraph.spaces.around import AroundGraph
from nasgraph.spaces.grow import GrownOptions, GrownSpace, grow
from nasgraph.testing import SearchSpaceContract
from tests.spaces.making import Toy, toy


def grown_toy() -> GrownSpace:
    return grow(toy(), {"width0": (8, 3), "depth": range(1, 5)})


class Biased(Toy):
    """The same with a choice that was not there before."""

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        x = graph("input", shape=self.input_shape)
        depth = choose.integer("depth", 1, 3)
        bias = depth > 1 and choose.categorical("bias", (False, True))
        op = choose.categorical("activation", ("none", "relu"))
        for layer in range(depth):
            x = graph("linear", x, out_features=choose.categorical(f"width{layer}", (2, 4)), bias=bias)
            x = x if op == "none" else graph(op, x)
        return graph.finish(graph("linear", x, out_features=self.num_classes))


class TestGrown(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return grown_toy()


class TestGrownTwice(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return grow(grow(toy(), {"width0": (8,)}), {"width0": (16,), "width2": (6,)})


class TestGrownByAChoice(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return grow(Biased(input_shape=(3,), num_classes=2), defaults={"activation": "none"})


def test_every_old_architecture_gives_the_same_graph() -> None:
    grown = grow(grown_toy(), {"width0": (5,)})
    for candidate in enumerate_candidates(toy()):
        assert replay(grown, candidate.architecture) == candidate


def test_an_architecture_without_a_new_choice_stands_for_its_default() -> None:
    grown = grow(Biased(input_shape=(3,), num_classes=2), defaults={"activation": "none"})
    for candidate in enumerate_candidates(toy()):
        assert replay(grown, candidate.architecture) == candidate
    wrong = Architecture("toy", (("depth", 1), ("activation", "cosine"), ("width0", 2)))
    with pytest.raises(InvalidChoiceError, match="does not ask for 'activation' here"):
        replay(grown, wrong)


def test_new_options_are_reached_and_counted() -> None:
    # Width 0 has 4 options, the others 2; with more than one layer the bias is asked for, too.
    expected = 4 + 2 * 4 * (2 + 4 + 8)
    assert sum(1 for _ in enumerate_candidates(grown_toy())) == expected
    found = {dict(c.architecture.choices)["width0"] for c in enumerate_candidates(grown_toy())}
    assert found == {2, 4, 8, 3}


def test_old_and_new_architectures_mix() -> None:
    grown, rng = grown_toy(), generator(0)
    old, new = sample(toy(), rng).architecture, sample(grown, rng).architecture
    for _ in range(20):
        child = crossover(grown, old, mutate(grown, new, rng).architecture, rng)
        assert replay(grown, child.architecture) == child


def test_the_name_and_the_ends_stay() -> None:
    grown = grown_toy()
    assert (grown.name, grown.input_shape, grown.num_classes) == ("toy", (3,), 2)


def test_options_remember_when_they_came() -> None:
    options = GrownOptions(((1, 3), (5,), (7, 9)))
    assert list(options) == [1, 3, 5, 7, 9]
    assert options.stages == ((1, 3), (1, 3, 5), (1, 3, 5, 7, 9))
    assert (options[2], options[-1], options[1:3], len(options), options.index(7)) == (5, 9, (3, 5), 5, 3)
    assert pickle.loads(pickle.dumps(options)) == options


def test_a_shipped_space_takes_new_sizes() -> None:
    convnet = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    grown = grow(convnet, {"stem_kernel": (7,), "width": (40,)})
    kernels = {dict(sample(grown, generator(seed)).architecture.choices)["stem_kernel"] for seed in range(40)}
    assert 7 in kernels


def test_a_space_around_a_graph_grows() -> None:
    base = load_space("handmade", input_shape=(3, 32, 32), num_classes=10)
    space = AroundGraph(next(islice(enumerate_candidates(base), 2, None)).graph, name="around")
    widths = [offer for offer in space.offers if offer.name.endswith("width")]
    name, answer = widths[0].name, 4 * int(widths[0].original)
    grown = grow(space, {name: (answer,)})
    assert replay(grown, space.original).graph.fingerprint == space.graph.fingerprint


# ---- bad input


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"width0": (2,)}, "'width0' has the option 2 already"),
        ({"width0": (8, 8)}, "'width0' has the option 8 already"),
        ({"bias": (1,)}, "'bias' has the option 1 already, or one equal to it"),
        ({"depth": range(2, 9)}, "a range that holds 1 to 3 for 'depth'"),
        ({"depth": (4,)}, "a range that holds 1 to 3 for 'depth'"),
        ({"width0": range(2, 9)}, "Expected options for 'width0' as a list"),
        ({"width0": (0,)}, "cannot do anything with 0 for 'width0'.*'out_features'"),
        ({"width0": ("wide",)}, "cannot do anything with 'wide' for 'width0'"),
    ],
)
def test_what_cannot_be_added_is_refused(more: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        grow(toy(), more)


def test_an_unknown_choice_is_refused_with_close_names() -> None:
    with pytest.raises(UnknownNameError, match=r"No choice named 'width'\. Close: .*'width0'"):
        grow(toy(), {"width": (8,)})
    with pytest.raises(UnknownNameError, match="No choice named 'activation'"):
        grow(toy(), defaults={"activation": "none"})


def test_a_default_has_to_be_an_option() -> None:
    grown = grow(Biased(input_shape=(3,), num_classes=2), defaults={"activation": "cosine"})
    with pytest.raises(NasGraphError, match="default of 'activation' is 'cosine', which is no option"):
        sample(grown, generator(0))


def test_a_width_that_groups_do_not_allow_is_refused() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 8)), out_features=8)
    graph = g.finish(g("linear", g("attention", x, x, x, num_heads=4), out_features=2))
    space = AroundGraph(graph, name="around")
    with pytest.raises(NasGraphError, match="'linear0 width' to be a multiple of 4"):
        grow(space, {"linear0 width": (10,)})
