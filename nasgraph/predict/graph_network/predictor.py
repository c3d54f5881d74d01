"""The graph network as a predictor of its own.

Shape letters: G = graphs, E = ensemble members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.graph_network.inputs import GraphTensors, graph_tensors, vocabulary_of
from nasgraph.predict.graph_network.network import GraphNetwork, NetworkConfig, with_adapters
from nasgraph.predict.graph_network.training import LabelledGraphs, NetworkTraining, scores_of, train_network
from nasgraph.predict.prediction import NotFittedError, Prediction, Predictor
from nasgraph.predict.ranks import NormalScores
from nasgraph.predict.surrogate import check_labels
from nasgraph.seeding import derive_seed, generator

Array = np.ndarray
Tuning = Literal["all", "adapters", "head"]
"""What changes when a network goes on from another one: everything, new adapters and the last map, or the last map alone."""

NUM_FOLDS = 5
LEAST_SLOPE = 0.05
ADAPTER_DIM = 8


@dataclass(frozen=True)
class _Fitted:
    """Trained members, and the line from their mean score to normal scores of the targets."""

    networks: tuple[GraphNetwork, ...]
    scale: NormalScores
    slope: float
    intercept: float
    noise: float


@dataclass(eq=False)
class GraphNetworkPredictor(Predictor):
    """Learns performance from graphs by message passing and a pairwise ranking loss; an ensemble tells its spread.

    Each member has initial weights of its own and leaves out one fold of the labels. What it says of that fold shows how far
    scores can be trusted: a line through these points, never falling, maps scores to normal scores of the targets, and the map
    back gives the units of the targets. The standard deviation holds the disagreement of the members and the error on
    graphs that were left out.

    Args:
        training: How the members are trained.
        num_members: Networks of the ensemble.
        dim: Size of a node state, unless there is a `start`.
        num_layers: Rounds of messages, unless there is a `start`.
        start: Trained networks to go on from, taken in turn; they are not changed.
        tuning: What of a `start` may change.
        seed: Decides weights, folds and batches.

    Raises:
        ConfigError: If there is no member, or only a part is to be tuned without a start.
    """

    training: NetworkTraining = field(default_factory=NetworkTraining)
    num_members: int = 3
    dim: int = 48
    num_layers: int = 4
    start: Sequence[GraphNetwork] = ()
    tuning: Tuning = "all"
    seed: int = 0
    _fitted: _Fitted | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.num_members < 1:
            raise ConfigError(f"Expected at least one member (got {self.num_members})")
        if self.tuning != "all" and not self.start:
            raise ConfigError(f"Expected a 'start' to tune only its {self.tuning}")
        if len({network.config.vocabulary for network in self.start}) > 1:
            raise ConfigError("Expected all networks of 'start' to know the same operators")

    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from at least eight graphs."""
        check_labels(graphs, targets)
        values = targets.double().cpu().numpy()
        scale = NormalScores.of(values)
        wanted = scale(values)
        networks, said, meant = [], [], []
        vocabulary = self.start[0].config.vocabulary if self.start else vocabulary_of(graphs)
        inputs = _read(graphs, vocabulary)
        folds = np.array_split(generator(self.seed, "folds").permutation(len(graphs)), NUM_FOLDS)
        for member in range(self.num_members):
            network, parameters = self._new_member(member, vocabulary)
            left_out = folds[member % NUM_FOLDS]
            rows = np.setdiff1d(np.arange(len(graphs)), left_out)
            table = LabelledGraphs([inputs[row] for row in rows], torch.from_numpy(wanted[rows]).float())
            if not self.start:
                network.set_columns(torch.cat([each.columns_GK for each in table.graphs]))
            seed = derive_seed(self.seed, "member", member)
            train_network(network, [table], self.training, seed=seed, parameters=parameters)
            networks.append(network)
            said.append(scores_of(network, [inputs[row] for row in left_out])[0].numpy())
            meant.append(wanted[left_out])
        slope, intercept, noise = _line(np.concatenate(said), np.concatenate(meant))
        self._fitted = _Fitted(tuple(networks), scale, slope, intercept, noise)

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict; operators that no labelled graph had are read as unknown ones."""
        if self._fitted is None:
            raise NotFittedError("Expected 'fit' before 'predict'")
        fitted = self._fitted
        inputs = _read(graphs, fitted.networks[0].config.vocabulary)
        each_EG = np.stack([scores_of(network, inputs)[0].numpy() for network in fitted.networks])
        mean = fitted.slope * each_EG.mean(axis=0) + fitted.intercept
        std = np.sqrt(fitted.slope**2 * each_EG.var(axis=0) + fitted.noise**2)
        low, high = fitted.scale.inverse(mean - std), fitted.scale.inverse(mean + std)
        return Prediction(torch.from_numpy(fitted.scale.inverse(mean)), torch.from_numpy((high - low) / 2))

    def _new_member(
        self, member: int, vocabulary: tuple[str, ...]
    ) -> tuple[GraphNetwork, list[nn.Parameter]]:
        """A network to train, and what of it may change."""
        seed = derive_seed(self.seed, "weights", member)
        if not self.start:
            config = NetworkConfig(vocabulary=vocabulary, dim=self.dim, num_layers=self.num_layers)
            network = GraphNetwork(config, seed=seed)
            return network, list(network.parameters())
        first = self.start[member % len(self.start)]
        width = first.config.adapter_dim or (ADAPTER_DIM if self.tuning == "adapters" else 0)
        network = with_adapters(first, adapter_dim=width, seed=seed)
        if self.tuning == "all":
            return network, list(network.parameters())
        free = [*network.score.parameters()]
        return network, [*network.adapters.parameters(), *free] if self.tuning == "adapters" else free


def _read(graphs: Sequence[ComputationalGraph], vocabulary: Sequence[str]) -> list[GraphTensors]:
    return [graph_tensors(graph, vocabulary) for graph in graphs]


def _line(said: Float[Array, " graphs"], meant: Float[Array, " graphs"]) -> tuple[float, float, float]:
    """Slope, intercept and error of the line of least squares; the slope is positive, so that the order survives."""
    centred = said - said.mean()
    variance = float((centred**2).mean())
    slope = max(LEAST_SLOPE, float((centred * meant).mean()) / variance) if variance > 0 else 1.0
    intercept = float(meant.mean() - slope * said.mean())
    error = meant - slope * said - intercept
    return slope, intercept, float(np.sqrt((error**2).mean()))
