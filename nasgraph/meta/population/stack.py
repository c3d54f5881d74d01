"""Many networks of one architecture trained at once: their parameters are stacked, and one pass runs them all.

Shape letters: B = networks in the stack, N = examples, T = steps, S = snapshots, C = classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.population.settings import NetworkSettings, PopulationError
from nasgraph.modules import (
    Program,
    RunContext,
    State,
    buffers_by_node,
    initial_buffers,
    initial_parameters,
    is_statistic,
)
from nasgraph.seeding import generator

_RANDOM = ("dropout", "drop_path", "gaussian_noise")
_DROP_SHARE = 0.2  # the stack is made smaller when that share of it is done

Stack = dict[str, Tensor]
"""States of several networks of one graph: each tensor has an axis of networks in front."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedStack:
    """What a training of a stack leaves.

    Attributes:
        state: Parameters and running statistics at the end, all finite, `[B, ...]` each.
        losses: Training loss of each step, on the batch of the step and its labels (wrong ones included); NaN after the end.
        snapshots: The states at the snapshots, in order.
        snapshot_steps: After how many steps each was taken.
        diverged: The step at which a network stopped being finite, or -1. Its state is the last finite one, in which it stays.
    """

    state: Stack
    losses: Tensor
    snapshots: tuple[Stack, ...]
    snapshot_steps: Tensor
    diverged: Tensor


def stack_states(states: Sequence[State]) -> Stack:
    """Put states of one architecture on top of each other."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def unstack(stack: State, index: int) -> Stack:
    """One network of a stack. Memory is shared."""
    return {name: tensor[index] for name, tensor in stack.items()}


def initial_stack(graph: ComputationalGraph, settings: Sequence[NetworkSettings]) -> Stack:
    """Where networks with these settings start: weights as torch draws them, times the gain."""
    buffers = initial_buffers(graph)
    states = []
    for each in settings:
        parameters = initial_parameters(graph, seed=each.initial_seed)
        for name, spec in graph.parameters.items():
            if spec.role == "weight":
                parameters[name] = parameters[name] * each.gain
        states.append({**parameters, **buffers})
    return stack_states(states)


def check_trainable(graph: ComputationalGraph, *, num_classes: int) -> None:
    """Check that a stack of this graph can be trained.

    Raises:
        PopulationError: If it has several inputs or outputs, draws random numbers, has constants, needs a data graph, or its output is
            not one number per class. The message names the operator.
    """
    for index, node in enumerate(graph.nodes):
        if node.op in (*_RANDOM, "constant", "opaque"):
            raise PopulationError(
                f"Populations have no '{node.op}' (node {index}): take it out of the architecture"
            )
    if graph.reads_edges:
        raise PopulationError(
            "Populations are of networks whose examples stand alone: this graph passes messages"
        )
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise PopulationError(
            f"Expected one input and one output (got {len(graph.inputs)} and {len(graph.outputs)})"
        )
    shape = graph.shapes[graph.outputs[0]]
    if shape != (num_classes,):
        raise PopulationError(
            f"Expected one output per class, {num_classes} of them (got an output of shape {shape})"
        )
    if not graph.parameters:
        raise PopulationError("The architecture has no parameters: there is nothing to train")


def batch_order(
    targets: Tensor, settings: NetworkSettings, *, batch_size: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """Which examples each step sees, `[steps, batch_size]`: one random order after the other, of the examples of its classes.

    Raises:
        PopulationError: If there are no examples of its classes.
    """
    allowed = np.arange(len(targets))
    if settings.classes:
        allowed = np.flatnonzero(np.isin(targets.cpu().numpy(), settings.classes))
    if not len(allowed):
        raise PopulationError(f"No training examples of the classes {settings.classes}")
    wanted = settings.steps * batch_size
    rng = generator(settings.seed, "order")
    rounds = [rng.permutation(allowed) for _ in range(-(-wanted // len(allowed)))]
    stream = np.concatenate(rounds) if rounds else np.zeros(0, dtype=np.int64)
    return stream[:wanted].reshape(settings.steps, batch_size).astype(np.int64)


def noisy_targets(targets: Tensor, settings: NetworkSettings, *, num_classes: int) -> Tensor:
    """The labels that a network is trained on: a share of them is one of the other classes (that it sees)."""
    if settings.label_noise == 0:
        return targets
    rng = generator(settings.seed, "labels")
    classes = np.array(settings.classes or range(num_classes))
    labels = targets.cpu().numpy().copy()
    wrong = rng.random(len(labels)) < settings.label_noise
    place = np.searchsorted(classes, labels).clip(0, len(classes) - 1)
    other = classes[(place + rng.integers(1, max(2, len(classes)), size=len(labels))) % len(classes)]
    labels[wrong] = other[wrong]
    return torch.from_numpy(labels).to(targets.device)


def train_stack(
    graph: ComputationalGraph,
    initial: State,
    data: Split,
    settings: Sequence[NetworkSettings],
    *,
    batch_size: int = 64,
    snapshots: Sequence[float] = (),
) -> TrainedStack:
    """Train all networks of a stack at once, each with settings of its own.

    Every network sees what it would see alone, and takes the steps that it would take alone, up to rounding: nothing passes from one to
    another. One that diverges stays as it was before the step that broke it; the others go on. Deterministic on one machine.

    Args:
        graph: The architecture of all.
        initial: Where they start, `[B, ...]` each; not changed. Running statistics may be left out, and then start as always.
        data: Training examples.
        settings: One per network.
        batch_size: Examples per step.
        snapshots: When to keep the states, as shares of the steps of each network, ascending, from 0 to 1.

    Raises:
        PopulationError: If the graph cannot be trained (see `check_trainable`), or numbers do not fit.
    """
    _check(graph, initial, data, settings, batch_size, snapshots)
    return _Training(graph, initial, data, settings, batch_size, snapshots).run()


def _check(
    graph: ComputationalGraph,
    initial: State,
    data: Split,
    settings: Sequence[NetworkSettings],
    batch_size: int,
    snapshots: Sequence[float],
) -> None:
    check_trainable(graph, num_classes=graph.shapes[graph.outputs[0]][-1])
    if not settings or batch_size < 2 or len(data) < 1:
        raise PopulationError(
            "Expected at least one network, batches of at least two examples, and training examples"
        )
    for name, spec in graph.parameters.items():
        wanted = (len(settings), *spec.shape)
        if name not in initial or tuple(initial[name].shape) != wanted:
            got = tuple(initial[name].shape) if name in initial else "nothing"
            raise PopulationError(f"Expected '{name}' of the stack to have shape {wanted} (got {got})")
    shape = tuple(graph.shapes[graph.inputs[0]])
    if tuple(data.inputs.shape[1:]) != shape:
        raise PopulationError(
            f"The architecture reads inputs of shape {shape}, the data has {tuple(data.inputs.shape[1:])}"
        )
    if list(snapshots) != sorted(snapshots) or any(not 0 <= share <= 1 for share in snapshots):
        raise PopulationError(f"Expected 'snapshots' as ascending shares from 0 to 1 (got {snapshots})")


class _Training:
    """A stack while it is trained. Networks that are done leave the part that is computed."""

    def __init__(
        self,
        graph: ComputationalGraph,
        initial: State,
        data: Split,
        settings: Sequence[NetworkSettings],
        batch_size: int,
        snapshots: Sequence[float],
    ) -> None:
        size, device = len(settings), data.inputs.device
        self.program, self.data, self.batch_size = Program(graph), data, batch_size
        num_classes = graph.shapes[graph.outputs[0]][0]
        self.steps = torch.tensor([each.steps for each in settings])
        self.last = int(self.steps.max())
        self.orders = [batch_order(data.targets, each, batch_size=batch_size) for each in settings]
        self.targets = torch.stack(
            [noisy_targets(data.targets, each, num_classes=num_classes) for each in settings]
        )
        self.rates = {
            name: torch.tensor([getattr(each, name) for each in settings], device=device)
            for name in ("learning_rate", "momentum", "weight_decay")
        }
        self.has_momentum = bool(self.rates["momentum"].any())
        self.state: Stack = {
            name: tensor.detach().clone() for name, tensor in initial.items() if name in graph.parameters
        }
        for name, tensor in initial_buffers(graph).items():
            given = initial.get(name)
            self.state[name] = given.detach().clone() if given is not None else tensor.repeat(size, 1)
        self.losses = torch.full((size, self.last), torch.nan)
        self.diverged = torch.full((size,), -1)
        self.snapshot_steps = torch.tensor(
            [[round(share * each.steps) for share in snapshots] for each in settings], dtype=torch.int64
        ).reshape(size, len(snapshots))
        self.snapshots: list[Stack] = [
            {name: tensor.clone() for name, tensor in self.state.items()} for _ in snapshots
        ]
        self._loss = torch.vmap(self._loss_of_one, in_dims=(0, 0, 0, 0))

    def _loss_of_one(
        self, parameters: dict[str, Tensor], statistics: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        context = RunContext(batch_size=self.batch_size, training=True, buffers=buffers_by_node(statistics))
        (logits,) = self.program(parameters, [x], context)
        return F.cross_entropy(logits, y)

    def run(self) -> TrainedStack:
        """Train to the end."""
        step = 0
        while step < self.last:
            active = torch.nonzero((self.steps > step) & (self.diverged < 0)).flatten()
            if not len(active):
                break
            order = np.sort(self.steps[active].numpy())
            until = int(order[min(len(order) - 1, int(len(order) * _DROP_SHARE))])
            self._segment(active, step, until)
            step = until
        return TrainedStack(
            self.state, self.losses, tuple(self.snapshots), self.snapshot_steps, self.diverged
        )

    def _segment(self, active: Tensor, start: int, stop: int) -> None:
        """Train the `active` networks from step `start` to step `stop`; some of them end on the way."""
        device = self.data.inputs.device
        places = torch.zeros(len(active), stop - start, self.batch_size, dtype=torch.int64)
        for row, network in enumerate(active.tolist()):
            part = torch.from_numpy(self.orders[network][start:stop])
            places[row, : len(part)] = part
        places = places.to(device)
        targets = self.targets[active]
        now = {name: tensor[active] for name, tensor in self.state.items()}
        speed = self._speeds(active, now) if start else {}
        rates = {name: tensor[active] for name, tensor in self.rates.items()}
        for step in range(start, stop):
            self._keep_snapshots(active, now, step)
            index = places[:, step - start]
            running = (self.steps[active] > step) & (self.diverged[active] < 0)
            loss, moved, speed = self._step(
                now, speed, rates, self.data.inputs[index], targets.gather(1, index)
            )
            finite = self._finite(loss, moved)
            self.losses[active[running], step] = loss.cpu()[running]
            self.diverged[active[running & ~finite]] = step
            goes_on = (running & finite).to(device)
            now = {name: torch.where(_like(goes_on, moved[name]), moved[name], now[name]) for name in now}
        self._keep_snapshots(active, now, stop)
        for name, tensor in now.items():
            self.state[name][active] = tensor
        self._speed, self._speed_of = speed, active

    def _speeds(self, active: Tensor, now: Stack) -> Stack:
        """The momentum of the active networks, from the segment before."""
        rows = torch.searchsorted(self._speed_of, active)
        return {name: self._speed[name][rows] for name in now if not is_statistic(name)}

    def _step(
        self, now: Stack, speed: Stack, rates: Mapping[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Stack, Stack]:
        """One step of all. Returns the losses before it, the states after it, and the momentum."""
        parameters = {
            name: tensor.detach().requires_grad_() for name, tensor in now.items() if not is_statistic(name)
        }
        moved = {name: tensor.clone() for name, tensor in now.items() if is_statistic(name)}
        loss = self._loss(parameters, moved, x, y)
        gradients = torch.autograd.grad(loss.sum(), list(parameters.values()))
        changed: Stack = {}
        with torch.no_grad():
            for (name, tensor), gradient in zip(parameters.items(), gradients, strict=True):
                rate, momentum, decay = (
                    _like(rates[each], tensor) for each in ("learning_rate", "momentum", "weight_decay")
                )
                change = torch.addcmul(gradient, decay, tensor)
                if self.has_momentum and name in speed:
                    change = torch.addcmul(change, momentum, speed[name])
                changed[name] = change
                moved[name] = torch.addcmul(tensor, rate, change, value=-1)
        return loss.detach(), moved, changed

    @staticmethod
    def _finite(loss: Tensor, moved: Stack) -> Tensor:
        total = loss + sum(tensor.flatten(1).sum(1) for tensor in moved.values())
        return torch.isfinite(total).cpu()

    def _keep_snapshots(self, active: Tensor, now: Stack, step: int) -> None:
        """Keep the states of the networks whose snapshot is due after `step` steps, and of those that have ended before it."""
        ended = self.diverged[active] >= 0
        for place, kept in enumerate(self.snapshots):
            due = self.snapshot_steps[active, place]
            rows = (due == step) | (ended & (due > step))
            if rows.any():
                for name, tensor in now.items():
                    kept[name][active[rows]] = tensor[rows]


def _like(values_B: Tensor, tensor: Tensor) -> Tensor:
    return values_B.reshape(-1, *(1,) * (tensor.dim() - 1))


@torch.no_grad()
def stack_outputs(
    graph: ComputationalGraph, stack: State, inputs: Tensor, *, batch_size: int = 512
) -> Tensor:
    """Outputs of all networks of a stack for the same inputs, `[B, N, C]`, with running statistics."""
    program = Program(graph)
    statistics = {name: tensor for name, tensor in stack.items() if is_statistic(name)}
    parameters = {name: tensor for name, tensor in stack.items() if not is_statistic(name)}

    def one(parameters: dict[str, Tensor], statistics: dict[str, Tensor], x: Tensor) -> Tensor:
        context = RunContext(batch_size=len(x), buffers=buffers_by_node(statistics))
        return program(parameters, [x], context)[0]

    run = torch.vmap(one, in_dims=(0, 0, None))
    return torch.cat([run(parameters, statistics, x) for x in torch.split(inputs, batch_size)], dim=1)


def measure_stack(
    graph: ComputationalGraph, stack: State, data: Split, *, classes: Sequence[Sequence[int]] = ()
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy of all networks of a stack, `[B]` each.

    Args:
        graph: The architecture.
        stack: The states.
        data: Labelled examples.
        classes: For each network the classes on whose examples it is measured; empty: all. All outputs take part.
    """
    logits = stack_outputs(graph, stack, data.inputs)
    size = len(logits)
    weight = torch.ones(size, len(data), device=logits.device)
    for row, chosen in enumerate(classes):
        if chosen:
            weight[row] = torch.isin(data.targets, torch.tensor(list(chosen), device=logits.device)).float()
    targets = data.targets.expand(size, -1)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").reshape(size, -1)
    hit = (logits.argmax(-1) == targets).float()
    total = weight.sum(1)
    return (loss * weight).sum(1) / total, (hit * weight).sum(1) / total
