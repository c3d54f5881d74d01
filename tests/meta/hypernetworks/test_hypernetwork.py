"""The hypernetwork base: exact shapes, the size of what it makes, gradients, files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError, UnsupportedOpError
from nasgraph.ir import GraphBuilder
from nasgraph.meta.hypernetworks import (
    GENERATORS,
    Hypernetwork,
    HypernetworkConfig,
    Target,
    encode_condition,
    load_hypernetwork,
    save_hypernetwork,
)
from nasgraph.modules import initial_parameters, run_network
from tests.meta.hypernetworks.graphs import convolutions, perceptron
from tests.modules.samples import random_inputs, sampled_graphs

SMALL = HypernetworkConfig(condition_dim=2, hidden_dim=8, chunk_size=7, chunk_dim=3, rank=2)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("space", ["convnet", "mlp", "nasbench201", "vit"])
def test_every_parameter_of_any_graph_is_made_in_its_exact_shape(generator: str, space: str) -> None:
    for graph in sampled_graphs(space, 2):
        size = Target(graph).size
        if size > 200_000:
            continue
        shape = replace(SMALL, generator=generator, chunk_size=1 + size // 9)
        hypernetwork = Hypernetwork(graph, shape)
        with torch.no_grad():
            one, two = hypernetwork(torch.rand(2)), hypernetwork(torch.rand(3, 2))
        wanted = {name: spec.shape for name, spec in graph.parameters.items()}
        assert {name: tuple(tensor.shape) for name, tensor in one.items()} == wanted
        assert {name: tuple(tensor.shape) for name, tensor in two.items()} == {
            name: (3, *shape) for name, shape in wanted.items()
        }
        outputs = run_network(graph, one, random_inputs(graph, batch_size=4), use_batch=True)
        assert all(torch.isfinite(output).all() for output in outputs)


@pytest.mark.parametrize("generator", GENERATORS)
def test_conditions_of_a_batch_do_not_influence_each_other(generator: str) -> None:
    hypernetwork = Hypernetwork(perceptron(), replace(SMALL, generator=generator)).double()
    conditions = torch.rand(4, 2, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    together = hypernetwork.flat(conditions)
    for row, condition in enumerate(conditions):
        torch.testing.assert_close(hypernetwork.flat(condition), together[row])


def spread(generator: str, *, mip: bool) -> Tensor:
    """Variance of what is added to the base over all parameters, for nine conditions, mean over fresh hypernetworks."""
    shape = HypernetworkConfig(
        condition_dim=1, generator=generator, hidden_dim=64, rank=16, mip=mip, gain=1.0
    )
    conditions = torch.linspace(0.1, 0.9, 9).unsqueeze(1)
    total = torch.zeros(9)
    graph = perceptron(20, 20)
    seeds = 200 if generator == "low_rank" else 30
    for seed in range(seeds):
        hypernetwork = Hypernetwork(graph, shape, seed=seed)
        with torch.no_grad():
            added = (hypernetwork.flat(conditions) - hypernetwork.base) / hypernetwork.scale
        total += added.var(1) / seeds
    return total


@pytest.mark.parametrize("generator", GENERATORS)
def test_with_mip_the_variance_of_the_weights_does_not_depend_on_the_condition(generator: str) -> None:
    variance = spread(generator, mip=True)
    assert float((variance / variance.mean() - 1).abs().max()) < 0.1


@pytest.mark.parametrize("generator", ["tensor", "low_rank"])
def test_without_mip_the_variance_of_the_weights_grows_with_the_square_of_the_condition(
    generator: str,
) -> None:
    variance = spread(generator, mip=False)
    expected = torch.linspace(0.1, 0.9, 9).square()
    torch.testing.assert_close(variance / variance[-1], expected / expected[-1], rtol=1e-4, atol=0)


def test_an_encoded_condition_has_a_mean_square_of_one() -> None:
    encoded = encode_condition(torch.rand(50, 7, dtype=torch.double))
    torch.testing.assert_close(encoded.square().mean(1), torch.ones(50, dtype=torch.double))


def test_without_gain_mip_starts_at_ordinary_parameters() -> None:
    graph = convolutions()
    hypernetwork = Hypernetwork(graph, replace(SMALL, gain=0.0), seed=3)
    made, ordinary = hypernetwork(torch.rand(2)), initial_parameters(graph, seed=3)
    for name, tensor in ordinary.items():
        assert torch.equal(made[name], tensor)


def test_the_scale_is_the_standard_deviation_of_ordinary_parameters() -> None:
    graph = perceptron(64, 64)
    target = Target(graph)
    scale = target.split(target.scale())
    drawn = torch.stack([target.initial(seed=seed) for seed in range(20)])
    for name, tensor in target.split(drawn).items():
        torch.testing.assert_close(float(tensor.std()), float(scale[name].mean()), rtol=0.1, atol=0)


@pytest.mark.parametrize("generator", GENERATORS)
def test_gradients_are_those_of_finite_differences(generator: str) -> None:
    graph = perceptron(3, 3, 2)
    hypernetwork = Hypernetwork(graph, replace(SMALL, generator=generator, gain=1.0)).double()
    condition = torch.tensor([0.3, 0.6], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(hypernetwork.flat, (condition,))
    hypernetwork.flat(condition).square().sum().backward()  # type: ignore[no-untyped-call]  # torch's
    assert all(p.grad is not None and bool(p.grad.any()) for p in hypernetwork.parameters())


def test_split_is_the_inverse_of_join() -> None:
    target = Target(convolutions())
    vector = torch.randn(target.size)
    assert torch.equal(target.join(target.split(vector)), vector)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_saved_hypernetwork_is_the_same_when_it_is_read(generator: str, tmp_path: Path) -> None:
    hypernetwork = Hypernetwork(convolutions(), replace(SMALL, generator=generator), seed=5)
    save_hypernetwork(hypernetwork, tmp_path, recipe={"steps": 0})
    read = load_hypernetwork(tmp_path)
    condition = torch.rand(3, 2)
    assert read.config == hypernetwork.config
    assert read.graph == hypernetwork.graph
    assert torch.equal(read.flat(condition), hypernetwork.flat(condition))


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No hypernetwork in"):
        load_hypernetwork(tmp_path)
    save_hypernetwork(Hypernetwork(perceptron(), SMALL), tmp_path, recipe={})
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"hidden_dim": 8', '"hidden_dim": 9'))
    with pytest.raises(CheckpointError, match="shape"):
        load_hypernetwork(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"relu"', '"no_such"'))
    with pytest.raises(CheckpointError, match="Expected a graph in"):
        load_hypernetwork(tmp_path)
    (tmp_path / "config.json").write_text(text)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="checksum"):
        load_hypernetwork(tmp_path)


def test_global_random_numbers_are_not_drawn() -> None:
    before = torch.get_rng_state()
    for generator in GENERATORS:
        Hypernetwork(perceptron(), replace(SMALL, generator=generator))
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_a_target_is_refused() -> None:
    g = GraphBuilder()
    empty = g.finish(g("relu", g("input", shape=(3,))))
    with pytest.raises(NasGraphError, match="nothing to generate"):
        Hypernetwork(empty, SMALL)
    g = GraphBuilder()
    x = g("linear", g("input", shape=(3,)), out_features=3)
    opaque = g.finish(g("opaque", x, name="fft", shape=(3,)))
    with pytest.raises(UnsupportedOpError, match="'fft' \\(node 2\\)"):
        Hypernetwork(opaque, SMALL)


def test_wrong_conditions_and_settings_are_named() -> None:
    hypernetwork = Hypernetwork(perceptron(), SMALL)
    with pytest.raises(NasGraphError, match="conditions of 2 numbers"):
        hypernetwork(torch.rand(3))
    with pytest.raises(ConfigError, match="'generator'"):
        replace(SMALL, generator="tiled")
    with pytest.raises(ConfigError, match="'rank'"):
        replace(SMALL, rank=0)
    with pytest.raises(NasGraphError, match=r"Expected 'n1.weight' of shape \(5, 6\) \(got nothing\)"):
        hypernetwork.target.join({})
