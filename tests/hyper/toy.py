"""A tiny space, tiny data and tiny hypernetworks: a training step takes milliseconds."""

from dataclasses import replace
from typing import Literal

import torch

from nasgraph.data import SearchData, Split
from nasgraph.encode import GraphBatch
from nasgraph.hyper import GHNConfig, GHNTrainConfig
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

Encoder = Literal["transformer", "gated"]
ENCODERS: tuple[Encoder, ...] = ("transformer", "gated")


class ToySpace(SearchSpace):
    """Multilayer perceptrons of one or two hidden layers: twelve architectures.

    Args:
        input_shape: Any.
        num_classes: Length of the output.
        may_overflow: Half of the networks square their input until it is infinite.
    """

    def __init__(
        self, *, input_shape: tuple[int, ...] = (4,), num_classes: int = 3, may_overflow: bool = False
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        self._may_overflow = may_overflow

    @property
    def name(self) -> str:
        return "toy"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        x = graph("input", shape=self.input_shape)
        if self._may_overflow and choose.categorical("overflow", (False, True)):
            for _ in range(12):
                x = graph("mul", x, x)
        activation = choose.categorical("activation", ("relu", "tanh"))
        for layer in range(choose.integer("depth", 1, 2)):
            width = choose.categorical(f"width{layer}", (8, 12))
            x = graph(activation, graph("linear", x, out_features=width))
        return graph.finish(graph("linear", x, out_features=self.num_classes))


def toy_data(*, seed: int = 0) -> SearchData:
    """Three well separated clouds of points in four dimensions."""
    rng = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    splits = []
    for count in (120, 60):
        targets = torch.randint(0, 3, (count,), generator=rng)
        splits.append(Split(centres[targets] + torch.randn(count, 4, generator=rng), targets))
    return SearchData("toy", (4,), 3, splits[0], splits[1])


def tiny_config(encoder: Encoder = "transformer", *, mip: bool = False) -> GHNConfig:
    """A hypernetwork whose blocks are smaller than most of what it predicts."""
    return GHNConfig(
        encoder=encoder,
        dim=16,
        num_layers=2,
        num_heads=2,
        decoder_hidden=8,
        max_size=16,
        max_kernel=3,
        mip=mip,
    )


def toy_training(*, steps: int = 12, checkpoint_every: int = 3) -> GHNTrainConfig:
    """A training of milliseconds."""
    return GHNTrainConfig(
        steps=steps,
        checkpoint_every=checkpoint_every,
        meta_batch=3,
        batch_size=16,
        warmup_steps=2,
        learning_rate=5e-3,
    )


def in_double(graphs: GraphBatch) -> GraphBatch:
    """The batch with features in double precision."""
    return replace(graphs, features_BNF=graphs.features_BNF.double())
