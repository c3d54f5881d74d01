"""Merging by arithmetic on weights: pure functions from states to a state.

All take states of one architecture, and change none. What is not learnt or measured (constants, integers) is taken from the
first state, or from the base. Running statistics are merged like weights; recompute them afterwards.
"""

from collections.abc import Callable, Sequence
from math import acos, sin

import torch
from torch import Tensor

from nasgraph.merge.states import MergeError, weighted_sum
from nasgraph.modules import State, is_averaged
from nasgraph.seeding import derive_seed


def linear(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Weighted sum; without weights the mean.

    Raises:
        MergeError: If there is no state, or the weights are as many as other things.
    """
    if not states or (weights is not None and len(weights) != len(states)):
        raise MergeError(f"Expected one weight per model (got {len(weights or ())} and {len(states)})")
    return weighted_sum(states, weights if weights is not None else [1.0 / len(states)] * len(states))


def slerp(a: State, b: State, t: float, *, min_angle: float = 1e-4) -> dict[str, Tensor]:
    """Interpolation along the great circle, tensor by tensor (Shoemake 1985, "Animating rotation with quaternion curves").

    The direction turns at an even rate, the length changes evenly. Tensors that are zero, or whose directions differ by less than
    `min_angle` from equal or opposite, are interpolated linearly. Exact at both ends.
    """
    if t in (0.0, 1.0):
        return dict(b if t else a)

    def turned(x: Tensor, y: Tensor) -> Tensor:
        long_x, long_y = float(x.norm()), float(y.norm())
        if not long_x or not long_y:
            return (1 - t) * x + t * y
        angle = acos(max(-1.0, min(1.0, float((x * y).sum()) / (long_x * long_y))))
        if sin(angle) < min_angle:
            return (1 - t) * x + t * y
        direction = (sin((1 - t) * angle) * x / long_x + sin(t * angle) * y / long_y) / sin(angle)
        return direction * ((1 - t) * long_x + t * long_y)

    return _by_tensor([a, b], lambda tensors: turned(*tensors))


def task_arithmetic(base: State, states: Sequence[State], *, scale: float = 1.0) -> dict[str, Tensor]:
    """`base + scale x sum of (state - base)` (Ilharco et al. 2023, "Editing models with task arithmetic")."""
    return _by_tensor(
        [base, *states], lambda t: t[0] + scale * sum(((x - t[0]) for x in t[1:]), torch.zeros(()))
    )


def ties(
    base: State, states: Sequence[State], *, density: float = 0.2, scale: float = 1.0
) -> dict[str, Tensor]:
    """TIES (Yadav et al. 2023, "TIES-Merging: resolving interference when merging models", algorithm 1).

    Each difference from the base keeps its largest entries, the sign of the sum of what is kept is elected for each entry, and
    the mean of the entries that agree with it is added to the base.

    Args:
        base: What all were fine-tuned from.
        states: The fine-tuned states.
        density: Share of entries that each difference keeps, per tensor, in (0, 1].
        scale: Factor of what is added.

    Raises:
        MergeError: If `density` is out of range.
    """
    if not 0 < density <= 1:
        raise MergeError(f"Expected 'density' above 0 and at most 1 (got {density})")

    def merged(tensors: list[Tensor]) -> Tensor:
        deltas = torch.stack([_trimmed(tensor - tensors[0], density) for tensor in tensors[1:]])
        elected = deltas.sum(0).sign()
        agrees = (deltas.sign() == elected) & (deltas != 0)
        total = (deltas * agrees).sum(0)
        return tensors[0] + scale * total / agrees.sum(0).clamp_min(1)

    return _by_tensor([base, *states], merged)


def _trimmed(delta: Tensor, density: float) -> Tensor:
    """The entries of largest magnitude; of equals at the border all stay."""
    kept = max(1, round(density * delta.numel()))
    if kept >= delta.numel():
        return delta
    border = delta.abs().flatten().kthvalue(delta.numel() - kept + 1).values
    return torch.where(delta.abs() >= border, delta, torch.zeros_like(delta))


def dare(state: State, base: State, *, drop: float, seed: int) -> dict[str, Tensor]:
    """DARE (Yu et al. 2024, "Language models are super Mario"): drop random entries of the difference, enlarge the others.

    The mean over seeds is the state itself. The result is an ingredient for `linear`, `task_arithmetic` or `ties`.

    Args:
        state: A fine-tuned state.
        base: What it was fine-tuned from.
        drop: Chance of each entry to be dropped, in [0, 1).
        seed: Decides which.

    Raises:
        MergeError: If `drop` is out of range.
    """
    if not 0 <= drop < 1:
        raise MergeError(f"Expected 'drop' of at least 0 and below 1 (got {drop})")
    result = dict(base)
    for name, tensor in base.items():
        if not is_averaged(name, tensor):
            continue
        rng = torch.Generator().manual_seed(derive_seed(seed, "dare", name))
        kept = (torch.rand(tensor.shape, generator=rng) >= drop).to(tensor.device)
        delta = (state[name].double() - tensor.double()) / (1 - drop)
        result[name] = (tensor.double() + delta * kept).to(tensor.dtype)
    return result


def model_stock(base: State, states: Sequence[State]) -> dict[str, Tensor]:
    """Model stock (Jang et al. 2024, "Model stock: all we need is just a few fine-tuned models", eq. 5), tensor by tensor.

    Between the base and the mean of k fine-tuned states at `k cos / (1 + (k - 1) cos)`, where cos is the mean cosine between two of
    their differences from the base: near the mean where they agree, near the base where they do not. A negative cosine counts as 0.

    Raises:
        MergeError: If there are fewer than two states.
    """
    number = len(states)
    if number < 2:
        raise MergeError(f"Expected at least two fine-tuned models (got {number})")

    def merged(tensors: list[Tensor]) -> Tensor:
        deltas = torch.stack([(tensor - tensors[0]).flatten() for tensor in tensors[1:]])
        lengths = deltas.norm(dim=1, keepdim=True)
        unit = deltas / lengths.clamp_min(1e-300)
        cosines = (unit @ unit.T).sum() - unit.square().sum()
        cosine = max(0.0, float(cosines) / (number * (number - 1)))
        share = number * cosine / (1 + (number - 1) * cosine)
        return tensors[0] + share * deltas.mean(0).reshape(tensors[0].shape)

    return _by_tensor([base, *states], merged)


def karcher_mean(states: Sequence[State], *, steps: int = 50, tolerance: float = 1e-12) -> dict[str, Tensor]:
    """Mean direction on the sphere times mean length, tensor by tensor (Karcher 1977): `slerp` for more than two.

    Tensors whose mean direction is not determined (one is zero, or the directions cancel) are averaged linearly.
    """

    return _by_tensor(states, lambda tensors: _spherical_mean(tensors, steps=steps, tolerance=tolerance))


def _spherical_mean(tensors: Sequence[Tensor], *, steps: int, tolerance: float) -> Tensor:
    """Fixed-point iteration: the mean moves by the mean of the directions towards all, until that is zero."""
    lengths = torch.stack([tensor.norm() for tensor in tensors])
    plain = torch.stack(list(tensors)).mean(0)
    if (lengths == 0).any():
        return plain
    unit = torch.stack([t.flatten() / length for t, length in zip(tensors, lengths, strict=True)])
    mean = unit.mean(0)
    if mean.norm() < 1e-9:
        return plain
    mean = mean / mean.norm()
    for _ in range(steps):
        cosines = unit @ mean
        along = unit - cosines.unsqueeze(1) * mean
        size = along.norm(dim=1)
        turns = torch.where(size > 0, torch.atan2(size, cosines) / size.clamp_min(1e-300), 0.0)
        step = (along * turns.unsqueeze(1)).mean(0)
        length = step.norm()
        if length < tolerance:
            break
        mean = torch.cos(length) * mean + torch.sin(length) * step / length
        mean = mean / mean.norm()
    result: Tensor = (mean * lengths.mean()).reshape(tensors[0].shape)
    return result


def _by_tensor(states: Sequence[State], merge: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    """Merge tensor by tensor, in double precision; what is not averaged is taken from the first state."""
    result: dict[str, Tensor] = {}
    for name, tensor in states[0].items():
        if is_averaged(name, tensor):
            result[name] = merge([state[name].detach().double() for state in states]).to(tensor.dtype)
        else:
            result[name] = tensor
    return result
