"""A child inherits what fits: nodes are matched by structure, widths by units, kernels by their centres."""

import pytest
import torch

from nasgraph.edits import EditError, inherit, match_nodes, random_edits
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import StateError
from nasgraph.modules.state import check_state
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, mutate, sample
from tests.edits.networks import EXACT, live_state
from tests.merge.networks import difference, outputs, sampled, small_convnet


def _chain(*widths: int, activation: str = "relu", kernel: int = 3, extra: int = 0) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(2, 6, 6))
    for width in widths:
        x = g(
            activation, g("conv2d", x, out_channels=width, kernel_size=kernel, padding=kernel // 2, bias=True)
        )
        for _ in range(extra):
            x = g("sigmoid", g("conv2d", x, out_channels=width, kernel_size=1))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=3))


@pytest.mark.parametrize("space", ["mlp", "convnet", "vit", "gpt"])
def test_a_network_inherits_all_of_itself_bit_by_bit(space: str) -> None:
    (graph,) = sampled(space, 1)
    state = live_state(graph)
    heir = inherit(graph, state, graph, seed=0)
    assert heir.share == 1.0
    assert not heir.fresh
    assert heir.nodes == tuple(range(len(graph)))
    assert all(torch.equal(heir.state[name], tensor) for name, tensor in state.items())


def test_nodes_are_matched_whatever_their_numbers() -> None:
    (graph,) = sampled("convnet", 1)
    other = graph.canonical()
    pairs = match_nodes(other, graph)
    assert len(pairs) == len(set(pairs.values())) == len(graph)
    state = live_state(graph)
    heir = inherit(graph, state, other, seed=0)
    assert heir.share == 1.0
    assert difference(outputs(graph, state), outputs(other, heir.state)) < EXACT


def test_a_wider_child_computes_what_its_parent_does() -> None:
    parent, child = _chain(4, 6), _chain(7, 15)
    state = live_state(parent)
    heir = inherit(parent, state, child, seed=0)
    assert heir.share == 1.0
    assert difference(outputs(parent, state), outputs(child, heir.state)) < EXACT


def test_a_child_with_larger_kernels_computes_what_its_parent_does() -> None:
    parent, child = _chain(4, 6, kernel=3), _chain(4, 6, kernel=5)
    state = live_state(parent)
    heir = inherit(parent, state, child, seed=0)
    assert difference(outputs(parent, state), outputs(child, heir.state)) < EXACT
    back = inherit(child, heir.state, parent, seed=0)
    assert difference(outputs(parent, state), outputs(parent, back.state)) < EXACT


def test_a_narrower_child_keeps_the_units_with_the_largest_weights() -> None:
    parent, child = _chain(6, 5), _chain(4, 5)
    state = live_state(parent)
    for name in ("n1.weight", "n1.bias"):
        state[name][[1, 4]] *= 1e-3
    state["n3.weight"][:, [1, 4]] *= 1e-3
    heir = inherit(parent, state, child, seed=0)
    assert torch.equal(heir.state["n1.weight"], state["n1.weight"][[0, 2, 3, 5]])
    assert torch.equal(heir.state["n3.weight"], state["n3.weight"][:, [0, 2, 3, 5]])
    assert difference(outputs(parent, state), outputs(child, heir.state)) < 1e-2


def test_a_deeper_child_inherits_what_stands_around_its_new_layers() -> None:
    parent, child = _chain(4, 6), _chain(4, 6, extra=1)
    heir = inherit(parent, live_state(parent), child, seed=0)
    kept = {child.nodes[i].op for i, node in enumerate(heir.nodes) if node < 0}
    assert kept == {"sigmoid", "conv2d"}
    assert 0.6 < heir.share < 1.0
    assert len(heir.fresh) == 2


def test_a_child_with_another_activation_or_norm_inherits_its_maps() -> None:
    parent, child = _chain(4, 6), _chain(4, 6, activation="gelu")
    assert inherit(parent, live_state(parent), child, seed=0).share == 1.0
    plain, normed = small_convnet(norm=False), small_convnet(norm=True)
    assert inherit(plain, live_state(plain), normed, seed=0).share > 0.9


def test_norms_of_other_kinds_inherit_scales_and_leave_maps_as_they_are() -> None:
    def network(norm: str, **attrs: object) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("conv2d", g("input", shape=(1, 5, 5)), out_channels=8, kernel_size=3)
        x = g("conv2d", g("relu", g(norm, x, **attrs)), out_channels=8, kernel_size=1)
        return g.finish(g("linear", g("flatten", x), out_features=3))

    parent, child = network("batch_norm"), network("group_norm", groups=4)
    state = live_state(parent)
    for first, second in ((parent, child), (child, parent)):
        start = state if first is parent else live_state(child)
        heir = inherit(first, start, second, seed=0)
        assert heir.share == 1.0
        assert torch.equal(heir.state["n1.weight"], start["n1.weight"])
        assert torch.equal(heir.state["n2.weight"], start["n2.weight"])


def test_a_new_branch_starts_fresh_and_unread() -> None:
    def network(*branches: int) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("relu", g("linear", g("input", shape=(4,)), out_features=5))
        parts = [g("tanh", g("linear", x, out_features=size)) for size in branches]
        return g.finish(g("linear", g("concat", *parts) if len(parts) > 1 else parts[0], out_features=2))

    parent, child = network(6), network(6, 3)
    state = live_state(parent)
    heir = inherit(parent, state, child, seed=0)
    assert difference(outputs(parent, state), outputs(child, heir.state)) < EXACT
    assert any(tensor.abs().max() > 0 for name, tensor in heir.state.items() if name in heir.fresh)


@pytest.mark.parametrize("space", ["mlp", "convnet", "nasbench201"])
def test_children_of_mutations_inherit_most_of_their_parameters(space: str) -> None:
    built = load_space(space, input_shape=(3, 8, 8), num_classes=5)
    rng, shares = generator(3, "inherit", space), []
    for number in range(5):
        parent = sample(built, rng)
        child = mutate(built, parent.architecture, rng)
        state = live_state(parent.graph, seed=number, dtype=torch.float32)
        heir = inherit(parent.graph, state, child.graph, seed=number)
        check_state(child.graph, heir.state)
        shares.append(heir.share)
    assert sum(shares) / len(shares) > 0.6


def test_an_edited_network_is_matched_with_its_original() -> None:
    graph = small_convnet()
    edited = random_edits(graph, live_state(graph), 2, seed=1, kinds=["deepen", "replicate_add"])
    pairs = match_nodes(edited.graph, graph)
    own = [i for i, node in enumerate(edited.nodes) if node >= 0]
    right = sum(pairs.get(i) == edited.nodes[i] for i in own)
    assert right >= 0.8 * len(own)


def test_graphs_of_a_thousand_nodes_are_matched() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4,))
    for layer in range(500):
        x = g("relu" if layer % 3 else "tanh", g("linear", x, out_features=4))
    graph = g.finish(x)
    assert match_nodes(graph, graph) == {i: i for i in range(len(graph))}


def test_a_parent_of_another_architecture_and_unknown_constants_are_told() -> None:
    parent, child = _chain(4, 6), _chain(4, 7)
    with pytest.raises(StateError, match="parent"):
        inherit(parent, {"n1.weight": torch.zeros(1)}, child, seed=0)
    g = GraphBuilder()
    x = g("linear", g("input", shape=(2, 6, 6)), out_features=6)
    graph = g.finish(g("linear", g("flatten", g("add", x, g("constant", shape=(2, 6, 6)))), out_features=3))
    with pytest.raises(EditError, match="no counterpart"):
        inherit(parent, live_state(parent), graph, seed=0)
