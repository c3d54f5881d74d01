"""Batches of graphs, dense and of PyTorch Geometric."""

from dataclasses import fields

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import is_undirected

from nasgraph.encode import GraphBatch, batch_graphs, encode, from_pyg, signed_distances, to_pyg
from nasgraph.ir import GraphBuilder
from tests.modules.samples import SPACES, sampled_graphs, wide_graph

GRAPHS = [wide_graph(), *(graph for space in SPACES for graph in sampled_graphs(space, 2))]
TENSORS = [
    field.name for field in fields(GraphBatch) if field.name != "slots" and not field.name.startswith("band")
]


def tensor(batch: GraphBatch, name: str) -> Tensor:
    value: Tensor = getattr(batch, name)
    return value


def test_each_graph_fills_its_row_and_padding_comes_last() -> None:
    batch = batch_graphs(GRAPHS)
    N = max(map(len, GRAPHS))
    assert len(batch) == len(GRAPHS)
    for b, graph in enumerate(GRAPHS):
        encoded, n = encode(graph), len(graph)
        assert np.array_equal(batch.op_BN[b, :n], encoded.op_N)
        assert np.array_equal(batch.features_BNF[b, :n], encoded.features_NF)
        assert np.array_equal(batch.level_BN[b, :n], encoded.level_N)
        assert np.array_equal(tensor(batch, "distance_BNN")[b, :n, :n], signed_distances(graph))
        assert batch.mask_BN[b].tolist() == [True] * n + [False] * (N - n)
        own = batch.edge_index[:, batch.edge_index[0] // N == b] - b * N
        assert np.array_equal(own, encoded.edges_2E)
        assert batch.slots[b] == encoded.slots
        for padding in (batch.op_BN[b, n:], batch.features_BNF[b, n:], tensor(batch, "distance_BNN")[b, n:],
                        tensor(batch, "distance_BNN")[b, :, n:]):  # fmt: skip
            assert not padding.any()
        assert (batch.level_BN[b, n:] == -1).all()


def test_graphs_that_are_encoded_already_give_the_same_batch() -> None:
    plain, encoded = batch_graphs(GRAPHS), batch_graphs([encode(graph) for graph in GRAPHS])
    assert all(torch.equal(tensor(plain, name), tensor(encoded, name)) for name in TENSORS)


def test_a_batch_needs_a_graph() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        batch_graphs([])


def test_a_graph_with_a_band_is_alone_in_its_batch() -> None:
    large = encode(GRAPHS[1], max_dense_nodes=1)
    assert large.band is not None
    batch = batch_graphs([large])
    assert batch.distance_BNN is None
    assert batch.band_order_N is not None
    assert batch.band_distance_KWV is not None
    assert np.array_equal(batch.band_order_N, large.band.order_N)
    assert np.array_equal(batch.band_distance_KWV, large.band.distance_KWV)
    moved = batch.to("meta")
    assert moved.band_order_N is not None
    assert moved.band_order_N.is_meta
    with pytest.raises(ValueError, match=r"has to be alone in its batch \(got 2 graphs\)"):
        batch_graphs([large, GRAPHS[0]])


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    moved = batch_graphs(GRAPHS[:2]).to("meta")
    assert all(tensor(moved, name).is_meta for name in TENSORS)
    assert moved.slots == batch_graphs(GRAPHS[:2]).slots


@pytest.mark.parametrize("count", [1, len(GRAPHS)])
def test_a_round_trip_through_pytorch_geometric_gives_the_same_batch(count: int) -> None:
    graphs = GRAPHS[:count]
    joined = Batch.from_data_list([to_pyg(graph) for graph in graphs])
    batch = from_pyg(joined, [encode(graph).slots for graph in graphs])
    expected = batch_graphs(graphs)
    for name in TENSORS:
        assert tensor(batch, name).dtype == tensor(expected, name).dtype
        assert torch.equal(tensor(batch, name), tensor(expected, name))
    assert batch.slots == expected.slots


def test_graphs_without_edges_survive_the_round_trip() -> None:
    g = GraphBuilder()
    graph = g.finish(g("input", shape=(3,)))
    batch = from_pyg(Batch.from_data_list([to_pyg(graph), to_pyg(GRAPHS[0])]), [(), encode(GRAPHS[0]).slots])
    expected = batch_graphs([graph, GRAPHS[0]])
    assert all(torch.equal(tensor(batch, name), tensor(expected, name)) for name in TENSORS)


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_data_has_every_edge_both_ways_and_every_path_as_a_virtual_edge(index: int) -> None:
    graph = GRAPHS[index]
    data = to_pyg(graph)
    data.validate()
    assert data.num_nodes == len(graph)
    assert is_undirected(data.edge_index)
    forwards = data.edge_index[:, data.edge_type == 0].T.tolist()
    backwards = data.edge_index[:, data.edge_type == 1].flip(0).T.tolist()
    expected = [[source, node] for node in range(len(graph)) for source in graph.nodes[node].inputs]
    assert forwards == backwards == expected

    closure = networkx.transitive_closure_dag(networkx.DiGraph(graph.to_networkx()))
    virtual = {tuple(edge) for edge in data.virtual_edge_index.T.tolist()}
    assert virtual == {*closure.edges, *((target, source) for source, target in closure.edges)}
    assert torch.equal(
        data.virtual_distance,
        torch.from_numpy(signed_distances(graph)).long()[tuple(data.virtual_edge_index)],
    )
