"""What a generator of weights is, and what it learns from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.generate.support import GenerateError, Support, draw_support
from nasgraph.meta.population import Population, Stack, measure_stack
from nasgraph.modules import State
from nasgraph.seeding import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """How a generator is fitted. Each kind reads what concerns it.

    Attributes:
        latent_dim: Principal components of the weights.
        alignment: Whether networks are aligned first (git re-basin). Needed where they start from different weights.
        per_class: Support examples of each class.
        penalty: Of the ridge regression; 0: chosen on a tenth of the class sets.
        noise: Standard deviation of what "nearest" adds, in units of the median distance between a training network and the
            nearest one of another class set, divided by the square root of their length: 1 is as far from it as a new network would be.
        width: Hidden units of the diffusion network.
        depth: Its residual blocks.
        timesteps: Of the diffusion.
        steps: Training steps of the diffusion network.
        batch_size: Networks per step.
        learning_rate: Peak of AdamW's.
        residual: Whether the diffusion is around what ridge regression predicts, in place of the mean network.
        contrastive: Weight of the loss that draws the vector of a data set towards those of networks trained on it.
        seed: Of everything.
    """

    latent_dim: int = 64
    alignment: bool = False
    per_class: int = 10
    penalty: float = 0.0
    noise: float = 0.0
    width: int = 192
    depth: int = 3
    timesteps: int = 100
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 1e-3
    residual: bool = False
    contrastive: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "latent_dim",
            "per_class",
            "width",
            "depth",
            "timesteps",
            "steps",
            "batch_size",
            "learning_rate",
        ):
            if getattr(self, name) <= 0:
                raise GenerateError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        for name in ("penalty", "noise", "contrastive"):
            if getattr(self, name) < 0:
                raise GenerateError(f"Expected '{name}' of at least 0 (got {getattr(self, name)})")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Trained networks of one architecture, and what each was trained on.

    Attributes:
        graph: The architecture.
        stack: Their states.
        classes: The classes that each was trained on; empty: all.
        data: Where support examples are drawn from.
        num_classes: Outputs of the networks.
    """

    graph: ComputationalGraph
    stack: Stack
    classes: tuple[tuple[int, ...], ...]
    data: Split
    num_classes: int

    def __len__(self) -> int:
        return len(self.classes)

    def supports(self, *, per_class: int, seed: int) -> list[Support]:
        """A support for each network: networks of the same classes have different ones."""
        return [
            draw_support(
                self.data,
                classes,
                num_classes=self.num_classes,
                per_class=per_class,
                seed=derive_seed(seed, "support of", row),
            )
            for row, classes in enumerate(self.classes)
        ]


def training_set(
    population: Population, indices: Sequence[int] | npt.NDArray[np.integer], data: Split
) -> TrainingSet:
    """The networks of a population as training set of a generator.

    Args:
        population: Of networks.
        indices: Which, all of one architecture.
        data: Training examples of the population's data set.

    Raises:
        PopulationError: If the architectures differ.
    """
    stack = population.stack(indices)
    classes = tuple(population.settings(int(index)).classes for index in indices)
    graph = population.graph(int(indices[0]))
    return TrainingSet(graph, stack, classes, data, graph.shapes[graph.outputs[0]][0])


class Generator(ABC):
    """Makes weights for a data set that it is shown a few examples of.

    An instance is fitted. It is not changed by being used.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def graph(self) -> ComputationalGraph:
        """The architecture that weights are made for."""

    @abstractmethod
    def generate(self, support: Support, *, count: int, seed: int) -> Stack:
        """States of `count` networks for the data set of the support. Equal arguments, equal states.

        Generators without chance return equal networks.

        Raises:
            GenerateError: If the support has inputs of another size, or `count` is below 1.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that was learnt, for files."""


def check_support(support: Support, *, num_classes: int, input_size: int, count: int) -> None:
    """Check what is passed to `Generator.generate`.

    Raises:
        GenerateError: If sizes do not fit.
    """
    if count < 1:
        raise GenerateError(f"Expected a 'count' of at least 1 (got {count})")
    if support.num_classes != num_classes or support.inputs.shape[1] != input_size:
        raise GenerateError(
            f"Expected a support of {num_classes} classes and inputs of {input_size} numbers "
            f"(got {support.num_classes} and {support.inputs.shape[1]})"
        )


def repeated(state_rows: Stack, count: int) -> Stack:
    """One network, `count` times."""
    return {name: tensor[:1].expand(count, *tensor.shape[1:]).clone() for name, tensor in state_rows.items()}


def pick_best(graph: ComputationalGraph, stack: State, support: Support) -> int:
    """The network of a stack with the least loss on the support."""
    shape = graph.shapes[graph.inputs[0]]
    data = Split(support.inputs.reshape(-1, *shape), support.targets)
    loss, _ = measure_stack(graph, stack, data)
    return int(torch.nan_to_num(loss, nan=torch.inf).argmin())
