"""Width and depth of a network by gradient descent: Dong and Yang 2019, "Network pruning via transformable architecture search".

Departures from the paper: widths belong to groups of units of the symmetry table, not to layers, so that whatever must be cut
together has one width; the penalty compares logarithms of the expected and the wanted multiply-adds, which has the same
gradient as equation 6 and a value without a unit; and what the search chose is moved unit by unit to the target at the end.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import SearchData, Split, batches
from nasgraph.edits import EditError, importance, prune_units
from nasgraph.errors import ConfigError
from nasgraph.evaluate.train import DivergedError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.pruning.costs import WidthCost, Widths, fit_widths, ratio_widths, width_cost
from nasgraph.meta.pruning.depth import Stage, alive_nodes, residual_stages, shorten
from nasgraph.meta.pruning.supernet import MixedNetwork, Sampled
from nasgraph.modules import (
    RunContext,
    State,
    check_state,
    constants_by_node,
    initial_buffers,
    initial_parameters,
)
from nasgraph.seeding import derive_seed, generator
from nasgraph.symmetry import symmetry_table


@dataclass(frozen=True, kw_only=True)
class WidthConfig:
    """How widths are searched.

    Attributes:
        epochs: Passes over the first half of the training data.
        batch_size: Examples per step, of weights and of the distribution alike.
        learning_rate: Peak of AdamW's learning rate for the weights; a cosine to 0.
        architecture_rate: Adam's learning rate for the logits of widths and depths.
        ratios: Candidate widths as shares of a group's units, ascending.
        hot, cold: Temperature of the Gumbel-softmax in the first and last epoch; linear between.
        penalty: Weight of the penalty on multiply-adds.
        dead_zone: Below the target by up to this share nothing is paid. Without it the multiply-adds oscillate.
        depth: Whether the number of residual blocks per stage is searched too.
        seed: Decides the halves of the data, all orders and all draws.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 3e-3
    architecture_rate: float = 2e-2
    ratios: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    hot: float = 5.0
    cold: float = 0.1
    penalty: float = 2.0
    dead_zone: float = 0.05
    depth: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "architecture_rate", "hot", "cold"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        is_ordered = list(self.ratios) == sorted(set(self.ratios))
        if len(self.ratios) < 2 or not is_ordered or self.ratios[0] <= 0 or self.ratios[-1] > 1:
            raise ConfigError(f"Expected at least two ascending 'ratios' in (0, 1] (got {self.ratios})")
        if self.penalty < 0 or not 0 <= self.dead_zone < 1:
            raise ConfigError("Expected 'penalty' of at least 0 and 'dead_zone' in [0, 1)")


@dataclass(frozen=True, eq=False)
class WidthResult:
    """What a search of widths found.

    Attributes:
        graph: The network at the found widths and depths.
        state: Its state: the most important units (group-L2) of the state that the search was given, or random weights.
        widths: Units per group, of the groups of the full network.
        depths: Blocks per residual stage; empty if depth was not searched.
        target: Wanted multiply-adds.
        expected: Expected multiply-adds under the final distribution.
        chosen: Multiply-adds of the most probable widths, before they were moved to the target.
        multiply_adds: Those of `graph`.
        history: One row per epoch: `temperature`, `expected_ratio` (of the full network), `train_loss`, `architecture_loss`.
    """

    graph: ComputationalGraph
    state: dict[str, Tensor]
    widths: dict[str, int]
    depths: dict[Stage, int]
    target: float
    expected: float
    chosen: int
    multiply_adds: int
    history: tuple[dict[str, float], ...] = field(default=())


def search_width(
    graph: ComputationalGraph,
    data: SearchData,
    *,
    target_ratio: float,
    state: State | None = None,
    config: WidthConfig | None = None,
) -> WidthResult:
    """Find widths (and depths) with a given share of the multiply-adds by gradient descent.

    One half of the training data fits weights, the other half the distribution of widths; validation data are not touched. The
    network that comes out is to be trained, with distillation from the full one: see `finetune`.

    Args:
        graph: The full network, with one output of class scores.
        data: Its data.
        target_ratio: Wanted multiply-adds as a share of the full network's.
        state: Weights of the full network to begin with and to inherit from; None: random ones.
        config: How to search.

    Raises:
        EditError: If no group of units can be cut, or the target is below what the smallest widths cost.
        StateError: If the state is that of another graph.
        DivergedError: If a loss stops being finite.
    """
    config = config or WidthConfig()
    if not 0 < target_ratio < 1:
        raise ConfigError(f"Expected 'target_ratio' between 0 and 1 (got {target_ratio})")
    if state is None:
        seed = derive_seed(config.seed, "init")
        state = {**initial_parameters(graph, seed=seed), **initial_buffers(graph)}
    check_state(graph, state)
    search = _Search(graph, state, data, config, target_ratio)
    history = tuple(search.run_epoch(epoch) for epoch in range(config.epochs))
    return search.result(history)


class Distribution:
    """Logits over the widths of each group and the depths of each stage, and what they say of multiply-adds.

    Args:
        cost: Of the network.
        ratios: Candidate widths.
        stages: Residual stages whose depth is drawn too, with the nodes that each depth leaves.
    """

    def __init__(
        self, cost: WidthCost, ratios: tuple[float, ...], stages: Mapping[Stage, tuple[frozenset[int], ...]]
    ) -> None:
        self.cost, self.ratios, self.stages = cost, ratios, dict(stages)
        self.logits = torch.zeros(len(cost.groups), len(ratios), requires_grad=True)
        self.depth_logits = [torch.zeros(len(stage.depths), requires_grad=True) for stage in self.stages]
        columns = [ratio_widths(cost, [ratio] * len(cost.groups)) for ratio in ratios]
        self.widths = torch.tensor([[column[name] for column in columns] for name in cost.groups])

    def expected(self) -> Tensor:
        """Expected multiply-adds; differentiable. Exact at a point: see `WidthCost.expected`."""
        probabilities = self.logits.softmax(1)
        widths = self.widths.to(probabilities)
        means = (probabilities * widths).sum(1)
        variances = (probabilities * (widths - means[:, None]) ** 2).sum(1)
        alive: dict[int, Tensor] = {}
        for logits, (stage, left) in zip(self.depth_logits, self.stages.items(), strict=True):
            chances = logits.softmax(0)
            everywhere = frozenset.union(*left)
            for node in everywhere - frozenset.intersection(*left):
                there = torch.tensor([float(node in nodes) for nodes in left])
                alive[node] = (chances * there).sum()
            del stage
        return self.cost.expected(means, variances, alive)

    def sample(self, temperature: float, rng: torch.Generator) -> list[Sampled]:
        """Two widths per group without replacement (section 3.1 of the paper), the larger first."""
        index, weights = sample_two(self.logits, temperature, rng)
        result = []
        for group, (pair, weight) in enumerate(zip(index.tolist(), weights, strict=True)):
            first, second = int(self.widths[group, pair[0]]), int(self.widths[group, pair[1]])
            if first >= second:
                result.append(Sampled((first, second), (pair[0], pair[1]), weight))
            else:
                result.append(Sampled((second, first), (pair[1], pair[0]), weight.flip(0)))
        return result

    def sample_depths(
        self, temperature: float, rng: torch.Generator
    ) -> dict[int, tuple[tuple[int, Tensor], ...]]:
        """For each stage's last node: the two nodes whose weighted sum takes its place."""
        result = {}
        for logits, stage in zip(self.depth_logits, self.stages, strict=True):
            index, weights = sample_two(logits.unsqueeze(0), temperature, rng)
            ends = [stage.ends[stage.depths[int(place)]] for place in index[0]]
            result[stage.ends[-1]] = tuple(zip(ends, weights[0], strict=True))
        return result

    def chosen(self) -> tuple[dict[str, int], dict[Stage, int]]:
        """The most probable width of each group and depth of each stage."""
        best = self.logits.argmax(1).tolist()
        widths = {
            name: int(self.widths[group, place])
            for group, (name, place) in enumerate(zip(self.cost.groups, best, strict=True))
        }
        depths = {
            stage: stage.depths[int(logits.argmax())]
            for logits, stage in zip(self.depth_logits, self.stages, strict=True)
        }
        return widths, depths


def sample_two(logits: Tensor, temperature: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw two candidates per row by Gumbel-softmax, without replacement, with their renormalised probabilities.

    Args:
        logits: `[rows, candidates]`.
        temperature: Of the softmax over logits with Gumbel noise.
        rng: Source of the noise and the draws.

    Returns:
        Numbers of the candidates and their probabilities, both `[rows, 2]`; rows of the latter sum to one.
    """
    uniform = torch.rand(logits.shape, generator=rng).clamp(1e-20, 1 - 1e-7)
    noisy = (logits.log_softmax(1) - (-uniform.log()).log()) / temperature
    chances = noisy.softmax(1)
    index = torch.multinomial(chances.detach() + 1e-12, 2, generator=rng)
    return index, noisy.gather(1, index).softmax(1)


def cost_penalty(expected: Tensor, target: float, *, dead_zone: float) -> Tensor:
    """Pay for the logarithm of the distance from the target, nothing in the dead zone below it (equation 6 of the paper)."""
    value, floor = float(expected.detach()), target * (1 - dead_zone)
    if value > target:
        return (expected / target).log()
    return -(expected / floor).log() if value < floor else expected * 0


class _Search:
    """The state of a search between its epochs."""

    def __init__(
        self,
        graph: ComputationalGraph,
        state: State,
        data: SearchData,
        config: WidthConfig,
        target_ratio: float,
    ) -> None:
        self._graph, self._state, self._config = graph, state, config
        cost = width_cost(graph)
        self._target = target_ratio * cost.dense
        stages = residual_stages(graph) if config.depth else ()
        _check_target(cost, self._target, config.ratios[0], stages, graph)
        left = {
            stage: tuple(alive_nodes(graph, {stage: depth}) for depth in stage.depths) for stage in stages
        }
        self._distribution = Distribution(cost, config.ratios, left)
        table = symmetry_table(graph)
        groups = [table.group(name) for name in cost.groups]
        self._network = MixedNetwork(graph, groups, num_ratios=len(config.ratios))
        self._parameters = {
            name: tensor.requires_grad_() for name, tensor in self._network.initial(state).items()
        }
        self._constants = constants_by_node(state)
        self._halves = _halves(data.train, config.seed)
        self._rng = torch.Generator().manual_seed(derive_seed(config.seed, "widths"))
        self._optimizer = torch.optim.AdamW(
            list(self._parameters.values()), lr=config.learning_rate, weight_decay=1e-2, fused=True
        )
        self._architecture = [self._distribution.logits, *self._distribution.depth_logits]
        self._adam = torch.optim.Adam(self._architecture, lr=config.architecture_rate, betas=(0.5, 0.999))

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the first half for the weights, alternating with steps of the distribution on the second."""
        config = self._config
        share = epoch / max(1, config.epochs - 1)
        temperature = config.hot + (config.cold - config.hot) * share
        self._optimizer.param_groups[0]["lr"] = (
            config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
        )
        losses: list[tuple[float, float]] = []
        fit, judge = (_batches(half, config, epoch) for half in self._halves)
        for first, second in zip(fit, judge, strict=False):
            loss = self._loss(first, temperature)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._optimizer.step()
            outer = self._loss(second, temperature) + config.penalty * cost_penalty(
                self._distribution.expected(), self._target, dead_zone=config.dead_zone
            )
            gradients = torch.autograd.grad(outer, self._architecture)
            for parameter, gradient in zip(self._architecture, gradients, strict=True):
                parameter.grad = gradient
            self._adam.step()
            losses.append((float(loss.detach()), float(outer.detach())))
        train, outer_loss = (sum(column) / len(losses) for column in zip(*losses, strict=True))
        if not math.isfinite(train + outer_loss):
            raise DivergedError(f"The loss became {train + outer_loss} in epoch {epoch + 1} of the search")
        expected = float(self._distribution.expected().detach()) / self._distribution.cost.dense
        return {
            "temperature": temperature,
            "expected_ratio": expected,
            "train_loss": train,
            "architecture_loss": outer_loss,
        }

    def _loss(self, batch: tuple[Tensor, Tensor], temperature: float) -> Tensor:
        inputs, targets = batch
        sampled = self._distribution.sample(temperature, self._rng)
        stages = self._distribution.sample_depths(temperature, self._rng)
        context = RunContext(
            batch_size=len(inputs), training=True, generator=self._rng, constants=self._constants
        )
        logits = self._network(self._parameters, [inputs], sampled, context, stages=stages)
        return F.cross_entropy(logits, targets)

    def result(self, history: tuple[dict[str, float], ...]) -> WidthResult:
        """The network that the distribution speaks for, moved to the target."""
        cost, config = self._distribution.cost, self._config
        widths, depths = self._distribution.chosen()
        gone = frozenset(range(len(self._graph))) - alive_nodes(self._graph, depths)
        chosen = cost.multiply_adds(widths, without=gone)
        widths = fit_widths(cost, widths, self._target, least=config.ratios[0], without=gone)
        graph, state = cut_widths(self._graph, self._state, widths)
        if depths:
            short = shorten(graph, state, depths)
            graph, state = short.graph, short.state
        return WidthResult(
            graph=graph,
            state=state,
            widths=widths,
            depths=depths,
            target=self._target,
            expected=float(self._distribution.expected().detach()),
            chosen=chosen,
            multiply_adds=cost.multiply_adds(widths, without=gone),
            history=history,
        )


def _check_target(
    cost: WidthCost, target: float, least: float, stages: tuple[Stage, ...], graph: ComputationalGraph
) -> None:
    gone = frozenset(range(len(graph))) - alive_nodes(graph, {stage: stage.depths[0] for stage in stages})
    smallest = cost.multiply_adds(ratio_widths(cost, [least] * len(cost.groups)), without=gone)
    if smallest > target:
        raise EditError(
            f"Expected a target of at least {smallest:,} multiply-adds, what the smallest widths cost (got {target:,.0f})"
        )


def cut_widths(
    graph: ComputationalGraph, state: State, widths: Widths
) -> tuple[ComputationalGraph, dict[str, Tensor]]:
    """Cut each group to a width; its most important units (group-L2, see `nasgraph.edits.importance`) stay.

    Node numbers stay as they are.
    """
    scores = importance(graph, state, "l2")
    keep = {
        name: scores[name].topk(width).indices.sort().values
        for name, width in widths.items()
        if width < len(scores[name])
    }
    if not keep:
        return graph, dict(state)
    edited = prune_units(graph, state, keep)
    return edited.graph, edited.state


def _halves(train: Split, seed: int) -> tuple[Split, Split]:
    order = torch.from_numpy(generator(seed, "halves").permutation(len(train)))
    middle = len(train) // 2
    return train.pick(order[:middle]), train.pick(order[middle:])


def _batches(half: Split, config: WidthConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    size = min(config.batch_size, len(half))
    return batches(half, batch_size=size, seed=config.seed, epoch=epoch, drop_last=True)
