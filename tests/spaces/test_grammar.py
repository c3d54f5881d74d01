"""Derivations made of choices."""

from itertools import islice

import numpy as np
import pytest

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.seeding import generator
from nasgraph.spaces import Chooser, SamplingChooser, SearchSpace, enumerate_candidates, mutate, sample
from nasgraph.spaces.grammar import Derivation, Grammar, Rule
from nasgraph.testing import SearchSpaceContract

BINARY = {"tree": (Rule("leaf"), Rule("fork", (("left", "tree"), ("right", "tree"))))}
LADDER = {
    "list": (Rule("end"), Rule("more", (("item", "item"), ("rest", "list")))),
    "item": (Rule("relu"), Rule("linear"), Rule("tanh")),
}


class Trees(SearchSpace):
    """Graphs of the trees of a grammar: leaves are linear layers, forks sums."""

    def __init__(self, grammar: Grammar) -> None:
        super().__init__(input_shape=(3,), num_classes=2)
        self._grammar = grammar

    @property
    def name(self) -> str:
        return "trees"

    def build(self, choose: Chooser) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("input", shape=self.input_shape)

        def write(tree: Derivation) -> int:
            if not tree.children:
                return g("linear", x, out_features=3)
            return g("add", *map(write, tree.children))

        return g.finish(g("linear", write(self._grammar.derive(choose)), out_features=self.num_classes))


class TestTrees(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return Trees(Grammar(BINARY, start="tree", max_depth=4))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_derivations_are_counted(depth: int) -> None:
    # t(1) = 1, t(d) = 1 + t(d - 1)^2: 1, 2, 5, 26 binary trees of bounded height (OEIS A003095)
    grammar = Grammar(BINARY, start="tree", max_depth=depth)
    assert grammar.num_derivations() == [1, 2, 5, 26][depth - 1]
    space = Trees(grammar)
    assert sum(1 for _ in enumerate_candidates(space)) == grammar.num_derivations()


def test_lists_are_counted_with_what_they_hold() -> None:
    # A list of length n has depth n + 1, or n + 2 where the item at its end lies deeper than the end.
    assert Grammar(LADDER, start="list", max_depth=4).num_derivations() == 1 + 3 + 9 + 27


@pytest.mark.parametrize("seed", range(20))
def test_no_derivation_is_deeper_than_allowed(seed: int) -> None:
    grammar = Grammar(BINARY, start="tree", max_depth=5)
    tree = grammar.derive(SamplingChooser(generator(seed)))
    assert tree.depth <= 5
    assert len({node.path for node in tree}) == len(list(tree))


def test_the_mean_size_is_the_expected_one() -> None:
    grammar = Grammar(BINARY, start="tree", max_depth=6)
    rng = generator(0)
    sizes = [len(list(grammar.derive(SamplingChooser(rng)))) for _ in range(4000)]
    spread = np.std(sizes) / len(sizes) ** 0.5
    assert abs(np.mean(sizes) - grammar.expected_size()) < 4 * spread


def test_a_grammar_that_ends_by_itself_has_a_bounded_expectation() -> None:
    # mean number of recursive slots 2/3: the expectation of the whole process is 1 / (1 - 2/3) = 3
    rules = {"tree": (Rule("a"), Rule("b"), Rule("fork", (("left", "tree"), ("right", "tree"))))}
    grammar = Grammar(rules, start="tree", max_depth=60)
    assert grammar.expected_size() == pytest.approx(3.0, abs=1e-6)
    assert Grammar(rules, start="tree", max_depth=60, max_expected=3.0).max_depth == 60


def test_a_grammar_that_explodes_is_limited_by_its_expectation() -> None:
    rules = {"tree": (Rule("leaf"), Rule("three", tuple((slot, "tree") for slot in "abc")))}
    free = Grammar(rules, start="tree", max_depth=30)
    assert free.expected_size() > 1e4
    limited = Grammar(rules, start="tree", max_depth=30, max_expected=20)
    assert limited.expected_size() <= 20 < limited.expected_size(depth=limited.max_depth + 1)


def test_mutation_changes_a_subtree() -> None:
    space = Trees(Grammar(BINARY, start="tree", max_depth=5))
    rng = generator(3)
    for _ in range(50):
        parent = sample(space, rng).architecture
        child = mutate(space, parent, rng).architecture
        before, after = dict(parent.choices), dict(child.choices)
        (changed,) = [name for name in before if name in after and before[name] != after[name]]
        place = changed.removesuffix("tree").strip()
        new = (set(before) ^ set(after)) - {changed}
        assert all(not place or name.startswith(f"{place}.") for name in new)


def test_names_are_paths() -> None:
    space = Trees(Grammar(BINARY, start="tree", max_depth=3))
    candidate = next(islice(enumerate_candidates(space), 4, None))
    assert [name for name, _ in candidate.architecture.choices] == ["tree", "left tree", "right tree"]


@pytest.mark.parametrize(
    ("rules", "depth", "message"),
    [
        ({"a": (Rule("x", (("slot", "b"),)),)}, 3, "no rule for the symbol 'b'"),
        ({"a": ()}, 3, "no rule for the symbol 'a'"),
        ({"a": (Rule("x", (("slot", "a"),)),)}, 3, "No derivation of 'a' ends within depth 3"),
        ({"a": (Rule("x", (("slot", "b"),)),), "b": (Rule("y"),)}, 1, "within depth 1 .the shortest has 2"),
        ({"a": (Rule("x"), Rule("x"))}, 1, "different names for the rules of 'a'"),
        (
            {"a": (Rule("x"), Rule("y", (("s", "a"), ("s", "a"))))},
            2,
            "different names for the slots of the rule 'y'",
        ),
    ],
)
def test_grammars_without_an_end_are_refused(
    rules: dict[str, tuple[Rule, ...]], depth: int, message: str
) -> None:
    with pytest.raises(NasGraphError, match=message):
        Grammar(rules, start="a", max_depth=depth)
