"""Small networks and data that the tests of pruning share."""

from functools import cache

import torch
from torch import Tensor

from nasgraph.data import SearchData, load_dataset
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.pruning import FineTuneConfig, finetune
from nasgraph.modules import initial_buffers, initial_parameters


def resnet(*, width: int = 6, blocks: int = 2, shape: tuple[int, ...] = (1, 8, 8)) -> ComputationalGraph:
    """Two residual stages with batch norms."""
    g = GraphBuilder()

    def layer(x: int, channels: int, *, stride: int = 1, kernel: int = 3) -> int:
        options = {"out_channels": channels, "kernel_size": kernel, "padding": kernel // 2, "stride": stride}
        return g("batch_norm", g("conv2d", x, **options))

    x = g("relu", layer(g("input", shape=shape), width))
    for stage in range(2):
        channels = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            shortcut = layer(x, channels, stride=stride, kernel=1) if stride == 2 else x
            x = g("relu", g("add", layer(g("relu", layer(x, channels, stride=stride)), channels), shortcut))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))


def flat_convnet() -> ComputationalGraph:
    """Convolutions without norms, one of them depthwise, a concatenation, and a linear layer that reads flattened places."""
    g = GraphBuilder()
    x = g(
        "relu", g("conv2d", g("input", shape=(1, 8, 8)), out_channels=8, kernel_size=3, padding=1, bias=True)
    )
    left = g("conv2d", x, out_channels=8, kernel_size=3, padding=1, groups=8, bias=True)
    right = g("conv2d", x, out_channels=6, kernel_size=1, bias=True)
    x = g("max_pool2d", g("relu", g("concat", left, right, axis=0)), kernel_size=2, stride=2)
    x = g("relu", g("linear", g("flatten", x), out_features=12, bias=True))
    return g.finish(g("linear", x, out_features=10, bias=True))


def inverted() -> ComputationalGraph:
    """An inverted residual block, as in MobileNetV2: its depthwise layer has a batch norm of its own."""
    g = GraphBuilder()

    def layer(x: int, channels: int, *, kernel: int = 1, groups: int = 1) -> int:
        options = {"out_channels": channels, "kernel_size": kernel, "padding": kernel // 2, "groups": groups}
        return g("batch_norm", g("conv2d", x, **options))

    x = g("relu6", layer(g("input", shape=(1, 8, 8)), 6, kernel=3))
    inner = g("relu6", layer(x, 12))
    inner = g("relu6", layer(inner, 12, kernel=3, groups=12))
    x = g("add", x, layer(inner, 6))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))


def normed() -> ComputationalGraph:
    """Linear layers with norms over their units, one residual."""
    g = GraphBuilder()
    x = g("linear", g("flatten", g("input", shape=(1, 8, 8))), out_features=12)
    inner = g("gelu", g("linear", g("layer_norm", x, axes=1), out_features=9, bias=True))
    x = g("add", x, g("linear", inner, out_features=12))
    return g.finish(g("linear", g("rms_norm", x, axes=1), out_features=10))


NETWORKS = {"resnet": resnet, "flat": flat_convnet, "inverted": inverted, "normed": normed}


def random_state(graph: ComputationalGraph, seed: int = 0) -> dict[str, Tensor]:
    """A state no two units of which are alike."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.2 * torch.rand(tensor.shape, generator=rng)
        for name, tensor in {**initial_parameters(graph, seed=seed), **initial_buffers(graph)}.items()
    }


@cache
def digits() -> SearchData:
    """Digits: 1,438 examples to train and validate."""
    return load_dataset("digits").search


@cache
def trained_resnet(seed: int = 0, *, blocks: int = 1) -> tuple[ComputationalGraph, dict[str, Tensor]]:
    """A network that has learnt digits for sixty steps. Not to be changed."""
    graph = resnet(blocks=blocks)
    start = {**initial_parameters(graph, seed=seed), **initial_buffers(graph)}
    tuning = FineTuneConfig(batch_size=64, learning_rate=5e-3)
    return graph, finetune(graph, start, digits().train, steps=60, seed=seed, config=tuning)
