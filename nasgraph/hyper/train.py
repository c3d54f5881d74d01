"""Training a graph hypernetwork: one flat loop.

Each step predicts the parameters of a few random architectures (the meta-batch), runs them on one batch of
training images, and follows the mean loss back into the hypernetwork. Everything random in a step is a function
of the seed and the step's number, so a run that resumes from a checkpoint continues bit by bit as if it had never
stopped (on one machine with one number of threads and ranks), and worker processes may draw ahead.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nasgraph.data import SearchData, Split, augment
from nasgraph.encode import batch_graphs
from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.hyper.ema import WeightAverage
from nasgraph.hyper.ghn import GraphHyperNetwork
from nasgraph.hyper.meta_loss import backward, summed, target_outcomes
from nasgraph.hyper.prefetch import Draw, graph_feed
from nasgraph.hyper.progress import STATE, TrainingState, load_checkpoint, save_checkpoint
from nasgraph.hyper.schedule import learning_rate_factor
from nasgraph.hyper.splits import training_candidate
from nasgraph.hyper.training_config import Execution, GHNTrainConfig
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import SearchSpace

MAX_BAD_STEPS = 50


@dataclass(frozen=True, slots=True)
class TrainStep:
    """What one step did, over all ranks.

    Attributes:
        step: Its number, from 0.
        loss: Mean cross-entropy of the architectures with a finite loss and gradient; NaN if there was none.
        accuracy: Their mean accuracy on the step's training images, in [0, 1].
        skipped: Architectures left out because their loss or gradient was not finite.
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
    execution: Execution = Execution(),  # noqa: B008  frozen
    on_step: Callable[[TrainStep], None] = lambda _: None,
) -> None:
    """Train `ghn` in place. At the end it holds the moving average of its parameters, if there is one.

    Args:
        ghn: The hypernetwork, on the device to train on.
        spaces: Where architectures are drawn from, each with equal chance.
        data: Training images; validation data is not touched.
        config: Settings.
        folder: Where checkpoints go.
        resume: Continue from the checkpoint in `folder`, if there is one, instead of refusing it.
        held_out: Fingerprints of architectures that must not be trained on; they are skipped when drawn.
        execution: Workers that draw ahead, and the place of this process among several that train together.
        on_step: Called after each step.

    Raises:
        NasGraphError: If `folder` holds a checkpoint and `resume` is false, the disk is full, 50 steps in a
            row had no finite loss, nothing but held-out architectures is drawn, or a worker died. The last good
            checkpoint stays.
        CheckpointError: If the checkpoint to resume from is damaged or belongs to other settings.
        ConfigError: If there is no space, one reads integers and the data has none, or there are too many ranks.
    """
    ranks = execution.ranks
    _check(spaces, data, config, ranks.size)
    parameters = list(ghn.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    state = TrainingState(ghn, optimizer, WeightAverage(ghn, config.ema_decay))
    first_step = load_checkpoint(state, config, folder, resume=resume)
    train = data.train.to(ghn.device)
    draw = Draw(tuple(spaces), config.meta_batch, config.seed, held_out, ranks)
    ghn.train()
    bad_steps = 0
    with graph_feed(draw, range(first_step, config.steps), workers=execution.workers) as graphs_of:
        for step in range(first_step, config.steps):
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(step, config)

            graphs = graphs_of(step)
            images, targets = training_images(train, config, step)
            predicted = ghn(batch_graphs([drawn.encoded for drawn in graphs]).to(ghn.device))
            outcomes = target_outcomes(graphs, predicted, images, targets, config=config, step=step)
            totals = summed(outcomes, ghn.device)
            ranks.sum_over_ranks(totals)
            num_finite, loss, accuracy, num_skipped = totals.tolist()

            optimizer.zero_grad(set_to_none=True)
            is_good = num_finite > 0
            if is_good:
                backward(predicted, outcomes, divisor=num_finite)
                ranks.sum_gradients(parameters)
                is_good = bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)))
            if is_good:
                optimizer.step()
                state.average.update(ghn)
            bad_steps = 0 if is_good else bad_steps + 1
            if bad_steps >= MAX_BAD_STEPS:
                raise _lost(config, folder, step)

            done = step + 1
            is_due = (is_good and done % config.checkpoint_every == 0) or done == config.steps
            if is_due and ranks.rank == 0:
                save_checkpoint(state, config, folder, done)
            mean_loss, mean_accuracy = (
                total / num_finite if num_finite else math.nan for total in (loss, accuracy)
            )
            seconds = time.perf_counter() - started
            on_step(TrainStep(step, mean_loss, mean_accuracy, int(num_skipped), seconds))
    state.average.copy_to(ghn)
    ghn.eval()


def training_images(train: Split, config: GHNTrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """The augmented images of one step and their targets: a pure function of its arguments, equal on all ranks."""
    rng = generator(config.seed, "images", step)
    batch = train.pick(torch.from_numpy(rng.integers(len(train), size=config.batch_size)))
    if batch.inputs.ndim != 4:
        return batch.inputs, batch.targets
    noise = torch.Generator().manual_seed(derive_seed(config.seed, "augment", step))
    return augment(batch.inputs, config.augmentation, rng=noise), batch.targets


def _check(spaces: Sequence[SearchSpace], data: SearchData, config: GHNTrainConfig, num_ranks: int) -> None:
    if not spaces:
        raise ConfigError("Expected at least one search space to train on")
    kind = "float" if data.train.inputs.is_floating_point() else "int"
    for space in spaces:
        graph = training_candidate(space, 0).graph
        wanted = {str(graph.nodes[index].attr("dtype")) for index in graph.inputs}
        if wanted != {kind}:
            raise ConfigError(
                f"The networks of the space '{space.name}' read {' and '.join(sorted(wanted))} numbers, "
                f"but the inputs of '{data.name}' are {kind}"
            )
    if config.meta_batch < num_ranks:
        raise ConfigError(
            f"Expected 'meta_batch' of at least the number of ranks, so that each has an architecture "
            f"(got {config.meta_batch} and {num_ranks})"
        )


def _lost(config: GHNTrainConfig, folder: Path, step: int) -> NasGraphError:
    has_checkpoint = (folder / STATE).exists()
    last = f"The last good checkpoint is in '{folder}'" if has_checkpoint else "No checkpoint was written"
    return NasGraphError(
        f"No finite loss or gradient in {MAX_BAD_STEPS} steps up to step {step}. {last}. "
        f"Lower 'learning_rate' (now {config.learning_rate:g}) or 'clip_norm'"
    )
