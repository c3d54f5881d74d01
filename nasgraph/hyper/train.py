"""Training a graph hypernetwork: one flat loop.

Each step predicts the parameters of a few random architectures (the meta-batch), runs them on one batch of
training images, and follows the mean loss back into the hypernetwork. Everything random in a step is a function
of the seed and the step's number, so a run that resumes from a checkpoint continues bit by bit as if it had never
stopped (on one machine with one number of threads).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Augmentation, SearchData, augment
from nasgraph.encode import EncodedGraph, batch_graphs, encode
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.files import Json, read_json, write_json
from nasgraph.hyper.checkpoint import check_state, load_tensors, save_tensors
from nasgraph.hyper.ghn import GraphHyperNetwork, Parameters
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import Candidate, SearchSpace, sample

logger = logging.getLogger(__name__)

PROGRESS = "progress.json"
STATE = "state.safetensors"
MAX_BAD_STEPS = 50
MAX_REFUSED = 1000
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW remembers of a parameter."""


@dataclass(frozen=True, kw_only=True)
class GHNTrainConfig:
    """Settings of one training.

    Attributes:
        steps: Optimiser steps.
        meta_batch: Architectures per step.
        batch_size: Images per step, shared by its architectures.
        learning_rate: Peak of AdamW's learning rate: linear warm-up, then a cosine down to zero.
        warmup_steps: Length of the warm-up.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: Largest norm of the gradient.
        seed: Decides initial parameters, architectures, images and augmentation.
        checkpoint_every: Steps between checkpoints.
        shift_pixels, flip, noise_std: Augmentation of the images, see `nasgraph.data.Augmentation`.
    """

    steps: int = 3000
    meta_batch: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    shift_pixels: int = 1
    flip: bool = False
    noise_std: float = 0.1

    def __post_init__(self) -> None:
        for name in ("steps", "meta_batch", "batch_size", "checkpoint_every", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise ConfigError("Expected 'warmup_steps' and 'weight_decay' of at least 0")

    @property
    def augmentation(self) -> Augmentation:
        """The image augmentation that the settings describe."""
        return Augmentation(shift_pixels=self.shift_pixels, flip=self.flip, noise_std=self.noise_std)


@dataclass(frozen=True, slots=True)
class TrainStep:
    """What one step did.

    Attributes:
        step: Its number, from 0.
        loss: Mean cross-entropy of the architectures with a finite loss; NaN if there was none.
        accuracy: Their mean accuracy on the step's training images, in [0, 1].
        skipped: Architectures left out because their loss was not finite.
        seconds: Wall time.
    """

    step: int
    loss: float
    accuracy: float
    skipped: int
    seconds: float


def train_ghn(
    ghn: GraphHyperNetwork,
    spaces: Sequence[SearchSpace],
    data: SearchData,
    config: GHNTrainConfig,
    *,
    folder: Path,
    resume: bool = False,
    held_out: frozenset[str] = frozenset(),
    on_step: Callable[[TrainStep], None] = lambda _: None,
) -> None:
    """Train `ghn` in place.

    Args:
        ghn: The hypernetwork, on the device to train on.
        spaces: Where architectures are drawn from, each with equal chance.
        data: Training images; validation data is not touched.
        config: Settings.
        folder: Where checkpoints go.
        resume: Continue from the checkpoint in `folder`, if there is one, instead of refusing it.
        held_out: Fingerprints of architectures that must not be trained on; they are skipped when drawn.
        on_step: Called after each step.

    Raises:
        NasGraphError: If `folder` holds a checkpoint and `resume` is false, the disk is full, 50 steps in a
            row had no finite loss, or nothing but held-out architectures is drawn. The last good checkpoint stays.
        CheckpointError: If the checkpoint to resume from is damaged or belongs to other settings.
    """
    if not spaces:
        raise ConfigError("Expected at least one search space to train on")
    optimizer = torch.optim.AdamW(
        ghn.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    first_step = _resume(ghn, optimizer, config, folder, resume)
    train = data.train.to(ghn.device)
    ghn.train()
    bad_steps = 0
    for step in range(first_step, config.steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)

        graphs = list(draw_graphs(spaces, config.meta_batch, seed=config.seed, step=step, held_out=held_out))
        index = torch.from_numpy(
            generator(config.seed, "images", step).integers(len(train), size=config.batch_size)
        )
        batch = train.pick(index)
        rng = torch.Generator().manual_seed(derive_seed(config.seed, "augment", step))
        images = (
            augment(batch.inputs, config.augmentation, rng=rng) if batch.inputs.ndim == 4 else batch.inputs
        )

        predicted = ghn(batch_graphs([encoded for _, encoded in graphs]).to(ghn.device))
        losses, correct = _forward(graphs, predicted, images, batch.targets, rng)
        values = torch.stack(losses).detach()
        finite = torch.isfinite(values)
        optimizer.zero_grad(set_to_none=True)
        if finite.any():
            # Not `stack(losses)[finite]`: a zero gradient into a network that overflowed comes back as NaN.
            kept = [loss for loss, is_finite in zip(losses, finite.tolist(), strict=True) if is_finite]
            torch.stack(kept).mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            norm = torch.nn.utils.clip_grad_norm_(ghn.parameters(), config.clip_norm)
        is_good = bool(finite.any()) and bool(torch.isfinite(norm))
        if is_good:
            optimizer.step()
        bad_steps = 0 if is_good else bad_steps + 1
        if bad_steps >= MAX_BAD_STEPS:
            last = (
                f"The last good checkpoint is in '{folder}'"
                if (folder / STATE).exists()
                else "No checkpoint was written"
            )
            raise NasGraphError(
                f"No finite loss or gradient in {MAX_BAD_STEPS} steps up to step {step}. {last}. "
                f"Lower 'learning_rate' (now {config.learning_rate:g}) or 'clip_norm'"
            )

        done = step + 1
        if (is_good and done % config.checkpoint_every == 0) or done == config.steps:
            save_checkpoint(ghn, optimizer, config, folder, done)
        loss = float(values[finite].mean())
        on_step(
            TrainStep(
                step, loss, float(correct[finite].mean()), int((~finite).sum()), time.perf_counter() - started
            )
        )
    ghn.eval()


def learning_rate_factor(step: int, config: GHNTrainConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def draw_graphs(
    spaces: Sequence[SearchSpace], count: int, *, seed: int, step: int, held_out: frozenset[str] = frozenset()
) -> Iterator[tuple[ComputationalGraph, EncodedGraph]]:
    """The architectures of one step, encoded. A pure function of its arguments.

    Raises:
        NasGraphError: If 1,000 draws in a row give only architectures that are held out.
    """
    rng = generator(seed, "architectures", step)
    drawn, refused = 0, 0
    while drawn < count:
        graph = sample(spaces[int(rng.integers(len(spaces)))], rng).graph
        if not held_out or graph.fingerprint not in held_out:
            drawn, refused = drawn + 1, 0
            yield graph, encode(graph)
        else:
            refused += 1
            if refused == MAX_REFUSED:
                raise NasGraphError(
                    "Nearly all architectures of the search spaces are held out: none is left to train on"
                )


HELD_OUT_SEED = 2026


def held_out_candidates(spaces: Sequence[SearchSpace], *, count: int) -> list[Candidate]:
    """The first `count` (at most 100 are reserved) held-out architectures of each space.

    Always the same for one space and shape of data. `nasgraph ghn train` keeps them out of training, so that
    benchmarks can measure what a hypernetwork makes of architectures that it has never seen.
    """
    return [
        sample(space, generator(HELD_OUT_SEED, "held-out", space.name, i))
        for space in spaces
        for i in range(count)
    ]


def _forward(
    graphs: Sequence[tuple[ComputationalGraph, EncodedGraph]],
    predicted: Sequence[Parameters],
    images: Tensor,
    targets: Tensor,
    rng: torch.Generator,
) -> tuple[list[Tensor], Tensor]:
    """Losses and accuracies [graphs] of each architecture with its predicted parameters."""
    losses, correct = [], []
    for (graph, _), parameters in zip(graphs, predicted, strict=True):
        context = RunContext(batch_size=len(images), training=True, generator=rng)
        (logits,) = Program(graph)(parameters, [images], context)
        losses.append(F.cross_entropy(logits, targets))
        correct.append((logits.detach().argmax(1) == targets).float().mean())
    return losses, torch.stack(correct)


# ---- checkpoints: one file of tensors (parameters and both moments of AdamW), one of settings and the step


def save_checkpoint(
    ghn: GraphHyperNetwork, optimizer: torch.optim.Optimizer, config: GHNTrainConfig, folder: Path, step: int
) -> None:
    """Write everything that the next step depends on. The old checkpoint stays until the new one is whole."""
    tensors = {f"ghn.{name}": tensor for name, tensor in ghn.state_dict().items()}
    for name, parameter in ghn.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    tensors["step"] = torch.tensor(step)
    # Settings first: killed in between, the step in the tensors is the one that counts.
    document: dict[str, Json] = {"config": asdict(config), "ghn": asdict(ghn.config), "step": step}
    write_json(folder / PROGRESS, document)
    save_tensors(folder / STATE, tensors)


def _resume(
    ghn: GraphHyperNetwork,
    optimizer: torch.optim.Optimizer,
    config: GHNTrainConfig,
    folder: Path,
    resume: bool,
) -> int:
    """Load the checkpoint, if one is wanted and there; return the next step. Nothing is changed if it is refused."""
    if not (folder / STATE).exists():
        return 0
    if not resume:
        raise NasGraphError(
            f"'{folder}' holds the checkpoint of a training. Continue it with 'resume', or use another folder"
        )
    try:
        document = read_json(folder / PROGRESS)
    except NasGraphError as error:
        raise CheckpointError(f"The checkpoint in '{folder}' is damaged: {error}") from error
    wanted: Mapping[str, object] = {"config": asdict(config), "ghn": asdict(ghn.config)}
    for part, settings in wanted.items():
        if not isinstance(document, dict) or document.get(part) != settings:
            raise CheckpointError(
                f"The checkpoint in '{folder}' was made with other settings ('{part}' differs)"
            )
    tensors = load_tensors(folder / STATE)
    own = {name[4:]: tensors.pop(name) for name in list(tensors) if name.startswith("ghn.")}
    check_state(ghn, own, source=folder / STATE)
    step, moments = _read_moments(ghn, tensors, folder / STATE)
    ghn.load_state_dict(own)
    optimizer.state.update(moments)
    logger.info("Resumed the training in '%s' at step %d", folder, step)
    return step


def _read_moments(
    ghn: GraphHyperNetwork, tensors: dict[str, Tensor], source: Path
) -> tuple[int, dict[Tensor, dict[str, Tensor]]]:
    """The next step, and AdamW's state of every parameter that has had a gradient. Empties `tensors`."""
    step = tensors.pop("step", torch.empty(0))
    moments: dict[Tensor, dict[str, Tensor]] = {}
    for name, parameter in ghn.named_parameters():
        state = {key: tensors.pop(f"optimizer.{key}.{name}", torch.empty(0)) for key in MOMENTS}
        shapes = [tuple(tensor.shape) for tensor in state.values()]
        if shapes == [(), tuple(parameter.shape), tuple(parameter.shape)]:
            moments[parameter] = {
                key: tensor if key == "step" else tensor.to(parameter.device) for key, tensor in state.items()
            }
        elif shapes != [(0,)] * len(MOMENTS):
            raise CheckpointError(f"'{source}' has no whole optimizer state for '{name}'")
    if tensors or step.shape != () or step.dtype != torch.int64:
        raise CheckpointError(f"'{source}' is not the checkpoint of a training")
    return int(step), moments
