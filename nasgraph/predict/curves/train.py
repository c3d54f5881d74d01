"""Training the curve network on curves of the prior. The loop stands in `benchmarks/predictors/train_lc_pfn.py`.

Shape letters: B = curves, L = points of a curve, Q = queries per point, T = epochs.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.predict.curves.network import CurveNetwork, bar_loss
from nasgraph.predict.curves.prior import WIDE_PRIOR, CurvePriorConfig, sample_curves
from nasgraph.seeding import generator

Array = np.ndarray
GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class CurveTrainConfig:
    """How the network is trained.

    Attributes:
        steps: Optimiser steps.
        points_per_step: Points of all curves in a step, about; short curves come in larger batches.
        min_points: Fewest points of a curve.
        first_max_points: Most points of a curve at the beginning.
        full_length_from: Step from which curves have up to the network's `max_points`; until then the limit rises
            geometrically. Short curves teach faster, for a step of them holds more curves.
        max_epochs: Most epochs of a training that is imitated.
        learning_rate: Peak of AdamW's learning rate: linear warm-up, constant, then linear to 0. So `steps` may be changed
            until the fall begins, and the result is that of a training that was meant to have so many from the start.
        warmup_steps: Steps of the warm-up.
        falling_share: Share of the steps in which the learning rate falls.
        weight_decay: Of AdamW.
        clip_norm: Largest norm of a gradient.
        seed: Decides the curves and the first weights.

    Raises:
        ConfigError: If a number is out of its range.
    """

    steps: int = 3_500
    points_per_step: int = 1536
    min_points: int = 3
    first_max_points: int = 16
    full_length_from: int = 2_500
    max_epochs: int = 200
    learning_rate: float = 1.2e-3
    warmup_steps: int = 300
    falling_share: float = 0.3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "points_per_step",
            "min_points",
            "full_length_from",
            "learning_rate",
            "clip_norm",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if not self.min_points <= self.first_max_points:
            raise ConfigError("Expected 'min_points' of at most 'first_max_points'")
        if not 0 < self.falling_share <= 1:
            raise ConfigError(f"Expected 'falling_share' in (0, 1] (got {self.falling_share})")


@dataclass(frozen=True)
class CurveBatch:
    """Curves to learn from: what is known at each point, and what is asked there."""

    times: Float[Tensor, "curves points"]
    heights: Float[Tensor, "curves points"]
    target_times: Float[Tensor, "curves points queries"]
    target_heights: Float[Tensor, "curves points queries"]


def make_batch(
    step: int, config: CurveTrainConfig, *, max_points: int, prior: CurvePriorConfig = WIDE_PRIOR
) -> CurveBatch:
    """The curves of one step. Depends on its arguments only, so that a training can go on anywhere.

    The number of points is log-uniform up to the limit of the curriculum; the curves of a step have the same number, but come
    in groups of different lengths. The points lie evenly between the first epoch and a random last one. Each prefix is asked
    for the last epoch of the training, and for a random later one.

    Args:
        step: Number of the step.
        config: Settings.
        max_points: The network's limit.
        prior: Where curves come from.
    """
    rng = generator(config.seed, "curves", step)
    limit = _point_limit(step, config, max_points)
    num_points = int(np.exp(rng.uniform(np.log(config.min_points), np.log(limit + 1))))
    num_curves = max(1, config.points_per_step // (num_points * GROUPS))
    groups = [_group(num_curves, num_points, config, prior, rng) for _ in range(GROUPS)]
    columns = [torch.from_numpy(np.concatenate(parts)).float() for parts in zip(*groups, strict=True)]
    return CurveBatch(columns[0], columns[1], columns[2], columns[3])


def _group(
    count: int, num_points: int, config: CurveTrainConfig, prior: CurvePriorConfig, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Curves of one length: times, heights, target times and target heights."""
    shortest = num_points + 1
    num_epochs = int(np.exp(rng.uniform(np.log(shortest), np.log(max(config.max_epochs, shortest) + 1))))
    curves_BT = sample_curves(count, num_epochs, prior, rng)
    last = int(rng.integers(num_points, num_epochs))
    known = np.unique(np.round(np.linspace(0, last - 1, num_points)).astype(int))
    assert len(known) == num_points
    later_BL = rng.integers(known + 1, num_epochs, size=(count, num_points))
    asked_BLQ = np.stack([np.full_like(later_BL, num_epochs - 1), later_BL], axis=-1)
    heights_BLQ = np.take_along_axis(curves_BT[:, None, :], asked_BLQ, axis=2)
    times_BL = np.broadcast_to((known + 1) / num_epochs, (count, num_points))
    return times_BL, curves_BT[:, known], (asked_BLQ + 1) / num_epochs, heights_BLQ


def _point_limit(step: int, config: CurveTrainConfig, max_points: int) -> int:
    progress = min(1.0, step / config.full_length_from)
    low, high = math.log(config.first_max_points), math.log(max(max_points, config.first_max_points))
    return round(math.exp(low + progress * (high - low)))


def train_step(
    network: CurveNetwork,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: CurveTrainConfig,
    *,
    prior: CurvePriorConfig = WIDE_PRIOR,
) -> float:
    """One step of training; the loss is the mean negative log density.

    Args:
        network: Is changed.
        optimizer: Of the network's parameters; its learning rate is set here.
        step: Number of the step, from 0.
        config: Settings.
        prior: Where curves come from.
    """
    batch = make_batch(step, config, max_points=network.config.max_points, prior=prior)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * learning_rate_factor(step, config)
    loss = batch_loss(network, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
    optimizer.step()
    return float(loss.detach())


def batch_loss(network: CurveNetwork, batch: CurveBatch) -> Float[Tensor, ""]:
    """Mean negative log density that the network gives to what was asked."""
    logits = network(batch.times, batch.heights, batch.target_times)
    return bar_loss(logits, batch.heights, batch.target_heights)


def learning_rate_factor(step: int, config: CurveTrainConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, constant, linear to zero."""
    left = (config.steps - step) / (config.falling_share * config.steps)
    return max(0.0, min(1.0, (step + 1) / max(1, config.warmup_steps), left))
