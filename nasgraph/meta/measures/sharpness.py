"""How much the weights may be disturbed before accuracy falls: measures of flatness.

Shape letters: B = networks, N = examples, K = classes.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.views import check_stack, run_stack
from nasgraph.modules import State, is_parameter
from nasgraph.seeding import derive_seed

Noise = Literal["plain", "magnitude"]


def logits_of_stack(
    graph: ComputationalGraph, stacked: State, inputs: Float[Tensor, "examples *shape"]
) -> Float[Tensor, "networks examples classes"]:
    """Outputs of every network for every example, without gradients; inputs take the number type of the weights."""
    real = stacked[next(iter(graph.parameters))].dtype
    with torch.no_grad():
        return run_stack(graph, stacked, [inputs.to(real) if inputs.is_floating_point() else inputs])[0]


def accuracies(logits_BNK: Tensor, targets_N: Int64[Tensor, " examples"]) -> Float[Tensor, " networks"]:
    """Share of the examples that each network gets right."""
    return (logits_BNK.argmax(-1) == targets_N).double().mean(1)


def sharpness_sigma(
    graph: ComputationalGraph,
    stacked: State,
    data: Split,
    *,
    noise: Noise = "plain",
    drop: float = 0.1,
    draws: int = 5,
    steps: int = 12,
    seed: int = 0,
) -> Float[Tensor, " networks"]:
    """The standard deviation of Gaussian noise on the parameters that costs `drop` of the accuracy on `data`, in the mean.

    Jiang et al. 2020, section C.3: the sigma of PAC-Bayes bounds, found by bisection of its logarithm between 1e-5 and 10 (between 1e-5 and 100 of the weight's own size
    if `noise` is `magnitude`). All networks see the same draws, and a draw only grows with sigma, so that the result is deterministic. The search ends
    within a factor of 16^(1/2**steps) or so of the place where the estimated drop is reached.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        data: Examples with labels, usually those trained on.
        noise: `plain`: the same standard deviation for every parameter. `magnitude`: sigma times the parameter's size; with equal draws
            this is not changed by rescaling units.
        drop: How much accuracy may fall.
        draws: Over how many draws it is averaged.
        steps: Halvings of the interval.
        seed: Decides the draws.

    Raises:
        StateError: If the stack does not fit the graph.
    """
    count = check_stack(graph, stacked)
    base_B = accuracies(logits_of_stack(graph, stacked, data.inputs), data.targets)
    low_B = torch.full((count,), -5.0, dtype=torch.float64)
    high_B = torch.full((count,), 2.0 if noise == "magnitude" else 1.0, dtype=torch.float64)
    for _ in range(steps):
        middle_B = (low_B + high_B) / 2
        mean_B = torch.zeros(count, dtype=torch.float64)
        for draw in range(draws):
            noisy = _disturbed(stacked, 10**middle_B, noise, derive_seed(seed, "sharpness", draw))
            mean_B += accuracies(logits_of_stack(graph, noisy, data.inputs), data.targets) / draws
        holds_B = mean_B >= base_B - drop
        low_B, high_B = torch.where(holds_B, middle_B, low_B), torch.where(holds_B, high_B, middle_B)
    return 10 ** ((low_B + high_B) / 2)


def rise_along_random_directions(
    graph: ComputationalGraph,
    stacked: State,
    data: Split,
    *,
    radius: float = 0.1,
    directions: int = 10,
    seed: int = 0,
) -> Float[Tensor, " networks"]:
    """Mean rise of the cross-entropy at a distance from the weights, along random directions.

    Each tensor moves by `radius` times its own norm (Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape of Neural Nets", 2018, by
    tensor in place of by filter). Rescaling single units changes it; rescaling whole tensors does not.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        data: Examples with labels.
        radius: Distance, as a share of each tensor's norm.
        directions: How many.
        seed: Decides them; equal for all networks.
    """
    check_stack(graph, stacked)
    base_B = _loss(logits_of_stack(graph, stacked, data.inputs), data.targets)
    total_B = torch.zeros_like(base_B)
    for number in range(directions):
        rng = torch.Generator().manual_seed(derive_seed(seed, "direction", number))
        moved = dict(stacked)
        for name, tensor in stacked.items():
            if is_parameter(name, tensor):
                way = torch.randn(tensor.shape[1:], generator=rng).to(tensor)
                size_B = radius * tensor.flatten(1).norm(dim=1) / way.norm()
                moved[name] = tensor + way * _like(size_B, tensor)
        total_B += _loss(logits_of_stack(graph, moved, data.inputs), data.targets) - base_B
    return total_B / directions


def _disturbed(stacked: State, sigma_B: Tensor, noise: Noise, seed: int) -> dict[str, Tensor]:
    """The networks with noise on their parameters: its standard deviation, not its variance, is sigma (or sigma times size)."""
    rng = torch.Generator().manual_seed(seed)
    noisy = dict(stacked)
    for name, tensor in stacked.items():
        if is_parameter(name, tensor):
            draw = torch.randn(tensor.shape[1:], generator=rng).to(tensor)
            scale = _like(sigma_B.to(tensor), tensor)
            noisy[name] = tensor + draw * scale * (tensor.abs() if noise == "magnitude" else 1.0)
    return noisy


def _loss(logits_BNK: Tensor, targets_N: Tensor) -> Tensor:
    count = len(logits_BNK)
    each = F.cross_entropy(logits_BNK.flatten(0, 1), targets_N.repeat(count), reduction="none")
    return each.reshape(count, -1).double().mean(1)


def _like(values_B: Tensor, tensor: Tensor) -> Tensor:
    return values_B.reshape(-1, *(1,) * (tensor.dim() - 1))
