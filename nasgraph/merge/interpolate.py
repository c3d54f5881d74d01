"""Between two networks: interpolation, the barrier on the way, and what mends the activations of an average.

Shape letters: B = batch, C = channels or features, S = all other places.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nasgraph.data import Split
from nasgraph.evaluate import measure
from nasgraph.ir import ComputationalGraph
from nasgraph.merge.states import activations, check_states, has_batch_norm, weighted_sum
from nasgraph.modules import Program, State

_SCALED = ("conv1d", "conv2d", "conv3d", "linear")


def interpolate(a: State, b: State, t: float) -> dict[str, Tensor]:
    """`(1 - t) a + t b` for parameters and running statistics; constants and integers are those of `a`. Exact at both ends."""
    if t in (0.0, 1.0):
        return dict(b if t else a)
    return weighted_sum([a, b], [1.0 - t, t])


@dataclass(frozen=True, slots=True)
class Barrier:
    """Loss and accuracy along the straight line between two networks.

    Attributes:
        places: From 0, the first network, to 1, the second.
        losses: Mean cross-entropy at each place.
        accuracies: Accuracy at each place.
    """

    places: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def loss(self) -> float:
        """How far the loss rises above the straight line between both ends, at most; 0 if it never does.

        Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis", with the line in place of the mean
        of both ends, as Entezari et al. 2022 have it (eq. 1).
        """
        return max(self._above(self.losses))

    @property
    def accuracy(self) -> float:
        """How far the accuracy falls below the straight line between both ends, at most; 0 if it never does."""
        return max(self._above(tuple(-value for value in self.accuracies)))

    def _above(self, values: tuple[float, ...]) -> list[float]:
        first, last = values[0], values[-1]
        return [value - ((1 - t) * first + t * last) for t, value in zip(self.places, values, strict=True)]


def barrier(
    graph: ComputationalGraph,
    a: State,
    b: State,
    split: Split,
    *,
    train: Split | None = None,
    repair: bool = False,
    points: int = 11,
    batch_size: int = 256,
) -> Barrier:
    """Measure networks on the straight line between two.

    Args:
        graph: The architecture of both.
        a: The first network, with running statistics if it has batch norms.
        b: The second. Align it first if it comes from another random start.
        split: What is measured on.
        train: Training examples: the statistics of batch norms between the ends are recomputed on them. None: they
            are interpolated too, which is usually wrong (Jordan et al. 2023, section 2).
        repair: Whether activations between the ends are mended as well, see `repair_activations`; needs `train`.
        points: Places, both ends included.
        batch_size: Examples per forward pass.

    Raises:
        MergeError: If a state does not fit the graph, or has numbers that are not finite.
        ValueError: If `points` is below 2, or `repair` comes without `train`.
    """
    check_states(graph, {"the first model": a, "the second model": b})
    if points < 2:
        raise ValueError(f"Expected at least 2 'points' (got {points})")
    if repair and train is None:
        raise ValueError("Mending activations needs training examples: pass them as 'train'")
    program = Program(graph)
    places = tuple(place / (points - 1) for place in range(points))
    results = []
    for t in places:
        state = interpolate(a, b, t)
        if train is not None and 0 < t < 1:
            if repair:
                state = repair_activations(graph, state, a, b, t, train, batch_size=batch_size)
            else:
                state = recompute_batch_norm(graph, state, train, batch_size=batch_size)
        results.append(measure(program, state, split, batch_size=batch_size))
    return Barrier(places, tuple(loss for loss, _ in results), tuple(accuracy for _, accuracy in results))


def recompute_batch_norm(
    graph: ComputationalGraph,
    state: State,
    train: Split,
    *,
    batch_size: int = 256,
    max_examples: int | None = None,
) -> dict[str, Tensor]:
    """The state with running statistics measured anew: mean and variance of what each batch norm really reads.

    Averaged weights give activations whose variance is not the average of the variances; nets whose batch norms keep old
    statistics then fail (Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization",
    section 3.2). Statistics are pooled over all batches; while they are measured, each batch is normalised by its own, and nothing
    is dropped. Deterministic.

    Args:
        graph: The network.
        state: Its parameters. Not changed.
        train: Training examples, prepared as in training.
        batch_size: Examples per forward pass.
        max_examples: Only the first so many; None: all.

    Returns:
        The state; equal to the one given if the graph has no batch norm.
    """
    norms = [index for index, node in enumerate(graph.nodes) if node.op == "batch_norm"]
    if not norms:
        return dict(state)
    reads = [(graph.nodes[index].inputs[0], 1) for index in norms]
    pooled = _pooled(graph, state, _first(train, max_examples), reads, batch_size=batch_size, use_batch=True)
    result = dict(state)
    for index, (mean, variance) in zip(norms, pooled, strict=True):
        old = state[f"n{index}.running_mean"]
        result[f"n{index}.running_mean"] = mean.to(old)
        result[f"n{index}.running_var"] = variance.to(old)
    return result


def repair_activations(
    graph: ComputationalGraph,
    state: State,
    a: State,
    b: State,
    t: float,
    train: Split,
    *,
    batch_size: int = 256,
    max_examples: int | None = 1024,
) -> dict[str, Tensor]:
    """REPAIR: give the channels of an average the means and deviations that lie between those of its parents.

    Jordan et al. 2023, "REPAIR: renormalizing permuted activations for interpolation repair", section 3. Layers are mended in the
    order in which they run, each after those before it. Only convolutions and linear maps with a bias that
    are not read by norms alone are mended: the others cannot be shifted, or need not be. Statistics of batch norms
    are recomputed in the end.

    Args:
        graph: The architecture of all three.
        state: The average, at place `t` between its parents. Not changed.
        a: The parent at 0.
        b: The parent at 1, aligned with the first.
        t: From 0 to 1.
        train: Training examples.
        batch_size: Examples per forward pass.
        max_examples: Activations are compared on the first so many; None: all.
    """
    targets = [(index, -1 if graph.nodes[index].op == "linear" else 1) for index in _mendable(graph, state)]
    few = _first(train, max_examples)
    result = dict(state)
    if targets:
        parents = [_pooled(graph, parent, few, targets, batch_size=batch_size) for parent in (a, b)]
        for place, (index, axis) in enumerate(targets):
            (mean_a, var_a), (mean_b, var_b) = parents[0][place], parents[1][place]
            wanted_mean = (1 - t) * mean_a + t * mean_b
            wanted_std = (1 - t) * var_a.sqrt() + t * var_b.sqrt()
            ((mean, variance),) = _pooled(
                graph, result, few, [(index, axis)], batch_size=batch_size, use_batch=True
            )
            # A channel that never varies cannot be scaled to vary; it is only shifted.
            factor = torch.where(variance > 1e-12, wanted_std / variance.clamp_min(1e-12).sqrt(), 1.0)
            weight, bias = result[f"n{index}.weight"], result[f"n{index}.bias"]
            rows = factor.reshape(-1, *[1] * (weight.ndim - 1))
            result[f"n{index}.weight"] = (weight.double() * rows).to(weight)
            result[f"n{index}.bias"] = ((bias.double() - mean) * factor + wanted_mean).to(bias)
    if not has_batch_norm(graph):
        return result
    return recompute_batch_norm(graph, result, train, batch_size=batch_size)


def _mendable(graph: ComputationalGraph, state: State) -> list[int]:
    readers: dict[int, set[str]] = {}
    for node in graph.nodes:
        for source in node.inputs:
            readers.setdefault(source, set()).add(node.op)
    norms = {"batch_norm", "group_norm", "layer_norm", "rms_norm"}
    return [
        index
        for index, node in enumerate(graph.nodes)
        if node.op in _SCALED
        and f"n{index}.bias" in state
        and index not in graph.outputs
        and not readers.get(index, set()) <= norms
    ]


def _first(split: Split, number: int | None) -> Split:
    if number is None or split.nodes is not None or len(split) <= number:
        return split
    return Split(split.inputs[:number], split.targets[:number])


def _pooled(
    graph: ComputationalGraph,
    state: State,
    split: Split,
    nodes: list[tuple[int, int]],
    *,
    batch_size: int,
    use_batch: bool = False,
) -> list[tuple[Tensor, Tensor]]:
    """Mean and unbiased variance of every channel of some nodes' values, over all examples and places, in double precision.

    Args:
        graph: The network.
        state: Its parameters and running statistics.
        split: Examples.
        nodes: Indices of nodes, and the axis of their batched values that stands for the channel.
        batch_size: Examples per forward pass.
        use_batch: Whether batch norms use the statistics of the batch.
    """
    totals: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in nodes]
    indices = [index for index, _ in nodes]
    for values in activations(graph, state, split, indices, batch_size=batch_size, use_batch=use_batch):
        for found, (_, axis), value in zip(totals, nodes, values, strict=True):
            x_CS = value.double().movedim(axis, 0).flatten(1)
            found.append((x_CS.shape[1], x_CS.sum(1), x_CS.square().sum(1)))
    pooled = []
    for found in totals:
        count = sum(number for number, _, _ in found)
        mean_C = torch.stack([total for _, total, _ in found]).sum(0) / count
        square_C = torch.stack([square for _, _, square in found]).sum(0) / count
        biased_C = (square_C - mean_C.square()).clamp_min(0.0)
        pooled.append((mean_C, biased_C * count / max(1, count - 1)))
    return pooled
