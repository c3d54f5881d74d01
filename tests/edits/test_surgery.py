"""Resizing by units, against the removal of units, which follows other rules."""

import numpy as np
import pytest
import torch

from nasgraph.edits import EditError, prune_units, select_units
from nasgraph.edits.places import NEW, reshaped, whole_blocks, within_blocks
from nasgraph.edits.resize_shapes import RULES
from nasgraph.ir import OPS
from nasgraph.modules import run_network
from nasgraph.symmetry import symmetry_table
from tests.edits.networks import live_state
from tests.merge.networks import sampled, small_convnet
from tests.modules.samples import random_inputs


def test_every_operator_has_a_rule() -> None:
    assert set(RULES) == set(OPS)


@pytest.mark.parametrize("space", ["mlp", "convnet"])
def test_selecting_units_and_removing_the_others_is_one(space: str) -> None:
    (graph,) = sampled(space, 1)
    state, table = live_state(graph), symmetry_table(graph)
    for group in [group for group in table.groups if not group.parent][:3]:
        keep = torch.arange(group.size)[: max(1, group.size // 2)]
        try:
            selected, tensors = select_units(graph, state, table, {group.name: keep})
        except EditError:
            continue
        pruned = prune_units(graph, state, {group.name: keep})
        assert selected == pruned.graph
        inputs = random_inputs(graph, batch_size=2, dtype=torch.float64)
        ours, theirs = run_network(selected, tensors, inputs), run_network(pruned.graph, pruned.state, inputs)
        torch.testing.assert_close(ours, theirs)


def test_groups_that_share_places_and_units_that_do_not_exist_are_refused() -> None:
    graph = small_convnet()
    state, table = live_state(graph), symmetry_table(graph)
    name = table.groups[0].name
    with pytest.raises(EditError, match="units from 0 to 5"):
        select_units(graph, state, table, {name: torch.tensor([0, 6])})
    with pytest.raises(EditError, match="ascending"):
        select_units(graph, state, table, {name: torch.tensor([1, 0])})


def test_reshapes_follow_places_and_refuse_what_no_shape_holds() -> None:
    heads = reshaped([np.array([0, 1, 2, 3, 0, 1])], (4,), (2, 2))
    assert heads is not None
    assert heads[1] is None
    assert heads[0] is not None
    assert heads[0].tolist() == [0, 1, 0]
    within = reshaped([np.array([0, 1, NEW, 2, 3, NEW])], (4,), (2, 2))
    assert within is not None
    assert within[1] is not None
    assert within[1].tolist() == [0, 1, NEW]
    flat = reshaped([np.array([0, 2]), None, None], (3, 2, 2), (12,))
    assert flat is not None
    assert flat[0] is not None
    assert flat[0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert reshaped([np.array([0, 1, 2])], (4,), (2, 2)) is None


def test_blocks_are_whole_or_change_alike() -> None:
    assert whole_blocks(np.array([2, 3, 0, 1]), 4, 2) is not None
    assert whole_blocks(np.array([0, 2]), 4, 2) is None
    rows = within_blocks(np.array([0, 2]), 4, 2)
    assert rows is not None
    assert rows.tolist() == [[0], [0]]
    assert within_blocks(np.array([0, 1, 2]), 4, 2) is None
