"""Spaces around graphs: sizes that depend on each other, and blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.ir import ComputationalGraph, GraphBuilder, check_graph, cost_of
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, replay, sample
from nasgraph.spaces.around import AroundConfig, AroundGraph
from nasgraph.spaces.around_blocks import BlockFinder
from nasgraph.spaces.around_widths import Widths, length

SPACES = {
    "convnet": (3, 32, 32), "handmade": (3, 32, 32), "vit": (3, 32, 32), "gpt": (16,), "mlp": (1, 8, 8), "nasbench201": (3, 32, 32),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_graphs_of_every_space_can_be_varied_and_remain_networks(name: str) -> None:
    base = load_space(name, input_shape=SPACES[name], num_classes=16)
    for seed in range(6):
        graph = sample(base, generator(seed, name)).graph
        space = AroundGraph(graph, name="around")
        assert replay(space, space.original).graph.fingerprint == graph.fingerprint
        rng = generator(seed, "variants")
        for _ in range(12):
            variant = sample(space, rng).graph
            check_graph(variant)
            assert [variant.shapes[i] for i in variant.outputs] == [graph.shapes[i] for i in graph.outputs]


# ---- sizes


@st.composite
def joined(draw: st.DrawFn) -> tuple[Widths, list[tuple[tuple[tuple[int, int], ...], int]]]:
    """Axes made by concatenating, cutting, equating and dividing, with the sizes that they have."""
    widths = Widths()
    axes = [
        (widths.new(size), size)
        for size in draw(st.lists(st.sampled_from([2, 4, 6, 8, 12]), min_size=2, max_size=4))
    ]
    for _ in range(draw(st.integers(1, 6))):
        one, two = draw(st.sampled_from(axes)), draw(st.sampled_from(axes))
        match draw(st.sampled_from(["concat", "cut", "equate", "divide"])):
            case "concat":
                axes.append(((*one[0], *two[0]), one[1] + two[1]))
            case "cut" if one[1] > 1:
                place = draw(st.integers(1, one[1] - 1))
                if (parts := widths.cut(one[0], place)) is not None:
                    axes += [(parts[0], place), (parts[1], one[1] - place)]
            case "equate" if one[1] == two[1]:
                widths.equate(one[0], two[0], "test")
            case "divide" if (part := widths.divided(one[0], 2)) is not None:
                axes.append((part, one[1] // 2))
    return widths, axes


@given(joined(), st.integers(2, 5))
def test_equations_hold_for_the_present_sizes_and_for_all_others(
    made: tuple[Widths, list[tuple[tuple[tuple[int, int], ...], int]]], factor: int
) -> None:
    widths, axes = made
    for axis, size in axes:
        resolved = widths.resolve(axis)
        assert widths.size(axis) == widths.size(resolved) == size
        if not any(unknown == -1 for _, unknown in resolved):  # no fixed part: all grows together
            assert length(resolved, lambda u: factor * widths.sizes[u]) == factor * size


@given(joined())
def test_equated_axes_agree_whatever_the_free_sizes_are(
    made: tuple[Widths, list[tuple[tuple[tuple[int, int], ...], int]]],
) -> None:
    widths, axes = made

    def value(unknown: int) -> int:
        return widths.sizes[unknown] + (0 if unknown in widths.reasons else 7 + 3 * unknown)

    for one, size in axes:
        for two, other in axes:
            if size == other:
                widths.equate(one, two, "test")
                assert length(widths.resolve(one), value) == length(widths.resolve(two), value)


def test_a_width_that_meets_a_fixed_one_is_fixed_with_the_reason() -> None:
    g = GraphBuilder()
    x = g("input", shape=(8,))
    y = g("linear", x, out_features=12)
    z = g("linear", g("relu", y), out_features=8)
    space = AroundGraph(g.finish(g("linear", g("add", x, z), out_features=3)), name="test")
    assert [part.what for part in space.fixed] == ["linear1 width", "linear2 width"]
    assert "'add0' (add) needs it to agree" in space.fixed[0].reason


# ---- blocks


def chain(*widths: int, op: str = "relu") -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(4,))
    for width in widths:
        x = g(op, g("linear", x, out_features=width))
    return g.finish(g("linear", x, out_features=2))


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((8, 8, 8), [2]),  # the first reads another width
        ((4, 4, 4), [3]),
        ((8, 6, 8, 6), []),  # two layers that are a block together come twice, but with different ends
        ((4, 6, 4, 6, 4, 6, 4), [3]),
        ((4, 4, 6, 4, 4, 6, 4, 4), [2]),  # the longer block covers more
        ((8, 8, 6, 6, 6), [2]),
    ],
)
def test_rows_of_equal_blocks_are_found(widths: tuple[int, ...], expected: list[int]) -> None:
    graph = chain(*widths)
    runs = BlockFinder(graph, [str(index) for index in range(len(graph))]).runs()
    assert [len(run.blocks) for run in runs] == expected


def layers(g: GraphBuilder, x: int, count: int) -> int:
    for _ in range(count):
        x = g("relu", g("linear", x, out_features=4))
    return x


def test_rows_within_a_branch_are_found() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(7,)), out_features=4)
    joined = g("concat", layers(g, x, 3), g("tanh", g("linear", x, out_features=4)))
    graph = g.finish(g("linear", joined, out_features=2))
    (run,) = BlockFinder(graph, [str(index) for index in range(len(graph))]).runs()
    assert [[graph.nodes[node].op for node in block.nodes] for block in run.blocks] == [
        ["linear", "relu"]
    ] * 3


def test_blocks_that_share_their_weights_may_stand_more_often_too() -> None:
    g = GraphBuilder()
    x, weight = g("input", shape=(4,)), g("parameter", shape=(4, 4), role="weight")
    for _ in range(2):
        x = g("relu", g("apply_linear", x, weight))
    space = AroundGraph(
        g.finish(g("linear", x, out_features=2)), name="test", config=AroundConfig(families=("depth",))
    )
    assert [offer.options for offer in space.offers] == [range(1, 4)]
    sizes = {cost_of(sample(space, generator(seed)).graph).num_parameters for seed in range(9)}
    assert sizes == {16 + 10}


def test_rows_within_equal_blocks_belong_to_these() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(7,)), out_features=4)
    for _ in range(3):
        x = g("add", x, layers(g, x, 2))
    graph = g.finish(g("linear", x, out_features=2))
    (run,) = BlockFinder(graph, [str(index) for index in range(len(graph))]).runs()
    assert [len(block.nodes) for block in run.blocks] == [5, 5, 5]


def test_the_depth_of_a_branch_is_asked_for_only_if_the_branch_is_there() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(7,)), out_features=4)
    x = g("add", x, layers(g, x, 3))
    space = AroundGraph(g.finish(g("linear", x, out_features=2)), name="test", config=AroundConfig())
    asked = set()
    for seed in range(30):
        choices = dict(sample(space, generator(seed)).architecture.choices)
        asked.add((choices["linear1 kept"], "linear1 depth" in choices))
    assert asked == {(True, True), (False, False)}


def test_what_is_shared_between_blocks_does_not_hinder_them() -> None:
    g = GraphBuilder()
    x, mask = g("input", shape=(4,)), g("input", shape=(4,))
    gate = g("sigmoid", mask)
    for _ in range(3):
        x = g("mul", g("relu", g("linear", x, out_features=4)), gate)
    graph = g.finish(x)
    (run,) = BlockFinder(graph, [str(index) for index in range(len(graph))]).runs()
    assert [len(block.nodes) for block in run.blocks] == [3, 3, 3]
    space = AroundGraph(graph, name="test", config=AroundConfig(families=("depth",)))
    assert [offer.options for offer in space.offers] == [range(1, 5)]


def test_blocks_with_constants_are_left_out_but_not_repeated() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4,))
    for _ in range(2):
        x = g("add", g("linear", x, out_features=4), g("constant", shape=(4,)))
    space = AroundGraph(g.finish(x), name="test", config=AroundConfig(families=("depth",)))
    assert [offer.options for offer in space.offers] == [range(1, 3)]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Expected 'families' among width, .* \(got 'length'\)"):
        AroundConfig(families=("length",))
    with pytest.raises(ValueError, match="'width_factors' above 0"):
        AroundConfig(width_factors=(0.0,))
    with pytest.raises(ValueError, match="one name for each of 4 nodes"):
        AroundGraph(chain(4), name="test", node_names=("a",))
