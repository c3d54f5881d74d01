"""Networks and states that the tests of merging share."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from nasgraph.data import SearchData, Split
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_buffers, initial_parameters
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample
from tests.modules.samples import random_inputs

SPACES = (
    *("anynet", "autoformer", "convnet", "darts", "efficientnet", "gnn", "gpt", "grammar", "handmade"),
    *("mlp", "mobilenetv3", "nasbench-graph", "nasbench201", "nasnet", "regnet", "vit"),
)
INPUT_SHAPES = {"gpt": (8,), "gnn": (6,), "nasbench-graph": (6,)}
State = Mapping[str, Tensor]


@cache
def sampled(space: str, count: int) -> tuple[ComputationalGraph, ...]:
    """The first `count` architectures that a seed draws from a space."""
    built = load_space(space, input_shape=INPUT_SHAPES.get(space, (3, 8, 8)), num_classes=5)
    rng = generator(11, "merge", space)
    return tuple(sample(built, rng).graph for _ in range(count))


def random_state(
    graph: ComputationalGraph, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Parameters and running statistics no two units of which are alike."""
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, tensor in initial_parameters(graph, seed=seed).items():
        state[name] = (tensor + 0.1 * torch.randn(tensor.shape, generator=rng)).to(dtype)
    for name, tensor in initial_buffers(graph).items():
        state[name] = (0.5 + torch.rand(tensor.shape, generator=rng)).to(dtype)
    return state


def outputs(graph: ComputationalGraph, state: State, *, batch_size: int = 3) -> tuple[Tensor, ...]:
    """What the network gives for random inputs, in inference mode; nodes of a data graph stand in a ring."""
    dtype = next(iter(state.values())).dtype
    buffers = buffers_by_node({name: tensor for name, tensor in state.items() if "running_" in name})
    ring = torch.arange(batch_size)
    edges = torch.stack([ring, ring.roll(1)]) if graph.reads_edges else None
    context = RunContext(batch_size=batch_size, buffers=buffers, edges=edges)
    with torch.no_grad():
        return Program(graph)(state, random_inputs(graph, batch_size=batch_size, dtype=dtype), context)


def difference(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> float:
    """Largest difference, relative to the largest deviation of the first from its mean over all places."""
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        scale = float((a - a.mean()).abs().max()) or 1.0
        worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


def small_convnet(width: int = 6, *, norm: bool = True, hidden: int = 8) -> ComputationalGraph:
    """Two convolutions, a skip connection, and a linear layer behind `flatten`."""
    g = GraphBuilder()
    x = g("input", shape=(1, 6, 6))
    x = g("conv2d", x, out_channels=width, kernel_size=3, padding=1, bias=not norm)
    x = g("relu", g("batch_norm", x) if norm else x)
    y = g("conv2d", x, out_channels=width, kernel_size=3, padding=1, bias=not norm)
    x = g("relu", g("add", x, g("batch_norm", y) if norm else y))
    x = g("flatten", g("max_pool2d", x, kernel_size=2, stride=2))
    x = g("relu", g("linear", x, out_features=hidden))
    return g.finish(g("linear", x, out_features=3))


def blobs(number: int = 240, *, seed: int = 0) -> SearchData:
    """Images of three classes that are easy to tell apart, with noise."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    targets = torch.randint(0, 3, (number,), generator=rng)
    inputs = centres[targets] + 1.5 * torch.randn(number, 1, 6, 6, generator=rng)
    cut = 2 * number // 3
    splits = (Split(inputs[:cut], targets[:cut]), Split(inputs[cut:].contiguous(), targets[cut:]))
    return SearchData("blobs", (1, 6, 6), 3, *splits)
