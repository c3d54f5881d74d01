"""Fitting the network to the prior: new tables all the time, each used for a few steps.

Shape letters: B = tables, C = labelled rows, Q = rows to predict, D = columns of a description, F = features.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.predict.prior_fitted.network import PriorFittedConfig, PriorFittedNetwork
from nasgraph.predict.prior_fitted.prior import Tables, sample_tables
from nasgraph.predict.prior_fitted.rows import describe, scaling, table
from nasgraph.seeding import derive_seed, generator

Array = np.ndarray
Bank = Sequence[Float[Array, "rows features"]]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network is fitted.

    Attributes:
        seconds: Budget of wall-clock time over all sittings; the learning rate falls to zero along it.
        seed: Of weights and tables.
        learning_rate: Peak, after the warm-up.
        warmup: Share of the budget over which the rate rises.
        rows_per_step: About how many labelled rows and rows to predict a step has.
        num_queries: Rows to predict of each table.
        num_targets: Targets that share a matrix of features.
        num_trees: Trees of the forest in training; the shipped regressor may use more.
        max_context: Most labelled rows. Small tables are more frequent: their logarithm is uniform.
        replays: Further steps per new batch, on batches drawn from memory: describing a table costs more than a step.
        memory: Batches that are kept for this.
    """

    seconds: float = 3000.0
    seed: int = 0
    learning_rate: float = 8e-4
    warmup: float = 0.03
    rows_per_step: int = 1300
    num_queries: int = 64
    num_targets: int = 6
    num_trees: int = 20
    max_context: int = 512
    replays: int = 3
    memory: int = 200

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.max_context < 8 or self.num_queries < 1:
            raise ConfigError(
                "Expected 'seconds' above 0, 'max_context' of at least 8, 'num_queries' above 0"
            )


@dataclass(frozen=True, eq=False)
class Batch:
    """Described tables of one size.

    Attributes:
        known: Labelled rows.
        labels: Their targets.
        others: Rows to predict.
        hidden: Their targets.
    """

    known: Float[Tensor, "tables context columns"]
    labels: Float[Tensor, "tables context"]
    others: Float[Tensor, "tables queries columns"]
    hidden: Float[Tensor, "tables queries"]


@dataclass(eq=False)
class Progress:
    """Where a training stands; the loop changes it.

    Attributes:
        network: The network.
        optimizer: Its optimizer.
        step: Steps done.
        num_tables: Different tables seen.
        seconds: Wall-clock time used.
    """

    network: PriorFittedNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0
    num_tables: int = 0
    seconds: float = 0.0


def start(network: PriorFittedConfig, config: TrainConfig) -> Progress:
    """A fresh network; the global generator of torch is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        made = PriorFittedNetwork(network)
    optimizer = torch.optim.AdamW(
        made.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    return Progress(made, optimizer)


def train(
    progress: Progress, config: TrainConfig, *, bank: Bank = (), after_step: Callable[[Progress, float], None]
) -> None:
    """Train until the budget is spent. Step `i` draws from a generator of its own.

    Args:
        progress: From `start`, or restored.
        config: The settings.
        bank: Matrices of real features, without labels.
        after_step: Called after each step with the loss: to report, to save.
    """
    progress.network.train()
    memory: deque[Batch] = deque(maxlen=config.memory)
    while progress.seconds < config.seconds:
        began = time.perf_counter()
        rng = generator(config.seed, "step", progress.step)
        if progress.step % (config.replays + 1) == 0 or not memory:
            memory.append(sample_batch(config, rng, bank=bank))
            batch = memory[-1]
            progress.num_tables += len(batch.labels)
        else:
            batch = memory[int(rng.integers(len(memory)))]
        for group in progress.optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(progress.seconds / config.seconds, config.warmup)
        loss = _loss(progress.network, batch)
        progress.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        torch.nn.utils.clip_grad_norm_(progress.network.parameters(), 1.0)
        progress.optimizer.step()
        progress.step += 1
        progress.seconds += time.perf_counter() - began
        after_step(progress, float(loss.detach()))


def schedule(share: float, warmup: float) -> float:
    """Factor of the learning rate when this share of the budget is spent: up, then down along a cosine."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - warmup) / (1 - warmup)))) + 1e-3


def _loss(network: PriorFittedNetwork, batch: Batch) -> Tensor:
    """Mean negative log density of the hidden targets, the score of which the posterior is the minimum."""
    mixture = network(batch.known, batch.labels, batch.others)
    result: Tensor = -mixture.log_density(batch.hidden).clamp_min(-20.0).mean()
    return result


def sample_batch(config: TrainConfig, rng: np.random.Generator, *, bank: Bank = ()) -> Batch:
    """Draw and describe tables with the same number of labelled rows."""
    high = config.max_context if rng.random() < 0.08 else max(config.max_context // 2, 8)
    num_context = int(np.exp(rng.uniform(np.log(6), np.log(high + 1))))
    num_rows = num_context + config.num_queries
    num_matrices = max(1, round(config.rows_per_step / num_rows / config.num_targets))
    return join(
        [
            batch_of(
                sample_tables(num_context, config.num_queries, config.num_targets, rng, bank=bank),
                num_trees=config.num_trees,
                seed=int(rng.integers(2**31)),
            )
            for _ in range(num_matrices)
        ]
    )


def join(batches: Sequence[Batch]) -> Batch:
    """Batches of one size as one."""
    return Batch(
        torch.cat([batch.known for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        torch.cat([batch.others for batch in batches]),
        torch.cat([batch.hidden for batch in batches]),
    )


def batch_of(tables: Tables, *, num_trees: int, seed: int) -> Batch:
    """Describe tables that share their features, in single precision."""
    x_CF, x_QF = tables.known.astype(np.float32), tables.others.astype(np.float32)
    scale = scaling(x_CF)
    shared, x_QF = table(scale(x_CF)), scale(x_QF)
    labelled, hidden = [], []
    for target in tables.labels.astype(np.float32):
        context = describe(shared, target, num_trees=num_trees, seed=seed)
        labelled.append(context.rows)
        hidden.append(context.describe(x_QF))
    return Batch(
        torch.from_numpy(np.stack(labelled)).float(),
        torch.from_numpy(tables.labels).float(),
        torch.from_numpy(np.stack(hidden)).float(),
        torch.from_numpy(tables.hidden).float(),
    )
