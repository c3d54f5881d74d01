"""Sequences of random edits: the function stays to rounding, whatever the network and the order."""

import pytest
import torch

from benchmarks.meta.models import traced_models
from nasgraph.edits import EditError, random_edit, random_edits
from nasgraph.edits.random_edits import KINDS
from nasgraph.ir import check_graph
from nasgraph.modules import StateError, run_network
from tests.edits.networks import EXACT, FLOAT, change, gradients, live_state
from tests.merge.networks import sampled, small_convnet

SPACES = ("mlp", "convnet", "vit", "gpt")
TRACED = ("resnet", "mobilenet", "lstm", "llama", "unet")


@pytest.mark.parametrize("space", SPACES)
def test_five_random_edits_keep_the_function_of_sampled_networks(space: str) -> None:
    (graph,) = sampled(space, 1)
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, FLOAT)):
        state = live_state(graph, dtype=dtype)
        edited = random_edits(graph, state, 5, seed=len(space))
        assert change(graph, state, edited) < bound
        check_graph(edited.graph)
        assert edited.note.count(";") == 4


@pytest.mark.parametrize("seed", range(12))
def test_twelve_sequences_of_a_residual_network_keep_its_function_to_1e_10(seed: int) -> None:
    graph = small_convnet(norm=bool(seed % 2))
    state = live_state(graph)
    edited = random_edits(graph, state, 5, seed=seed)
    assert change(graph, state, edited) < EXACT


@pytest.mark.parametrize("name", TRACED)
def test_traced_models_keep_their_function(name: str) -> None:
    model = traced_models()[name].double()
    with torch.no_grad():
        edited = random_edits(model.graph, model.state, 4, seed=3)
        before = run_network(model.graph, model.state, model.inputs)
        after = run_network(edited.graph, edited.state, model.inputs)
    for a, b in zip(before, after, strict=True):
        assert torch.isfinite(b).all()
        assert (a - b).abs().max() < EXACT * a.abs().max()


def test_every_kind_applies_to_some_network() -> None:
    (vit,) = sampled("vit", 1)
    state = live_state(vit)
    graph = small_convnet(norm=False)
    small = live_state(graph)
    attention = ("expand_heads", "expand_values", "expand_keys", "expand_layers")
    for kind in KINDS:
        if kind in attention:
            assert change(vit, state, random_edit(vit, state, seed=1, kinds=[kind])) < EXACT
        else:
            assert change(graph, small, random_edit(graph, small, seed=1, kinds=[kind])) < EXACT


def test_edited_networks_learn_in_their_new_weights() -> None:
    graph = small_convnet()
    state = live_state(graph)
    edited = random_edits(graph, state, 3, seed=4, kinds=["widen", "deepen", "replicate_add"])
    gradient = gradients(edited.graph, edited.state)
    assert sum(bool(tensor.abs().max() > 0) for tensor in gradient.values()) > 0.8 * len(gradient)


def test_the_same_seed_gives_the_same_edits() -> None:
    graph = small_convnet()
    state = live_state(graph)
    first, again, other = (random_edits(graph, state, 3, seed=seed) for seed in (5, 5, 6))
    assert first.graph == again.graph
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    assert other.note != first.note


def test_bad_input_is_told() -> None:
    graph = small_convnet()
    state = live_state(graph)
    with pytest.raises(EditError, match="No kind of edit named 'wider'"):
        random_edit(graph, state, seed=0, kinds=["wider"])
    with pytest.raises(EditError, match="applies to this network"):
        random_edit(graph, state, seed=0, kinds=["expand_heads"])
    with pytest.raises(StateError, match=r"no 'n1\.weight'"):
        random_edit(graph, {name: t for name, t in state.items() if name != "n1.weight"}, seed=0)
