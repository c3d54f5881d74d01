"""Layers replaced by branches: the function stays, branches can be nested, and they learn apart."""

import pytest
import torch

from nasgraph.edits import EditError, chained, deepen, replicate_add, split_concat
from nasgraph.edits.branches import can_split
from nasgraph.ir import GraphBuilder
from tests.edits.networks import EXACT, FLOAT, change, gradients, live_state
from tests.merge.networks import sampled, small_convnet

SPACES = ("mlp", "convnet", "vit")


@pytest.mark.parametrize("space", SPACES)
def test_replicated_and_cut_layers_keep_the_function(space: str) -> None:
    (graph,) = sampled(space, 1)
    layers = [i for i, node in enumerate(graph.nodes) if node.op in ("linear", "conv2d")]
    cut = [i for i in range(len(graph)) if can_split(graph, i)]
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, FLOAT)):
        state = live_state(graph, dtype=dtype)
        for place in (layers[0], layers[-1]):
            edited = replicate_add(graph, state, place, branches=3, spread=0.2, seed=1)
            assert change(graph, state, edited) < bound
            assert edited.nodes.count(place) == 3
        for place in (cut[0], cut[len(cut) // 2], cut[-1]):
            assert change(graph, state, split_concat(graph, state, place, seed=1)) < bound


def test_branches_can_be_nested_and_get_layers_of_their_own() -> None:
    graph = small_convnet()
    state = live_state(graph)
    edited = replicate_add(graph, state, 4, seed=0, spread=0.1)
    branch = edited.nodes.index(4)
    edited = chained(edited, split_concat(edited.graph, edited.state, branch, branches=3))
    part = edited.nodes.index(4)
    edited = chained(edited, deepen(edited.graph, edited.state, part, seed=0))
    relu = edited.nodes.index(3)
    edited = chained(edited, split_concat(edited.graph, edited.state, relu))
    assert change(graph, state, edited) < EXACT
    assert edited.nodes.count(4) == 4  # one whole copy, and three parts of the other
    assert edited.note.count(";") == 3


def test_copies_of_a_linear_map_are_set_apart_exactly() -> None:
    graph = small_convnet()
    state = live_state(graph)
    edited = replicate_add(graph, state, 1, spread=0.5, seed=0)
    first, second = (i for i, node in enumerate(edited.nodes) if node == 1)
    assert not torch.equal(edited.state[f"n{first}.weight"], edited.state[f"n{second}.weight"])
    mean = (edited.state[f"n{first}.weight"] + edited.state[f"n{second}.weight"]) / 2
    torch.testing.assert_close(mean, state["n1.weight"])
    gradient = gradients(edited.graph, edited.state)
    assert gradient[f"n{first}.weight"].abs().max() > 0


def test_depthwise_convolutions_norms_and_pools_are_cut_along_their_channels() -> None:
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(2, 5, 5)), out_channels=6, kernel_size=1)
    x = g("conv2d", x, out_channels=6, kernel_size=3, padding=1, groups=6, bias=True)
    x = g("max_pool2d", g("hardswish", g("batch_norm", x)), kernel_size=2)
    graph = g.finish(g("linear", g("flatten", x), out_features=3))
    state = live_state(graph)
    for op in ("conv2d", "batch_norm", "hardswish", "max_pool2d"):
        places = [
            i
            for i, node in enumerate(graph.nodes)
            if node.op == op and (op != "conv2d" or dict(node.attrs)["groups"] == 6)
        ]
        edited = split_concat(graph, state, places[0], branches=2)
        assert change(graph, state, edited) < EXACT
        assert sum(node.op == "slice" for node in edited.graph.nodes) == 2


def test_what_is_no_layer_is_refused() -> None:
    graph = small_convnet()
    state = live_state(graph)
    with pytest.raises(EditError, match="no layer"):
        replicate_add(graph, state, 0)
    with pytest.raises(EditError, match="at least 2 branches"):
        replicate_add(graph, state, 1, branches=1)
    with pytest.raises(EditError, match="too few"):
        split_concat(graph, state, 1, branches=7)
    (vit,) = sampled("vit", 1)
    place = next(i for i, node in enumerate(vit.nodes) if node.op == "attention")
    with pytest.raises(EditError, match="depend on each other"):
        split_concat(vit, live_state(vit), place)
