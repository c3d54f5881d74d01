"""The symmetry table: every group is a symmetry, and the groups that people know are there."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.ir import OPS, GraphBuilder
from nasgraph.modules import initial_buffers
from nasgraph.symmetry import UnitGroup, permute_units, random_orders, symmetry_table
from nasgraph.symmetry.rules import RULES
from tests.merge.networks import SPACES, difference, outputs, random_state, sampled, small_convnet
from tests.meta.graph.networks import among_parameters
from tests.modules.operator_cases import ALL_CASES, Shape

EXACT, FLOAT = 1e-9, 1e-4
WITH_UNITS = [case for case in ALL_CASES if case.values[0] != "constant"]
"""Operators with an input or a parameter, whose units could be permuted."""


@pytest.mark.parametrize("space", SPACES)
def test_permuting_units_leaves_the_function_of_every_space_unchanged(space: str) -> None:
    for graph in sampled(space, 2):
        table = symmetry_table(graph)
        assert table.groups
        for dtype, bound in ((torch.float64, EXACT), (torch.float32, FLOAT)):
            state = random_state(graph, dtype=dtype)
            permuted = permute_units(table, state, random_orders(table, seed=1))
            assert difference(outputs(graph, state), outputs(graph, permuted)) <= bound


@pytest.mark.parametrize("space", SPACES)
def test_each_group_is_a_symmetry_by_itself(space: str) -> None:
    (graph, *_) = sampled(space, 2)
    table, state = symmetry_table(graph), random_state(graph)
    orders = random_orders(table, seed=2)
    before = outputs(graph, state)
    for group in [*table.groups[:2], *table.groups[-2:]]:
        permuted = permute_units(table, state, {group.name: orders[group.name]})
        assert difference(before, outputs(graph, permuted)) <= EXACT


@pytest.mark.parametrize(("op", "shapes", "attrs"), WITH_UNITS)
def test_the_rule_of_every_operator_is_sound(
    op: str, shapes: Sequence[Shape], attrs: dict[str, object]
) -> None:
    graph = among_parameters(op, shapes, attrs)
    table, state = symmetry_table(graph), random_state(graph)
    for seed in range(3):
        permuted = permute_units(table, state, random_orders(table, seed=seed))
        for a, b in zip(outputs(graph, state), outputs(graph, permuted), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-8, equal_nan=True)


def test_every_operator_has_a_rule_or_is_known_to_have_none() -> None:
    assert set(OPS) - set(RULES) == {"gather", "opaque"}
    assert set(RULES) <= set(OPS)


def test_what_an_unknown_operator_touches_is_fixed_and_the_table_says_so() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(4, 3)), out_features=6)
    x = g("gather", x, g("input", shape=(4, 6), dtype="int"), axis=0)
    graph = g.finish(g("linear", g("linear", x, out_features=5), out_features=2))
    table = symmetry_table(graph)
    assert [group.size for group in table.groups] == [5]
    reasons = {(fixed.parameter, fixed.axis): fixed.reason for fixed in table.fixed}
    assert "gather" in reasons["n1.weight", 0]
    assert reasons["n5.weight", 0] == "an output of the network"


def test_the_table_of_a_residual_network_is_the_one_that_people_write_by_hand() -> None:
    graph = small_convnet(width=6, hidden=8)
    table = symmetry_table(graph)
    channels, hidden = table.groups
    assert (channels.size, hidden.size) == (6, 8)
    norms = ("weight", "bias", "running_mean", "running_var")
    expected = {("n1.weight", 0), ("n4.weight", 1), ("n4.weight", 0), ("n10.weight", 1)}
    expected |= {(f"n{node}.{name}", 0) for node in (2, 5) for name in norms}
    assert {(member.parameter, member.axis) for member in channels.members} == expected
    behind_flatten = next(member for member in channels.members if member.parameter == "n10.weight")
    assert behind_flatten.block == 9
    assert behind_flatten.starts == tuple(range(0, 54, 9))
    assert {(m.parameter, m.axis) for m in hidden.members} == {
        ("n10.weight", 0),
        ("n10.bias", 0),
        ("n12.weight", 1),
    }


def test_permuting_all_but_one_member_of_a_group_changes_the_function() -> None:
    graph = small_convnet()
    table, state = symmetry_table(graph), random_state(graph)
    before = outputs(graph, state)
    for group in table.groups:
        order = torch.arange(group.size).roll(1)
        for member in group.members:
            places = torch.arange(state[member.parameter].shape[member.axis])
            places[member.places()[order].flatten()] = member.places().flatten()
            spoilt = permute_units(table, state, {group.name: order})
            spoilt[member.parameter] = spoilt[member.parameter].index_select(member.axis, places)
            assert difference(before, outputs(graph, spoilt)) > 1e-3


def test_channels_of_a_depthwise_convolution_move_with_the_layers_around_it() -> None:
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(3, 5, 5)), out_channels=6, kernel_size=1)
    x = g("batch_norm", g("conv2d", x, out_channels=6, kernel_size=3, groups=6))
    x = g("conv2d", x, out_channels=4, kernel_size=1)
    graph = g.finish(g("linear", g("global_avg_pool2d", x), out_features=2))
    first, second = symmetry_table(graph).groups
    assert (first.size, second.size) == (6, 4)
    assert {("n1.weight", 0), ("n2.weight", 0), ("n3.running_var", 0), ("n4.weight", 1)} <= {
        (member.parameter, member.axis) for member in first.members
    }


def test_heads_move_as_blocks_and_channels_within_their_head() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 3)), out_features=8)
    x = g("attention", *(g("linear", x, out_features=8) for _ in range(3)), num_heads=4)
    graph = g.finish(g("linear", g("mean", x, axis=0), out_features=2))
    table = symmetry_table(graph)
    (heads,) = [group for group in table.groups if group.size == 4]
    inside = [group for group in table.groups if group.parent == heads.name]
    assert len(inside) == 8  # four heads: units of query and key, units of value
    assert all(group.size == 2 for group in inside)
    assert {member.block for member in heads.members} == {2}
    assert [group.size for group in table.groups if not group.parent] == [8, 4]


def test_concatenated_parts_keep_their_own_groups() -> None:
    g = GraphBuilder()
    image = g("input", shape=(2, 4, 4))
    parts = [g("conv2d", image, out_channels=width, kernel_size=1) for width in (3, 5)]
    x = g("conv2d", g("concat", image, *parts), out_channels=4, kernel_size=1)
    graph = g.finish(g("linear", g("global_avg_pool2d", x), out_features=2))
    table = symmetry_table(graph)
    members = [next(m for m in group.members if m.parameter == "n4.weight") for group in table.groups]
    assert [(m.axis, m.starts) for m in members] == [
        (1, (2, 3, 4)),
        (1, (5, 6, 7, 8, 9)),
        (0, (0, 1, 2, 3)),
    ]
    fixed = next(f for f in table.fixed if (f.parameter, f.axis) == ("n4.weight", 1))
    assert (fixed.count, fixed.reason) == (2, "reads a part of an axis that is fixed")


def test_the_gates_of_a_cell_move_together() -> None:
    g = GraphBuilder()
    x = g("lstm", g("input", shape=(5, 3)), hidden_size=4)
    graph = g.finish(g("linear", g("mean", x, axis=0), out_features=2))
    (hidden,) = symmetry_table(graph).groups
    rows = [m.starts for m in hidden.members if (m.parameter, m.axis) == ("n1.weight_hh", 0)]
    assert rows == [tuple(range(gate * 4, gate * 4 + 4)) for gate in range(4)]
    assert ("n1.weight_hh", 1) in {(m.parameter, m.axis) for m in hidden.members}


def test_shared_weights_are_one_member_of_one_group() -> None:
    g = GraphBuilder()
    weight = g("parameter", shape=(6, 6), role="weight")
    x = g("linear", g("input", shape=(3,)), out_features=6)
    x = g("relu", g("apply_linear", g("relu", g("apply_linear", x, weight)), weight))
    graph = g.finish(g("linear", x, out_features=2))
    table = symmetry_table(graph)
    (only,) = table.groups  # in and out of the shared map move alike
    assert {("n0.weight", 0), ("n0.weight", 1)} <= {(m.parameter, m.axis) for m in only.members}


def _places(group: UnitGroup) -> set[tuple[str, int, int]]:
    return {(m.parameter, m.axis, place) for m in group.members for place in m.places().flatten().tolist()}


@pytest.mark.parametrize("space", SPACES)
def test_every_place_of_every_parameter_is_in_a_group_or_is_named_as_fixed(space: str) -> None:
    for graph in sampled(space, 2):
        table = symmetry_table(graph)
        moved = set().union(*(_places(group) for group in table.groups))
        fixed = {(f.parameter, f.axis): f for f in table.fixed}
        shapes = {name: spec.shape for name, spec in graph.parameters.items()}
        shapes |= {name: tuple(tensor.shape) for name, tensor in initial_buffers(graph).items()}
        for name, shape in shapes.items():
            for axis, size in enumerate(shape):
                here = sum((name, axis, place) in moved for place in range(size))
                stays = fixed[name, axis].count if (name, axis) in fixed else 0
                assert here + stays == size or size == 1, (name, axis)
        assert all(each.reason for each in table.fixed)


@pytest.mark.parametrize("space", ["convnet", "vit", "regnet", "mobilenetv3"])
def test_units_of_a_group_do_not_share_places(space: str) -> None:
    for graph in sampled(space, 2):
        table = symmetry_table(graph)
        for group in table.groups:
            places = _places(group)
            assert len(places) == sum(group.size * member.block for member in group.members)
        plain = [group for group in table.groups if not group.parent and not _is_block(group, table.groups)]
        if space != "regnet":  # there channels of all groups of a convolution share places with the groups
            assert sum(len(_places(g)) for g in plain) == len(set().union(*map(_places, plain)))


def _is_block(group: UnitGroup, groups: Sequence[UnitGroup]) -> bool:
    return any(other.parent == group.name for other in groups)


@given(seed=st.integers(0, 2**32), width=st.integers(2, 9), hidden=st.integers(2, 9))
def test_orders_compose_and_their_inverse_undoes_them_exactly(seed: int, width: int, hidden: int) -> None:
    graph = small_convnet(width=width, hidden=hidden)
    table, state = symmetry_table(graph), random_state(graph)
    orders = random_orders(table, seed=seed)
    permuted = permute_units(table, state, orders)
    back = permute_units(table, permuted, {name: order.argsort() for name, order in orders.items()})
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_an_order_that_is_no_permutation_is_refused() -> None:
    table, state = symmetry_table(small_convnet()), random_state(small_convnet())
    name = table.groups[0].name
    for order in ([0, 0, 1, 2, 3, 4], [0, 1, 2], [1, 2, 3, 4, 5, 6]):
        with pytest.raises(ValueError, match=r"Expected a permutation of 6 units for 'n1\.weight/0'"):
            permute_units(table, state, {name: torch.tensor(order)})
    with pytest.raises(KeyError, match="No group named 'n1'"):
        permute_units(table, state, {"n1": torch.arange(6)})
    without = {key: tensor for key, tensor in state.items() if key != "n4.weight"}
    with pytest.raises(ValueError, match=r"has no parameter 'n4\.weight'"):
        permute_units(table, without, {name: torch.arange(6)})
