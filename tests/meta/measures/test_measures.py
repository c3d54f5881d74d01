"""Measures equal what brute force, singular values and networkx say, and change with rescaling where they are known to."""

from itertools import product

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.measures import (
    MEASURES,
    NETWORK_THEORY_COLUMNS,
    accuracies,
    frobenius_norms,
    generalisation_measures,
    granulated_tau,
    logits_of_stack,
    margins,
    network_theory,
    neuron_strengths,
    node_strengths,
    path_norms,
    rise_along_random_directions,
    robust_sign_error,
    sharpness_sigma,
    spectral_norms,
)
from nasgraph.meta.views import run_stack, stack_states
from nasgraph.modules import initial_buffers, initial_parameters, run_network

torch.set_num_threads(1)


def mlp(*widths: int, inputs: int = 3, bias: bool = True) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(inputs,))
    for width in widths[:-1]:
        x = g("relu", g("linear", x, out_features=width, bias=bias))
    return g.finish(g("linear", x, out_features=widths[-1], bias=bias))


def convnet(*, norm: bool = True) -> ComputationalGraph:
    g = GraphBuilder()
    x = g(
        "conv2d", g("input", shape=(2, 5, 5)), out_channels=4, kernel_size=3, padding=1, stride=2, bias=True
    )
    x = g("relu", g("batch_norm", x) if norm else x)
    x = g("conv2d", x, out_channels=5, kernel_size=2, bias=True)
    return g.finish(g("linear", g("flatten", g("relu", x)), out_features=3))


def random_stack(graph: ComputationalGraph, count: int = 2) -> dict[str, Tensor]:
    states = []
    for seed in range(count):
        rng = torch.Generator().manual_seed(seed)
        state = {
            name: tensor.double() + 0.1 * torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
            for name, tensor in initial_parameters(graph, seed=seed).items()
        }
        for name, tensor in initial_buffers(graph).items():
            state[name] = (0.5 + torch.rand(tensor.shape, generator=rng)).double()
        states.append(state)
    return stack_states(states)


def examples(graph: ComputationalGraph, count: int = 64) -> Split:
    rng = torch.Generator().manual_seed(5)
    inputs = torch.randn(count, *graph.shapes[0], generator=rng)
    return Split(inputs, torch.randint(0, 3, (count,), generator=rng))


def fitted(graph: ComputationalGraph, data: Split, count: int = 2) -> dict[str, Tensor]:
    """Networks that fit their data: the labels are those that the first of them gives."""
    stacked = {
        name: tensor[:1].repeat(count, *[1] * (tensor.dim() - 1))
        for name, tensor in random_stack(graph).items()
    }
    data.targets.copy_(logits_of_stack(graph, stacked, data.inputs)[0].argmax(1))
    return stacked


def rescaled(graph: ComputationalGraph, stacked: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply what enters each hidden unit of a perceptron, and divide what leaves it."""
    first, bias, second = list(graph.parameters)[:3]
    factor = torch.logspace(-1, 1, stacked[first].shape[1], dtype=torch.float64)
    return {
        **stacked,
        first: stacked[first] * factor.unsqueeze(1),
        bias: stacked[bias] * factor,
        second: stacked[second] / factor,
    }


def brute_force(stacked: dict[str, Tensor], network: int, *, bias: bool) -> float:
    """All paths of a perceptron 3-3-2, one product each; a bias is a path from a unit that is one."""
    tensors = [tensor[network].tolist() for tensor in stacked.values()]
    if bias:
        w1, b1, w2, b2 = tensors
    else:
        (w1, w2), b1, b2 = tensors, [0.0] * 3, [0.0] * 2
    total = sum((w2[o][h] * w1[h][i]) ** 2 for o, h, i in product(range(2), range(3), range(3)))
    total += sum((w2[o][h] * b1[h]) ** 2 for o, h in product(range(2), range(3)))
    return float(np.sqrt(total + sum(b**2 for b in b2)))


@pytest.mark.parametrize("bias", [False, True])
def test_the_path_norm_is_the_sum_over_all_paths(bias: bool) -> None:
    graph = mlp(3, 2, bias=bias)
    stacked = random_stack(graph, 3)
    for network, found in enumerate(path_norms(graph, stacked)):
        assert float(found) == pytest.approx(brute_force(stacked, network, bias=bias))


def test_the_path_norm_of_a_batch_norm_is_that_of_the_convolution_it_folds_into() -> None:
    with_norm, without = convnet(), convnet(norm=False)
    stacked = random_stack(with_norm)
    folded: dict[str, Tensor] = {}
    factor = stacked["n2.weight"] / (stacked["n2.running_var"] + 1e-5).sqrt()
    for name, other in zip(
        without.parameters, [n for n in with_norm.parameters if not n.startswith("n2.")], strict=True
    ):
        folded[name] = stacked[other]
    folded["n1.weight"] = stacked["n1.weight"] * factor[:, :, None, None, None]
    folded["n1.bias"] = (stacked["n1.bias"] - stacked["n2.running_mean"]) * factor + stacked["n2.bias"]
    x = examples(with_norm, 4).inputs.double()
    torch.testing.assert_close(run_stack(with_norm, stacked, [x])[0], run_stack(without, folded, [x])[0])
    # two squares in a row are not one square of a sum: fold the bias of the convolution away first
    stacked["n2.bias"] = folded["n1.bias"] + stacked["n2.running_mean"] * factor
    stacked["n1.bias"] = torch.zeros_like(stacked["n1.bias"])
    torch.testing.assert_close(path_norms(with_norm, stacked), path_norms(without, folded))


def test_the_path_norm_names_an_operator_it_is_not_defined_for() -> None:
    g = GraphBuilder()
    graph = g.finish(g("linear", g("layer_norm", g("input", shape=(4,))), out_features=2))
    with pytest.raises(UnsupportedOpError, match="'layer_norm'"):
        path_norms(graph, random_stack(graph))


def test_spectral_norms_are_largest_singular_values_of_the_whole_operator() -> None:
    """Convolutions are written out as matrices, column by column, from torch's own convolution."""
    graph = convnet()
    stacked = random_stack(graph)
    found = spectral_norms(graph, stacked, tolerance=1e-10, max_steps=5000)
    for network in range(2):
        unit = torch.eye(2 * 5 * 5, dtype=torch.float64).reshape(-1, 2, 5, 5)
        first = F.conv2d(unit, stacked["n1.weight"][network], padding=1, stride=2).flatten(1)
        unit = torch.eye(4 * 3 * 3, dtype=torch.float64).reshape(-1, 4, 3, 3)
        second = F.conv2d(unit, stacked["n4.weight"][network]).flatten(1)
        matrices = [first, second, stacked["n7.weight"][network]]
        wanted = [float(torch.linalg.svdvals(matrix)[0]) for matrix in matrices]
        np.testing.assert_allclose(found[network], wanted, rtol=1e-5)


def test_frobenius_norms_bound_spectral_norms_of_linear_layers() -> None:
    graph = mlp(6, 5, 4)
    stacked = random_stack(graph)
    assert (frobenius_norms(graph, stacked) >= spectral_norms(graph, stacked)).all()


def test_the_margin_is_the_lead_of_the_right_class() -> None:
    logits = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [4.0, 0.0, 4.5]]])
    targets = torch.tensor([0, 1, 0])
    assert margins(logits, targets, share=0.0).item() == pytest.approx(-0.5)
    assert margins(logits, targets, share=0.5).item() == pytest.approx(1.0)
    assert margins(logits, targets, share=1.0).item() == pytest.approx(4.0)


def test_sigma_is_where_accuracy_has_dropped_by_a_tenth() -> None:
    graph = mlp(16, 3)
    data = examples(graph, 400)
    stacked = fitted(graph, data, 1)
    sigma = float(sharpness_sigma(graph, stacked, data, draws=40, steps=14))
    rng = torch.Generator().manual_seed(99)
    means = []
    for factor in (0.8, 1.25):
        drawn = []
        for _ in range(60):  # draws of our own, not those of the search
            noisy = {
                name: tensor + factor * sigma * torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
                for name, tensor in stacked.items()
            }
            drawn.append(accuracies(logits_of_stack(graph, noisy, data.inputs), data.targets).item())
        means.append(np.mean(drawn))
    assert means[0] > 0.9 > means[1]


def test_what_rescaling_units_changes_and_what_it_does_not() -> None:
    graph = mlp(8, 3)
    data = examples(graph, 200)
    stacked = fitted(graph, data)
    other = rescaled(graph, stacked)
    torch.testing.assert_close(*(logits_of_stack(graph, each, data.inputs) for each in (stacked, other)))
    before, after = (
        generalisation_measures(graph, each, data, draws=3, steps=8) for each in (stacked, other)
    )
    unchanged = {name for name in before if torch.allclose(before[name], after[name], rtol=1e-6)}
    assert unchanged == {"inverse_margin", "path_norm", "path_norm_margin", "sharpness_magnitude"}


def test_all_measures_are_there_and_finite_when_the_start_is_known() -> None:
    for graph in (mlp(8, 3), convnet()):
        data = examples(graph)
        stacked = random_stack(graph)
        found = generalisation_measures(graph, stacked, data, initial=random_stack(graph), draws=2, steps=4)
        assert tuple(found) == MEASURES
        assert all(
            torch.isfinite(value).all() for name, value in found.items() if name != "distance_from_initial"
        )
        assert "distance_from_initial" not in generalisation_measures(graph, stacked, data, draws=1, steps=1)


def test_a_rise_along_random_directions_grows_with_the_distance_and_is_the_same_each_time() -> None:
    graph = mlp(8, 3)
    data = examples(graph)
    stacked = fitted(graph, data)
    near, far = (rise_along_random_directions(graph, stacked, data, radius=radius) for radius in (0.1, 1.0))
    assert (far > near).all()
    assert torch.equal(near, rise_along_random_directions(graph, stacked, data, radius=0.1))


def test_node_strength_is_the_weighted_degree_of_networkx() -> None:
    graph = mlp(5, 4, 2)
    stacked = random_stack(graph)
    weights = [stacked[name][1] for name in graph.parameters if name.endswith("weight")]
    net = nx.Graph()
    for layer, weight in enumerate(weights):
        for target, source in product(*map(range, weight.shape)):
            net.add_edge((layer, source), (layer + 1, target), weight=float(weight[target, source]))
    degree = dict(net.degree(weight="weight"))
    for layer, strength in enumerate(node_strengths(graph, stacked).values(), start=1):
        wanted = [degree[layer, unit] for unit in range(strength.shape[1])]
        np.testing.assert_allclose(strength[1], wanted, rtol=1e-12)


def test_neuron_strength_is_the_weighted_degree_of_links_times_their_source() -> None:
    graph = mlp(5, 4, 2)
    stacked = random_stack(graph)
    x = examples(graph, 3).inputs.double()
    state = {name: tensor[1] for name, tensor in stacked.items()}
    tapped = ComputationalGraph(graph.nodes, (0, 2, 4, 5))
    values = [value[2] for value in run_network(tapped, state, [x])]
    weights = [state[name] for name in graph.parameters if name.endswith("weight")]
    net = nx.Graph()
    for layer, weight in enumerate(weights):
        for target, source in product(*map(range, weight.shape)):
            link = float(weight[target, source] * values[layer][source])
            net.add_edge((layer, source), (layer + 1, target), weight=link)
    degree = dict(net.degree(weight="weight"))
    for layer, strength in enumerate(neuron_strengths(graph, stacked, x).values(), start=1):
        wanted = [degree[layer, unit] for unit in range(strength.shape[2])]
        np.testing.assert_allclose(strength[1, 2], wanted, rtol=1e-9)


def test_neuron_strength_of_a_convolution_counts_links_where_they_are_used() -> None:
    """What leaves a channel is what the next layer's output loses, in sum, when the channel is silenced."""
    graph = convnet(norm=False)
    stacked = random_stack(graph)
    x = examples(graph, 2).inputs.double()
    found = neuron_strengths(graph, stacked, x)
    state = {name: tensor[0] for name, tensor in stacked.items()}
    first = F.conv2d(x, state["n1.weight"], state["n1.bias"], padding=1, stride=2)
    hidden = first.relu()
    second = F.conv2d(hidden, state["n3.weight"])
    enters = (first - state["n1.bias"][:, None, None]).sum((2, 3))
    for channel in range(4):
        silent = hidden.clone()
        silent[:, channel] = 0
        leaves = (second - F.conv2d(silent, state["n3.weight"])).sum((1, 2, 3))
        torch.testing.assert_close(found["n1.weight/0"][0, :, channel], enters[:, channel] + leaves)


def test_network_theory_gives_the_same_columns_for_every_architecture() -> None:
    for graph in (mlp(5, 4, 2), mlp(8, 3), mlp(2), convnet()):
        state = {name: tensor[0] for name, tensor in random_stack(graph).items()}
        row = network_theory(graph, state, examples(graph, 4).inputs.double())
        assert len(row) == len(NETWORK_THEORY_COLUMNS)
        torch.testing.assert_close(row[:15], network_theory(graph, state))


def test_granulated_tau_sees_through_a_measure_that_reads_one_setting_only() -> None:
    settings = {
        "width": [w for w in range(4) for _ in range(4)],
        "rate": [r for _ in range(4) for r in range(4)],
    }
    gap = [10 * w - r for w, r in zip(*settings.values(), strict=True)]
    width_only = settings["width"]
    assert kendalltau(width_only, gap).statistic > 0.8
    found = granulated_tau([w + 1e-3 * r for w, r in zip(*settings.values(), strict=True)], gap, settings)
    assert found == {"width": 1.0, "rate": -1.0, "mean": 0.0}
    perfect = granulated_tau(gap, gap, settings)
    assert perfect["mean"] == 1.0


def test_robust_sign_error_is_that_of_the_worst_change() -> None:
    settings = {"width": [0, 0, 0, 1, 1, 1], "seed": [0, 1, 2, 0, 1, 2]}
    gap = [0, 1, 2, 10, 11, 12]
    measure = [5, 6, 7, 4, 5, 9]  # wrong for two of the three changes of width
    found = robust_sign_error(measure, gap, settings, min_pairs=2)
    assert found["width:0>1"] == pytest.approx(2 / 3)
    assert found["worst"] == pytest.approx(2 / 3)
    assert found["seed:0>1"] == 0.0


def test_numbers_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths"):
        granulated_tau([1, 2], [1, 2, 3], {"width": [1, 2]})
    with pytest.raises(ValueError, match="NaN"):
        robust_sign_error([1, float("nan")], [1, 2], {"width": [1, 2]})
