"""Performance with predicted weights: what a graph hypernetwork says of candidates before any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import SearchData, Split
from nasgraph.errors import ConfigError
from nasgraph.evaluate.measure import measure
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import Program, RunContext
from nasgraph.seeding import generator


@dataclass(frozen=True, kw_only=True)
class PredictedWeightsConfig:
    """How predicted weights are scored.

    Attributes:
        num_examples: Validation examples that are looked at; fewer if there are fewer.
        batch_size: Examples per forward pass. Batch norms use the statistics of each pass.
        tune_steps: Optimiser steps from the predicted weights before the score is taken: 0 is the raw (zero-shot) score, a
            few dozen rank far better (Zhang et al. 2019 and our benchmarks) and cost far more.
        tune_batch: Training examples per such step.
        tune_learning_rate: AdamW's learning rate in these steps, falling linearly to zero.
        seed: Decides the training examples.
    """

    num_examples: int = 512
    batch_size: int = 256
    tune_steps: int = 0
    tune_batch: int = 64
    tune_learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_examples", "batch_size", "tune_batch", "tune_learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.tune_steps < 0:
            raise ConfigError(f"Expected 'tune_steps' of at least 0 (got {self.tune_steps})")


@dataclass(frozen=True)
class PredictedWeightsScorer:
    """Scores graphs by predicting their weights and trying them on validation data.

    For each graph: `ghn_accuracy` in [0, 1] and `ghn_loss` with predicted weights, `tuned_accuracy` and `tuned_loss` after
    `tune_steps` (only if there are any), `log_parameters` and `log_multiply_adds` (natural logarithms). Losses that are
    not finite are NaN. The weights of one call are predicted together; scores do not depend on the company.

    A GHN score is not an accuracy after training. It ranks candidates; how well is measured in `benchmarks/results`.

    Attributes:
        ghn: Predicts the weights.
        data: Training and validation data on the GHN's device.
        config: How to score.
    """

    ghn: GraphHyperNetwork
    data: SearchData
    config: PredictedWeightsConfig

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> list[dict[str, float]]:
        """One dictionary of scores per graph."""
        split = self._validation()
        results = []
        for graph, parameters in zip(graphs, self.ghn.predict(graphs), strict=True):
            program, cost = Program(graph), cost_of(graph)
            loss, accuracy = measure(program, parameters, split, batch_size=self.config.batch_size)
            scores = {"ghn_loss": _finite(loss), "ghn_accuracy": accuracy}
            if self.config.tune_steps:
                tuned = self._tune(program, parameters)
                loss, accuracy = measure(program, tuned, split, batch_size=self.config.batch_size)
                scores |= {"tuned_loss": _finite(loss), "tuned_accuracy": accuracy}
            scores["log_parameters"] = float(torch.tensor(max(1.0, cost.num_parameters)).log())
            scores["log_multiply_adds"] = float(torch.tensor(max(1.0, cost.multiply_adds)).log())
            results.append(scores)
        return results

    def _validation(self) -> Split:
        split = self.data.validation
        count = min(self.config.num_examples, len(split))
        return Split(split.inputs[:count], split.targets[:count])

    def _tune(self, program: Program, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tuned = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
        optimizer = torch.optim.AdamW(tuned.values(), lr=self.config.tune_learning_rate, fused=True)
        train, rng = self.data.train, generator(self.config.seed, "tune")
        dropout = torch.Generator().manual_seed(self.config.seed)
        for step in range(self.config.tune_steps):
            optimizer.param_groups[0]["lr"] = self.config.tune_learning_rate * (
                1 - step / self.config.tune_steps
            )
            batch = train.pick(torch.from_numpy(rng.integers(len(train), size=self.config.tune_batch)))
            context = RunContext(batch_size=len(batch), training=True, generator=dropout)
            (logits,) = program(tuned, [batch.inputs], context)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, batch.targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        return {name: tensor.detach() for name, tensor in tuned.items()}


def _finite(loss: float) -> float:
    return loss if abs(loss) < float("inf") else float("nan")
