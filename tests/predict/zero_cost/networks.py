"""Networks and batches that the tests of zero-cost proxies share."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import GraphModule, build, initial_parameters
from tests.modules.samples import sampled_graphs

SEED = 3


def noise_batch(count: int = 6, shape: tuple[int, ...] = (1, 8, 8), *, classes: int = 10) -> Split:
    """Normal numbers, and targets that go round."""
    rng = torch.Generator().manual_seed(1)
    return Split(torch.randn(count, *shape, generator=rng), torch.arange(count) % classes)


def some_graphs() -> list[ComputationalGraph]:
    """Graphs of four spaces for `noise_batch`."""
    return [
        *sampled_graphs("nasbench201", 3),
        *sampled_graphs("convnet", 3),
        *sampled_graphs("mlp", 2),
        *sampled_graphs("vit", 2),
    ]


def weight_parameters(module: GraphModule) -> dict[str, nn.Parameter]:
    """The module's parameters of the role "weight"."""
    roles = {name: spec.role for name, spec in module.graph.parameters.items()}
    return {name: each for name, each in module.named_parameters() if roles[name] == "weight"}


class TwoLayers(nn.Module):
    """A convolution with a norm, and a linear map; written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(F.relu(self.norm(self.conv(x))).mean((2, 3)))
        return logits


def two_layers() -> tuple[ComputationalGraph, TwoLayers]:
    """A graph, and a module with its initial parameters."""
    g = GraphBuilder()
    x = g(
        "batch_norm",
        g("conv2d", g("input", shape=(1, 6, 6)), out_channels=4, kernel_size=3, padding=1, bias=False),
    )
    graph = g.finish(g("linear", g("global_avg_pool2d", g("relu", x)), out_features=3))
    module = TwoLayers()
    own = list(initial_parameters(graph, seed=SEED).values())
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), own, strict=True):
            parameter.copy_(value)
    return graph, module


class Linears(nn.Module):
    """Linear maps without biases, one after the other, with a function between them."""

    def __init__(self, sizes: tuple[int, ...], *, rectify: bool = False, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.rectify = rectify
        self.maps = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        with torch.no_grad():
            for weight in self.maps.parameters():
                weight.copy_(torch.randn(weight.shape, generator=rng))

    def forward(self, x: Tensor) -> Tensor:
        for place, layer in enumerate(self.maps):
            x = F.relu(x) if self.rectify and place else x
            x = layer(x)
        return x

    @property
    def weights(self) -> list[Tensor]:
        """The matrices, first to last."""
        return [weight.detach() for weight in self.maps.parameters()]


class Residual(nn.Module):
    """What users write: in-place activations on outputs without a norm, a shortcut, groups, dropout, running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding="same")
        self.act = nn.ReLU(inplace=True)
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 1),
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.act(self.stem(x))
        y = self.block(x)
        y += x
        features = self.drop(y.mean((2, 3)))
        return self.head(features), {"features": features}


def seeded(make: type[nn.Module], seed: int = 0) -> nn.Module:
    """A module whose parameters a seed draws, without touching the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def graph_module(index: int) -> tuple[ComputationalGraph, nn.Module]:
    """One of `some_graphs`, and its network as a stranger's module."""
    graph = some_graphs()[index]
    return graph, nn.Sequential(build(graph, seed=SEED))
