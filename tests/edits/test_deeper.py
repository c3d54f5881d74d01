"""Deeper networks compute what they did, and their new layers learn."""

import pytest
import torch

from nasgraph.edits import EditError, deepen, deepen_all
from nasgraph.ir import GraphBuilder, cost_of
from tests.edits.networks import EXACT, FLOAT, change, gradients, language_model, live_state
from tests.merge.networks import sampled, small_convnet

SPACES = ("mlp", "convnet", "vit")


@pytest.mark.parametrize("space", SPACES)
def test_a_layer_behind_any_activation_or_sum_keeps_the_function(space: str) -> None:
    (graph,) = sampled(space, 1)
    places = [i for i, node in enumerate(graph.nodes) if node.op in ("relu", "gelu", "silu", "add", "tanh")]
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, FLOAT)):
        state = live_state(graph, dtype=dtype)
        for place in (places[0], places[len(places) // 2], places[-1]):
            edited = deepen(graph, state, place, seed=1)
            assert change(graph, state, edited) < bound
            assert sum(node < 0 for node in edited.nodes) == len(edited.graph) - len(graph)


def test_behind_a_relu_there_is_an_identity_and_behind_others_a_residual_layer() -> None:
    graph = small_convnet(norm=False)
    state = live_state(graph)
    identity = deepen(graph, state, 2, seed=0)
    assert [identity.graph.nodes[i].op for i, node in enumerate(identity.nodes) if node < 0] == [
        "conv2d",
        "relu",
    ]
    assert change(graph, state, identity) == 0.0
    residual = deepen(graph, state, 1, seed=0)
    assert [residual.graph.nodes[i].op for i, node in enumerate(residual.nodes) if node < 0] == [
        "conv2d", "relu", "conv2d", "add",
    ]  # fmt: skip
    with pytest.raises(EditError, match="may be negative"):
        deepen(graph, state, 1, kind="identity")


def test_a_norm_in_an_identity_layer_is_the_identity_in_inference_mode() -> None:
    graph = small_convnet()
    state = live_state(graph)
    edited = deepen(graph, state, 3, norm=True, seed=0)
    assert "batch_norm" in [edited.graph.nodes[i].op for i, node in enumerate(edited.nodes) if node < 0]
    assert change(graph, state, edited) < EXACT


def test_new_layers_get_gradients() -> None:
    graph = small_convnet()
    state = live_state(graph)
    for kind in ("identity", "residual"):
        edited = deepen(graph, state, 3, kind=kind, seed=0)
        gradient = gradients(edited.graph, edited.state)
        new = {f"n{i}" for i, node in enumerate(edited.nodes) if node < 0}
        assert any(g.abs().max() > 0 for name, g in gradient.items() if name.split(".")[0] in new)


def test_layers_are_spread_over_the_depth() -> None:
    graph = small_convnet()
    state = live_state(graph)
    edited = deepen_all(graph, state, 3, seed=0)
    assert change(graph, state, edited) < EXACT
    new = [i for i, node in enumerate(edited.nodes) if node < 0]
    assert len(new) == 6
    assert new[0] < 8 < new[-1]
    assert cost_of(edited.graph).depth > cost_of(graph).depth


def test_places_without_data_or_with_integers_are_refused() -> None:
    graph = language_model()
    state = live_state(graph)
    with pytest.raises(EditError, match="integers"):
        deepen(graph, state, 0)
    with pytest.raises(EditError, match="follows from no input"):
        deepen(graph, state, next(i for i, node in enumerate(graph.nodes) if node.op == "parameter"))
    with pytest.raises(EditError, match="Expected a node from 0"):
        deepen(graph, state, 999)
    with pytest.raises(EditError, match="batch norm would mix"):
        deepen(graph, state, 3, norm=True)


def test_a_network_of_nothing_but_its_input_has_no_place() -> None:
    g = GraphBuilder()
    graph = g.finish(g("linear", g("input", shape=(3,)), out_features=2))
    with pytest.raises(EditError, match="no place"):
        deepen_all(graph, live_state(graph), 1)
