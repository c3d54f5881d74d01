"""What a graph hypernetwork guarantees, for both encoders."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nasgraph.encode import batch_graphs
from nasgraph.errors import ConfigError
from nasgraph.hyper import GHNConfig, GraphHyperNetwork, Parameters
from nasgraph.ir import ComputationalGraph, GraphBuilder
from tests.hyper.toy import ENCODERS, Encoder, in_double, tiny_config
from tests.modules.samples import SPACES, permuted, sampled_graphs, wide_graph

VARIANTS = pytest.mark.parametrize(
    ("encoder", "mip"), [(encoder, mip) for encoder in ENCODERS for mip in (False, True)]
)
GRAPHS = [wide_graph(), *(graph for space in SPACES for graph in sampled_graphs(space, 2, seed=1))]


def double_ghn(encoder: Encoder, *, mip: bool = False) -> GraphHyperNetwork:
    """A hypernetwork in double precision whose gains differ between tensors."""
    ghn = GraphHyperNetwork(tiny_config(encoder, mip=mip), seed=3).double()
    torch.nn.init.normal_(ghn.decoder.gain.weight, generator=torch.Generator().manual_seed(0))
    return ghn


def predict(ghn: GraphHyperNetwork, graphs: list[ComputationalGraph]) -> tuple[Parameters, ...]:
    with torch.no_grad():
        result: tuple[Parameters, ...] = ghn(in_double(batch_graphs(graphs)))
    return result


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-10)


@VARIANTS
def test_every_parameter_is_predicted_once_with_its_shape_and_is_finite(encoder: Encoder, mip: bool) -> None:
    ghn = GraphHyperNetwork(tiny_config(encoder, mip=mip))
    predicted = ghn.predict(GRAPHS)
    assert len(predicted) == len(GRAPHS)
    for graph, parameters in zip(GRAPHS, predicted, strict=True):
        assert list(parameters) == list(graph.parameters)
        for name, tensor in parameters.items():
            assert tuple(tensor.shape) == graph.parameters[name].shape
            assert torch.isfinite(tensor).all()
            assert not tensor.requires_grad


def test_a_network_without_parameters_gets_none() -> None:
    g = GraphBuilder()
    graph = g.finish(g("relu", g("input", shape=(3,))))
    ghn = GraphHyperNetwork(tiny_config())
    assert ghn.predict([graph]) == ({},)
    first, second = ghn.predict([graph, GRAPHS[0]])
    assert first == {}
    assert list(second) == list(GRAPHS[0].parameters)


@VARIANTS
def test_the_order_of_the_nodes_does_not_matter(encoder: Encoder, mip: bool) -> None:
    ghn = double_ghn(encoder, mip=mip)
    for seed, graph in enumerate(GRAPHS):
        other, order = permuted(graph, seed=seed)
        (ours,), (theirs,) = predict(ghn, [graph]), predict(ghn, [other])
        renamed = {}
        for name, tensor in theirs.items():
            node, own = name[1:].split(".")
            renamed[f"n{order[int(node)]}.{own}"] = tensor
        assert_close(ours, renamed)


@VARIANTS
def test_the_company_in_the_batch_and_its_padding_do_not_matter(encoder: Encoder, mip: bool) -> None:
    ghn = double_ghn(encoder, mip=mip)
    together = predict(ghn, GRAPHS)
    backwards = predict(ghn, GRAPHS[::-1])[::-1]
    for graph, ours, theirs in zip(GRAPHS, together, backwards, strict=True):
        assert_close(ours, predict(ghn, [graph])[0])
        assert_close(ours, theirs)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_embedding_depends_on_the_graph_alone(encoder: Encoder) -> None:
    ghn = double_ghn(encoder)
    together = ghn.embed(in_double(batch_graphs(GRAPHS)))
    assert together.shape == (len(GRAPHS), ghn.config.dim)
    for row, graph in enumerate(GRAPHS):
        for other in (graph, permuted(graph, seed=row)[0]):
            alone = ghn.embed(in_double(batch_graphs([other])))
            torch.testing.assert_close(alone[0], together[row], rtol=1e-10, atol=1e-10)
    assert torch.pdist(together).min() > 1e-3  # different graphs, different vectors


@VARIANTS
def test_a_gradient_reaches_every_parameter_of_the_hypernetwork(encoder: Encoder, mip: bool) -> None:
    ghn = GraphHyperNetwork(tiny_config(encoder, mip=mip))
    rng = torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for parameters in ghn(batch_graphs(GRAPHS)):
        for tensor in parameters.values():
            # Against a random direction: the mean square of a predicted matrix is fixed.
            loss = loss + (tensor * torch.randn(tensor.shape, generator=rng)).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for name, parameter in ghn.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_seed_gives_one_network_and_leaves_the_global_generator_alone(encoder: Encoder) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        GraphHyperNetwork(tiny_config(encoder), seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, r"'dim' between 1 and 4096 \(got 0\)"),
        ({"num_layers": -1}, "'num_layers'"),
        ({"max_size": 5000}, "'max_size'"),
        ({"dim": 10, "num_heads": 3}, r"'num_heads' to divide 'dim' \(got 3 and 10\)"),
    ],
)
def test_an_impossible_configuration_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GHNConfig(**settings)


def test_heads_need_not_divide_the_state_of_a_gated_network() -> None:
    ghn = GraphHyperNetwork(GHNConfig(encoder="gated", dim=10, num_heads=3, max_size=4, max_kernel=1))
    assert ghn.config.dim == 10


@pytest.mark.gpu
@VARIANTS
def test_the_prediction_is_the_same_on_the_gpu(encoder: Encoder, mip: bool) -> None:
    before = torch.cuda.get_rng_state()
    ghn = double_ghn(encoder, mip=mip)
    expected = predict(ghn, GRAPHS)
    with torch.no_grad():
        predicted = ghn.cuda()(in_double(batch_graphs(GRAPHS)).to("cuda"))
    for ours, theirs in zip(expected, predicted, strict=True):
        for name in ours:
            torch.testing.assert_close(theirs[name].cpu(), ours[name], rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.cuda.get_rng_state(), before)
