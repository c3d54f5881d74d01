"""Permuting units gives the same parameter graph in another order, and nothing else does."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.meta.models import traced_models
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import (
    NODE_COLUMNS,
    NUM_PARAMETER_EDGE_KINDS,
    GraphLayout,
    ParameterGraph,
    graph_layout,
    parameter_graph,
)
from nasgraph.symmetry import (
    SymmetryTable,
    UnitGroup,
    permute_units,
    random_factors,
    random_orders,
    rescale_units,
    symmetry_table,
)
from tests.merge.networks import SPACES, sampled, small_convnet
from tests.meta.graph.isomorphism import are_isomorphic, num_alike
from tests.meta.graph.networks import among_parameters, attention, full_state, mlp
from tests.modules.operator_cases import ALL_CASES, Shape

MODELS = traced_models()
SMALL = [name for name in MODELS if name != "resnet-18"]
LARGEST = 20_000
"""Edges; above it the comparison takes seconds."""


def assert_relabelled(graph: ComputationalGraph) -> None:
    table, state = symmetry_table(graph), full_state(graph)
    made = parameter_graph(graph, state)
    if 0 < made.num_edges <= LARGEST:
        permuted = permute_units(table, state, random_orders(table, seed=1))
        assert are_isomorphic(made, parameter_graph(graph, permuted))


@pytest.mark.parametrize(("op", "shapes", "attrs"), ALL_CASES)
def test_permuting_units_around_every_operator_gives_the_same_graph(
    op: str, shapes: Sequence[Shape], attrs: dict[str, object]
) -> None:
    assert_relabelled(among_parameters(op, shapes, attrs))


@pytest.mark.parametrize("space", SPACES)
def test_permuting_units_of_every_space_gives_the_same_graph(space: str) -> None:
    for graph in sampled(space, 2):
        assert_relabelled(graph)


@pytest.mark.parametrize("name", SMALL)
def test_permuting_units_of_traced_models_gives_the_same_graph(name: str) -> None:
    model = MODELS[name].double()
    table = symmetry_table(model.graph)
    made = parameter_graph(model.graph, model.state)
    orders = random_orders(table, seed=1)
    permuted = permute_units(table, model.state, orders)
    assert are_isomorphic(made, parameter_graph(model.graph, permuted))
    assert num_alike(made) == 0  # no two nodes look alike, so that the comparison is exact


@pytest.mark.parametrize("name", SMALL)
def test_permuting_only_a_part_of_a_group_gives_another_graph(name: str) -> None:
    model = MODELS[name].double()
    table = symmetry_table(model.graph)
    made = parameter_graph(model.graph, model.state)
    checked = 0
    for group in (*table.groups[:2], table.groups[-1]):
        order = torch.arange(group.size).roll(1)
        whole = permute_units(table, model.state, {group.name: order})
        part = whole | {group.members[0].parameter: model.state[group.members[0].parameter]}
        if len({member.parameter for member in group.members}) > 1:
            assert not are_isomorphic(made, parameter_graph(model.graph, part)), group.name
            checked += 1
    assert checked


def _exactly_relabelled(
    table: SymmetryTable, layout: GraphLayout, orders: dict[str, Tensor], made: ParameterGraph
) -> Tensor:
    """The node that takes the place of each node: read off the places of parameters."""
    moved = torch.arange(made.num_nodes)
    for group in table.groups:
        for member in group.members:
            nodes = torch.from_numpy(layout.parameter_axes[(member.parameter, member.axis)][0])
            places = member.places()
            moved[nodes[places]] = nodes[places[orders[group.name]]]
    return moved


@pytest.mark.parametrize("graph", [mlp(5, 6, 7, 3), small_convnet()], ids=["mlp", "convnet"])
def test_the_relabelling_is_that_of_the_units(graph: ComputationalGraph) -> None:
    table, state, layout = symmetry_table(graph), full_state(graph), graph_layout(graph)
    orders = random_orders(table, seed=3)
    made = parameter_graph(graph, state)
    permuted = parameter_graph(graph, permute_units(table, state, orders))
    moved = _exactly_relabelled(table, layout, orders, made)
    assert torch.equal(moved.sort().values, torch.arange(made.num_nodes))
    for name in ("node_values", "node_mask", "node_kind", "node_depth", "node_position", "node_scaling"):
        assert torch.equal(getattr(permuted, name), getattr(made, name)[moved])
    rows = {
        (*ends, *rest): values
        for ends, rest, values in zip(
            made.edge_index.T.tolist(), _labels(made), made.edge_values, strict=True
        )
    }
    assert len(rows) == made.num_edges
    ends = moved[permuted.edge_index].T.tolist()
    for pair, rest, values in zip(ends, _labels(permuted), permuted.edge_values, strict=True):
        assert torch.equal(rows[*pair, *rest], values)


def _labels(made: ParameterGraph) -> list[list[int]]:
    return torch.stack([made.edge_kind, made.edge_place, made.edge_fan_in], dim=1).tolist()


def test_channels_within_a_head_and_heads_may_change_places_but_not_channels_of_different_heads() -> None:
    graph = attention(heads=2, width=3)
    state = full_state(graph)
    made = parameter_graph(graph, state)

    def permuted(queries: list[int], values: list[int]) -> ParameterGraph:
        moved = dict(state)
        for names, order in ((("n1", "n2"), queries), (("n3",), values)):
            for name in names:
                for own in (f"{name}.weight", f"{name}.bias"):
                    moved[own] = state[own][order]
        moved["n5.weight"] = state["n5.weight"][:, values]
        return parameter_graph(graph, moved)

    same = list(range(6))
    assert are_isomorphic(made, permuted([2, 0, 1, 3, 4, 5], same))
    assert are_isomorphic(made, permuted(same, [0, 1, 2, 4, 3, 5]))
    assert are_isomorphic(made, permuted([3, 4, 5, 0, 1, 2], [3, 4, 5, 0, 1, 2]))
    assert not are_isomorphic(made, permuted([3, 1, 2, 0, 4, 5], same))
    assert not are_isomorphic(made, permuted(same, [3, 1, 2, 0, 4, 5]))
    assert not are_isomorphic(made, permuted([3, 4, 5, 0, 1, 2], same))


def test_hidden_units_carry_no_position_and_inputs_and_outputs_do() -> None:
    layout = graph_layout(small_convnet())
    table = symmetry_table(small_convnet())
    for group in table.groups:
        for member in group.members:
            nodes = torch.from_numpy(layout.parameter_axes[(member.parameter, member.axis)][0])
            assert (layout.node_position[nodes[member.places()]] == -1).all()
    (outputs, _) = layout.parameter_axes[("n12.weight", 0)]
    assert layout.node_position[torch.from_numpy(outputs)].tolist() == [0, 1, 2]


# ---- rescaling


def _is_rescaled(layout: GraphLayout, group: UnitGroup) -> bool:
    return any(
        bool(layout.node_scaling[torch.from_numpy(layout.parameter_axes[key][0])[m.places()]].any())
        for m in group.members
        if (key := (m.parameter, m.axis)) in layout.parameter_axes and m.power
    )


@pytest.mark.parametrize("name", SMALL)
def test_rescaling_units_changes_edges_by_the_factor_of_the_target_over_that_of_the_source(name: str) -> None:
    model = MODELS[name].double()
    table, layout = symmetry_table(model.graph), graph_layout(model.graph)
    factors = {
        name: factor
        for name, factor in random_factors(table, seed=1).items()
        if _is_rescaled(layout, table.group(name))
    }
    made = parameter_graph(model.graph, model.state)
    rescaled = parameter_graph(model.graph, rescale_units(table, model.state, factors))
    node = torch.ones(made.num_nodes, dtype=torch.float64)
    for name_, factor in factors.items():
        for member in table.group(name_).members:
            places = layout.parameter_axes.get((member.parameter, member.axis))
            if places is not None and member.power:
                nodes = torch.from_numpy(places[0])[member.places()]
                chosen = layout.node_scaling[nodes] > 0
                node[nodes[chosen]] = factor[:, None].expand_as(nodes)[chosen]
    source, target = made.edge_index
    carries = made.edge_kind < NUM_PARAMETER_EDGE_KINDS
    change = torch.where(carries, node[target] / node[source], 1.0)
    torch.testing.assert_close(rescaled.edge_values, made.edge_values * change[:, None])
    for column, name_ in enumerate(NODE_COLUMNS):
        wanted = made.node_values[:, column] * (1 if name_.startswith("running_") else node)
        torch.testing.assert_close(rescaled.node_values[:, column], wanted)
    assert (node[source] == node[target])[made.edge_alike].all()


def test_units_before_relu_are_rescaled_by_positive_factors_and_before_tanh_by_signs() -> None:
    for activation, scaling in (("relu", 1), ("tanh", 2), ("gelu", 0)):
        layout = graph_layout(mlp(3, 4, 2, activation=activation))
        nodes = torch.from_numpy(layout.parameter_axes[("n1.weight", 0)][0])
        assert layout.node_scaling[nodes].tolist() == [scaling] * 4
        assert int(layout.node_scaling.count_nonzero()) == (4 if scaling else 0)
