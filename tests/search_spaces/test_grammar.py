"""The space of nested blocks."""

from collections import Counter

import numpy as np
import pytest
import torch

from nasgraph.errors import NasGraphError
from nasgraph.ir import check_graph, cost_of
from nasgraph.modules import build
from nasgraph.seeding import generator
from nasgraph.spaces import SamplingChooser, SearchSpace, mutate, realise, sample
from nasgraph.testing import SearchSpaceContract
from search_spaces.grammar import OPERATORS, GrammarSpace

SHAPES = [(1, 8, 8), (3, 32, 32), (3, 4, 4), (2, 9, 13), (3, 64, 64)]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
class TestGrammarSpace(SearchSpaceContract):
    @pytest.fixture
    def space(self, shape: tuple[int, ...]) -> SearchSpace:
        return GrammarSpace(input_shape=shape, num_classes=10)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_derivation_is_a_network_for_the_shape(shape: tuple[int, ...]) -> None:
    space = GrammarSpace(input_shape=shape, num_classes=7)
    rng = generator(0, *shape)
    for _ in range(60):
        graph = sample(space, rng).graph
        check_graph(graph)
        assert graph.shapes[graph.outputs[0]] == (7,)


@pytest.mark.parametrize("seed", range(4))
def test_networks_run(seed: int) -> None:
    graph = sample(GrammarSpace(input_shape=(3, 16, 16), num_classes=5), generator(seed)).graph
    assert build(graph).eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_all_operators_and_compositions_occur_inside_blocks() -> None:
    space = GrammarSpace(input_shape=(3, 32, 32), num_classes=10)
    rng = generator(1)
    rules: Counter[str] = Counter()
    for _ in range(300):
        for name, answer in sample(space, rng).architecture.choices:
            if " " in name:
                rules[str(answer)] += 1
    compositions = ("sequence", "sum", "concat", "residual", "gate", "lower", "split", "tokens")
    assert all(rules[name] > 20 for name in (*OPERATORS, *compositions))
    assert all(rules[name] for name in ("linear", "mlp", "normalise", "attention1", "attention2"))


def test_sizes_stay_bounded_whatever_the_depth() -> None:
    means = []
    for depth in (4, 8, 16):
        space = GrammarSpace(input_shape=(1, 8, 8), num_classes=10, block_depth=depth)
        rng = generator(2)
        means.append(float(np.mean([len(sample(space, rng).graph) for _ in range(200)])))
    assert max(means) < 1.5 * min(means) < 120


def test_mutants_of_mutants_grow_and_stay_networks() -> None:
    space = GrammarSpace(input_shape=(1, 8, 8), num_classes=10)
    rng = generator(4)
    candidate = sample(space, rng)
    sizes = set()
    for _ in range(100):
        candidate = mutate(space, candidate.architecture, rng)
        check_graph(candidate.graph)
        sizes.add(len(candidate.graph))
    assert len(sizes) > 20
    assert cost_of(candidate.graph).num_parameters > 0


def test_attention_is_between_few_positions_only() -> None:
    space = GrammarSpace(input_shape=(3, 32, 32), num_classes=10)
    rng = generator(5)
    for _ in range(200):
        graph = sample(space, rng).graph
        tokens = [graph.shapes[i][0] for i, node in enumerate(graph.nodes) if node.op == "attention"]
        assert all(count <= 256 for count in tokens)


def test_a_name_says_where_a_rule_stands() -> None:
    space = GrammarSpace(input_shape=(1, 8, 8), num_classes=10)
    names = {q.name for seed in range(50) for q in realise(space, SamplingChooser(generator(seed)))[1]}
    assert {"norm", "width", "network1", "down down1", "stage0 block1", "stage0.first block1"} <= names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (10,)}, "expects images .channels, height, width. with sides of at least 4"),
        ({"input_shape": (3, 3, 8)}, "sides of at least 4"),
        ({"num_classes": 0}, "at least 1 .got 0 and 5"),
        ({"block_depth": 0}, "at least 1 .got 10 and 0"),
        ({"widths": (12,)}, "multiples of eight"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"input_shape": (1, 8, 8), "num_classes": 10, **settings}
    with pytest.raises(NasGraphError, match=message):
        GrammarSpace(**arguments)  # type: ignore[arg-type]  # what is wrong is the point
