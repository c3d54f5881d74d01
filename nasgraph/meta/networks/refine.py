"""Refinement of predicted weights: a metanetwork edits what a graph hypernetwork wrote, trained by the loss of the edited networks.

The hypernetwork predicts the weights of an architecture from its graph alone; the edit head reads these weights as a graph and corrects them in one
pass. It is trained on a few architectures through the networks themselves, and used on others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import parameter_graph
from nasgraph.meta.networks.metanetwork import Metanetwork
from nasgraph.modules import State, run_network
from nasgraph.seeding import generator

Network = tuple[ComputationalGraph, State]


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """How an editing metanetwork is trained.

    Attributes:
        steps: Steps, each on one network and one batch.
        batch_size: Examples of a batch.
        learning_rate: Highest rate of AdamW, falling to zero along a cosine.
        clip_norm: Largest norm of the gradient.
        use_batch: Whether batch norms use the statistics of the batch: running ones do not fit weights that were just predicted.
        seed: Decides networks and batches.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    clip_norm: float = 1.0
    use_batch: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")


def refined(metanetwork: Metanetwork, network: Network) -> dict[str, Tensor]:
    """The state that the edit head makes of a network's. Differentiable in the metanetwork."""
    pg = parameter_graph(*network)
    return pg.to_states(*metanetwork.edit(pg))[0]


def fit_refinement(
    metanetwork: Metanetwork,
    networks: Sequence[Network],
    inputs: Tensor,
    targets: Tensor,
    *,
    config: RefineConfig = RefineConfig(),
    on_step: Callable[[int, float], None] = lambda _, __: None,
) -> Metanetwork:
    """Train the edit head so that edited networks have a small cross-entropy. Deterministic on one machine.

    Args:
        metanetwork: Changed in place.
        networks: Architectures with their predicted states; each has one input and gives class scores.
        inputs: Training examples.
        targets: Their classes.
        config: Settings.
        on_step: Called after each step with its number, from 1, and its loss. Steps with a loss that is not finite are skipped.

    Raises:
        ConfigError: If there is no network, or inputs and targets do not fit.
    """
    if not networks or len(inputs) != len(targets):
        raise ConfigError(
            f"Expected networks, and as many inputs as targets (got {len(networks)}, {len(inputs)} and {len(targets)})"
        )
    optimizer = torch.optim.AdamW(metanetwork.parameters(), lr=config.learning_rate)
    metanetwork.train()
    for step in range(config.steps):
        rng = generator(config.seed, "refinement", step)
        network = networks[int(rng.integers(len(networks)))]
        chosen = torch.from_numpy(rng.integers(len(inputs), size=config.batch_size))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + cos(pi * step / config.steps)) / 2
        (said,) = run_network(
            network[0], refined(metanetwork, network), (inputs[chosen],), use_batch=config.use_batch
        )
        loss = F.cross_entropy(said, targets[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        norm = torch.nn.utils.clip_grad_norm_(metanetwork.parameters(), config.clip_norm)
        if torch.isfinite(norm):
            optimizer.step()
        on_step(step + 1, loss.item())
    return metanetwork.eval()
