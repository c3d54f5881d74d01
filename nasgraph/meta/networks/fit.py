"""Training a metanetwork to predict numbers of networks, such as their accuracy: one flat loop.

Everything random in an epoch is a function of the seed and the epoch's number, so a run that resumes from a checkpoint continues bit by
bit as if it had never stopped (on one machine with one number of threads).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, inf, pi
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.meta.graph import ParameterGraph
from nasgraph.meta.networks.batches import Group, batch_graph, batches, group_size, take
from nasgraph.meta.networks.config import MetanetworkConfig
from nasgraph.meta.networks.metanetwork import Metanetwork
from nasgraph.meta.networks.progress import load_progress, save_progress
from nasgraph.seeding import derive_seed

Data = tuple[Sequence[Group], Sequence[Tensor]]
"""Groups of networks, and for each group its targets: `[networks]` or `[networks, targets]`."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a metanetwork is trained.

    Attributes:
        epochs: Passes over the networks.
        batch_size: Networks of a step.
        max_edges: Most edges of a step with more than one network: bounds memory.
        learning_rate: Highest rate of AdamW; it rises over the first twentieth and falls to zero along a cosine.
        weight_decay: AdamW's.
        clip_norm: Largest norm of the gradient.
        noise: Standard deviation of the noise by which parameters are multiplied, as augmentation.
        patience: Epochs without improvement on the validation networks after which training stops; 0: never.
        seed: Decides initial weights, order and noise.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    epochs: int = 30
    batch_size: int = 16
    max_edges: int = 200_000
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    noise: float = 0.0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_edges", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        for name in ("weight_decay", "noise", "patience"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Expected '{name}' of at least 0 (got {getattr(self, name)})")


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch did.

    Attributes:
        number: From 1.
        loss: Mean over the training networks.
        val_loss: Mean over the validation networks; NaN without any.
        is_best: Whether no epoch before had a lower validation loss.
        seconds: Wall time.
    """

    number: int
    loss: float
    val_loss: float
    is_best: bool
    seconds: float


def fit_predictor(
    train: Data,
    *,
    val: Data | None = None,
    shape: MetanetworkConfig | None = None,
    config: FitConfig = FitConfig(),
    folder: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Metanetwork:
    """Train a metanetwork. With validation networks, the weights of the best epoch are returned, else the last ones.

    Args:
        train: Groups of networks with targets. `Population.by_architecture` gives groups, `grouped` makes them.
        val: Networks that decide when to stop.
        shape: Shape of the metanetwork; its number of targets is set. `output` "share": targets in [0, 1], cross-entropy;
            "number": squared error of standardised targets.
        config: Settings.
        folder: Where a checkpoint is kept after each epoch; one that is there is continued. None: none is kept.
        on_epoch: Called after each epoch.

    Raises:
        ConfigError: If there are no networks, or targets do not fit them, are not finite or no shares.
        CheckpointError: If the checkpoint in `folder` is damaged or belongs to other settings.
        NasGraphError: If the loss is not finite.
    """
    shape = MetanetworkConfig() if shape is None else shape
    train, num_targets = _checked(train, shape)
    if val is not None:
        val, _ = _checked(val, shape)
    shape = replace(shape, targets=num_targets)
    metanetwork = Metanetwork(shape, seed=derive_seed(config.seed, "initial weights"))
    if shape.output == "number":
        metanetwork.standardise(torch.cat(list(train[1])))
    optimizer = torch.optim.AdamW(
        metanetwork.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    settings = {"shape": asdict(shape), "fit": asdict(config)}
    best = {name: tensor.clone() for name, tensor in metanetwork.state_dict().items()}
    done, best_loss, best_epoch = 0, inf, 0
    if folder is not None:
        done, best_loss, best_epoch = load_progress(folder, settings, metanetwork, optimizer, best)
    num_steps = sum(1 for _ in batches(train[0], size=config.batch_size, max_edges=config.max_edges))
    for epoch in range(done, config.epochs):
        if config.patience and epoch - best_epoch >= config.patience and best_loss < inf:
            break
        started = time.perf_counter()
        loss = _epoch(metanetwork, optimizer, train, config, epoch, num_steps)
        val_loss = evaluate_loss(metanetwork, val, config) if val is not None else float("nan")
        is_best = val is None or val_loss < best_loss
        if is_best:
            best_loss, best_epoch = (val_loss if val is not None else inf), epoch + 1
            best = {name: tensor.clone() for name, tensor in metanetwork.state_dict().items()}
        if folder is not None:
            save_progress(folder, settings, metanetwork, optimizer, best, (epoch + 1, best_loss, best_epoch))
        on_epoch(Epoch(epoch + 1, loss, val_loss, is_best, time.perf_counter() - started))
    metanetwork.load_state_dict(best)
    return metanetwork.eval()


def _epoch(
    metanetwork: Metanetwork,
    optimizer: torch.optim.Optimizer,
    train: Data,
    config: FitConfig,
    epoch: int,
    num_steps: int,
) -> float:
    """One pass; its mean loss."""
    metanetwork.train()
    rng = torch.Generator().manual_seed(derive_seed(config.seed, "epoch", epoch))
    total, count = 0.0, 0
    with torch.random.fork_rng(devices=[], enabled=metanetwork.config.dropout > 0):
        if metanetwork.config.dropout > 0:  # torch's dropout draws from the global generator
            torch.default_generator.manual_seed(derive_seed(config.seed, "dropout", epoch))
        order = batches(train[0], size=config.batch_size, max_edges=config.max_edges, rng=rng)
        for step, batch in enumerate(order):
            rate = config.learning_rate * _schedule(epoch + min(1.0, step / num_steps), config.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            pg = with_noise(batch_graph(train[0], batch), config.noise, rng)
            loss = prediction_loss(metanetwork, pg, take(train[1], batch))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            norm = torch.nn.utils.clip_grad_norm_(metanetwork.parameters(), config.clip_norm)
            if not torch.isfinite(norm):
                raise NasGraphError(
                    f"The gradient is not finite in epoch {epoch + 1}. Lower 'learning_rate' (now {config.learning_rate:g})"
                )
            optimizer.step()
            total, count = total + loss.item() * pg.num_graphs, count + pg.num_graphs
    return total / count


def prediction_loss(
    metanetwork: Metanetwork, pg: ParameterGraph, targets: Float[Tensor, "networks targets"]
) -> Float[Tensor, ""]:
    """Cross-entropy of shares, or squared error in units of the targets' spread."""
    raw = metanetwork.raw(pg)
    if metanetwork.config.output == "share":
        return F.binary_cross_entropy_with_logits(raw, targets.to(raw))
    return F.mse_loss(raw, metanetwork.standardised(targets.to(raw)))


@torch.no_grad()
def evaluate_loss(metanetwork: Metanetwork, data: Data, config: FitConfig) -> float:
    """Mean loss over networks."""
    metanetwork.eval()
    total, count = 0.0, 0
    for batch in batches(data[0], size=config.batch_size, max_edges=config.max_edges):
        pg = batch_graph(data[0], batch)
        total += prediction_loss(metanetwork, pg, take(data[1], batch)).item() * pg.num_graphs
        count += pg.num_graphs
    return total / count


@torch.no_grad()
def predict_groups(
    metanetwork: Metanetwork, groups: Sequence[Group], *, batch_size: int = 32, max_edges: int = 400_000
) -> list[Float[Tensor, "networks targets"]]:
    """Predictions for all networks, one tensor per group."""
    metanetwork.eval()
    return _by_group(metanetwork.predict, groups, batch_size, max_edges)


@torch.no_grad()
def embed_groups(
    metanetwork: Metanetwork, groups: Sequence[Group], *, batch_size: int = 32, max_edges: int = 400_000
) -> list[Float[Tensor, "networks dim"]]:
    """Embeddings of all networks, one tensor per group."""
    metanetwork.eval()
    return _by_group(metanetwork.embed, groups, batch_size, max_edges)


def _by_group(
    read: Callable[[ParameterGraph], Tensor], groups: Sequence[Group], batch_size: int, max_edges: int
) -> list[Tensor]:
    parts: list[list[Tensor]] = [[] for _ in groups]
    for batch in batches(groups, size=batch_size, max_edges=max_edges):
        found = read(batch_graph(groups, batch)).split_with_sizes([len(rows) for _, rows in batch])
        for (number, _), part in zip(batch, found, strict=True):
            parts[number].append(part)
    return [torch.cat(each) for each in parts]


def with_noise(pg: ParameterGraph, std: float, rng: torch.Generator) -> ParameterGraph:
    """The parameter graph with every parameter times a normal number about one."""
    if std == 0:
        return pg
    nodes = 1 + std * torch.randn(pg.node_values.shape, generator=rng) * pg.node_mask
    edges = 1 + std * torch.randn(pg.edge_values.shape, generator=rng) * pg.edge_mask
    return replace(pg, node_values=pg.node_values * nodes, edge_values=pg.edge_values * edges)


def _checked(data: Data, shape: MetanetworkConfig) -> tuple[Data, int]:
    """The data with targets as columns."""
    groups, given = list(data[0]), [torch.as_tensor(each) for each in data[1]]
    if not groups or len(groups) != len(given):
        raise ConfigError(
            f"Expected targets for each of at least one group (got {len(given)} for {len(groups)})"
        )
    targets = [each.unsqueeze(1) if each.dim() == 1 else each for each in given]
    widths = {each.shape[1] if each.dim() == 2 else 0 for each in targets}
    for number, (group, each) in enumerate(zip(groups, targets, strict=True)):
        if len(each) != group_size(group) or len(widths) != 1 or each.dim() != 2:
            raise ConfigError(
                f"Expected {group_size(group)} rows of targets for group {number} (got shape {tuple(each.shape)})"
            )
        if not torch.isfinite(each).all():
            raise ConfigError(f"The targets of group {number} are not all finite: leave such networks out")
        if shape.output == "share" and not ((each >= 0) & (each <= 1)).all():
            raise ConfigError(
                f"Expected shares in [0, 1] as targets of group {number}, or 'output' \"number\""
            )
    return (groups, [each.to(torch.get_default_dtype()) for each in targets]), widths.pop()


def _schedule(epoch: float, epochs: int) -> float:
    warm = max(1e-9, min(1.0, epochs / 20))
    return min(1.0, 0.05 + epoch / warm) * (1 + cos(pi * min(1.0, epoch / epochs))) / 2
