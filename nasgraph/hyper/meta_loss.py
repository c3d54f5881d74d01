"""What the target networks say about their predicted parameters: losses, and gradients of every predicted tensor.

Architectures are run one after the other, forwards and at once backwards, down to their predicted tensors; only then
one pass leads from all predicted tensors back into the hypernetwork. By the chain rule that is the same gradient as that of
one large backward pass, but the activations of only one network are in memory at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.hyper.ghn import Parameters
from nasgraph.hyper.prefetch import DrawnGraph
from nasgraph.hyper.training_config import GHNTrainConfig
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext
from nasgraph.seeding import derive_seed


@dataclass(frozen=True)
class TargetOutcome:
    """What one architecture says of its predicted parameters.

    Attributes:
        loss: Cross-entropy (with label smoothing).
        accuracy: Share of the training images that are right.
        is_finite: Whether the loss and the norm of all gradients are finite.
        gradients: Of the loss and the norm penalty, for each predicted tensor that the loss depends on.
    """

    loss: Tensor
    accuracy: Tensor
    is_finite: Tensor
    gradients: Mapping[str, Tensor]


def target_outcome(
    graph: ComputationalGraph,
    predicted: Parameters,
    images: Tensor,
    targets: Tensor,
    *,
    config: GHNTrainConfig,
    dropout_seed: int,
) -> TargetOutcome:
    """Run one architecture forwards and backwards. `predicted` is left as it is; nothing flows beyond it."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in predicted.items()}
    rng = torch.Generator().manual_seed(dropout_seed)
    context = RunContext(batch_size=len(images), training=True, generator=rng)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        (logits,) = Program(graph)(leaves, [images], context)
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
    objective = loss
    if config.norm_penalty:
        norms = [torch.linalg.vector_norm(tensor) for tensor in leaves.values()]
        objective = loss + config.norm_penalty * torch.stack(norms).sum()
    found = torch.autograd.grad(objective, list(leaves.values()), allow_unused=True)
    gradients = {name: grad for name, grad in zip(leaves, found, strict=True) if grad is not None}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    accuracy = (logits.detach().argmax(1) == targets).float().mean()
    return TargetOutcome(loss.detach(), accuracy, torch.isfinite(loss.detach() + norm), gradients)


def target_outcomes(
    graphs: Sequence[DrawnGraph],
    predicted: Sequence[Parameters],
    images: Tensor,
    targets: Tensor,
    *,
    config: GHNTrainConfig,
    step: int,
) -> list[TargetOutcome]:
    """Run the architectures of a step one after the other on the same images."""
    return [
        target_outcome(
            drawn.graph,
            parameters,
            images,
            targets,
            config=config,
            dropout_seed=derive_seed(config.seed, "dropout", step, drawn.place),
        )
        for drawn, parameters in zip(graphs, predicted, strict=True)
    ]


def summed(outcomes: Sequence[TargetOutcome], device: torch.device) -> Tensor:
    """Of the architectures: number with finite gradients, sums of their losses and accuracies, number of the others."""
    if not outcomes:
        return torch.zeros(4, device=device)
    finite = torch.stack([outcome.is_finite for outcome in outcomes])
    loss = torch.stack([outcome.loss for outcome in outcomes])
    accuracy = torch.stack([outcome.accuracy for outcome in outcomes])
    zero = loss.new_zeros(())
    return torch.stack(
        [
            finite.sum().to(loss),
            torch.where(finite, loss, zero).sum(),
            torch.where(finite, accuracy, zero).sum(),
            (~finite).sum().to(loss),
        ]
    )


def backward(predicted: Sequence[Parameters], outcomes: Sequence[TargetOutcome], *, divisor: float) -> None:
    """Follow the sum of the finite gradients, divided by `divisor`, into what the parameters were predicted from."""
    tensors, gradients = [], []
    for parameters, outcome in zip(predicted, outcomes, strict=True):
        if bool(outcome.is_finite):
            for name, gradient in outcome.gradients.items():
                tensors.append(parameters[name])
                gradients.append(gradient / divisor)
    if tensors:
        torch.autograd.backward(tensors, gradients)
