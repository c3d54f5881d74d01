"""Prediction without gradients writes what the differentiable prediction gives, for every decoder."""

import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasgraph.encode import ParameterSlot, batch_graphs
from nasgraph.hyper import GHNConfig, GraphHyperNetwork
from nasgraph.hyper.decoder import TensorDecoder
from nasgraph.hyper.low_rank import LowRankDecoder
from nasgraph.ir import ComputationalGraph, GraphBuilder, Role
from tests.hyper.toy import in_double, tiny_config
from tests.modules.samples import SPACES, sampled_graphs, wide_graph

DIM = 6
DECODERS: dict[str, Callable[[], TensorDecoder | LowRankDecoder]] = {
    "tiled": lambda: TensorDecoder(DIM, hidden=4, max_size=5, max_kernel=3, mip=False),
    "mip": lambda: TensorDecoder(DIM, hidden=4, max_size=5, max_kernel=3, mip=True),
    "conv": lambda: TensorDecoder(DIM, hidden=4, max_size=5, max_kernel=3, mip=False, has_conv=True),
    "many channels": lambda: TensorDecoder(DIM, hidden=300, max_size=40, max_kernel=3, mip=False),
    "low rank": lambda: LowRankDecoder(DIM, hidden=4, rank=3, max_size=7, max_kernel=3, mip=False),
}
EVERY = pytest.mark.parametrize("name", DECODERS)
ROLES: tuple[Role, ...] = ("weight", "bias", "scale", "shift", "embedding", "position")
SHAPES = (
    (),
    (7,),
    (7, 3),
    (4, 11),
    (40, 40),
    (9, 2, 5),
    (7, 3, 2, 2),
    (4, 11, 5, 1),
    (5, 6, 2, 4, 3),
    (45, 50, 3, 3),
)
SLOTS = [
    ParameterSlot(f"n{i}.weight", i, shape, role, max(1, prod(shape[1:])), is_head, is_kernel)
    for i, (shape, role, is_head, is_kernel) in enumerate(
        (shape, role, is_head, is_kernel)
        for shape in SHAPES
        for role in ROLES
        for is_head in (False, True)
        for is_kernel in (False, True)
    )
]
GRAPHS = [wide_graph(), *(graph for space in SPACES for graph in sampled_graphs(space, 2, seed=1))]


def make(name: str) -> TensorDecoder | LowRankDecoder:
    decoder = DECODERS[name]().double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(generator=rng)
        decoder.gain.weight *= 0.1  # so that few gains are clamped
    return decoder


def states(count: int) -> Tensor:
    return torch.randn(count, DIM, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@EVERY
@pytest.mark.parametrize("max_bytes", [1, 20_000, 2**23])
def test_every_role_at_every_rank_has_its_shape_and_is_written_as_it_is_decoded(
    name: str, max_bytes: int
) -> None:
    decoder, state = make(name), states(len(SLOTS))
    written = [torch.full(slot.shape, torch.nan, dtype=torch.double) for slot in SLOTS]
    decoder.write(state, SLOTS, written, max_bytes=max_bytes)
    for slot, ours, theirs in zip(SLOTS, written, decoder(state, SLOTS), strict=True):
        assert tuple(theirs.shape) == slot.shape
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-12)


@EVERY
def test_vectors_lie_around_their_value_and_matrices_have_their_size(name: str) -> None:
    decoder = make(name)
    torch.nn.init.zeros_(decoder.gain.weight)
    torch.nn.init.zeros_(decoder.gain.bias)
    for slot, tensor in zip(SLOTS, decoder(states(len(SLOTS)), SLOTS), strict=True):
        if slot.role == "scale":
            assert tensor.min() >= 0
            assert tensor.max() <= 2
        elif slot.role in ("bias", "shift") or (slot.role == "position" and len(slot.shape) < 2):
            assert tensor.abs().max() <= 1
        elif max(slot.shape, default=1) <= 5:  # not tiled: then single numbers come more often than others
            wanted = 0.02 if slot.role != "weight" else ((1 if slot.is_head else 2) / slot.fan_in) ** 0.5
            assert float(tensor.detach().square().mean().sqrt()) == pytest.approx(wanted, rel=1e-3)


@EVERY
def test_a_gradient_reaches_every_parameter_of_the_decoder(name: str) -> None:
    decoder, state = make(name), states(len(SLOTS)).requires_grad_()
    rng = torch.Generator().manual_seed(0)
    loss = sum(
        (tensor * torch.randn(tensor.shape, dtype=torch.double, generator=rng)).sum()
        for tensor in decoder(state, SLOTS)
    )
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for parameter_name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


# ---- the low-rank decoder against its formula


@pytest.mark.parametrize("shape", [(4, 6), (3, 5, 3, 2), (9, 4), (4, 3, 5, 5), (2, 3, 4, 2, 2)])
def test_a_low_rank_weight_is_the_product_of_its_factors_row_by_row(shape: tuple[int, ...]) -> None:
    decoder, state = make("low rank"), states(1)
    assert isinstance(decoder, LowRankDecoder)
    slot = ParameterSlot("n1.weight", 1, shape, "weight", prod(shape[1:]), False)
    (tensor,) = decoder(state, [slot])
    outputs, inputs, *space = shape
    *_, height, width = (1, 1, *space)
    depth = space[0] if len(space) == 3 else 1
    with torch.no_grad():
        mixed = decoder.mix(state)[0]

        def factor(side: str, row: int, place: int, size: int, r: int) -> Tensor:
            kernel = min(size, 3)
            y = (3 - kernel) // 2 + place % kernel
            hidden = torch.nn.functional.gelu(
                decoder.spatial[side][y, r] @ mixed + decoder.spatial_bias[side][y, r]
            )
            product: Tensor = decoder.table[side][row % 7] @ hidden
            return product

        expected = torch.zeros(outputs, inputs, depth, height, width, dtype=torch.double)
        for o, i, z, y, x in torch.cartesian_prod(*map(torch.arange, expected.shape)).tolist():
            expected[o, i, z, y, x] = sum(
                factor("left", o, y, height, r) * factor("right", i, x, width, r) for r in range(3)
            )
        gain = decoder.gain(mixed).clamp(-2, 2).exp()
        expected *= gain * (2 / slot.fan_in) ** 0.5 / (expected.square().mean() + 1e-8).sqrt()
    torch.testing.assert_close(tensor, expected.view(shape), rtol=1e-9, atol=1e-9)
    assert torch.linalg.matrix_rank(tensor.detach().reshape(outputs, -1)) <= 3 * min(height, 3)


# ---- hypernetworks


def ghns() -> dict[str, GraphHyperNetwork]:
    configs = {
        "tiled": tiny_config(),
        "gated": tiny_config("gated"),
        "conv": replace(tiny_config(), decoder="conv"),
        "low rank": replace(tiny_config(), decoder="low_rank", rank=4, max_low_rank=64),
    }
    return {name: GraphHyperNetwork(config, seed=3).eval() for name, config in configs.items()}


@pytest.mark.parametrize("name", ["tiled", "gated", "conv", "low rank"])
def test_prediction_is_what_the_differentiable_network_gives(name: str) -> None:
    ghn = ghns()[name].double()
    expected = ghn(in_double(batch_graphs(GRAPHS)))
    exact = ghn.float().predict(GRAPHS)
    for graph, ours, theirs in zip(GRAPHS, exact, expected, strict=True):
        assert list(ours) == list(theirs) == list(graph.parameters)
        for parameter in ours:
            torch.testing.assert_close(
                ours[parameter], theirs[parameter].detach().float(), rtol=2e-4, atol=2e-5
            )


@pytest.mark.parametrize("name", ["tiled", "conv", "low rank"])
def test_less_precision_changes_little_and_results_keep_their_type(name: str) -> None:
    ghn = ghns()[name]
    exact, rough = ghn.predict(GRAPHS), ghn.predict(GRAPHS, dtype=torch.bfloat16)
    for ours, theirs in zip(rough, exact, strict=True):
        for parameter in ours:
            assert ours[parameter].dtype == torch.float32
            difference = (ours[parameter] - theirs[parameter]).norm()
            assert difference <= 0.03 * theirs[parameter].norm() + 1e-6


def test_many_graphs_of_many_sizes_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ghn = ghns()["tiled"]
    expected = ghn.predict(GRAPHS)
    monkeypatch.setattr("nasgraph.hyper.ghn.MAX_BATCH_PAIRS", 1)  # one graph at a time
    for ours, theirs in zip(ghn.predict(GRAPHS), expected, strict=True):
        assert list(ours) == list(theirs)
        for parameter in ours:
            torch.testing.assert_close(ours[parameter], theirs[parameter], rtol=1e-4, atol=1e-5)


def test_parameters_are_predicted_into_given_tensors_of_any_type_and_layout() -> None:
    ghn = ghns()["tiled"]
    (expected,) = ghn.predict(GRAPHS[:1])
    plain = {name: torch.full(tensor.shape, torch.nan) for name, tensor in expected.items()}
    (written,) = ghn.predict(GRAPHS[:1], out=[plain])
    assert all(written[name] is plain[name] for name in expected)
    assert all(torch.equal(plain[name], expected[name]) for name in expected)
    other = {
        name: torch.empty(*tensor.shape[::-1], dtype=torch.double).permute(*range(tensor.ndim)[::-1])
        for name, tensor in expected.items()
    }
    ghn.predict(GRAPHS[:1], out=[other])
    assert all(torch.equal(other[name].float(), expected[name]) for name in expected)


def test_given_tensors_that_do_not_fit_are_refused_by_name() -> None:
    ghn = ghns()["tiled"]
    (parameters,) = ghn.predict(GRAPHS[:1])
    name = next(iter(parameters))
    with pytest.raises(ValueError, match=rf"'out' lacks the parameter '{name}'"):
        ghn.predict(GRAPHS[:1], out=[{key: parameters[key] for key in parameters if key != name}])
    with pytest.raises(ValueError, match=rf"Expected '{name}' in 'out' to have shape .* \(got \(2,\)\)"):
        ghn.predict(GRAPHS[:1], out=[{**parameters, name: torch.empty(2)}])
    with pytest.raises(ValueError, match=r"as many mappings in 'out' as graphs \(got 1 and 2\)"):
        ghn.predict(GRAPHS[:2], out=[parameters])


# ---- memory


def peak_mib(function: Callable[[], object]) -> float:
    """Largest resident memory during a call, less that before it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before shall not hide what is used now
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")
    before = kib(status, "VmRSS")
    function()
    return (kib(status, "VmHWM") - before) / 1024


def kib(status: Path, key: str) -> float:
    return float(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(key)))


def can_reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return sys.platform == "linux"


needs_peak = pytest.mark.skipif(
    not can_reset_peak(), reason="the peak of resident memory cannot be reset here"
)


def chain(num_nodes: int, width: int = 8) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(4,)), out_features=width)
    for _ in range((num_nodes - 2) // 3):
        x = g("add", x, g("relu", g("linear", x, out_features=width)))
    return g.finish(x)


@needs_peak
def test_extra_memory_does_not_grow_with_the_size_of_the_parameters() -> None:
    ghn = GraphHyperNetwork(GHNConfig()).eval()
    graph = chain(40, width=1024)  # 50 MiB of parameters
    (out,) = ghn.predict([graph])
    assert sum(tensor.numel() for tensor in out.values()) * 4 > 50e6
    assert peak_mib(lambda: ghn.predict([graph], out=[out])) < 16


@needs_peak
def test_extra_memory_of_800_nodes_stays_small() -> None:
    """24 MB in a process of its own (`benchmarks.ghn.predict_speed`); the allocator of a test worker keeps some more."""
    ghn = GraphHyperNetwork(GHNConfig()).eval()
    graph = chain(800)
    (out,) = ghn.predict([graph])
    assert (
        peak_mib(lambda: ghn.predict([graph], out=[out])) < 60
    )  # a score matrix per head alone would be 20, twice per layer


@needs_peak
def test_memory_of_5000_nodes_stays_bounded() -> None:
    ghn = GraphHyperNetwork(GHNConfig()).eval()
    graph = chain(5000)
    assert len(graph) > 4096
    ghn.predict([chain(50)])
    assert peak_mib(lambda: ghn.predict([graph])) < 300  # a matrix of distances and scores would be 1.3 GB
