"""Parameters to graph and back: bit by bit, for every operator, search space and traced model."""

from collections.abc import Sequence

import pytest
import torch

from benchmarks.meta.models import traced_models
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder
from nasgraph.meta.graph import (
    NODE_COLUMNS,
    NUM_EDGE_KINDS,
    NUM_NODE_KINDS,
    NUM_PARAMETER_EDGE_KINDS,
    NUM_SLOTS,
    ParameterGraph,
    ParameterGraphError,
    collate,
    graph_layout,
    parameter_graph,
    stack_parameter_graphs,
)
from nasgraph.meta.graph.rules import RULES
from nasgraph.modules import StateError
from tests.merge.networks import SPACES, sampled, small_convnet
from tests.meta.graph.networks import among_parameters, attention, full_state, mlp, same_bits
from tests.modules.operator_cases import ALL_CASES, Shape

MODELS = traced_models()
SMALL = [name for name in MODELS if name != "resnet-18"]


def assert_comes_back(graph: ComputationalGraph, dtype: torch.dtype = torch.float32) -> ParameterGraph:
    state = full_state(graph, dtype=dtype)
    made = parameter_graph(graph, state)
    (back,) = made.to_states()
    assert same_bits(state, back)
    return made


@pytest.mark.parametrize(("op", "shapes", "attrs"), ALL_CASES)
def test_every_operator_comes_back_bit_by_bit(
    op: str, shapes: Sequence[Shape], attrs: dict[str, object]
) -> None:
    assert_comes_back(among_parameters(op, shapes, attrs))


def test_every_operator_has_a_rule_or_is_known_to_have_none() -> None:
    assert set(OPS) - set(RULES) == {"gather", "opaque"}
    assert set(RULES) <= set(OPS)


@pytest.mark.parametrize("space", SPACES)
def test_every_search_space_comes_back_bit_by_bit(space: str) -> None:
    for graph in sampled(space, 2):
        assert_comes_back(graph)


@pytest.mark.parametrize("name", SMALL)
def test_traced_models_come_back_bit_by_bit(name: str) -> None:
    model = MODELS[name]
    (back,) = parameter_graph(model.graph, model.state).to_states()
    assert same_bits(model.state, back)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_and_mixtures_come_back_bit_by_bit(dtype: torch.dtype) -> None:
    assert_comes_back(small_convnet(), dtype)
    state = full_state(small_convnet(), dtype=torch.float32)
    state["n1.weight"] = state["n1.weight"].to(dtype)
    (back,) = parameter_graph(small_convnet(), state).to_states()
    assert same_bits(state, back)


def test_negative_zeros_come_back() -> None:
    graph = mlp(3, 4, 2)
    state = {name: -torch.zeros_like(tensor) for name, tensor in full_state(graph).items()}
    (back,) = parameter_graph(graph, state).to_states()
    assert same_bits(state, back)


def test_every_parameter_stands_at_exactly_one_place() -> None:
    for graph in (small_convnet(), attention(), *sampled("convnet", 1)):
        made = assert_comes_back(graph)
        count = sum(tensor.numel() for tensor in full_state(graph).values())
        assert int(made.node_mask.sum() + made.edge_mask.sum()) == count


def test_a_multilayer_perceptron_is_written_as_units_and_weights() -> None:
    made = assert_comes_back(mlp(5, 4, 3))
    assert (made.num_nodes, made.num_edges) == (5 + 4 + 3, 5 * 4 + 4 * 3)
    assert made.edge_mask.sum(dim=1).eq(1).all()
    assert sorted(made.node_position.tolist()) == [-1] * 4 + sorted([*range(5), *range(3)])
    assert sorted(set(made.node_depth.tolist())) == [0, 1, 2]
    assert sorted(set(made.edge_fan_in.tolist())) == [4, 5]


def test_a_kernel_is_one_edge_and_a_large_one_several_in_parallel() -> None:
    for size, parts in ((1, 1), (2, 1), (3, 1), (5, 3), (7, 6)):
        g = GraphBuilder()
        x = g("conv2d", g("input", shape=(2, 8, 8)), out_channels=4, kernel_size=size, bias=False)
        graph = g.finish(x)
        made = assert_comes_back(graph)
        assert made.num_edges == 2 * 4 * parts
        assert sorted(set(made.edge_place.tolist())) == list(range(parts))
    middle = graph_layout(g.finish(x)).edge_gather
    assert middle.shape == (48, NUM_SLOTS)


def test_single_weights_and_kernels_of_one_stand_in_the_middle() -> None:
    made = assert_comes_back(mlp(3, 4, 2))
    assert made.edge_mask[:, NUM_SLOTS // 2].all()


def test_all_kinds_are_within_the_tables_for_embeddings() -> None:
    for name in SMALL:
        layout = graph_layout(MODELS[name].graph)
        assert int(layout.node_kind.min()) >= 0
        assert int(layout.node_kind.max()) < NUM_NODE_KINDS
        assert int(layout.edge_kind.max()) < NUM_EDGE_KINDS
        has_parameter = layout.edge_mask.any(dim=1)
        assert torch.equal(has_parameter, layout.edge_kind < NUM_PARAMETER_EDGE_KINDS)


def test_every_graph_is_connected_unless_tokens_and_channels_are_mixed_in_turn() -> None:
    import networkx

    for name in SMALL:
        layout = graph_layout(MODELS[name].graph)
        nodes = networkx.Graph()
        nodes.add_nodes_from(range(layout.num_nodes))
        nodes.add_edges_from(layout.edge_index.T.tolist())
        parts = networkx.number_connected_components(nodes)
        assert parts == (2 if name == "mixer" else 1), name


# ---- many networks at once


def _stacked(graph: ComputationalGraph, count: int) -> dict[str, torch.Tensor]:
    states = [full_state(graph, seed=seed) for seed in range(count)]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


@pytest.mark.parametrize("name", ["resnet", "lstm", "vit", "convnext"])
def test_a_stack_is_the_union_of_its_networks(name: str) -> None:
    graph = MODELS[name].graph
    states = [full_state(graph, seed=seed) for seed in range(3)]
    names = [name for name in states[0] if not name.endswith(".value")]
    stacked = {name: torch.stack([state[name] for state in states]) for name in names}
    one = stack_parameter_graphs(graph, stacked)
    other = collate([parameter_graph(graph, state) for state in states])
    for field in ParameterGraph.__slots__:
        if field not in ("num_graphs", "members"):
            assert torch.equal(getattr(one, field), getattr(other, field)), field
    assert one.num_graphs == other.num_graphs == 3
    (back,) = one.to_stacks()
    assert same_bits(stacked, back)


def test_graphs_of_different_architectures_stand_side_by_side_and_come_back() -> None:
    graphs = [mlp(3, 4, 2), small_convnet(), mlp(3, 4, 2), attention()]
    states = [full_state(graph, seed=seed) for seed, graph in enumerate(graphs)]
    union = collate([parameter_graph(graph, state) for graph, state in zip(graphs, states, strict=True)])
    assert union.num_graphs == 4
    assert (union.node_graph[union.edge_index[0]] == union.node_graph[union.edge_index[1]]).all()
    for state, back in zip(states, union.to_states(), strict=True):
        assert same_bits(state, back)


def test_gradients_flow_to_the_parameters_and_back_from_edited_values() -> None:
    graph = small_convnet()
    state = {name: tensor.requires_grad_() for name, tensor in full_state(graph).items()}
    made = parameter_graph(graph, state)
    made.node_values.square().sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    made.edge_values.square().sum().backward()  # type: ignore[no-untyped-call]
    for tensor in state.values():
        torch.testing.assert_close(tensor.grad, 2 * tensor.detach())
    values = made.edge_values.detach().clone().requires_grad_()
    (edited,) = made.to_states(edge_values=values)
    edited["n4.weight"].sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert int(values.grad.sum()) == edited["n4.weight"].numel()


def test_edited_values_come_back_as_states() -> None:
    graph = small_convnet()
    state = full_state(graph)
    made = parameter_graph(graph, state)
    (doubled,) = made.to_states(2 * made.node_values, 2 * made.edge_values)
    assert same_bits(doubled, {name: 2 * tensor for name, tensor in state.items()})


def test_the_graph_for_torch_geometric_holds_the_same_numbers() -> None:
    made = assert_comes_back(small_convnet())
    data = made.to_data()
    assert data.validate()
    assert data.num_nodes == made.num_nodes
    assert data.x.shape[1] == len(NODE_COLUMNS)
    assert torch.equal(data.edge_attr, made.edge_values)
    assert torch.equal(data.edge_index, made.edge_index)


# ---- what is refused


def test_an_opaque_operator_is_named() -> None:
    g = GraphBuilder()
    x = g("opaque", g("input", shape=(4,)), name="fft", shape=(4,))
    graph = g.finish(g("linear", x, out_features=2))
    with pytest.raises(ParameterGraphError, match=r"Node 1 is 'fft'.*Write this part"):
        graph_layout(graph)


def test_a_network_without_parameters_is_refused() -> None:
    g = GraphBuilder()
    graph = g.finish(g("relu", g("input", shape=(4,))))
    with pytest.raises(ParameterGraphError, match="no parameters"):
        parameter_graph(graph, {})


def test_bad_states_are_refused_with_the_name_of_the_tensor() -> None:
    graph = mlp(3, 4, 2)
    state = full_state(graph)
    with pytest.raises(StateError, match=r"no 'n1.bias'"):
        parameter_graph(graph, {name: t for name, t in state.items() if name != "n1.bias"})
    with pytest.raises(StateError, match=r"'n9.weight'"):
        parameter_graph(graph, state | {"n9.weight": torch.ones(2)})
    with pytest.raises(StateError, match=r"'n1.weight'.*not finite"):
        parameter_graph(graph, state | {"n1.weight": torch.full((4, 3), torch.nan)})
    with pytest.raises(StateError, match=r"'n1.weight'.*int8.*quantised"):
        parameter_graph(graph, state | {"n1.weight": torch.ones(4, 3, dtype=torch.int8)})


def test_bad_stacks_are_refused_with_the_name_of_the_tensor() -> None:
    graph = mlp(3, 4, 2)
    stacked = _stacked(graph, 2)
    bad: list[tuple[dict[str, torch.Tensor], str]] = [
        ({name: t for name, t in stacked.items() if name != "n1.bias"}, r"no 'n1.bias'"),
        (stacked | {"n9.weight": torch.ones(2, 2)}, r"'n9.weight'"),
        (stacked | {"n1.weight": torch.ones(2, 3, 4)}, r"'n1.weight' to have shape \(2, 4, 3\)"),
        (stacked | {"n1.weight": torch.ones(2, 4, 3, dtype=torch.int8)}, "int8"),
        (stacked | {"n1.bias": torch.full((2, 4), torch.inf)}, "'n1.bias'.*not finite"),
    ]
    for given, message in bad:
        with pytest.raises(ParameterGraphError, match=message):
            stack_parameter_graphs(graph, given)


def test_no_graphs_and_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ParameterGraphError, match="at least one"):
        collate([])
    made = assert_comes_back(mlp(3, 4, 2))
    with pytest.raises(ParameterGraphError, match="Expected values of shape"):
        made.to_states(edge_values=made.edge_values[:-1])
