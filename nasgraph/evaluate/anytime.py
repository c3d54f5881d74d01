"""Scores at any time: predicted weights, and what becomes of their loss in the first few optimiser steps.

One pass gives a whole ladder of scores, from zero-shot to k steps (early exits, as in "Graph HyperNetworks for Neural
Architecture Search", Zhang et al. 2019), so that a search can stop where a candidate has shown enough. The sum of the
training losses on the way ranks networks better than the last loss alone ("Speedy Performance Estimation for Neural
Architecture Search", Ru et al. 2021).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import SearchData, Split
from nasgraph.errors import ConfigError
from nasgraph.evaluate.evaluation import KeepGoing, never_stop
from nasgraph.evaluate.measure import measure
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext
from nasgraph.seeding import generator


@dataclass(frozen=True, kw_only=True)
class AnytimeConfig:
    """How networks are tuned and looked at.

    Attributes:
        steps: Optimiser steps after which the network is measured, rising; 0 is the zero-shot score. The last is the length.
        num_examples: Validation examples of a measurement; fewer if there are fewer.
        batch_size: Examples per forward pass of a measurement. Batch norms use the statistics of each pass.
        tune_batch: Training examples per step.
        learning_rate: AdamW's learning rate. Constant, so that the score at k does not depend on what comes after.
        seed: Decides the training examples; the same for every network.
    """

    steps: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    num_examples: int = 256
    batch_size: int = 256
    tune_batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_examples", "batch_size", "tune_batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        rising = all(first < second for first, second in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or self.steps[0] < 0 or not rising:
            raise ConfigError(f"Expected 'steps' to rise from at least 0 (got {self.steps})")


@dataclass(frozen=True)
class TuningCurve:
    """What a network was worth after each of some numbers of steps.

    Attributes:
        steps: Optimiser steps at each measurement. Shorter than asked for if the measurement was stopped.
        losses: Mean cross-entropy on the validation examples; NaN where it is not finite.
        accuracies: Accuracy on them, in [0, 1].
        training_losses: Loss of the training batch of every step, before that step; NaN where it is not finite.
        cpu_seconds: CPU time of this process from the start of the tuning up to and with each measurement.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    training_losses: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    def training_loss_sum(self, steps: int) -> float:
        """Sum of the first `steps` training losses: smaller is better. NaN if one of them was not finite.

        Raises:
            ValueError: If the curve is shorter.
        """
        if steps > len(self.training_losses):
            raise ValueError(f"Expected at most {len(self.training_losses)} steps (got {steps})")
        return sum(self.training_losses[:steps])


@dataclass(frozen=True)
class AnytimeScorer:
    """Tunes networks from predicted weights for a few steps, and measures them on the way.

    The weights of one call are predicted together; curves do not depend on the company (up to rounding).

    Attributes:
        ghn: Predicts the weights.
        data: Training and validation data on the GHN's device.
        config: How to tune and measure.
    """

    ghn: GraphHyperNetwork
    data: SearchData
    config: AnytimeConfig

    def __call__(
        self, graphs: Sequence[ComputationalGraph], *, keep_going: KeepGoing = never_stop
    ) -> list[TuningCurve]:
        """One curve per graph. `keep_going` is asked after each measurement with the steps made and minus the loss."""
        return [
            tuning_curve(graph, parameters, self.data, self.config, keep_going=keep_going)
            for graph, parameters in zip(graphs, self.ghn.predict(graphs), strict=True)
        ]


def tuning_curve(
    graph: ComputationalGraph,
    start: Mapping[str, Tensor],
    data: SearchData,
    config: AnytimeConfig,
    *,
    keep_going: KeepGoing = never_stop,
) -> TuningCurve:
    """Tune a network and measure it on the way.

    Args:
        graph: The network.
        start: Its parameters, on the device of `data`. Not changed.
        data: Training and validation data.
        config: How to tune and measure.
        keep_going: Asked after each measurement with the steps made and minus the loss; False stops.
    """
    split = _first(data.validation, config.num_examples)
    program = Program(graph)
    began = time.process_time()
    losses, accuracies, seconds, training = [], [], [], list[float]()
    for done, parameters in _tuned(program, start, data.train, config, training):
        loss, accuracy = measure(program, parameters, split, batch_size=config.batch_size)
        losses.append(_finite(loss))
        accuracies.append(accuracy)
        seconds.append(time.process_time() - began)
        if not keep_going(done, -loss):
            break
    return TuningCurve(
        config.steps[: len(losses)], tuple(losses), tuple(accuracies), tuple(training), tuple(seconds)
    )


def _tuned(
    program: Program,
    start: Mapping[str, Tensor],
    train: Split,
    config: AnytimeConfig,
    training_losses: list[float],
) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
    """The parameters after each of `config.steps`; training losses are appended as they come."""
    tuned = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    optimizer = torch.optim.AdamW(tuned.values(), lr=config.learning_rate, fused=True) if tuned else None
    rng = generator(config.seed, "tune")
    dropout = torch.Generator().manual_seed(config.seed)
    done = 0
    for until in config.steps:
        while done < until:
            batch = train.pick(torch.from_numpy(rng.integers(len(train), size=config.tune_batch)))
            context = RunContext(batch_size=len(batch), training=True, generator=dropout)
            (logits,) = program(tuned, [batch.inputs], context)
            loss = F.cross_entropy(logits, batch.targets)
            training_losses.append(_finite(float(loss.detach())))
            if optimizer is not None:
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
            done += 1
        yield done, tuned


def _first(split: Split, count: int) -> Split:
    return Split(split.inputs[:count], split.targets[:count])


def _finite(loss: float) -> float:
    return loss if abs(loss) < float("inf") else float("nan")
