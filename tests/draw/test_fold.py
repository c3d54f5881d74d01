"""Which nodes become one box."""

import numpy as np
import pytest

from nasgraph.draw import picture_of
from nasgraph.draw.fold import Picture, fold_chains
from nasgraph.draw.shrink import cuts_of, fold_repeats, group_boxes
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.testing import reordered
from tests.draw.networks import dense, mlp, residual, tangled, transformer, wide

GRAPHS = [
    mlp(),
    residual(3),
    residual(40),
    transformer(2),
    transformer(12),
    dense(5),
    wide(9),
    tangled(60),
    tangled(500),
]


def texts(picture: Picture) -> list[tuple[str, ...]]:
    return [tuple(text for text, _ in box.lines) for box in picture.boxes]


def test_a_norm_and_an_activation_join_the_layer_before_them() -> None:
    assert texts(fold_chains(mlp(2))) == [
        ("input",),
        ("linear 16", "batch norm", "relu"),
        ("linear 16", "batch norm", "relu"),
        ("linear 10",),
    ]


def test_without_folding_every_node_is_a_box() -> None:
    graph = residual(2)
    assert [box.nodes for box in fold_chains(graph, fold=False).boxes] == [
        (index,) for index in range(len(graph))
    ]


def test_a_value_that_is_read_twice_ends_a_chain() -> None:
    graph = GraphBuilder()
    x = graph("conv2d", graph("input", shape=(2, 4, 4)), out_channels=2, kernel_size=1)
    picture = fold_chains(graph.finish(graph("add", x, graph("relu", x))))
    assert texts(picture) == [("input",), ("conv 1x1",), ("relu",), ("add",)]


def test_an_output_in_the_middle_ends_a_chain() -> None:
    graph = GraphBuilder()
    x = graph("linear", graph("input", shape=(4,)), out_features=3)
    picture = fold_chains(graph.finish(x, graph("relu", x)))
    assert texts(picture) == [("input",), ("linear 3",), ("relu",)]
    assert picture.outputs == (1, 2)


def test_pre_activation_blocks_start_with_their_activation() -> None:
    graph = GraphBuilder()
    start = graph("max_pool2d", graph("input", shape=(2, 8, 8)), kernel_size=2, stride=2)
    x = start
    for _ in range(2):
        x = graph("conv2d", graph("relu", graph("batch_norm", x)), out_channels=2, kernel_size=3, padding=1)
    assert texts(fold_chains(graph.finish(graph("add", start, x)))) == [
        ("input",),
        ("max pool 2x2 / 2",),
        ("batch norm", "relu", "conv 3x3"),
        ("batch norm", "relu", "conv 3x3"),
        ("add",),
    ]


@pytest.mark.parametrize("graph", GRAPHS, ids=len)
@pytest.mark.parametrize("fold", [True, False])
def test_every_node_is_in_exactly_one_box_and_parameters_add_up(
    graph: ComputationalGraph, fold: bool
) -> None:
    for picture in (
        fold_chains(graph, fold=fold),
        group_boxes(fold_chains(graph, fold=fold)),
        picture_of(graph, fold=fold),
    ):
        assert sorted(node for box in picture.boxes for node in box.nodes) == list(range(len(graph)))
        assert all(source < index for index, box in enumerate(picture.boxes) for source in box.inputs)
    total = sum(int(np.prod(spec.shape)) for spec in graph.parameters.values())
    assert sum(box.num_parameters for box in fold_chains(graph, fold=fold).boxes) == total
    assert sum(box.num_parameters for box in group_boxes(fold_chains(graph, fold=fold)).boxes) == total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("graph", [residual(4), transformer(2), tangled(40)], ids=len)
def test_how_the_nodes_are_listed_does_not_change_the_boxes(graph: ComputationalGraph, seed: int) -> None:
    other = reordered(graph, np.random.default_rng(seed))
    assert sorted(texts(fold_chains(other))) == sorted(texts(fold_chains(graph)))


@pytest.mark.parametrize("depth", [2, 7, 40])
def test_equal_blocks_in_a_row_are_drawn_once(depth: int) -> None:
    picture = fold_repeats(fold_chains(transformer(depth)))
    assert [repeat.times for repeat in picture.repeats] == [depth]
    block = picture.boxes[picture.repeats[0].first : picture.repeats[0].last + 1]
    assert [box.lines[0][0] for box in block if box.family == "attention"] == ["attention, 2 heads"]
    assert all(len(box.nodes) % depth == 0 for box in block)
    assert "drawn once" in picture.notes[0]


def test_blocks_that_differ_in_one_setting_are_not_folded_together() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    for width in (4, 4, 5, 4, 4):
        x = graph("linear", x, out_features=width)
    picture = fold_repeats(fold_chains(graph.finish(x)))
    assert [(repeat.first, repeat.last, repeat.times) for repeat in picture.repeats] == [(1, 1, 2)]
    assert len(picture.boxes) == 5  # the second pair differs too: one linear map reads 5 values, the other 4


def test_blocks_that_are_wired_differently_are_not_folded_together() -> None:
    graph = GraphBuilder()
    x = graph("conv2d", graph("input", shape=(2, 4, 4)), out_channels=2, kernel_size=1)
    for other in (True, False):
        a, b = graph("sigmoid", x), graph("tanh", x)
        c = graph("conv2d", a, out_channels=2, kernel_size=1)
        x = graph("add", c, b) if other else graph("add", c, a)
    assert fold_repeats(fold_chains(graph.finish(x))).repeats == ()


def test_repeats_are_folded_in_large_pictures_only() -> None:
    assert picture_of(transformer(3)).repeats == ()
    assert [repeat.times for repeat in picture_of(transformer(12)).repeats] == [12]


def test_cuts_are_where_everything_passes() -> None:
    picture = fold_chains(residual(2))
    assert [picture.boxes[cut].lines[0][0] for cut in cuts_of(picture)] == [
        "input",
        "conv 3x3",
        "add",
        "add",
        "global avg pool",
        "linear 10",
    ]


def test_grouping_keeps_what_leads_where() -> None:
    graph = tangled(600)
    fine = fold_chains(graph)
    coarse = group_boxes(fine)
    group_of = {node: group for group, box in enumerate(coarse.boxes) for node in box.nodes}
    before = [set(box.inputs) for box in coarse.boxes]
    for group in range(len(before)):
        before[group] |= set[int]().union(*(before[source] for source in before[group]))
    for box in fine.boxes:
        for source in box.inputs:
            start, end = group_of[fine.boxes[source].nodes[0]], group_of[box.nodes[0]]
            assert start == end or start in before[end]
