"""Training the embedding of a metanetwork: noisy copies of a network, and networks of one lineage, are drawn together.

Khosla et al., "Supervised Contrastive Learning", 2020, eq. 2, with the lineage as the class. Reordered copies need no training: they have
the same embedding by construction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.meta.networks.batches import Group, batch_graph, batches, group_size, take
from nasgraph.meta.networks.config import MetanetworkConfig
from nasgraph.meta.networks.fit import with_noise
from nasgraph.meta.networks.metanetwork import Metanetwork
from nasgraph.retrieve.contrastive import graph_loss
from nasgraph.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How an embedding is trained.

    Attributes:
        epochs: Passes over the networks.
        batch_size: Networks of a step; each enters twice.
        max_edges: Most edges of a step with more than one network.
        learning_rate: Highest rate of AdamW, falling to zero along a cosine.
        weight_decay: AdamW's.
        noise: Standard deviation of the noise by which the parameters of a copy are multiplied.
        temperature: Of the comparison.
        seed: Decides initial weights, order and noise.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    epochs: int = 10
    batch_size: int = 16
    max_edges: int = 200_000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    noise: float = 0.1
    temperature: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "max_edges", "learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.batch_size < 2:
            raise ConfigError(f"Expected 'batch_size' of at least 2 (got {self.batch_size})")
        for name in ("noise", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Expected '{name}' of at least 0 (got {getattr(self, name)})")


def fit_embedding(
    groups: Sequence[Group],
    *,
    lineages: Sequence[Tensor] | None = None,
    start: Metanetwork | None = None,
    shape: MetanetworkConfig | None = None,
    config: EmbeddingConfig = EmbeddingConfig(),
    on_epoch: Callable[[int, float], None] = lambda _, __: None,
) -> Metanetwork:
    """Train `Metanetwork.embed`. Deterministic on one machine.

    Args:
        groups: Stacks of networks, by architecture.
        lineages: For each group the number of each network's lineage: networks of one are drawn together, beside the noisy copies.
            None: each network is its own.
        start: A metanetwork to go on with; it is changed in place, its other heads are not trained.
        shape: Shape of a new metanetwork.
        config: Settings.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.

    Raises:
        ConfigError: If there are fewer than two networks, or lineages do not fit them.
        NasGraphError: If the loss is not finite.
    """
    sizes = [group_size(group) for group in groups]
    if sum(sizes) < 2:
        raise ConfigError(f"Expected at least two networks to tell apart (got {sum(sizes)})")
    if lineages is None:
        starts = torch.tensor([0, *sizes]).cumsum(0)
        lineages = [torch.arange(size) + first for size, first in zip(sizes, starts.tolist(), strict=False)]
    if [len(each) for each in lineages] != sizes:
        raise ConfigError(f"Expected lineages of {sizes} networks (got {[len(each) for each in lineages]})")
    metanetwork = start or Metanetwork(shape, seed=derive_seed(config.seed, "initial weights"))
    optimizer = torch.optim.AdamW(
        metanetwork.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    metanetwork.train()
    for epoch in range(config.epochs):
        rng = torch.Generator().manual_seed(derive_seed(config.seed, "embedding epoch", epoch))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + cos(pi * epoch / config.epochs)) / 2
        total, count = 0.0, 0
        for batch in batches(groups, size=config.batch_size, max_edges=config.max_edges, rng=rng):
            loss = _loss(metanetwork, groups, batch, take(lineages, batch), config, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            norm = torch.nn.utils.clip_grad_norm_(metanetwork.parameters(), 1.0)
            if not torch.isfinite(norm):
                raise NasGraphError(f"The gradient is not finite in epoch {epoch + 1}. Lower 'learning_rate'")
            optimizer.step()
            total, count = total + loss.item(), count + 1
        on_epoch(epoch + 1, total / count)
    return metanetwork.eval()


def _loss(
    metanetwork: Metanetwork,
    groups: Sequence[Group],
    batch: Sequence[tuple[int, Tensor]],
    lineage: Tensor,
    config: EmbeddingConfig,
    rng: torch.Generator,
) -> Float[Tensor, ""]:
    """Of one batch: two noisy copies of each network."""
    pg = batch_graph(groups, batch)
    copies = [metanetwork.embed(with_noise(pg, config.noise, rng)) for _ in range(2)]
    return graph_loss(torch.cat(copies), lineage.repeat(2), temperature=config.temperature)
