"""Training of a pruned network for a fixed number of steps, maybe towards the outputs of the network it was cut from."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split, batches
from nasgraph.errors import ConfigError
from nasgraph.evaluate.train import DivergedError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import (
    Program,
    RunContext,
    State,
    buffers_by_node,
    check_state,
    constants_by_node,
    is_parameter,
    is_statistic,
)
from nasgraph.seeding import derive_seed

Penalty = Callable[[Mapping[str, Tensor]], Tensor]
"""A term of the loss that depends on the parameters alone."""


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """How networks are fine-tuned: the same for all that are compared.

    Attributes:
        batch_size: Examples per step.
        learning_rate: Peak of AdamW's learning rate: one tenth of the steps (at most 100) of linear warm-up, then a cosine to 0.
        weight_decay: AdamW's decoupled weight decay.
        distillation: Share of the loss that follows a teacher, if there is one; the rest follows the labels.
        temperature: Of the softmax whose outputs are compared with the teacher's.
    """

    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    distillation: float = 0.7
    temperature: float = 4.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "learning_rate", "temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if not 0 <= self.distillation <= 1 or self.weight_decay < 0:
            raise ConfigError("Expected 'distillation' in [0, 1] and 'weight_decay' of at least 0")


def teacher_logits(graph: ComputationalGraph, state: State, split: Split, *, batch_size: int = 512) -> Tensor:
    """What a network gives for each example of a split, in inference mode: `[examples, classes]`. Run once, used in each epoch."""
    check_state(graph, state, owner="the teacher")
    program, buffers = Program(graph), buffers_by_node({n: t for n, t in state.items() if is_statistic(n)})
    constants = constants_by_node(state)
    parts = []
    with torch.no_grad():
        for start in range(0, len(split), batch_size):
            inputs = split.inputs[start : start + batch_size]
            context = RunContext(batch_size=len(inputs), buffers=buffers, constants=constants)
            parts.append(program(state, [inputs], context)[0])
    return torch.cat(parts)


def distillation_loss(
    logits: Tensor, targets: Tensor, teacher: Tensor, *, share: float, temperature: float
) -> Tensor:
    """Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2.

    Cross-entropy with the labels and with the teacher's softened outputs, the latter times the squared temperature, so that both
    gradients keep their size.
    """
    soft = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - share) * F.cross_entropy(logits, targets) + share * temperature**2 * soft


def finetune(
    graph: ComputationalGraph,
    state: State,
    train: Split,
    *,
    steps: int,
    seed: int,
    config: FineTuneConfig | None = None,
    teacher: Tensor | None = None,
    penalty: Penalty | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train for a number of steps from a given state, which is not changed.

    The state after the last step is returned, not the best by some validation: what is compared has had equal steps. The same
    arguments give the same result on one machine.

    Args:
        graph: The network.
        state: Where to start: parameters, running statistics and constants.
        train: Training examples.
        steps: How many batches. None at all return the state as it is.
        seed: Decides the order of examples and what is dropped.
        config: How to train.
        teacher: Logits of a teacher for each training example, from `teacher_logits`.
        penalty: Added to the loss, such as group sparsity.
        masks: Zeros where parameters stay zero (of the same shape), by name.

    Raises:
        StateError: If the state is that of another graph.
        DivergedError: If the loss stops being finite.
    """
    config = config or FineTuneConfig()
    check_state(graph, state)
    learnt = {n: t.detach().clone().requires_grad_() for n, t in state.items() if is_parameter(n, t)}
    statistics = {n: t.detach().clone() for n, t in state.items() if is_statistic(n)}
    program, buffers, constants = Program(graph), buffers_by_node(statistics), constants_by_node(state)
    if teacher is not None and len(teacher) != len(train):
        raise ConfigError(
            f"Expected the teacher's outputs for {len(train):,} examples (got {len(teacher):,})"
        )
    optimizer = torch.optim.AdamW(
        list(learnt.values()), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    rng = torch.Generator().manual_seed(derive_seed(seed, "finetune"))
    loss = torch.zeros(())
    for step, index in enumerate(_indices(train, config.batch_size, steps, seed)):
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm_cosine(step, steps)
        context = RunContext(
            batch_size=len(index), training=True, generator=rng, buffers=buffers, constants=constants
        )
        (logits,) = program(learnt, [train.inputs[index]], context)
        targets = train.targets[index]
        if teacher is None:
            loss = F.cross_entropy(logits, targets)
        else:
            loss = distillation_loss(
                logits, targets, teacher[index], share=config.distillation, temperature=config.temperature
            )
        if penalty is not None:
            loss = loss + penalty(learnt)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        if masks:
            with torch.no_grad():
                for name, mask in masks.items():
                    learnt[name].mul_(mask)
    if not torch.isfinite(loss):
        raise DivergedError(f"The loss became {float(loss)} within {steps} steps of fine-tuning")
    return {**state, **{name: tensor.detach() for name, tensor in learnt.items()}, **statistics}


def _indices(train: Split, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Places of the examples of each batch: epochs one after the other; a last batch that is not full is left out."""
    places = Split(torch.arange(len(train), dtype=torch.float32), train.targets)
    size = min(batch_size, len(train))
    epoch = done = 0
    while done < steps:
        for inputs, _ in batches(places, batch_size=size, seed=seed, epoch=epoch, drop_last=True):
            if done == steps:
                break
            yield inputs.long()
            done += 1
        epoch += 1


def warm_cosine(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over a tenth of the steps (at most 100), then a cosine to zero."""
    warm = min(100, max(1, steps // 10))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
