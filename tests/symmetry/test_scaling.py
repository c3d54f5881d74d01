"""Rescaling units leaves the function as it is; what cannot be rescaled is not said to be."""

import pytest
import torch
from torch import Tensor

from benchmarks.meta.models import traced_models
from nasgraph.edits import permute, rescale
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import StateError, run_network
from nasgraph.symmetry import (
    SymmetryTable,
    permute_units,
    random_factors,
    random_orders,
    rescale_units,
    symmetry_table,
)
from tests.merge.networks import SPACES, difference, outputs, random_state, sampled, small_convnet

MODELS = traced_models()
SMALL = [name for name in MODELS if name != "resnet-18"]
DOUBLE, SINGLE, VISIBLE = 1e-10, 1e-5, 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_permuting_and_rescaling_leave_every_traced_model_unchanged(name: str) -> None:
    for model, bound in ((MODELS[name], SINGLE), (MODELS[name].double(), DOUBLE)):
        before = run_network(model.graph, model.state, model.inputs)
        for seed in range(3):
            edited = permute(model.graph, model.state, seed=seed)
            assert edited.preserves_function
            assert difference(before, run_network(model.graph, edited.state, model.inputs)) < bound
            edited = rescale(model.graph, edited.state, seed=seed)
            assert difference(before, run_network(model.graph, edited.state, model.inputs)) < bound


def test_resnet_18_is_unchanged_in_single_precision() -> None:
    model = MODELS["resnet-18"]
    before = run_network(model.graph, model.state, model.inputs)
    edited = rescale(model.graph, permute(model.graph, model.state, seed=0).state, seed=0)
    assert difference(before, run_network(model.graph, edited.state, model.inputs)) < SINGLE


@pytest.mark.parametrize("space", SPACES)
def test_rescaling_leaves_the_function_of_every_space_unchanged(space: str) -> None:
    for graph in sampled(space, 2):
        table, state = symmetry_table(graph), random_state(graph)
        rescaled = rescale_units(table, state, random_factors(table, seed=1))
        assert difference(outputs(graph, state), outputs(graph, rescaled)) <= 1e-9


def _axis_permuted(state: dict[str, Tensor], table: SymmetryTable, index: int) -> dict[str, Tensor]:
    """The state with the units of a group permuted on one of its axes only."""
    group = table.groups[index]
    order = torch.arange(group.size).roll(1)
    first = group.members[0]
    result = dict(state)
    for member in group.members:
        if (member.parameter, member.axis) == (first.parameter, first.axis):
            tensor = result[first.parameter]
            places = torch.arange(tensor.shape[first.axis])
            places[member.places().flatten()] = member.places()[order].flatten()
            result[first.parameter] = tensor.index_select(first.axis, places)
    return result


@pytest.mark.parametrize("name", SMALL)
def test_permuting_one_axis_only_changes_every_traced_model(name: str) -> None:
    model = MODELS[name].double()
    table = symmetry_table(model.graph)
    before = run_network(model.graph, model.state, model.inputs)
    for index, group in enumerate(table.groups):
        if len({(member.parameter, member.axis) for member in group.members}) == 1:
            continue  # it stands on one axis only: nothing else would have to follow
        spoilt = run_network(model.graph, _axis_permuted(model.state, table, index), model.inputs)
        assert difference(before, spoilt) > VISIBLE, group.name


@pytest.mark.parametrize("name", SMALL)
def test_leaving_any_one_tensor_out_of_a_rescaling_changes_the_model(name: str) -> None:
    model = MODELS[name].double()
    table = symmetry_table(model.graph)
    before = run_network(model.graph, model.state, model.inputs)
    factors = random_factors(table, seed=3, low=3.0)
    for group in table.groups[:6]:
        if group.scaling == "none":
            continue
        rescaled = rescale_units(table, model.state, {group.name: factors[group.name]})
        for parameter in {member.parameter for member in group.members if member.power}:
            if torch.equal(rescaled[parameter], model.state[parameter]):
                continue  # all signs came out positive, or both axes cancel
            spoilt = {**rescaled, parameter: model.state[parameter]}
            assert difference(before, run_network(model.graph, spoilt, model.inputs)) > 1e-6, parameter


def _activated(op: str, **attrs: object) -> ComputationalGraph:
    g = GraphBuilder()
    x = g(op, g("linear", g("input", shape=(4,)), out_features=6), **attrs)
    return g.finish(g("linear", x, out_features=3))


@pytest.mark.parametrize(
    ("op", "scaling"),
    [
        *((op, "positive") for op in ("relu", "leaky_relu", "abs", "identity", "neg", "dropout")),
        *((op, "sign") for op in ("tanh", "sin", "erf", "softsign", "atan")),
        *((op, "none") for op in ("gelu", "silu", "sigmoid", "elu", "softplus", "relu6", "exp", "cos")),
        *((op, "none") for op in ("softmax", "hardswish", "mish", "selu", "square")),
    ],
)
def test_the_scaling_of_a_layer_is_that_of_its_activation(op: str, scaling: str) -> None:
    attrs = {"axis": 0} if op == "softmax" else {}
    graph = _activated(op, **attrs)
    (group,) = symmetry_table(graph).groups
    assert group.scaling == scaling
    state = random_state(graph)
    factor = {"positive": 3.0, "sign": -1.0, "none": 30.0}[scaling]
    forced = dict(state)
    forced["n1.weight"], forced["n1.bias"] = state["n1.weight"] * factor, state["n1.bias"] * factor
    forced["n3.weight"] = state["n3.weight"] / factor
    same = difference(outputs(graph, state), outputs(graph, forced)) < 1e-9
    assert same == (scaling != "none")


def test_an_affine_map_with_a_shift_allows_no_factor() -> None:
    shifted, plain = _activated("affine", shift=0.5), _activated("affine", scale=2.0)
    assert symmetry_table(shifted).groups[0].scaling == "none"
    assert symmetry_table(plain).groups[0].scaling == "positive"


def test_a_norm_absorbs_what_comes_in_and_makes_a_new_scale_with_its_own_parameters() -> None:
    table = symmetry_table(small_convnet())
    channels, hidden = table.groups
    powers = {(m.parameter, m.axis): m.power for m in channels.members}
    assert channels.scaling == hidden.scaling == "positive"
    for before_norm in ("n1.weight", "n4.weight"):
        assert powers[before_norm, 0] == 0
    for node in (2, 5):
        assert powers[f"n{node}.weight", 0] == powers[f"n{node}.bias", 0] == 1
        assert powers[f"n{node}.running_mean", 0] == powers[f"n{node}.running_var", 0] == 0
    assert powers["n4.weight", 1] == powers["n10.weight", 1] == -1


def test_a_norm_without_parameters_leaves_no_freedom() -> None:
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(2, 4, 4)), out_channels=6, kernel_size=3)
    x = g("relu", g("batch_norm", x, affine=False))
    graph = g.finish(g("linear", g("flatten", x), out_features=2))
    assert [group.scaling for group in symmetry_table(graph).groups] == ["none"]


def test_queries_and_keys_are_scaled_against_each_other() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 3)), out_features=8)
    x = g("attention", *(g("linear", x, out_features=8) for _ in range(3)), num_heads=2)
    graph = g.finish(g("linear", g("mean", x, axis=0), out_features=2))
    table = symmetry_table(graph)
    both = next(g for g in table.groups if ("n2.weight", 0) in {(m.parameter, m.axis) for m in g.members})
    powers = {m.parameter: m.power for m in both.members if m.axis == 0}
    assert sorted(powers.values()) == [-1, -1, 1, 1]
    assert all(group.scaling == "none" for group in table.groups if group.size == 2)  # whole heads


def test_every_tensor_has_its_role() -> None:
    table = symmetry_table(MODELS["resnet"].graph)
    assert set(table.roles) == set(MODELS["resnet"].state)
    assert {table.roles[name] for name in ("n2.running_mean", "n2.running_var")} == {
        "running_mean",
        "running_var",
    }
    roles = symmetry_table(MODELS["vit"].graph).roles
    assert set(roles.values()) == {"weight", "bias", "scale", "shift", "position"}
    assert symmetry_table(MODELS["gpt-tied"].graph).roles["n1.weight"] == "embedding"


def test_rescaling_is_differentiable_and_undone_by_the_inverse_factors() -> None:
    model = MODELS["convnet-vgg"].double()
    table = symmetry_table(model.graph)
    factors = random_factors(table, seed=2)
    back = rescale_units(
        table,
        rescale_units(table, model.state, factors),
        {name: 1 / factor for name, factor in factors.items()},
    )
    for name, tensor in model.state.items():
        torch.testing.assert_close(back[name], tensor)
    name = table.groups[0].name
    leaf = torch.ones(table.groups[0].size, dtype=torch.float64, requires_grad=True)
    output = run_network(model.graph, rescale_units(table, model.state, {name: leaf}), model.inputs)[0]
    (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
    assert float(gradient.abs().max()) < 1e-10  # the function does not depend on the factors


def test_the_same_seed_gives_the_same_factors_and_limits_hold() -> None:
    table = symmetry_table(MODELS["bilinear"].graph)
    first, second = random_factors(table, seed=4), random_factors(table, seed=4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    drawn = random_factors(symmetry_table(MODELS["resnet"].graph), seed=4, low=0.5, high=2.0)
    assert all(bool(((factor >= 0.5) & (factor <= 2.0)).all()) for factor in drawn.values())
    with pytest.raises(ValueError, match="Expected 0 < 'low' <= 'high'"):
        random_factors(table, seed=0, low=2.0, high=1.0)


def test_factors_that_a_group_does_not_allow_are_refused() -> None:
    def table_of(name: str) -> tuple[SymmetryTable, dict[str, Tensor], str, int]:
        table = symmetry_table(MODELS[name].graph)
        return table, MODELS[name].state, table.groups[0].name, table.groups[0].size

    table, state, name, size = table_of("mlp")
    for factors, message in (
        (-torch.ones(size), "positive factors"),
        (torch.full((size,), float("nan")), "positive factors"),
        (torch.zeros(size), "positive factors"),
        (torch.ones(3), "Expected 24 factors"),
    ):
        with pytest.raises(ValueError, match=message):
            rescale_units(table, state, {name: factors})
    with pytest.raises(KeyError, match="No group named"):
        rescale_units(table, state, {"n9.weight/0": torch.ones(2)})
    with pytest.raises(ValueError, match="has no parameter"):
        rescale_units(table, {}, {name: torch.ones(size)})
    table, state, name, size = table_of("mlp-tanh")
    with pytest.raises(ValueError, match="1 or -1"):
        rescale_units(table, state, {name: torch.full((size,), 2.0)})
    table, state, name, size = table_of("mlp-gelu")
    with pytest.raises(ValueError, match="cannot be rescaled"):
        rescale_units(table, state, {name: torch.ones(size)})


def test_copies_of_a_foreign_state_are_refused() -> None:
    model = MODELS["mlp"]
    with pytest.raises(StateError):
        permute(model.graph, {}, seed=0)
    with pytest.raises(StateError):
        rescale(
            model.graph,
            {**model.state, "n1.weight": torch.full_like(model.state["n1.weight"], torch.inf)},
            seed=0,
        )


def test_heads_of_a_fused_projection_are_found_as_those_of_separate_ones() -> None:
    table = symmetry_table(MODELS["vit"].graph)
    heads = [group for group in table.groups if group.size == 3]
    assert len(heads) == 2  # two blocks of three heads
    for group in heads:
        on_projection = [
            m for m in group.members if m.axis == 0 and m.parameter.endswith("weight") and m.block == 4
        ]
        assert len(on_projection) == 3  # query, key and value of each head
    model = MODELS["vit"].double()
    before = run_network(model.graph, model.state, model.inputs)
    orders = random_orders(table, seed=5)
    permuted = permute_units(table, model.state, {group.name: orders[group.name] for group in heads})
    assert difference(before, run_network(model.graph, permuted, model.inputs)) < DOUBLE
