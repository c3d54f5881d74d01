"""Meta-training of a rule by evolution strategies, many short trainings side by side.

Unrolled gradients are chaotic beyond some fifty steps; differences of losses are not. Perturbations come in antithetic pairs. Trainings go on
over several truncations, and the difference of losses is weighted by the *sum* of the perturbations that a training has seen: persistent evolution
strategies (Vicol, Metz and Sohl-Dickstein 2021, "Unbiased gradient estimation in unrolled computation graphs with persistent evolution
strategies", equation 7). With a truncation as long as the trainings this is the ordinary estimator.

Letters: K = networks side by side (first all positive, then all negative perturbations), N = pairs, Q = numbers of a rule, B = examples of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.optimiser.rule import (
    LearnedRule,
    Moments,
    RuleConfig,
    initial_rule,
    learned_step,
    no_moments,
)
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import derive_seed, generator

MAX_LOSS = 6.0
"""Losses above count as this much, so that one training that blows up does not drown the rest."""


@dataclass(frozen=True, slots=True)
class OptimiserTask:
    """A family of trainings: one architecture on one data set.

    Attributes:
        name: What messages call it.
        graph: One input, logits as output, no batch norms.
        data: Training examples.
        batch_size: Examples per step.
        input_scales: Inputs of each training are multiplied by a factor drawn log-uniformly from here.
    """

    name: str
    graph: ComputationalGraph
    data: Split
    batch_size: int = 64
    input_scales: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """How a rule is meta-trained.

    Attributes:
        steps: Meta-steps, each one truncation of all trainings of one task.
        pairs: Antithetic pairs of trainings per task.
        truncation: Training steps per meta-step.
        min_horizon, max_horizon: Trainings have a length drawn log-uniformly from here.
        noise: Standard deviation of the perturbations.
        learning_rate: Of Adam over the rule's numbers; falls to a tenth along a cosine.
        clip_norm: Largest norm of an estimated gradient.

    Raises:
        ConfigError: If a value is out of its range.
    """

    steps: int = 1000
    pairs: int = 16
    truncation: int = 20
    min_horizon: int = 20
    max_horizon: int = 200
    noise: float = 0.05
    learning_rate: float = 0.01
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "pairs", "truncation", "min_horizon"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        if self.max_horizon < self.min_horizon:
            raise ConfigError(
                f"Expected 'max_horizon' of at least 'min_horizon' (got {self.max_horizon} and {self.min_horizon})"
            )
        for name in ("noise", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")


class Trainings:
    """Pairs of trainings of one task under perturbed rules, vectorised.

    Args:
        task: What is trained.
        config: How.
        rule: Shape of the rules.
        seed: Seed of initial parameters, batches and lengths.

    Raises:
        NasGraphError: If the task's graph and data do not fit.
    """

    def __init__(self, task: OptimiserTask, config: MetaTrainConfig, rule: RuleConfig, *, seed: int) -> None:
        _check_task(task)
        self.task, self._config, self._rule, self._seed = task, config, rule, seed
        self._program = Program(task.graph)
        self._shapes = {name: spec.shape for name, spec in task.graph.parameters.items()}
        count = 2 * config.pairs
        self._values = {name: torch.zeros(count, *shape) for name, shape in self._shapes.items()}
        self._moments = {
            name: no_moments(count, values[0].numel(), values) for name, values in self._values.items()
        }
        self._steps_K = torch.zeros(count)
        self._scale_K = torch.ones(count)
        self._lengths = [0] * config.pairs
        self._resets = 0
        self._rng = torch.Generator().manual_seed(derive_seed(seed, "batches"))
        self._loss = torch.func.vmap(torch.func.grad_and_value(self._loss_of_one), in_dims=(0, 0, 0))

    def _loss_of_one(self, values: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self._program(values, [inputs], RunContext(batch_size=len(targets), real=inputs.dtype))[0]
        return F.cross_entropy(logits, targets)

    def restart_finished(self, *, stagger: bool = False) -> list[int]:
        """Begin anew the pairs whose trainings have their length; return which. `stagger`: the first lengths are cut short at random."""
        finished = [pair for pair, length in enumerate(self._lengths) if float(self._steps_K[pair]) >= length]
        for pair in finished:
            self._resets += 1
            rng = generator(self._seed, "training", self._resets)
            low, high = self._config.min_horizon, self._config.max_horizon
            self._lengths[pair] = round(low * (high / low) ** rng.random() * (rng.random() if stagger else 1))
            smallest, largest = self.task.input_scales
            both = [pair, pair + self._config.pairs]
            self._scale_K[both] = smallest * (largest / smallest) ** rng.random()
            self._steps_K[both] = 0
            start = initial_parameters(self.task.graph, seed=derive_seed(self._seed, "initial", self._resets))
            for name, values in self._values.items():
                values[both] = start[name]
                self._moments[name].momentum[both] = 0
                self._moments[name].second[both] = 0
        return finished

    @torch.no_grad()
    def advance(self, rules_KQ: Tensor) -> Tensor:
        """Train on by one truncation and return the mean loss of each network on the batches it saw, `[K]`."""
        size = min(self.task.batch_size, len(self.task.data))
        total = torch.zeros(len(rules_KQ))
        for _ in range(self._config.truncation):
            picked_NB = torch.randint(
                len(self.task.data), (self._config.pairs, size), generator=self._rng
            ).repeat(2, 1)
            inputs = self.task.data.inputs[picked_NB]
            inputs = inputs * self._scale_K.reshape(-1, *[1] * (inputs.ndim - 1))
            gradients, loss_K = self._loss(self._values, inputs, self.task.data.targets[picked_NB])
            total += loss_K.nan_to_num(nan=MAX_LOSS).clamp(max=MAX_LOSS)
            for name, values in self._values.items():
                flat = gradients[name].flatten(1).nan_to_num(0.0, 0.0, 0.0)
                change, moments = learned_step(
                    self._rule,
                    rules_KQ,
                    values.flatten(1),
                    flat,
                    self._moments[name],
                    self._steps_K,
                    shape=self._shapes[name],
                )
                self._values[name] = (values + change.reshape(values.shape)).clamp(-1e4, 1e4)
                self._moments[name] = moments
            self._steps_K += 1
        return total / self._config.truncation


def estimated_gradient(losses_K: Tensor, seen_NQ: Tensor, *, noise: float) -> Tensor:
    """The gradient `[Q]` of the mean loss, smoothed by normal noise (Vicol et al. 2021, equation 7).

    Args:
        losses_K: Losses of one truncation: first under all positive, then under all negative perturbations.
        seen_NQ: For each pair the sum of the positive perturbations since its trainings began.
        noise: Standard deviation of one perturbation.
    """
    positive_N, negative_N = losses_K.chunk(2)
    weight_N = (positive_N - negative_N) / (2 * noise**2)
    return (weight_N.unsqueeze(1) * seen_NQ).mean(0)


def _check_task(task: OptimiserTask) -> None:
    graph = task.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or not graph.parameters:
        raise NasGraphError(
            f"Expected the graph of task '{task.name}' to have one input, one output, and parameters"
        )
    for index, node in enumerate(graph.nodes):
        if node.op in ("batch_norm", "dropout", "drop_path", "constant", "opaque"):
            raise NasGraphError(
                f"Cannot train '{node.op}' (node {index} of task '{task.name}') side by side: use a graph without it"
            )
    wanted, got = graph.shapes[graph.inputs[0]], tuple(task.data.inputs.shape[1:])
    if got != wanted:
        raise NasGraphError(f"Expected inputs of shape {wanted} for task '{task.name}' (got {got})")
    classes = graph.shapes[graph.outputs[0]][-1]
    if not len(task.data) or int(task.data.targets.max()) >= classes:
        raise NasGraphError(f"Expected examples with labels below {classes} for task '{task.name}'")


def meta_train(
    tasks: Sequence[OptimiserTask],
    config: MetaTrainConfig,
    *,
    rule: LearnedRule | None = None,
    first_step: int = 0,
    seed: int = 0,
    on_step: Callable[[int, float, LearnedRule], None] | None = None,
) -> LearnedRule:
    """Learn a rule from short trainings.

    Args:
        tasks: What is trained; meta-steps take turns among them.
        config: How.
        rule: Where to start; None: from Adam.
        first_step: Meta-steps that the rule has behind it, for the schedule of the learning rate. The trainings begin anew.
        seed: Seed of everything random.
        on_step: Told the meta-steps done, the mean loss of the unperturbed pairs, and the rule, after each meta-step.

    Returns:
        The rule after the last meta-step.

    Raises:
        NasGraphError: If there is no task, or a task's graph and data do not fit.
    """
    if not tasks:
        raise NasGraphError("Expected at least one task to learn an optimiser from")
    rule = rule or initial_rule(seed=seed)
    numbers = rule.numbers.clone()
    optimiser = torch.optim.Adam([numbers], lr=config.learning_rate, betas=(0.9, 0.99))
    families = [
        Trainings(task, config, rule.config, seed=derive_seed(seed, "task", place, first_step))
        for place, task in enumerate(tasks)
    ]
    seen = [torch.zeros(config.pairs, len(numbers)) for _ in tasks]
    rng = torch.Generator().manual_seed(derive_seed(seed, "perturbations", first_step))
    for step in range(first_step, config.steps):
        place = step % len(tasks)
        seen[place][families[place].restart_finished(stagger=step - first_step < len(tasks))] = 0
        drawn_NQ = torch.randn(config.pairs, len(numbers), generator=rng) * config.noise
        seen[place] += drawn_NQ
        losses_K = families[place].advance(torch.cat([numbers + drawn_NQ, numbers - drawn_NQ]))
        gradient = estimated_gradient(losses_K, seen[place], noise=config.noise)
        norm = gradient.norm().clamp(min=1e-12)
        numbers.grad = gradient * (config.clip_norm / norm).clamp(max=1.0)
        share = torch.tensor(torch.pi * step / config.steps).cos()
        optimiser.param_groups[0]["lr"] = config.learning_rate * float(0.55 + 0.45 * share)
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, float(losses_K.mean()), LearnedRule(rule.config, numbers.clone()))
    return LearnedRule(rule.config, numbers.clone())


__all__ = ["MetaTrainConfig", "Moments", "OptimiserTask", "Trainings", "meta_train"]
