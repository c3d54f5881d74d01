"""How differently a network would have been trained on new data: the retraining discrepancy.

Zheng, Song, Wang, Zhang and Pan, "Online GNN Evaluation under Test-time Graph Distribution Shifts" (LeBeD), 2024: train again, from the same initial weights, on the
labels that the network gives to the new graph, until links between its nodes are predicted as well as by the network itself; the distance between the two
sets of weights rises with the error. Generalised to any network: where there are no links, training stops when the given labels are fitted as well
as the network itself fits them.

Shape letters: N = nodes or examples, K = classes, E = edges.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import (
    Program,
    RunContext,
    State,
    StateError,
    buffers_by_node,
    check_state,
    constants_by_node,
)
from nasgraph.seeding import derive_seed

Reference = Literal["links", "labels"]


class ShiftError(NasGraphError, ValueError):
    """A network or data for which an error without labels cannot be told. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class RetrainConfig:
    """How a network is trained again.

    Args:
        learning_rate: Of Adam. Use what the network was trained with.
        weight_decay: Added to the gradient, as in that training.
        margin: Training stops when the loss of reference is within this share of the network's own.
        max_steps: When it stops at the latest.
        min_steps: How many steps are made at least.
        batch_size: Examples per step where they stand alone; nodes of a graph are taken all at once.

    Raises:
        ConfigError: If a number is out of range.
    """

    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    margin: float = 0.1
    max_steps: int = 200
    min_steps: int = 5
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name in ("learning_rate", "margin", "max_steps", "batch_size"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.weight_decay < 0 or not 0 <= self.min_steps <= self.max_steps:
            raise ConfigError(
                "Expected 'weight_decay' of at least 0 and 'min_steps' from 0 to 'max_steps' "
                f"(got {self.weight_decay}, {self.min_steps}, {self.max_steps})"
            )


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """What training again came to.

    Attributes:
        distance: Euclidean distance between the parameters of the network and those of the one trained again.
        steps: Steps until it stopped.
        reference: The loss of reference of the network.
        reached: That of the one trained again.
        has_converged: Whether it came within the margin before the step limit. Compare distances only among such, or at equal steps.
    """

    distance: float
    steps: int
    reference: float
    reached: float
    has_converged: bool


def retraining_discrepancy(
    graph: ComputationalGraph,
    state: State,
    initial: State,
    inputs: Tensor,
    *,
    edges: Tensor | None = None,
    config: RetrainConfig = RetrainConfig(),
    seed: int = 0,
) -> Discrepancy:
    """Train again on the network's own labels for new data, and measure how far that leads from the network.

    A score to rank shifts by, no estimate of the error: learn the scale from shifts whose error is known. Dropout is off. Deterministic.

    Args:
        graph: The architecture: one input, one output of logits.
        state: The trained network.
        initial: What it was trained from. Without this the method is not defined.
        inputs: The new data; all nodes if the network passes messages. May be compressed rows (CSR).
        edges: The new graph's edges, `[2, edges]`, in both directions. With them the loss of reference is that of telling edges from as many random
            pairs by the dot product of the outputs.
        config: How to train.
        seed: Decides the random pairs and the order of examples.

    Raises:
        StateError: If a state does not fit the graph.
        ShiftError: If the network has another form, or data and edges do not fit it.
    """
    check_state(graph, state, owner="the network")
    check_state(graph, initial, owner="the initial network")
    _check(graph, inputs, edges)
    run = _Retraining(graph, state, initial, inputs, edges, config, seed)
    return run.finish()


class _Retraining:
    """One network on its way from its initial weights."""

    def __init__(
        self,
        graph: ComputationalGraph,
        state: State,
        initial: State,
        inputs: Tensor,
        edges: Tensor | None,
        config: RetrainConfig,
        seed: int,
    ) -> None:
        self.program, self.inputs, self.edges, self.config = Program(graph), inputs, edges, config
        self.trained = {name: state[name].detach() for name in graph.parameters}
        self.constants = constants_by_node(state)
        self.statistics = {
            name: tensor.detach().clone()
            for name, tensor in initial.items()
            if name.rsplit(".", 1)[1].startswith("running_")
        }
        self.parameters = {name: initial[name].detach().clone().requires_grad_() for name in graph.parameters}
        self.rng = torch.Generator().manual_seed(derive_seed(seed, "retraining"))
        self.pairs = None if edges is None else _random_pairs(len(inputs), edges, self.rng)
        own = {name: t.detach() for name, t in state.items() if name.rsplit(".", 1)[1].startswith("running_")}
        with torch.no_grad():
            logits = self._run(self.trained, self.inputs, own, training=False)
            self.labels = logits.argmax(1)
            self.reference = self._reference_loss(logits)

    def finish(self) -> Discrepancy:
        """Train to the end."""
        config = self.config
        optimizer = torch.optim.Adam(
            list(self.parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps, reached, close = 0, float("inf"), False
        for rows in self._batches():
            with torch.no_grad():
                reached = self._reference_loss(
                    self._run(self.parameters, self.inputs, self.statistics, training=False)
                )
            close = abs(reached - self.reference) <= config.margin * max(self.reference, 1e-6)
            if not self.edges_are_used:
                close = reached <= (1 + config.margin) * max(self.reference, 1e-6)
            if (close and steps >= config.min_steps) or steps == config.max_steps:
                break
            part = self.inputs if rows is None else self.inputs[rows]
            labels = self.labels if rows is None else self.labels[rows]
            logits = self._run(self.parameters, part, self.statistics, training=True)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            steps += 1
        distance = (
            sum(float((self.parameters[n].detach() - t).square().sum()) for n, t in self.trained.items())
            ** 0.5
        )
        return Discrepancy(distance, steps, self.reference, reached, close)

    @property
    def edges_are_used(self) -> bool:
        """Whether the loss of reference is that of links."""
        return self.edges is not None

    def _run(self, parameters: State, inputs: Tensor, statistics: State, *, training: bool) -> Tensor:
        context = RunContext(
            batch_size=len(inputs),
            training=training,
            generator=self.rng,
            buffers=buffers_by_node(statistics),
            constants=self.constants,
            edges=self.edges,
            progress=0.0,
        )
        return self.program(parameters, [inputs], context)[0]

    def _reference_loss(self, logits: Tensor) -> float:
        if self.edges is None or self.pairs is None:
            return float(F.cross_entropy(logits, self.labels))
        unit = logits - logits.mean(1, keepdim=True)
        real, random = ((unit[a] * unit[b]).sum(1) for a, b in (self.edges, self.pairs))
        scores = torch.cat([real, random])
        truth = torch.cat([torch.ones_like(real), torch.zeros_like(random)])
        return float(F.binary_cross_entropy_with_logits(scores, truth))

    def _batches(self) -> Iterator[Tensor | None]:
        """Rows of each step, without end; None for all."""
        size = self.config.batch_size
        while True:
            if self.edges is not None or len(self.inputs) <= size:
                yield None
                continue
            order = torch.randperm(len(self.inputs), generator=self.rng)
            yield from torch.split(order[: len(order) // size * size], size)


def _random_pairs(num_nodes: int, edges: Tensor, rng: torch.Generator) -> Tensor:
    """As many random pairs of two different nodes as there are edges; a few of them may be edges."""
    first = torch.randint(0, num_nodes, (edges.shape[1],), generator=rng)
    step = torch.randint(1, num_nodes, (edges.shape[1],), generator=rng)
    return torch.stack([first, (first + step) % num_nodes])


def _check(graph: ComputationalGraph, inputs: Tensor, edges: Tensor | None) -> None:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.shapes[graph.outputs[0]]) != 1:
        raise ShiftError("Training again takes a network with one input and one output of logits")
    if not graph.parameters:
        raise StateError("The network has no parameters: there is nothing to train again")
    for index, node in enumerate(graph.nodes):
        if node.op in ("dropout", "drop_path"):
            raise ShiftError(
                f"Training again takes a network without '{node.op}' (node {index}): put 'identity' in its place"
            )
    if graph.reads_edges and edges is None:
        raise ShiftError("The network passes messages between examples: pass the 'edges' of the new data")
    shape = tuple(graph.shapes[graph.inputs[0]])
    if tuple(inputs.shape[1:]) != shape or len(inputs) < 2:
        raise ShiftError(f"Expected two or more inputs of shape {shape} (got {tuple(inputs.shape)})")
    if edges is not None and (edges.dim() != 2 or edges.shape[0] != 2 or edges.shape[1] == 0):
        raise ShiftError(f"Expected 'edges' as [2, edges] (got {tuple(edges.shape)})")
