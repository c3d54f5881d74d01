"""The spaces of DARTS and NASNet."""

from itertools import permutations

import numpy as np
import pytest
import torch

from nasgraph.errors import InvalidChoiceError, NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import build
from nasgraph.spaces import Architecture, SearchSpace, replay, sample
from nasgraph.testing import SearchSpaceContract
from search_spaces.darts import (
    DARTS,
    DARTS_V2,
    OPERATIONS,
    Cell,
    NASNet,
    architecture_of_cells,
    canonical_cell,
)
from tests.search_spaces.serving import assert_predictable, assert_serves

P_DARTS: dict[str, Cell] = {
    "normal": (
        ((0, "skip_connect"), (1, "dil_conv_3x3")),
        ((0, "skip_connect"), (1, "sep_conv_3x3")),
        ((1, "sep_conv_3x3"), (3, "sep_conv_3x3")),
        ((0, "sep_conv_3x3"), (4, "dil_conv_5x5")),
    ),
    "reduction": (
        ((0, "avg_pool_3x3"), (1, "sep_conv_5x5")),
        ((0, "sep_conv_3x3"), (2, "dil_conv_5x5")),
        ((0, "max_pool_3x3"), (1, "dil_conv_3x3")),
        ((1, "dil_conv_3x3"), (3, "dil_conv_5x5")),
    ),
}
"""Chen et al., "Progressive Differentiable Architecture Search", 2019."""


def graph_of(cells: dict[str, Cell], space: DARTS) -> ComputationalGraph:
    return replay(space, architecture_of_cells(cells)).graph


@pytest.mark.parametrize("kind", [DARTS, NASNet])
class TestCells(SearchSpaceContract):
    @pytest.fixture
    def space(self, kind: type[DARTS | NASNet]) -> SearchSpace:
        return kind(input_shape=(3, 32, 32), num_classes=10, num_cells=3)


@pytest.mark.parametrize("kind", [DARTS, NASNet])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 9, 23), (3, 32, 32), (3, 224, 224)])
def test_small_and_large_images_are_served(kind: type[SearchSpace], shape: tuple[int, ...]) -> None:
    assert_serves(kind(input_shape=shape, num_classes=7), seed=1)


@pytest.mark.parametrize(
    ("cells", "published"),
    [
        # 3.3 M in table 1 of Liu et al. 2019; 3.349342 is what the authors' program prints.
        (dict(DARTS_V2), 3_349_342),
        # Counted by a user of the authors' program: github.com/chenxin061/pdarts/issues/7.
        (P_DARTS, 3_433_798),
    ],
)
def test_published_cells_have_the_published_parameters_on_cifar10(
    cells: dict[str, Cell], published: int
) -> None:
    space = DARTS(input_shape=(3, 32, 32), num_classes=10, channels=36, num_cells=20)
    assert cost_of(graph_of(cells, space)).num_parameters == published


def test_darts_has_the_published_parameters_on_imagenet() -> None:
    space = DARTS(input_shape=(3, 224, 224), num_classes=1000, channels=48, num_cells=14)
    millions = cost_of(graph_of(dict(DARTS_V2), space)).num_parameters / 1e6
    assert millions == pytest.approx(4.7, abs=0.05)  # table 3 of Liu et al. 2019


def test_multiply_adds_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    space = DARTS(input_shape=(3, 32, 32), num_classes=10, channels=8, num_cells=8)
    graph = graph_of(P_DARTS, space)
    with FlopCounterMode(display=False) as counter:
        build(graph).eval()(torch.zeros(1, 3, 32, 32))
    assert 2 * cost_of(graph).multiply_adds == counter.get_total_flops()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stride_kind", ["normal", "reduction"])
def test_a_network_of_one_operation_only_runs(operation: str, stride_kind: str) -> None:
    all_alike: Cell = tuple(((0, operation), (1, operation)) for _ in range(4))
    graph = graph_of(
        {**DARTS_V2, stride_kind: all_alike}, DARTS(input_shape=(3, 16, 16), num_classes=4, channels=4)
    )
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(build(graph)(images)).all()


def renumbered(cell: Cell, order: tuple[int, ...]) -> Cell | None:
    """The cell with node `order[i]` as its i-th; None if a node would stand before what it reads."""
    place = {0: 0, 1: 1} | {old + 2: new + 2 for new, old in enumerate(order)}
    if any(place[source] >= place[old + 2] for old in order for source, _ in cell[old]):
        return None
    return tuple(tuple((place[source], name) for source, name in cell[old]) for old in order)


@pytest.mark.parametrize("cells", [dict(DARTS_V2), P_DARTS])
def test_cells_that_differ_in_the_numbering_of_nodes_have_one_fingerprint(cells: dict[str, Cell]) -> None:
    space = DARTS(input_shape=(1, 8, 8), num_classes=10)
    others = [renumbered(cells["normal"], order) for order in permutations(range(4))]
    found = [graph_of({**cells, "normal": other}, space).fingerprint for other in others if other is not None]
    assert len(found) > 1
    assert set(found) == {graph_of(cells, space).fingerprint}


def test_different_cells_have_different_fingerprints() -> None:
    space = DARTS(input_shape=(1, 8, 8), num_classes=10)
    rng = np.random.default_rng(0)
    graphs = [sample(space, rng).graph for _ in range(60)]
    assert len({graph.fingerprint for graph in graphs}) == len(graphs)


@pytest.mark.parametrize("seed", range(20))
def test_the_canonical_cell_does_not_depend_on_the_numbering(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell: Cell = tuple(
        tuple((int(rng.integers(place + 2)), str(rng.choice(OPERATIONS[:4]))) for _ in range(2))
        for place in range(4)
    )
    found = {
        canonical_cell(other)
        for order in permutations(range(4))
        if (other := renumbered(cell, order)) is not None
    }
    assert found == {canonical_cell(cell)}


def test_scheduled_drop_path_stands_on_every_edge_that_is_no_identity() -> None:
    settings = {"input_shape": (3, 32, 32), "num_classes": 10, "num_cells": 6, "channels": 4}
    plain, dropping = (
        graph_of(dict(DARTS_V2), DARTS(**settings, drop_path=p))  # type: ignore[arg-type]  # of several types
        for p in (0.0, 0.2)
    )
    nodes = [node for node in dropping.nodes if node.op == "drop_path"]
    # Four normal cells with five convolutions and one more; two reduction cells with five pools, and their skips
    # read nodes of the cell, hence are identities.
    assert len(nodes) == 4 * 6 + 2 * 5
    assert all(node.attr("p") == 0.2 and node.attr("scheduled") is True for node in nodes)
    assert len(plain) == len(dropping) - len(nodes)
    assert cost_of(plain).num_parameters == cost_of(dropping).num_parameters


def test_nasnet_joins_only_the_nodes_that_nobody_reads() -> None:
    space = NASNet(input_shape=(3, 32, 32), num_classes=10, num_cells=1, channels=4)
    inputs = ["0,1", "1,2", "2,3", "3,4", "4,5"]  # only the last node is not read
    choices: list[tuple[str, str]] = []
    for kind in ("normal", "reduction"):
        for place, pair in enumerate(inputs):
            at = f"{kind}_node{place}"
            choices += [
                (f"{at}_inputs", pair),
                (f"{at}_left", "conv_1x1"),
                (f"{at}_right", "conv_1x7_7x1"),
            ]
    graph = replay(space, Architecture("nasnet", tuple(choices))).graph
    assert graph.shapes[-2] == (8,)  # one node of the reduction cell, which doubles the four channels
    assert not any(node.op == "concat" for node in graph.nodes)


@pytest.mark.parametrize("kind", [DARTS, NASNet])
def test_a_hypernetwork_predicts_every_parameter(kind: type[SearchSpace]) -> None:
    assert_predictable(sample(kind(input_shape=(1, 8, 8), num_classes=10), np.random.default_rng(0)).graph)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (8,)}, r"'darts' expects images .*\(got shape \(8,\)\)"),
        ({"input_shape": (3, 7, 32)}, "sides of 8 to 1,024"),
        ({"channels": 5}, "'channels' to be even"),
        ({"num_cells": 0}, "'num_cells' 1 to 100"),
        ({"drop_path": 1.0}, r"'drop_path' in \[0, 1\)"),
        ({"operations": ("conv_1x1",)}, "'operations' to be different ones of none, max_pool_3x3"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        DARTS(**{"input_shape": (3, 32, 32), "num_classes": 10, **settings})  # type: ignore[arg-type]  # wrong on purpose


def test_a_node_has_to_read_two_different_states() -> None:
    cells = {**DARTS_V2, "normal": (((0, "skip_connect"), (0, "sep_conv_3x3")),)}
    with pytest.raises(InvalidChoiceError, match="node 0 of the normal cell to read two different states"):
        architecture_of_cells(cells)
