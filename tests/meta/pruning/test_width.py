"""The network of two widths, the distribution over widths, and the search."""

import pytest
import torch
from torch.nn import functional as F

from nasgraph.edits import EditError, prune_units
from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.meta.pruning import (
    WidthConfig,
    cost_penalty,
    residual_stages,
    sample_two,
    search_width,
    width_cost,
)
from nasgraph.meta.pruning.supernet import MixedNetwork, Sampled, interpolation_matrix
from nasgraph.meta.pruning.width import Distribution
from nasgraph.modules import RunContext, run_network
from nasgraph.symmetry import symmetry_table
from tests.meta.pruning.networks import NETWORKS, digits, random_state, resnet, trained_resnet

RATIOS = (0.25, 0.5, 0.75, 1.0)
HALF = torch.tensor([0.3, 0.7])


@pytest.fixture(params=sorted(NETWORKS))
def graph(request: pytest.FixtureRequest) -> ComputationalGraph:
    return NETWORKS[request.param]()


def mixed(graph: ComputationalGraph) -> MixedNetwork:
    table = symmetry_table(graph)
    return MixedNetwork(
        graph, [table.group(name) for name in width_cost(graph).groups], num_ratios=len(RATIOS)
    )


def run(graph: ComputationalGraph, sampled: list[Sampled], x: torch.Tensor) -> torch.Tensor:
    network = mixed(graph)
    context = RunContext(batch_size=len(x), training=True)
    return network(network.initial(random_state(graph)), [x], sampled, context)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_interpolation_between_equal_widths_is_the_identity(size: int) -> None:
    torch.testing.assert_close(interpolation_matrix(size, size), torch.eye(size), rtol=0, atol=0)


@pytest.mark.parametrize(("size", "to"), [(2, 5), (3, 4), (5, 16)])
def test_interpolation_keeps_constant_channels_and_pools_as_torch_does(size: int, to: int) -> None:
    matrix = interpolation_matrix(size, to)
    torch.testing.assert_close(matrix @ torch.ones(size), torch.ones(to))
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x @ matrix.T, F.adaptive_avg_pool1d(x.unsqueeze(1), to).squeeze(1))


def test_both_sides_at_full_width_give_the_network_itself(graph: ComputationalGraph) -> None:
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    sampled = [Sampled((size, size), (3, 3), HALF) for size in width_cost(graph).sizes]
    expected = run_network(graph, random_state(graph), [x], use_batch=True)[0]
    torch.testing.assert_close(run(graph, sampled, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_both_sides_at_one_width_give_the_network_that_is_cut_to_it(
    graph: ComputationalGraph, share: float
) -> None:
    cost = width_cost(graph)
    widths = {name: max(1, round(share * size)) for name, size in cost.full().items()}
    cut = prune_units(graph, random_state(graph), {n: torch.arange(w) for n, w in widths.items()})
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = run_network(cut.graph, cut.state, [x], use_batch=True)[0]
    found = run(graph, [Sampled((w, w), (1, 1), HALF) for w in widths.values()], x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_mean_width_of_a_point_costs_exactly_what_the_widths_cost() -> None:
    cost = width_cost(resnet())
    distribution = Distribution(cost, RATIOS, {})
    with torch.no_grad():
        for group in range(len(cost.groups)):
            distribution.logits[group, group % len(RATIOS)] = 60.0
    widths, _ = distribution.chosen()
    expected = float(distribution.expected().detach())
    assert expected == pytest.approx(cost.multiply_adds(widths), rel=1e-6)


def test_the_penalty_pulls_the_expected_cost_towards_the_target_from_both_sides() -> None:
    cost = width_cost(resnet())
    for target, sign in ((0.2, -1), (0.95, 1)):
        distribution = Distribution(cost, RATIOS, {})
        before = distribution.expected()
        penalty = cost_penalty(before, target * cost.dense, dead_zone=0.05)
        (gradient,) = torch.autograd.grad(penalty, distribution.logits)
        with torch.no_grad():
            distribution.logits -= 0.1 * gradient
        assert sign * (float(distribution.expected().detach()) - float(before.detach())) > 0


def test_the_gradient_of_the_penalty_is_that_of_finite_differences() -> None:
    distribution = Distribution(width_cost(resnet()), RATIOS, {})
    target = 0.3 * width_cost(resnet()).dense

    def penalty(logits: torch.Tensor) -> torch.Tensor:
        distribution.logits = logits
        return cost_penalty(distribution.expected(), target, dead_zone=0.05)

    start = torch.randn(
        distribution.logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.double
    )
    assert torch.autograd.gradcheck(penalty, (start.requires_grad_(),))


def test_nothing_is_paid_in_the_dead_zone() -> None:
    assert float(cost_penalty(torch.tensor(97.0), 100.0, dead_zone=0.05)) == 0
    assert float(cost_penalty(torch.tensor(90.0), 100.0, dead_zone=0.05)) > 0
    assert float(cost_penalty(torch.tensor(101.0), 100.0, dead_zone=0.05)) > 0


@pytest.mark.parametrize("temperature", [5.0, 0.1])
def test_two_different_candidates_are_drawn_and_likely_ones_more_often(temperature: float) -> None:
    logits = torch.tensor([[3.0, 0.0, 0.0, 0.0]] * 2000, requires_grad=True)
    index, weights = sample_two(logits, temperature, torch.Generator().manual_seed(0))
    assert (index[:, 0] != index[:, 1]).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2000))
    drawn = torch.bincount(index.flatten(), minlength=4)
    assert drawn[0] == drawn.max()
    (gradient,) = torch.autograd.grad(weights[:, 0].sum(), logits)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("depth", [False, True])
def test_the_search_ends_within_five_percent_of_its_target(depth: bool) -> None:
    graph = resnet(width=10, blocks=2)
    config = WidthConfig(epochs=3, batch_size=64, architecture_rate=0.1, depth=depth, seed=1)
    found = search_width(graph, digits(), target_ratio=0.5, config=config)
    cost = cost_of(graph).multiply_adds
    assert abs(cost_of(found.graph).multiply_adds / (0.5 * cost) - 1) < 0.05
    assert found.multiply_adds == cost_of(found.graph).multiply_adds
    assert len(found.history) == 3
    assert set(found.depths) == (set(residual_stages(graph)) if depth else set())
    outputs = run_network(found.graph, found.state, [digits().validation.inputs[:4]])
    assert outputs[0].shape == (4, 10)


def test_the_same_seed_finds_the_same_widths_and_leaves_the_state_alone() -> None:
    graph, state = trained_resnet()
    before = {name: tensor.clone() for name, tensor in state.items()}
    config = WidthConfig(epochs=1, batch_size=64, architecture_rate=0.2, seed=3)
    first, second = (
        search_width(graph, digits(), target_ratio=0.6, state=state, config=config) for _ in "ab"
    )
    assert first.widths == second.widths
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_targets_out_of_reach_are_refused_in_words() -> None:
    with pytest.raises(EditError, match="smallest widths cost"):
        search_width(resnet(), digits(), target_ratio=0.01)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        search_width(resnet(), digits(), target_ratio=1.5)
    with pytest.raises(ConfigError, match="ascending"):
        WidthConfig(ratios=(0.5, 0.3))
