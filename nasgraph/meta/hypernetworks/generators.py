"""Generators: from an encoded condition to one long vector of parameters, in units of their usual size.

All have outputs of mean square about one for inputs of mean square one when they are new, whatever the target.

Letters: B = conditions, E = size of an encoded condition, H = hidden size, N = chunks, C = numbers in a chunk, P = parameters, R = rank.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from math import ceil, prod, sqrt

import torch
from torch import Tensor, nn

from nasgraph.meta.hypernetworks.config import HypernetworkConfig
from nasgraph.meta.hypernetworks.target import Target


class Generator(nn.Module, ABC):
    """What turns encoded conditions into parameters."""

    @abstractmethod
    def forward(self, encoded_BE: Tensor) -> Tensor:
        """Parameters `[B, P]` of encoded conditions `[B, E]`. Rows do not depend on each other."""


def _weight(rows: int, columns: int, rng: torch.Generator, *, gain: float = 1.0) -> nn.Parameter:
    """Normal numbers such that a sum over the columns has the mean square of the input times `gain` squared."""
    return nn.Parameter(torch.randn(rows, columns, generator=rng) * (gain / sqrt(columns)))


class Trunk(nn.Module):
    """A perceptron of ReLU layers without biases at the start: homogeneous, so its output is as large as its input.

    Args:
        in_dim: Size of its input.
        config: Hidden size and number of layers.
        rng: Source of the initial weights.
    """

    def __init__(self, in_dim: int, config: HypernetworkConfig, rng: torch.Generator) -> None:
        super().__init__()
        sizes = [in_dim, *[config.hidden_dim] * config.num_layers]
        self.weights = nn.ParameterList(
            [_weight(after, before, rng, gain=sqrt(2)) for before, after in pairwise(sizes)]
        )
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in sizes[1:]])
        self.out_dim = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states `[..., H]` of inputs `[..., in_dim]`."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = torch.relu(nn.functional.linear(x, weight, bias))
        return x


class TensorGenerator(Generator):
    """One output layer per tensor of the target (Ha et al. 2017, the static hypernetwork without sharing).

    The layers read the same hidden state, so they are kept as one matrix.
    """

    def __init__(self, target: Target, in_dim: int, config: HypernetworkConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.trunk = Trunk(in_dim, config, rng)
        self.weight = _weight(target.size, self.trunk.out_dim, rng, gain=config.gain)
        self.bias = nn.Parameter(torch.zeros(target.size))

    def forward(self, encoded_BE: Tensor) -> Tensor:
        """See `Generator.forward`."""
        return nn.functional.linear(self.trunk(encoded_BE), self.weight, self.bias)


class ChunkedGenerator(Generator):
    """One small network makes all chunks, told apart by learnt chunk embeddings (von Oswald et al. 2020, section 2.2)."""

    def __init__(self, target: Target, in_dim: int, config: HypernetworkConfig, rng: torch.Generator) -> None:
        super().__init__()
        chunk = min(config.chunk_size, target.size)
        self.size = target.size
        self.chunks = nn.Parameter(torch.randn(ceil(target.size / chunk), config.chunk_dim, generator=rng))
        self.trunk = Trunk(in_dim + config.chunk_dim, config, rng)
        self.weight = _weight(chunk, self.trunk.out_dim, rng, gain=config.gain)
        self.bias = nn.Parameter(torch.zeros(chunk))

    def forward(self, encoded_BE: Tensor) -> Tensor:
        """See `Generator.forward`."""
        batch, count = len(encoded_BE), len(self.chunks)
        x_BNE = torch.cat(
            [encoded_BE.unsqueeze(1).expand(-1, count, -1), self.chunks.unsqueeze(0).expand(batch, -1, -1)],
            dim=-1,
        )
        out_BNC = nn.functional.linear(self.trunk(x_BNE), self.weight, self.bias)
        return out_BNC.flatten(1)[:, : self.size]


class RecurrentGenerator(Generator):
    """An LSTM walks over the chunks, so that each is made in the knowledge of those before it.

    The idea of dependency-preserving hypernetworks (Chandak et al. 2022) in its plainest form: the input of each step is the condition
    beside the embedding of the chunk, and a linear map reads the chunk off the state. A gate is bounded, so outputs are.
    """

    def __init__(self, target: Target, in_dim: int, config: HypernetworkConfig, rng: torch.Generator) -> None:
        super().__init__()
        chunk = min(config.chunk_size, target.size)
        self.size = target.size
        self.chunks = nn.Parameter(torch.randn(ceil(target.size / chunk), config.chunk_dim, generator=rng))
        # Made on the meta device, because torch's layers can only draw from the global generator.
        self.lstm = nn.LSTM(
            in_dim + config.chunk_dim, config.hidden_dim, config.num_layers, batch_first=True, device="meta"
        ).to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.lstm.parameters():
                if parameter.ndim == 1:
                    parameter.zero_()
                else:
                    parameter.normal_(std=parameter.shape[1] ** -0.5, generator=rng)
        # The states of such an LSTM have a mean square of about 0.04: measured for sizes from 16 to 256.
        self.weight = _weight(chunk, config.hidden_dim, rng, gain=config.gain * 5)
        self.bias = nn.Parameter(torch.zeros(chunk))

    def forward(self, encoded_BE: Tensor) -> Tensor:
        """See `Generator.forward`."""
        batch, count = len(encoded_BE), len(self.chunks)
        x_BNE = torch.cat(
            [encoded_BE.unsqueeze(1).expand(-1, count, -1), self.chunks.unsqueeze(0).expand(batch, -1, -1)],
            dim=-1,
        )
        state_BNH, _ = self.lstm(x_BNE)
        return nn.functional.linear(state_BNH, self.weight, self.bias).flatten(1)[:, : self.size]


class LowRankGenerator(Generator):
    """Matrices are sums of `rank` learnt outer products whose coefficients depend on the condition; vectors are made directly.

    A tensor of shape `[O, ...]` counts as a matrix `[O, rest]`. A matrix so small that its factors would hold more numbers than itself is
    made directly as well.
    """

    def __init__(self, target: Target, in_dim: int, config: HypernetworkConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.trunk = Trunk(in_dim, config, rng)
        hidden, rank = self.trunk.out_dim, config.rank
        self.sizes = [(shape[0] if shape else 1, prod(shape[1:])) for shape in target.shapes.values()]
        self.is_factored = [rank * (o + i) < o * i for o, i in self.sizes]
        self.left, self.right = nn.ParameterList(), nn.ParameterList()
        numbers = 0
        for (outputs, inputs), factored in zip(self.sizes, self.is_factored, strict=True):
            if factored:
                self.left.append(nn.Parameter(torch.randn(outputs, rank, generator=rng)))
                self.right.append(_weight(inputs, rank, rng))
            numbers += rank if factored else outputs * inputs
        self.counts = [
            rank if factored else outputs * inputs
            for (outputs, inputs), factored in zip(self.sizes, self.is_factored, strict=True)
        ]
        self.weight = _weight(numbers, hidden, rng, gain=config.gain)
        self.bias = nn.Parameter(torch.zeros(numbers))

    def forward(self, encoded_BE: Tensor) -> Tensor:
        """See `Generator.forward`."""
        numbers = nn.functional.linear(self.trunk(encoded_BE), self.weight, self.bias)
        factors = iter(zip(self.left, self.right, strict=True))
        parts = []
        for part, factored in zip(
            torch.split_with_sizes(numbers, self.counts, dim=-1), self.is_factored, strict=True
        ):
            if factored:
                left, right = next(factors)
                part = ((part.unsqueeze(1) * left) @ right.t()).flatten(1)
            parts.append(part)
        return torch.cat(parts, dim=-1)


def make_generator(
    target: Target, in_dim: int, config: HypernetworkConfig, rng: torch.Generator
) -> Generator:
    """The generator that the configuration names."""
    match config.generator:
        case "tensor":
            return TensorGenerator(target, in_dim, config, rng)
        case "chunked":
            return ChunkedGenerator(target, in_dim, config, rng)
        case "recurrent":
            return RecurrentGenerator(target, in_dim, config, rng)
        case _:
            return LowRankGenerator(target, in_dim, config, rng)
