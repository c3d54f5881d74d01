"""Costs at other widths are those of the networks that are really cut."""

import numpy as np
import pytest
import torch

from nasgraph.edits import EditError, prune_units
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.meta.pruning import fit_widths, random_widths, uniform_widths, width_cost
from nasgraph.seeding import generator
from tests.meta.pruning.networks import NETWORKS, random_state, resnet


@pytest.fixture(params=sorted(NETWORKS))
def graph(request: pytest.FixtureRequest) -> ComputationalGraph:
    return NETWORKS[request.param]()


@pytest.mark.parametrize("seed", range(4))
def test_costs_at_random_widths_are_those_of_the_cut_network(graph: ComputationalGraph, seed: int) -> None:
    cost, rng = width_cost(graph), generator(seed, "widths")
    widths = {n: int(rng.integers(1, size + 1)) for n, size in zip(cost.groups, cost.sizes, strict=True)}
    keep = {name: torch.arange(width) for name, width in widths.items()}
    cut = cost_of(prune_units(graph, random_state(graph), keep).graph)
    assert cost.multiply_adds(widths) == cut.multiply_adds
    assert cost.num_parameters(widths) == cut.num_parameters


def test_full_widths_cost_what_the_network_costs(graph: ComputationalGraph) -> None:
    cost = width_cost(graph)
    assert (
        cost.multiply_adds(cost.full())
        == cost.multiply_adds({})
        == cost.dense
        == cost_of(graph).multiply_adds
    )
    assert cost.num_parameters({}) == cost_of(graph).num_parameters


def test_expected_cost_is_the_mean_of_the_costs_of_independent_draws(graph: ComputationalGraph) -> None:
    cost, rng = width_cost(graph), generator(3, "draws")
    candidates = [rng.integers(1, size + 1, 2) for size in cost.sizes]
    means = torch.tensor([pair.mean() for pair in candidates], dtype=torch.double)
    variances = torch.tensor([pair.var() for pair in candidates], dtype=torch.double)
    total = 0
    for code in range(2 ** len(cost.groups)):  # every combination, each as likely as the others
        chosen = [int(pair[code >> place & 1]) for place, pair in enumerate(candidates)]
        total += cost.multiply_adds(dict(zip(cost.groups, chosen, strict=True)))
    assert float(cost.expected(means, variances)) == pytest.approx(total / 2 ** len(cost.groups), rel=1e-12)


def test_gradient_of_the_expected_cost_is_that_of_finite_differences() -> None:
    cost = width_cost(resnet())
    means = torch.tensor(cost.sizes, dtype=torch.double, requires_grad=True)
    variances = torch.full_like(means, 2.0).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: cost.expected(m, v), (means, variances))


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_uniform_widths_are_the_largest_within_the_target(graph: ComputationalGraph, target: float) -> None:
    cost = width_cost(graph)
    found = cost.multiply_adds(uniform_widths(cost, target * cost.dense))
    assert found <= target * cost.dense
    assert found > 0.5 * target * cost.dense


def test_random_widths_differ_and_hit_the_target() -> None:
    cost, rng = width_cost(resnet()), generator(0, "random")
    drawn = [random_widths(cost, 0.5 * cost.dense, rng=rng, tolerance=0.02) for _ in range(8)]
    assert len({tuple(widths.values()) for widths in drawn}) > 4
    assert all(abs(cost.multiply_adds(w) / (0.5 * cost.dense) - 1) <= 0.02 for w in drawn)


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_fitted_widths_come_within_five_percent_from_both_sides(target: float) -> None:
    cost = width_cost(resnet(width=12))
    for widths in (cost.full(), uniform_widths(cost, 0.15 * cost.dense)):
        fitted = fit_widths(cost, widths, target * cost.dense, least=0.1)
        assert abs(cost.multiply_adds(fitted) / (target * cost.dense) - 1) < 0.05


def test_groups_within_groups_are_left_whole() -> None:
    g = GraphBuilder()
    x = g("relu", g("conv2d", g("input", shape=(1, 8, 8)), out_channels=8, kernel_size=3))
    x = g("relu", g("conv2d", x, out_channels=8, kernel_size=3, groups=2))
    x = g("relu", g("conv2d", x, out_channels=6, kernel_size=1))
    graph = g.finish(g("linear", g("global_avg_pool2d", x), out_features=3))
    cost = width_cost(graph)
    assert cost.sizes == (6,)
    assert cost.multiply_adds({}) == cost_of(graph).multiply_adds


def test_groups_by_which_products_of_activations_cost_less_are_left_whole() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 6)), out_features=8)
    query, key, value = (g("linear", x, out_features=4) for _ in range(3))
    mixed = g("relu", g("linear", g("attention", query, key, value, num_heads=1), out_features=7))
    graph = g.finish(g("linear", mixed, out_features=3))
    cost = width_cost(graph)
    assert sorted(cost.sizes) == [7, 8]  # not query and key, nor value
    assert cost.multiply_adds({}) == cost_of(graph).multiply_adds


def test_what_cannot_be_cut_is_refused_in_words() -> None:
    g = GraphBuilder()
    graph = g.finish(g("linear", g("input", shape=(4,)), out_features=3))
    with pytest.raises(EditError, match="nothing to prune"):
        width_cost(graph)
    cost = width_cost(resnet())
    with pytest.raises(EditError, match="No group 'x'"):
        cost.multiply_adds({"x": 1})
    with pytest.raises(EditError, match="from 1 to 6 units"):
        cost.multiply_adds({cost.groups[0]: 7})
    with pytest.raises(EditError, match="smallest widths"):
        random_widths(cost, 0.01 * cost.dense, rng=np.random.default_rng(0))
