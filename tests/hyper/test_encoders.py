"""Both encoders against the formulas of their papers, written out node by node."""

from dataclasses import replace

import networkx
import pytest
import torch
from torch import Tensor

from nasgraph.encode import EncodedGraph, batch_graphs, encode
from nasgraph.encode.distances import distance_band
from nasgraph.hyper.encoders import MAX_DEGREE, GatedEncoder, TransformerEncoder, _AttentionLayer
from nasgraph.ir import ComputationalGraph, GraphBuilder
from tests.hyper.toy import in_double
from tests.modules.samples import SPACES, permuted, sampled_graphs, wide_graph

GRAPHS = [wide_graph(), *(sampled_graphs(space, 1, seed=2)[0] for space in SPACES)]


def run(encoder: torch.nn.Module, graph: ComputationalGraph) -> Tensor:
    with torch.no_grad():
        states: Tensor = encoder(in_double(batch_graphs([graph])))
    return states[0]


@pytest.mark.parametrize("virtual_edges", [True, False], ids=["GHN-2", "GHN-1"])
@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_the_gated_encoder_visits_the_nodes_one_after_the_other_both_ways(
    index: int, virtual_edges: bool
) -> None:
    """Equations 3 and 4 of "Parameter Prediction for Unseen Deep Architectures" (Knyazev et al. 2021)."""
    graph = GRAPHS[index]
    encoder = GatedEncoder(8, num_rounds=2, virtual_edges=virtual_edges).double()
    distance = dict(networkx.all_pairs_shortest_path_length(networkx.DiGraph(graph.to_networkx())))
    with torch.no_grad():
        states = list(encoder.embed(in_double(batch_graphs([graph])))[0])
        nodes = range(len(graph))
        for _ in range(2):
            for way, order in enumerate((nodes, nodes[::-1])):
                for v in order:
                    message = torch.zeros(8, dtype=torch.double)
                    for u in nodes:
                        steps = (distance[u] if way == 0 else distance[v]).get(v if way == 0 else u, 0)
                        if steps == 1:
                            message += encoder.direct[way](states[u])
                        elif steps > 1 and virtual_edges:
                            message += encoder.virtual[way](states[u]) / min(steps, 50)
                    states[v] = encoder.update[way](message[None], states[v][None])[0]
        expected = encoder.norm(torch.stack(states))
    torch.testing.assert_close(run(encoder, graph), expected, rtol=1e-10, atol=1e-10)


def naive_transformer(
    encoder: TransformerEncoder, graph: ComputationalGraph, hidden: Tensor | None = None
) -> Tensor:
    """The formulas of `TransformerEncoder`; `hidden` is True where a row does not see a column."""
    distance = torch.from_numpy(encode(graph).distance_NN).long()
    digraph = graph.to_networkx()  # with parallel edges, which count
    with torch.no_grad():
        states = encoder.embed(in_double(batch_graphs([graph])))[0]
        for node in range(len(graph)):
            states[node] += encoder.in_degree.weight[min(digraph.in_degree(node), MAX_DEGREE)]
            states[node] += encoder.out_degree.weight[min(digraph.out_degree(node), MAX_DEGREE)]
        for layer in encoder.layers:
            assert isinstance(layer, _AttentionLayer)
            query, key, value = layer.qkv(layer.norm1(states)).split(8, dim=-1)
            heads = []
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                scores = query[:, part] @ key[:, part].T / 4**0.5 + encoder.bias.weight[distance + 50, head]
                if hidden is not None:
                    scores = scores.masked_fill(hidden, float("-inf"))
                heads.append(scores.softmax(dim=-1) @ value[:, part])
            states = states + layer.out(torch.cat(heads, dim=-1))
            states = states + layer.mlp(layer.norm2(states))
        result: Tensor = encoder.norm(states)
    return result


def make_transformer() -> TransformerEncoder:
    encoder = TransformerEncoder(8, num_layers=2, num_heads=2).double()
    torch.nn.init.normal_(encoder.bias.weight)
    return encoder


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_the_transformer_shifts_its_scores_by_the_distance(index: int) -> None:
    """Section 3 of "Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?" (2023)."""
    encoder = make_transformer()
    expected = naive_transformer(encoder, GRAPHS[index])
    torch.testing.assert_close(run(encoder, GRAPHS[index]), expected, rtol=1e-10, atol=1e-10)


def test_attending_a_few_rows_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, batch = make_transformer(), in_double(batch_graphs(GRAPHS))
    whole = encoder(batch).detach()
    monkeypatch.setattr("nasgraph.hyper.encoders.MAX_BIAS_BYTES", 30_000)
    with torch.no_grad():
        torch.testing.assert_close(encoder(batch), whole, rtol=1e-10, atol=1e-10)


def with_band(graph: ComputationalGraph, window: int) -> EncodedGraph:
    encoded = encode(graph)
    return replace(encoded, distance_NN=None, band=distance_band(graph, encoded.level_N, window=window))


@pytest.mark.parametrize("window", [3, 8, 1000])
@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_in_a_large_graph_a_node_sees_its_own_window_and_the_two_beside_it(index: int, window: int) -> None:
    graph, encoder = GRAPHS[index], make_transformer()
    large = with_band(graph, window)
    assert large.band is not None
    place = torch.empty(len(graph), dtype=torch.long)
    place[torch.from_numpy(large.band.order_N)] = torch.arange(len(graph))
    apart = (place[:, None] // window - place[None, :] // window).abs()
    with torch.no_grad():
        states = encoder(in_double(batch_graphs([large])))[0]
    torch.testing.assert_close(states, naive_transformer(encoder, graph, apart > 1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_windows_do_not_depend_on_the_order_of_the_nodes(index: int) -> None:
    graph, encoder = GRAPHS[index], make_transformer()
    other, order = permuted(graph, seed=index)
    with torch.no_grad():
        ours, theirs = (encoder(in_double(batch_graphs([with_band(g, 3)])))[0] for g in (graph, other))
    torch.testing.assert_close(theirs, ours[order], rtol=1e-10, atol=1e-10)


def test_the_gated_encoder_refuses_large_graphs_in_words() -> None:
    with pytest.raises(ValueError, match="'gated' encoder reads graphs of at most 4,096 nodes"):
        GatedEncoder(8, num_rounds=1)(batch_graphs([with_band(GRAPHS[0], 4)]))


def test_degrees_beyond_the_table_count_as_its_last_row() -> None:
    g = GraphBuilder()
    x = g("input", shape=(3,))
    graph = g.finish(g("add", *[x] * (MAX_DEGREE + 20)))
    assert torch.isfinite(run(TransformerEncoder(8, num_layers=1, num_heads=2).double(), graph)).all()


def test_heads_must_divide_the_state() -> None:
    with pytest.raises(ValueError, match=r"'num_heads' to divide 'dim' \(got 3 and 8\)"):
        TransformerEncoder(8, num_layers=1, num_heads=3)
