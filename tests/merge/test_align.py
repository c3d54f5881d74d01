"""Alignment: what was planted is found, nothing is lost, and networks trained apart come closer."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from nasgraph.evaluate import TrainConfig, never_stop, train_graph
from nasgraph.ir import GraphBuilder
from nasgraph.merge import (
    MergeError,
    align,
    barrier,
    match_weights,
)
from nasgraph.modules import initial_parameters
from nasgraph.symmetry import permute_units, random_orders, symmetry_table
from tests.merge.networks import blobs, difference, outputs, random_state, sampled, small_convnet


@pytest.mark.parametrize("space", ["convnet", "gnn", "gpt", "mlp", "nasbench201", "regnet", "vit"])
def test_a_planted_permutation_is_undone_bit_by_bit(space: str) -> None:
    for graph in sampled(space, 2):
        table, state = symmetry_table(graph), random_state(graph, dtype=torch.float32)
        planted = permute_units(table, state, random_orders(table, seed=3))
        found = match_weights(graph, planted, to=state)
        assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())
        assert found.similarity_after == pytest.approx(1.0)
        assert found.similarity_before < found.similarity_after


def test_aligning_changes_the_order_of_units_and_not_the_function() -> None:
    for graph in (small_convnet(), *sampled("vit", 2)):
        first, second = (random_state(graph, seed=seed) for seed in range(2))
        aligned = align(graph, second, to=first)
        assert difference(outputs(graph, second), outputs(graph, aligned)) <= 1e-9
        assert any(not torch.equal(aligned[name], second[name]) for name in second)


def test_alignment_never_lowers_the_similarity_and_is_deterministic() -> None:
    graph = small_convnet(width=12, hidden=16)
    for seed in range(3):
        first, second = random_state(graph, seed=seed), random_state(graph, seed=seed + 10)
        runs = [match_weights(graph, second, to=first, seed=seed) for _ in range(2)]
        assert runs[0].similarity_after >= runs[0].similarity_before
        assert all(torch.equal(runs[0].state[name], runs[1].state[name]) for name in second)


def test_a_network_is_aligned_with_itself_already() -> None:
    graph = small_convnet()
    state = random_state(graph)
    found = match_weights(graph, state, to=state)
    assert found.moved == ()
    assert found.sweeps == 1


def test_one_hidden_layer_is_assigned_optimally() -> None:
    """With one group the problem is one assignment, which scipy solves from weights that are put together by hand."""
    g = GraphBuilder()
    x = g("relu", g("linear", g("input", shape=(4,)), out_features=9))
    graph = g.finish(g("linear", x, out_features=3))
    first, second = random_state(graph, seed=1), random_state(graph, seed=2)

    def rows(state: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([state["n1.weight"], state["n1.bias"].unsqueeze(1), state["n3.weight"].T], dim=1)

    _, order = linear_sum_assignment((rows(first) @ rows(second).T).numpy(), maximize=True)
    torch.testing.assert_close(rows(align(graph, second, to=first)), rows(second)[torch.from_numpy(order)])


def test_numbers_that_are_not_finite_are_refused_by_name() -> None:
    graph = small_convnet()
    state = random_state(graph)
    spoilt = {**state, "n4.weight": state["n4.weight"] * torch.nan}
    with pytest.raises(
        MergeError, match=r"'n4.weight' of 'the model to align' has numbers that are not finite"
    ):
        align(graph, spoilt, to=state)
    with pytest.raises(MergeError, match=r"'the reference' has no 'n4.weight'"):
        align(graph, state, to={name: t for name, t in state.items() if name != "n4.weight"})


def test_aligning_networks_that_were_trained_apart_lowers_the_barrier() -> None:
    graph, data = small_convnet(width=16, norm=False, hidden=32), blobs()
    config = TrainConfig(epochs=8, batch_size=32, learning_rate=5e-3)
    first, second = (
        train_graph(
            graph,
            data,
            config,
            start=initial_parameters(graph, seed=seed),
            seed=seed,
            keep_going=never_stop,
        ).state
        for seed in range(2)
    )
    before = barrier(graph, first, second, data.train, points=5)
    after = barrier(graph, first, align(graph, second, to=first), data.train, points=5)
    assert after.loss < 0.7 * before.loss
    assert after.losses[0] == before.losses[0]
    assert after.losses[-1] == pytest.approx(before.losses[-1], rel=1e-4)
