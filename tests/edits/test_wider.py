"""Wider networks compute what they did, and their new units learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasgraph.edits import EditError, add_units, add_zero_units, widen, widen_all
from nasgraph.ir import GraphBuilder, cost_of
from nasgraph.modules import StateError, initial_buffers, initial_parameters
from nasgraph.symmetry import symmetry_table
from tests.edits.networks import EXACT, FLOAT, change, gradients, live_state
from tests.merge.networks import sampled, small_convnet

SPACES = ("mlp", "convnet", "vit", "gpt")


@pytest.mark.parametrize("space", SPACES)
def test_widening_any_group_keeps_the_function_or_is_refused_with_a_reason(space: str) -> None:
    done = 0
    for graph in sampled(space, 1):
        for dtype, bound in ((torch.float64, EXACT), (torch.float32, FLOAT)):
            state = live_state(graph, dtype=dtype)
            groups = symmetry_table(graph).groups
            for group in [groups[0], groups[-1]]:
                for size in (group.size + 2, 2 * group.size):
                    try:
                        edited = widen(graph, state, group.name, size, seed=1)
                    except EditError:
                        continue
                    assert edited.preserves_function
                    assert change(graph, state, edited) < bound
                    done += 1
    assert done


def test_every_kind_of_layer_of_a_residual_network_follows_its_channels() -> None:
    graph = small_convnet(width=6, hidden=8)
    state = live_state(graph)
    channels, hidden = symmetry_table(graph).groups
    edited = widen(graph, state, channels.name, 9, seed=0)
    assert change(graph, state, edited) < EXACT
    assert edited.state["n1.weight"].shape[0] == edited.state["n2.running_var"].shape[0] == 9
    assert edited.state["n10.weight"].shape[1] == 9 * 9  # each channel has nine places behind the flattening
    edited = widen(edited.graph, edited.state, hidden.name, 20, seed=0)
    assert change(graph, state, edited) < EXACT
    assert edited.nodes == tuple(range(len(graph)))


def test_norms_over_units_allow_multiples_of_the_width_only() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(4,)), out_features=6)
    graph = g.finish(g("linear", g("relu", g("layer_norm", x)), out_features=3))
    state = live_state(graph)
    assert change(graph, state, widen(graph, state, "n1.weight/0", 18, seed=0)) < EXACT
    with pytest.raises(EditError, match="subtracts the mean"):
        widen(graph, state, "n1.weight/0", 10)


def test_copies_of_a_unit_get_different_gradients_though_the_function_is_exact() -> None:
    graph = small_convnet(norm=False)
    state = live_state(graph)
    hidden = symmetry_table(graph).groups[-1]
    edited = widen(graph, state, hidden.name, 2 * hidden.size, seed=0)
    name = hidden.members[0].parameter
    weight, gradient = edited.state[name], gradients(edited.graph, edited.state)[name]
    cosines = []
    for copy in range(hidden.size, 2 * hidden.size):
        (original,) = [u for u in range(hidden.size) if torch.equal(weight[u], weight[copy])]
        if gradient[original].norm() > 0:
            cosines.append(
                float(torch.nn.functional.cosine_similarity(gradient[original], gradient[copy], dim=0))
            )
    apart = [
        cosine for cosine in cosines if cosine < 1 - 1e-4
    ]  # a unit that one example alone excites has one direction
    assert len(apart) > 0.5 * len(cosines)


def test_noise_sets_copies_apart_and_the_note_of_exactness_goes() -> None:
    graph = small_convnet()
    state = live_state(graph)
    name = symmetry_table(graph).groups[0].name
    edited = widen(graph, state, name, 12, seed=0, noise=0.01)
    assert not edited.preserves_function
    assert 1e-8 < change(graph, state, edited) < 0.1


def test_new_units_start_unread_and_learn() -> None:
    graph = small_convnet()
    state = live_state(graph)
    group = symmetry_table(graph).groups[0]
    edited = add_units(graph, state, group.name, group.size + 3, seed=0)
    assert change(graph, state, edited) < EXACT
    assert not edited.state["n4.weight"][: group.size, group.size :].any()
    gradient = gradients(edited.graph, edited.state)
    assert gradient["n10.weight"][:, group.size * 9 :].abs().max() > 0


def test_zero_units_stay_zero_and_learn() -> None:
    graph = small_convnet()
    state = live_state(graph)
    group = symmetry_table(graph).groups[0]
    edited = add_zero_units(graph, state, group.name, group.size + 3, seed=0)
    assert change(graph, state, edited) < EXACT
    assert not edited.state["n1.weight"][group.size :].any()
    assert edited.state["n10.weight"][:, group.size * 9 :].abs().min() > 0


def test_widening_all_groups_multiplies_the_parameters() -> None:
    for space in ("mlp", "vit"):
        (graph,) = sampled(space, 1)
        state = live_state(graph)
        edited = widen_all(graph, state, 2.0, seed=0)
        assert change(graph, state, edited) < EXACT
        assert cost_of(edited.graph).num_parameters > 2 * cost_of(graph).num_parameters


def test_equal_seeds_give_equal_networks() -> None:
    graph = small_convnet()
    state = live_state(graph)
    name = symmetry_table(graph).groups[0].name
    first, again, other = (widen(graph, state, name, 9, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first.state[key], again.state[key]) for key in first.state)
    assert any(not torch.equal(first.state[key], other.state[key]) for key in first.state)


def test_bad_input_is_told_by_name() -> None:
    graph = small_convnet()
    state = live_state(graph)
    with pytest.raises(EditError, match="No group named 'nothing'"):
        widen(graph, state, "nothing", 9)
    with pytest.raises(EditError, match="more than the 6 units"):
        widen(graph, state, "n1.weight/0", 6)
    with pytest.raises(StateError, match="not finite"):
        widen(graph, {**state, "n1.weight": state["n1.weight"] * torch.nan}, "n1.weight/0", 9)
    with pytest.raises(EditError, match="factor above 1"):
        widen_all(graph, state, 1.0)


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(2, 6), min_size=1, max_size=4),
    extra=st.integers(1, 9),
    seed=st.integers(0, 1000),
    activation=st.sampled_from(("relu", "tanh", "gelu", "sigmoid")),
)
def test_widening_any_layer_of_any_perceptron_is_exact(
    widths: list[int], extra: int, seed: int, activation: str
) -> None:
    g = GraphBuilder()
    x = g("input", shape=(3,))
    for width in widths:
        x = g(activation, g("linear", x, out_features=width))
    graph = g.finish(g("linear", x, out_features=2))
    state = {
        name: tensor.double()
        for name, tensor in {**initial_parameters(graph, seed=seed), **initial_buffers(graph)}.items()
    }
    for group in symmetry_table(graph).groups:
        assert change(graph, state, widen(graph, state, group.name, group.size + extra, seed=seed)) < EXACT
