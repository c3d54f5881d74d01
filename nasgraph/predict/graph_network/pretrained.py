# ruff: noqa: N815  shape letters after array names, in fields too
"""What is learnt from tables of several spaces and scores graphs of a space without any label.

Shape letters: G = graphs, L = labelled graphs of the tables, S = scores, K = columns, D = embedding, T = tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.graph_network.inputs import GraphTensors, graph_tensors, vocabulary_of
from nasgraph.predict.graph_network.network import GraphNetwork, NetworkConfig
from nasgraph.predict.graph_network.path_features import PathFeatures
from nasgraph.predict.graph_network.training import LabelledGraphs, NetworkTraining, scores_of, train_network
from nasgraph.predict.prediction import Prediction
from nasgraph.predict.ranks import NormalScores
from nasgraph.predict.regressors import MeanAndStd, gaussian_process, trees
from nasgraph.predict.surrogate import check_labels
from nasgraph.seeding import derive_seed, generator

Array = np.ndarray
Tables = Mapping[str, tuple[Sequence[ComputationalGraph], Float[Tensor, " graphs"]]]
"""Measured graphs of each table by its name: graphs and what they reached, higher is better."""

LEAST_SPREAD = 0.05
"""Columns that vary less in a table are constant in it; they keep this unit."""
FAR = 1e3
"""A place so far from all labels that a process knows nothing there."""
LEAST_TRUST = 1e-3


@dataclass(frozen=True)
class Memory:
    """Labelled graphs of one table that are kept, as numbers.

    Attributes:
        name: Of the table.
        columns_LK: Their `PathFeatures`.
        scores_L: Normal scores of what they reached, within their table.
    """

    name: str
    columns_LK: Float[Array, "labels columns"]
    scores_L: Float[Array, " labels"]


@dataclass(frozen=True)
class Description:
    """What a pre-trained predictor says of some graphs.

    Attributes:
        columns_GK: `PathFeatures`.
        embedding_GD: Embeddings of all its networks side by side; no columns if it has none.
        path_score_G: Score from path features.
        path_std_G: Its standard deviation.
        network_score_G: Mean score of its networks; the path score if it has none.
        network_std_G: Their disagreement.
    """

    columns_GK: Float[Array, "graphs columns"]
    embedding_GD: Float[Array, "graphs dim"]
    path_score_G: Float[Array, " graphs"]
    path_std_G: Float[Array, " graphs"]
    network_score_G: Float[Array, " graphs"]
    network_std_G: Float[Array, " graphs"]

    def __len__(self) -> int:
        return len(self.columns_GK)

    def rows(self, index: Sequence[int]) -> "Description":
        """Some of the graphs, in this order."""
        at = np.asarray(index, dtype=np.int64)
        return Description(
            self.columns_GK[at],
            self.embedding_GD[at],
            self.path_score_G[at],
            self.path_std_G[at],
            self.network_score_G[at],
            self.network_std_G[at],
        )

    def zero_shot(self) -> Prediction:
        """The mean of both scores; the spread holds theirs and half their difference."""
        mean = (self.path_score_G + self.network_score_G) / 2
        apart = (self.path_score_G - self.network_score_G) ** 2 / 4
        std = np.sqrt((self.path_std_G**2 + self.network_std_G**2) / 2 + apart)
        return Prediction(torch.from_numpy(mean), torch.from_numpy(std))


@dataclass(frozen=True, eq=False)
class PretrainedPredictor:
    """Scores graphs of any space without a label. A `nasgraph.predict.Scorer`; made by `pretrain`.

    Two halves, each half of the score. Path features of kept graphs go through a Gaussian process and trees for each table; a
    table counts the more, the nearer a graph is to what it holds. And an ensemble of graph networks, trained on all tables
    together. Scores are in normal scores of the source tables: 0 is an average graph of theirs, and only the order
    means something in another space. Nothing is standardised over the graphs that are asked for, so a score does not depend on the
    company (`benchmarks/predictors/cross_space.py` measures that ranks within the target space transfer worse).

    Attributes:
        networks: Trained networks with one vocabulary; may be none.
        memory: One per table.
        seed: Of the trees.
    """

    networks: tuple[GraphNetwork, ...]
    memory: tuple[Memory, ...]
    seed: int = 0

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Score graphs, needing no labels."""
        return self.describe(graphs).zero_shot()

    def describe(self, graphs: Sequence[ComputationalGraph]) -> Description:
        """All that the halves say; one graph's row does not depend on the others."""
        return self.describe_read([graph_tensors(graph, self.vocabulary) for graph in graphs])

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Operators that the networks know by name."""
        return self.networks[0].config.vocabulary if self.networks else ()

    def describe_read(self, graphs: Sequence[GraphTensors]) -> Description:
        """`describe` for graphs that were read with its vocabulary already."""
        columns = np.zeros((0, len(PathFeatures().names)))
        if graphs:
            columns = torch.cat([graph.columns_GK for graph in graphs]).double().numpy()
        path_score, path_std = self._path_scores(columns)
        if not self.networks:
            nothing = np.zeros((len(graphs), 0))
            return Description(columns, nothing, path_score, path_std, path_score, path_std)
        said, embedded = zip(*(scores_of(network, graphs) for network in self.networks), strict=True)
        each = np.stack([scores.numpy() for scores in said])
        return Description(
            columns,
            np.concatenate([embedding.numpy() for embedding in embedded], axis=1),
            path_score,
            path_std,
            each.mean(axis=0),
            each.std(axis=0),
        )

    def _path_scores(self, columns: Float[Array, "graphs columns"]) -> MeanAndStd:
        if not len(columns):
            return np.zeros(0), np.zeros(0)
        said = [expert(columns) for expert in self._experts]
        mean_TG, std_TG, trust_TG = (np.stack(part) for part in zip(*said, strict=True))
        weight_TG = trust_TG / trust_TG.sum(axis=0)
        mean = (weight_TG * mean_TG).sum(axis=0)
        spread = (weight_TG * (std_TG**2 + (mean_TG - mean) ** 2)).sum(axis=0)
        return mean, np.sqrt(spread)

    @cached_property
    def _experts(self) -> list["_Expert"]:
        return [_expert(memory, seed=self.seed) for memory in self.memory]


_Expert = Callable[
    [Float[Array, "graphs columns"]],
    tuple[Float[Array, " graphs"], Float[Array, " graphs"], Float[Array, " graphs"]],
]


def _expert(memory: Memory, *, seed: int) -> _Expert:
    """Scores by one table: mean, standard deviation, and how much the table knows of each graph."""
    centre = memory.columns_LK.mean(axis=0)
    unit = np.maximum(memory.columns_LK.std(axis=0), LEAST_SPREAD)
    known = (memory.columns_LK - centre) / unit
    process = gaussian_process(known, memory.scores_L, seed=seed)
    forest = trees(known, memory.scores_L, seed=derive_seed(seed, memory.name))
    ignorance = float(process(np.full((1, known.shape[1]), FAR))[1][0])

    def predict(
        columns: Float[Array, "graphs columns"],
    ) -> tuple[Float[Array, " graphs"], Float[Array, " graphs"], Float[Array, " graphs"]]:
        rows = (columns - centre) / unit
        (smooth, std), (stepped, spread) = process(rows), forest(rows)
        trust = np.maximum(1.0 / std**2 - 1.0 / ignorance**2, LEAST_TRUST)
        mean = (smooth + stepped) / 2
        return mean, np.sqrt((std**2 + spread**2) / 2 + (smooth - stepped) ** 2 / 4), trust

    return predict


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Settings of `pretrain`.

    Attributes:
        training: How each network is trained.
        num_networks: Networks of the ensemble; 0 for path features alone.
        dim: Size of a node state.
        num_layers: Rounds of messages.
        max_memory: Labelled graphs that are kept of a table, at most; drawn by the seed.
        seed: Decides weights, batches and what is kept.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    training: NetworkTraining = field(default_factory=lambda: NetworkTraining(steps=300))
    num_networks: int = 2
    dim: int = 48
    num_layers: int = 4
    max_memory: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_networks < 0 or self.max_memory < 8:
            raise ConfigError(
                "Expected 'num_networks' of at least 0 and 'max_memory' of at least 8 "
                f"(got {self.num_networks} and {self.max_memory})"
            )


def pretrain(tables: Tables, settings: Pretraining | None = None) -> PretrainedPredictor:
    """Learn from measured graphs of several spaces.

    Args:
        tables: At least one, with at least eight graphs each. What they reached is compared within a table only.
        settings: How; defaults if not given.

    Raises:
        ValueError: If there is no table, or one has too few graphs, other counts, or a target that is not finite.
    """
    config = settings or Pretraining()
    if not tables:
        raise ValueError("Expected at least one table to learn from")
    for graphs, targets in tables.values():
        check_labels(graphs, targets)
    memory = []
    for name in sorted(tables):
        graphs, targets = tables[name]
        scores = _normal_scores(targets)
        kept = np.sort(generator(config.seed, "memory", name).permutation(len(graphs))[: config.max_memory])
        memory.append(Memory(name, PathFeatures()([graphs[row] for row in kept]), scores[kept]))
    return PretrainedPredictor(_train(tables, config), tuple(memory), config.seed)


def _train(tables: Tables, config: Pretraining) -> tuple[GraphNetwork, ...]:
    if not config.num_networks:
        return ()
    vocabulary = vocabulary_of([graph for graphs, _ in tables.values() for graph in graphs])
    read = [
        LabelledGraphs(
            [graph_tensors(graph, vocabulary) for graph in tables[name][0]],
            torch.from_numpy(_normal_scores(tables[name][1])).float(),
        )
        for name in sorted(tables)
    ]
    # Every table counts alike, however many graphs it has.
    per_table = min(len(table.graphs) for table in read)
    columns = torch.cat([each.columns_GK for table in read for each in table.graphs[:per_table]])
    networks = []
    for member in range(config.num_networks):
        shape = NetworkConfig(vocabulary=vocabulary, dim=config.dim, num_layers=config.num_layers)
        network = GraphNetwork(shape, seed=derive_seed(config.seed, "weights", member))
        network.set_columns(columns)
        train_network(network, read, config.training, seed=derive_seed(config.seed, "batches", member))
        networks.append(network)
    return tuple(networks)


def _normal_scores(targets: Float[Tensor, " graphs"]) -> Float[Array, " graphs"]:
    values = targets.double().cpu().numpy()
    return NormalScores.of(values)(values)
