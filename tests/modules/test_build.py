"""Modules built from graphs: names, first weights, devices, state."""

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import (
    Program,
    RunContext,
    buffers_by_node,
    build,
    initial_buffers,
    initial_parameters,
)
from tests.modules.samples import SPACES, random_inputs, sampled_graphs, single_op_graph, wide_graph


def network() -> ComputationalGraph:
    """A small network with batch norms, in which node order, parameters and buffers are known by heart."""
    g = GraphBuilder()
    x = g("batch_norm", g("conv2d", g("input", shape=(1, 6, 6)), out_channels=4, kernel_size=3, bias=True))
    x = g("relu", x)
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))


def test_the_state_has_the_names_of_the_graph_and_the_statistics_of_its_norms() -> None:
    module = build(network())
    assert list(dict(module.named_parameters())) == list(network().parameters)
    assert set(module.state_dict()) == {
        "n1.weight", "n1.bias", "n2.weight", "n2.bias", "n2.running_mean", "n2.running_var", "n5.weight", "n5.bias",
    }  # fmt: skip
    assert module.training


@pytest.mark.parametrize("space", SPACES)
def test_the_state_of_one_module_makes_another_compute_the_same(space: str) -> None:
    for graph in sampled_graphs(space, 3):
        trained, fresh = build(graph, seed=0), build(graph, seed=1)
        inputs = random_inputs(graph, batch_size=4)
        trained(*inputs)  # changes running statistics
        fresh.load_state_dict(trained.state_dict())
        assert torch.equal(fresh.eval()(*inputs), trained.eval()(*inputs))


def test_on_meta_nothing_is_allocated_and_shapes_are_known() -> None:
    g = GraphBuilder()
    hidden = g("linear", g("input", shape=(2**20,)), out_features=2**12)  # 16 GiB
    module = build(g.finish(g("linear", hidden, out_features=10)), device="meta")
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    assert module(torch.empty(7, 2**20, device="meta")).shape == (7, 10)


def test_buffers_are_on_meta_too() -> None:
    assert all(tensor.is_meta for tensor in build(network(), device="meta").state_dict().values())


def test_one_seed_gives_one_set_of_weights_and_another_seed_others() -> None:
    first, again, other = (build(wide_graph(), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["n1.weight"], other["n1.weight"])


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build(wide_graph(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("op", "shape", "attrs", "layer"),
    [
        ("conv2d", (32, 8, 8), {"out_channels": 64, "kernel_size": 3, "groups": 2, "bias": True},
         lambda: nn.Conv2d(32, 64, 3, groups=2)),
        ("linear", (100,), {"out_features": 400}, lambda: nn.Linear(100, 400)),
        ("embedding", (3,), {"num_embeddings": 500, "dim": 20}, lambda: nn.Embedding(500, 20)),
    ],
)  # fmt: skip
def test_first_weights_are_distributed_as_those_of_torch(
    op: str, shape: tuple[int, ...], attrs: dict[str, object], layer: type[nn.Module]
) -> None:
    own = initial_parameters(single_op_graph(op, (shape,), attrs), seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = dict(layer().named_parameters())
    assert set(own) == {f"n1.{name}" for name in expected}
    for name, tensor in expected.items():
        ours, theirs = own[f"n1.{name}"].flatten(), tensor.detach().flatten()
        assert ks_2samp(ours.numpy(), theirs.numpy()).pvalue > 0.01
        if op != "embedding":  # normal, without bounds
            assert float(ours.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.05)


def test_norms_start_at_one_and_zero_and_free_parameters_near_zero() -> None:
    graph = wide_graph()
    parameters = initial_parameters(graph, seed=0)
    for name, spec in graph.parameters.items():
        if spec.role in ("scale", "shift"):
            assert torch.equal(parameters[name], torch.full(spec.shape, float(spec.role == "scale")))
        if spec.role == "position" and len(spec.shape) == 2 and spec.shape[0] == 16:
            assert float(parameters[name].std()) == pytest.approx(0.02, rel=0.05)


def test_running_statistics_start_at_zero_and_one() -> None:
    buffers = initial_buffers(network())
    assert list(buffers) == ["n2.running_mean", "n2.running_var"]
    assert torch.equal(buffers["n2.running_mean"], torch.zeros(4))
    assert torch.equal(buffers["n2.running_var"], torch.ones(4))
    mean, variance = buffers_by_node(buffers)[2]
    assert mean is buffers["n2.running_mean"]
    assert variance is buffers["n2.running_var"]


@pytest.mark.parametrize("space", SPACES)
def test_a_module_computes_what_its_program_computes(space: str) -> None:
    for graph in sampled_graphs(space, 3):
        module = build(graph, seed=4).eval()
        inputs = random_inputs(graph, batch_size=4)
        buffers = buffers_by_node(initial_buffers(graph))
        (result,) = Program(graph)(
            initial_parameters(graph, seed=4), inputs, RunContext(batch_size=4, buffers=buffers)
        )
        with torch.no_grad():
            assert torch.equal(module(*inputs), result)


def test_a_graph_with_two_outputs_gives_a_tuple() -> None:
    first, second = build(wide_graph())(*random_inputs(wide_graph(), batch_size=2))
    assert (first.shape, second.shape) == ((2, 10), (2, 3))


def test_a_module_names_its_graph() -> None:
    assert f"fingerprint={network().fingerprint}, nodes={len(network())}" in repr(build(network()))


@pytest.mark.gpu
@pytest.mark.parametrize("space", SPACES)
def test_a_network_computes_the_same_on_the_gpu(space: str) -> None:
    before = torch.cuda.get_rng_state()
    for graph in sampled_graphs(space, 3):
        inputs = random_inputs(graph, batch_size=4, dtype=torch.double)
        on_cpu = build(graph, seed=2).double()
        on_gpu = build(graph, seed=2, device="cuda").double()
        for _ in range(2):  # training, then inference with the statistics that training left
            result = on_gpu(*[value.cuda() for value in inputs])
            torch.testing.assert_close(result.cpu(), on_cpu(*inputs), rtol=1e-9, atol=1e-9)
            on_cpu.eval()
            on_gpu.eval()
    assert torch.equal(torch.cuda.get_rng_state(), before)
