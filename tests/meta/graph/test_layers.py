"""The layer-level form: statistics of every tensor, the same for every order of units."""

import numpy as np
import pytest
import torch

from benchmarks.meta.models import traced_models
from nasgraph.ir import OPS, GraphBuilder
from nasgraph.meta.graph import (
    STATISTICS,
    TENSORS,
    ParameterGraphError,
    layer_graph,
    tensor_statistics,
)
from nasgraph.modules import StateError
from nasgraph.symmetry import permute_units, random_orders, symmetry_table
from tests.merge.networks import small_convnet
from tests.meta.graph.networks import full_state

MODELS = traced_models()


def _named(tensor: torch.Tensor) -> dict[str, float]:
    return dict(zip(STATISTICS, tensor_statistics(tensor).tolist(), strict=True))


def test_the_statistics_are_those_of_numpy() -> None:
    matrix = torch.randn(40, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    array, found = matrix.numpy(), _named(matrix)
    assert found["mean"] == pytest.approx(array.mean(), rel=1e-5)
    assert found["std"] == pytest.approx(array.std(), rel=1e-5)
    assert found["min"] == pytest.approx(array.min())
    assert found["max"] == pytest.approx(array.max())
    assert found["q50"] == pytest.approx(np.quantile(array, 0.5, method="nearest"), abs=1e-3)
    rows = np.sqrt((array**2).mean(axis=1))
    assert found["row_norm"] == pytest.approx(rows.mean(), rel=1e-5)
    assert found["row_norm_std"] == pytest.approx(rows.std(), rel=1e-5)
    assert found["column_norm"] == pytest.approx(np.sqrt((array**2).mean(axis=0)).mean(), rel=1e-5)
    largest = np.linalg.svd(array, compute_uv=False)[0]
    assert found["spectral_norm"] * np.sqrt(40) == pytest.approx(largest, rel=0.05)


def test_the_spectral_norm_of_a_matrix_of_rank_one_is_exact() -> None:
    u, v = torch.arange(1.0, 5.0).double(), torch.arange(2.0, 9.0).double()
    found = _named(torch.outer(u, v))
    assert found["spectral_norm"] * 2 == pytest.approx(float(u.norm() * v.norm()), rel=1e-6)
    assert found["stable_rank"] == pytest.approx(1 / 4, rel=1e-6)


def test_a_tensor_of_zeros_and_one_of_a_single_number_have_finite_statistics() -> None:
    for tensor in (torch.zeros(3, 4), torch.ones(1), torch.zeros(2, 0 + 1, 3)):
        assert tensor_statistics(tensor).isfinite().all()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet-18"])
def test_the_layer_graph_does_not_change_when_units_are_permuted(name: str) -> None:
    model = MODELS[name].double()
    table = symmetry_table(model.graph)
    permuted = permute_units(table, model.state, random_orders(table, seed=4))
    first, second = layer_graph(model.graph, model.state), layer_graph(model.graph, permuted)
    torch.testing.assert_close(first.node_values, second.node_values)
    assert torch.equal(first.node_mask, second.node_mask)
    assert first.node_values.isfinite().all()


def test_nodes_are_the_operators_and_edges_what_they_read() -> None:
    graph = small_convnet()
    made = layer_graph(graph, full_state(graph))
    assert len(made.node_op) == len(graph)
    assert [sorted(OPS)[place] for place in made.node_op.tolist()] == [node.op for node in graph.nodes]
    pairs = [(source, index) for index, node in enumerate(graph.nodes) for source in node.inputs]
    assert made.edge_index.T.tolist() == [list(pair) for pair in pairs]
    has = {(int(node), TENSORS[int(place)]) for node, place in made.node_mask.nonzero()}
    assert (2, "running_var") in has
    assert (10, "weight") in has
    assert made.to_data().validate()


def test_opaque_operators_and_bad_states_are_refused() -> None:
    g = GraphBuilder()
    x = g("opaque", g("input", shape=(4,)), name="fft", shape=(4,))
    with pytest.raises(ParameterGraphError, match="fft"):
        layer_graph(g.finish(g("linear", x, out_features=2)), {})
    with pytest.raises(StateError, match=r"n1\.weight"):
        layer_graph(small_convnet(), {})
