"""What the tests of growing networks share: states of living networks, and how much two networks differ."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.edits import Edited
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, RunContext, buffers_by_node
from nasgraph.modules.kernels.norms import BATCH_NORM_MOMENTUM
from nasgraph.modules.state import check_state
from tests.merge.networks import outputs, random_state
from tests.modules.samples import random_inputs

State = Mapping[str, Tensor]
EXACT, FLOAT = 1e-10, 1e-5


def live_state(
    graph: ComputationalGraph, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """A random state whose running statistics are measured, so that no norm kills what it reads."""
    state = random_state(graph, seed=seed, dtype=torch.float64)
    statistics = {name: tensor.clone() for name, tensor in state.items() if "running_" in name}
    if statistics:
        context = RunContext(
            batch_size=8,
            training=True,
            generator=torch.Generator().manual_seed(0),
            buffers=buffers_by_node(statistics),
            edges=torch.stack([torch.arange(8), torch.arange(8).roll(1)]) if graph.reads_edges else None,
        )
        program, inputs = Program(graph), random_inputs(graph, batch_size=8, dtype=torch.float64)
        with torch.no_grad():
            program(state, inputs, context)
        for (
            name,
            tensor,
        ) in statistics.items():  # one step of the running mean tells the batch's own statistics
            before = (1 - BATCH_NORM_MOMENTUM) * state[name]
            statistics[name] = ((tensor - before) / BATCH_NORM_MOMENTUM).clamp_min(
                1e-3 if "var" in name else -1e9
            )
    return {name: tensor.to(dtype) for name, tensor in {**state, **statistics}.items()}


def change(graph: ComputationalGraph, state: State, edited: Edited) -> float:
    """Largest difference of the outputs, relative to their spread; both networks must be alive, and the edited one whole."""
    check_state(edited.graph, edited.state)
    assert len(edited.nodes) == len(edited.graph)
    worst = 0.0
    for a, b in zip(outputs(graph, state), outputs(edited.graph, edited.state), strict=True):
        assert torch.isfinite(a).all()
        assert torch.isfinite(b).all()
        spread = float(a.std(dim=0).max())
        assert spread > 0, "a dead network shows nothing"
        worst = max(worst, float((a - b).abs().max()) / max(spread, float(a.abs().max())))
    return worst


def gradients(graph: ComputationalGraph, state: State, *, batch_size: int = 6) -> dict[str, Tensor]:
    """Gradients of a random loss by parameter."""
    leaves = {
        name: tensor.detach().clone().requires_grad_(name in graph.parameters)
        for name, tensor in state.items()
    }
    context = RunContext(
        batch_size=batch_size,
        buffers=buffers_by_node({name: t for name, t in state.items() if "running_" in name}),
    )
    dtype = next(iter(state.values())).dtype
    given = Program(graph)(leaves, random_inputs(graph, batch_size=batch_size, dtype=dtype), context)
    targets = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(3), dtype=dtype)
    F.mse_loss(given[0], targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return {
        name: leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        for name, leaf in leaves.items()
        if name in graph.parameters
    }


def language_model(
    *, norm: str = "rms_norm", layers: int = 2, dim: int = 12, heads: int = 3
) -> ComputationalGraph:
    """A small causal character model over 7 letters; the output is the next letter of every position."""
    g = GraphBuilder()
    x = g("embedding", g("input", shape=(5,), dtype="int"), num_embeddings=7, dim=dim)
    x = g("add", x, g("parameter", shape=(5, dim)))
    for _ in range(layers):
        y = g(norm, x)
        q, k, v = (g("linear", y, out_features=dim) for _ in range(3))
        y = g("attention", q, k, v, num_heads=heads, causal=True)
        x = g("add", x, g("linear", y, out_features=dim))
        y = g("gelu", g("linear", g(norm, x), out_features=2 * dim))
        x = g("add", x, g("linear", y, out_features=dim))
    return g.finish(g("linear", g(norm, x), out_features=7))
