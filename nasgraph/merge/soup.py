"""Model soups: one network made of several fine-tuned ones.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time". All choices are made on held-out data, which is the validation split and never the test split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split, batches
from nasgraph.errors import ConfigError
from nasgraph.evaluate import measure
from nasgraph.ir import ComputationalGraph
from nasgraph.merge.interpolate import recompute_batch_norm
from nasgraph.merge.states import MergeError, activations, check_states, has_batch_norm, weighted_sum
from nasgraph.modules import Program, RunContext, State, buffers_by_node

Method = Literal["uniform", "greedy", "learned"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Accuracies on the held-out split on which a soup was chosen: too good by that choice, so no result to publish.

    Attributes:
        before: Accuracy of each ingredient, in the order in which they were given.
        after: Accuracy of the result.
        num_examples: Examples of the split.
    """

    before: tuple[tuple[str, float], ...]
    after: float
    num_examples: int

    @property
    def best(self) -> float:
        """Accuracy of the best ingredient."""
        return max(accuracy for _, accuracy in self.before)


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What came of merging.

    Attributes:
        state: Parameters and running statistics.
        method: How they were found.
        weights: Share of each ingredient, in the order in which they were given; 0: left out.
        held_out: Accuracies on the held-out data.
        notes: What a reader of the result should know, in sentences.
    """

    state: dict[str, Tensor]
    method: Method
    weights: tuple[tuple[str, float], ...]
    held_out: HeldOut
    notes: tuple[str, ...] = ()

    @property
    def ingredients(self) -> tuple[str, ...]:
        """Names of those that went in."""
        return tuple(name for name, weight in self.weights if weight)


@dataclass(frozen=True, kw_only=True)
class LearnedConfig:
    """How the shares of a learned soup are found.

    Attributes:
        epochs: Passes over the held-out data.
        learning_rate: Adam's.
        batch_size: Held-out examples per step.
        temperature: Divides the numbers whose softmax the shares are: the higher, the slower they leave the mean.
        free: Whether the shares may be negative and need not sum to one; they start at the mean.
        scale_logits: Whether a factor of the logits is learnt beside the shares, and dropped afterwards, as in the paper
            (section 2, eq. 2): else the shares also serve to change how sure the network is.
        seed: Decides the order of examples.
    """

    epochs: int = 5
    learning_rate: float = 0.05
    batch_size: int = 128
    temperature: float = 1.0
    free: bool = False
    scale_logits: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")


@dataclass(frozen=True, slots=True, eq=False)
class Kitchen:
    """What all soups need: the network, the data, and how an average is made fit to run.

    Args:
        graph: The architecture.
        states: Ingredients by name.
        split: Held-out examples.
        train: Training examples for the statistics of batch norms; None: these are averaged.
        batch_size: Examples per forward pass.

    Raises:
        MergeError: If there is no ingredient, or a state does not fit or is not finite.
    """

    graph: ComputationalGraph
    states: Mapping[str, State]
    split: Split
    train: Split | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        if not self.states:
            raise MergeError("Expected at least one model to merge (got none)")
        check_states(self.graph, self.states)

    def accuracy(self, state: State) -> tuple[float, float]:
        """Accuracy and negative loss on the held-out data: larger is better."""
        loss, accuracy = measure(Program(self.graph), state, self.split, batch_size=self.batch_size)
        return accuracy, -loss

    def average(self, names: Sequence[str], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
        """Weighted sum of ingredients (without weights: the mean), with fresh statistics of batch norms."""
        weights = [1.0 / len(names)] * len(names) if weights is None else weights
        if len(names) == 1 and weights[0] == 1.0:
            return dict(self.states[names[0]])
        return self.finished(weighted_sum([self.states[name] for name in names], weights))

    def finished(self, state: State) -> dict[str, Tensor]:
        """The state with statistics of batch norms measured on the training data, if there are both."""
        if self.train is None or not has_batch_norm(self.graph):
            return dict(state)
        return recompute_batch_norm(self.graph, state, self.train, batch_size=self.batch_size)

    def served(
        self, method: Method, state: dict[str, Tensor], weights: Mapping[str, float], *notes: str
    ) -> Merged:
        """The result, with the accuracies that belong to it."""
        before = tuple((name, self.accuracy(each)[0]) for name, each in self.states.items())
        held_out = HeldOut(before, self.accuracy(state)[0], len(self.split))
        shares = tuple((name, float(weights.get(name, 0.0))) for name in self.states)
        found = list(notes)
        if has_batch_norm(self.graph) and self.train is None and sum(w != 0 for _, w in shares) > 1:
            found.append(
                "Statistics of batch norms are averages, since no training data was given: expect a loss of accuracy."
            )
        if held_out.after < held_out.best:
            found.append(
                f"The result is worse than the best ingredient on the held-out data ({held_out.after:.4f} and "
                f"{held_out.best:.4f})."
            )
        return Merged(state, method, shares, held_out, tuple(found))


def uniform_soup(kitchen: Kitchen) -> Merged:
    """The mean of all ingredients. Nothing is chosen, so nothing is guaranteed."""
    names = list(kitchen.states)
    return kitchen.served("uniform", kitchen.average(names), dict.fromkeys(names, 1.0 / len(names)))


def greedy_soup(kitchen: Kitchen) -> Merged:
    """Ingredients join one by one, best first, if the mean then is no worse (Wortsman et al. 2022, recipe 1).

    Never worse on the held-out data than the best ingredient. Ties are accepted. The order is that of held-out accuracy,
    then of loss, then of names.
    """
    scores = {name: kitchen.accuracy(state) for name, state in kitchen.states.items()}
    order = sorted(scores, key=lambda name: (-scores[name][0], -scores[name][1], name))
    chosen, best = [order[0]], scores[order[0]][0]
    state = kitchen.average(chosen)
    for name in order[1:]:
        tried = kitchen.average([*chosen, name])
        accuracy, _ = kitchen.accuracy(tried)
        if accuracy >= best:
            chosen, best, state = [*chosen, name], accuracy, tried
    notes = (
        ["No second model could join without loss: the result is the best single model."]
        if len(chosen) == 1
        else []
    )
    return kitchen.served("greedy", state, dict.fromkeys(chosen, 1.0 / len(chosen)), *notes)


def learned_soup(kitchen: Kitchen, config: LearnedConfig = LearnedConfig()) -> Merged:
    """Shares found by gradient descent on the held-out cross-entropy (Wortsman et al. 2022, section 2, "learned soup").

    The held-out accuracy of the result is that of data it was fitted to. While shares are learnt, batch norms use the
    statistics of the batch. Deterministic.

    Raises:
        MergeError: If the loss stops being finite, or the data is nodes of a graph, which have no batches.
    """
    if kitchen.split.nodes is not None:
        raise MergeError("A learned soup needs examples that stand alone: use 'greedy' for nodes of a graph")
    names = list(kitchen.states)
    states = [kitchen.states[name] for name in names]
    program = Program(kitchen.graph)
    free = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=config.scale_logits)
    learnt = [free, log_scale] if config.scale_logits else [free]
    optimizer = torch.optim.Adam(learnt, lr=config.learning_rate)
    norms = has_batch_norm(kitchen.graph)
    for epoch in range(config.epochs):
        for inputs, targets in batches(
            kitchen.split, batch_size=config.batch_size, seed=config.seed, epoch=epoch
        ):
            if norms and len(inputs) == 1:
                continue  # batch norms have no statistics of one example
            state = weighted_sum(states, _shares(free, config))
            (logits,) = program(state, [inputs], _context(state, len(inputs)))
            loss = F.cross_entropy(logits * log_scale.exp().to(logits.dtype), targets)
            if not torch.isfinite(loss.detach()):
                raise MergeError(f"The loss of the learned soup became {loss.item()} in epoch {epoch + 1}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
    shares = _shares(free, config).detach().tolist()
    state = kitchen.average(names, shares)
    note = "The shares were fitted to the held-out data, so the accuracy there says little."
    return kitchen.served("learned", state, dict(zip(names, shares, strict=True)), note)


def _shares(free: Tensor, config: LearnedConfig) -> Tensor:
    return free + 1.0 / len(free) if config.free else torch.softmax(free / config.temperature, dim=0)


def _context(state: State, batch_size: int) -> RunContext:
    """Inference, but batch norms use the statistics of the batch."""
    constants = {int(n[1:].split(".")[0]): t for n, t in state.items() if n.endswith(".value")}
    return RunContext(batch_size=batch_size, buffers=buffers_by_node({}), constants=constants)


SOUPS: Mapping[Method, Callable[[Kitchen], Merged]] = {
    "uniform": uniform_soup,
    "greedy": greedy_soup,
    "learned": learned_soup,
}


def ensemble_accuracy(
    graph: ComputationalGraph, states: Sequence[State], split: Split, *, batch_size: int = 256
) -> float:
    """Accuracy of the mean of all networks' logits, which costs as many forward passes: what soups are held against."""
    total: Tensor | None = None
    for state in states:
        rows = [
            values[0] for values in activations(graph, state, split, graph.outputs[:1], batch_size=batch_size)
        ]
        logits = torch.cat(rows)
        total = logits if total is None else total + logits
    if total is None:
        raise MergeError("Expected at least one model (got none)")
    if split.nodes is not None:
        total = total[split.nodes.index]
    return float((total.argmax(1) == split.targets).double().mean())
