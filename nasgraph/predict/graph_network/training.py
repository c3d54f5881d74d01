"""Training graph networks by the order of measured graphs.

Batches and dropped operators are functions of the seed and the step's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, pi

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.errors import ConfigError
from nasgraph.predict.graph_network.inputs import UNKNOWN, GraphTensors, join
from nasgraph.predict.graph_network.losses import RANKING_LOSSES, check_loss
from nasgraph.predict.graph_network.network import GraphNetwork
from nasgraph.seeding import generator

SCORE_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class NetworkTraining:
    """How a graph network is trained.

    Attributes:
        steps: Batches; each comes from one table.
        batch_size: Graphs of a batch; all of a table that has fewer.
        learning_rate: Highest rate of AdamW; it falls to zero along a cosine.
        weight_decay: Of AdamW.
        loss: A name in `RANKING_LOSSES`.
        regression_weight: Weight of the squared error of the scores beside the ranking loss; it fixes the unit of the scores.
        op_dropout: Chance that a node's operator is taken for an unknown one, by which the network learns to read such.

    Raises:
        ConfigError: If a number is out of bounds.
        UnknownNameError: If there is no such loss.
    """

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    loss: str = "logistic"
    regression_weight: float = 0.5
    op_dropout: float = 0.02

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 2:
            raise ConfigError(
                f"Expected 'steps' of at least 0 and 'batch_size' of at least 2 (got {self.steps} and {self.batch_size})"
            )
        if self.learning_rate <= 0 or min(self.weight_decay, self.regression_weight) < 0:
            raise ConfigError(
                "Expected a positive 'learning_rate', and 'weight_decay' and 'regression_weight' of at least 0"
            )
        if not 0 <= self.op_dropout < 1:
            raise ConfigError(f"Expected 'op_dropout' in [0, 1) (got {self.op_dropout})")
        check_loss(self.loss)


@dataclass(frozen=True)
class LabelledGraphs:
    """Graphs of one table as the network reads them, and their normal scores."""

    graphs: Sequence[GraphTensors]
    scores: Float[Tensor, " graphs"]


def train_network(
    network: GraphNetwork,
    tables: Sequence[LabelledGraphs],
    training: NetworkTraining,
    *,
    seed: int,
    parameters: Sequence[nn.Parameter] | None = None,
) -> list[float]:
    """Train a network in place.

    Args:
        network: Changed.
        tables: Each step takes one of them with equal chance: order means something within a table only.
        training: How.
        seed: Decides the batches.
        parameters: What may change; everything if not given.

    Returns:
        The loss of every step.
    """
    free = list(network.parameters()) if parameters is None else list(parameters)
    optimiser = torch.optim.AdamW(free, lr=training.learning_rate, weight_decay=training.weight_decay)
    losses = []
    network.train()
    for step in range(training.steps):
        rng = generator(seed, "graph network", step)
        table = tables[int(rng.integers(len(tables)))]
        rows = rng.permutation(len(table.graphs))[: training.batch_size]
        batch = _drop_ops(join([table.graphs[row] for row in rows]), training.op_dropout, rng)
        targets = table.scores[torch.from_numpy(rows)]
        scores = network(batch)
        loss = RANKING_LOSSES[training.loss](scores, targets)
        loss = loss + training.regression_weight * (scores - targets).square().mean()
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate * (1 + cos(pi * step / training.steps)) / 2
        gradients = torch.autograd.grad(loss, free, allow_unused=True)
        for parameter, gradient in zip(free, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        losses.append(loss.item())
    network.eval()
    for parameter in free:
        parameter.grad = None
    return losses


def scores_of(
    network: GraphNetwork, graphs: Sequence[GraphTensors]
) -> tuple[Float[Tensor, " graphs"], Float[Tensor, "graphs dim"]]:
    """Scores and embeddings in double precision, without gradients."""
    dim = network.config.dim
    embeddings = [torch.zeros(0, dim)]
    with torch.no_grad():
        for start in range(0, len(graphs), SCORE_BATCH):
            embeddings.append(network.embed(join(graphs[start : start + SCORE_BATCH])))
        embedding = torch.cat(embeddings)
        return network.score(embedding).squeeze(-1).double(), embedding.double()


def _drop_ops(batch: GraphTensors, chance: float, rng: np.random.Generator) -> GraphTensors:
    if chance == 0:
        return batch
    kept = torch.from_numpy(rng.random(len(batch.op_M)) >= chance)
    return replace(batch, op_M=torch.where(kept, batch.op_M, UNKNOWN))
