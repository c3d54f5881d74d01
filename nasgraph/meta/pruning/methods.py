"""Ways to choose the units that stay, compared at equal multiply-adds and equal steps of training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

import torch
from torch import Tensor

from nasgraph.data import SearchData, Split
from nasgraph.edits import Criterion, Edited, choose_units, importance, loss_gradients, prune_units
from nasgraph.errors import ConfigError
from nasgraph.evaluate import measure
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.merge import recompute_batch_norm
from nasgraph.meta.pruning.tuning import FineTuneConfig, Penalty, finetune
from nasgraph.modules import Program, State, check_state
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import symmetry_table

CRITERIA: tuple[str, ...] = get_args(Criterion)
METHODS = (*CRITERIA, "uniform", "lottery")
"""What `prune_by` knows: the global ranking by a criterion of `nasgraph.edits.importance`; "uniform", one ratio for all groups with
the best units by group-L2; "lottery", the group-L2 ranking with weights rewound to their initial values."""

Prepare = Callable[[ComputationalGraph, State], State]
"""Makes another state of the same network before it is fine-tuned and cut, as a metanetwork does."""


def units_to_keep(
    graph: ComputationalGraph,
    state: State,
    method: str,
    *,
    speed_up: float,
    data: Split | None = None,
    min_share: float = 0.1,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The units that stay, for every group that becomes smaller.

    Args:
        graph: The network.
        state: Its state.
        method: One of `METHODS`.
        speed_up: Multiply-adds before, divided by those after.
        data: Examples for "taylor", of which the first 512 are used.
        min_share: This share of each group stays.
        seed: For "random".

    Raises:
        ConfigError: If there is no such method, or "taylor" comes without data.
        EditError: If the speed-up is out of reach.
    """
    if method not in METHODS:
        raise ConfigError(f"Expected a method among {', '.join(METHODS)} (got {method!r})")
    criterion = cast(Criterion, "l2" if method in ("uniform", "lottery") else method)
    gradients = None
    if criterion == "taylor":
        if data is None:
            raise ConfigError("'taylor' needs data: it ranks units by gradients of the loss")
        gradients = loss_gradients(graph, state, [data.inputs[:512]], data.targets[:512])
    scores = importance(graph, state, criterion, seed=seed, gradients=gradients)
    return dict(
        choose_units(graph, scores, speed_up=speed_up, min_share=min_share, uniform=method == "uniform")
    )


def prune_by(
    graph: ComputationalGraph,
    state: State,
    method: str,
    *,
    speed_up: float,
    data: Split | None = None,
    initial: State | None = None,
    min_share: float = 0.1,
    seed: int = 0,
) -> Edited:
    """Cut a network to a fraction of its multiply-adds.

    "lottery" gives the network at its initial weights (Frankle and Carbin 2019, "The lottery ticket hypothesis", with units in
    the place of weights, so that the network really becomes smaller); for single weights see `magnitude_masks`.

    Args:
        graph: The network.
        state: Its state.
        method: One of `METHODS`.
        speed_up: Multiply-adds before, divided by those after.
        data: Examples for "taylor".
        initial: The state before training, for "lottery".
        min_share: This share of each group stays.
        seed: For "random".

    Raises:
        ConfigError: If there is no such method, or it lacks what it needs.
        EditError: If the speed-up is out of reach.
    """
    keep = units_to_keep(graph, state, method, speed_up=speed_up, data=data, min_share=min_share, seed=seed)
    if method != "lottery":
        return prune_units(graph, state, keep)
    if initial is None:
        raise ConfigError("'lottery' needs the weights before training: pass them as 'initial'")
    return prune_units(graph, initial, keep)


def magnitude_masks(
    graph: ComputationalGraph, state: State, *, sparsity: float, exclude: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Ones where a weight is among the largest of the network, for `finetune(masks=...)` (Frankle and Carbin 2019).

    A lottery ticket of single weights: train, take the masks, and train the initial state with them. The network does not
    become smaller.

    Args:
        graph: The network.
        state: Its trained state.
        sparsity: Share of weights to remove over all layers; norms and biases stay.
        exclude: Names of weights that stay whole, such as the last layer's.

    Raises:
        ConfigError: If `sparsity` is not in [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"Expected 'sparsity' in [0, 1) (got {sparsity})")
    check_state(graph, state)
    names = [
        name
        for name, spec in graph.parameters.items()
        if spec.role == "weight" and len(spec.shape) > 1 and name not in exclude
    ]
    sizes = torch.cat([state[name].abs().flatten() for name in names])
    removed = round(sparsity * len(sizes))
    masks = torch.ones_like(sizes)
    masks[sizes.argsort(stable=True)[:removed]] = 0
    parts = torch.split(masks, [state[name].numel() for name in names])
    return {name: part.view_as(state[name]) for name, part in zip(names, parts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What all methods of a comparison share.

    Attributes:
        speed_ups: Multiply-adds before, divided by those after.
        steps_before: Steps of training the full network before the cut.
        steps_after: Steps of training the cut network.
        min_share: This share of each group stays.
        norm_examples: Examples by which running statistics are measured anew after the cut, for all methods alike.
        tuning: How to train.
    """

    speed_ups: tuple[float, ...] = (2.0, 3.0, 5.0)
    steps_before: int = 200
    steps_after: int = 200
    min_share: float = 0.1
    norm_examples: int = 2000
    tuning: FineTuneConfig = field(default_factory=FineTuneConfig)

    def __post_init__(self) -> None:
        if not self.speed_ups or min(self.speed_ups) < 1:
            raise ConfigError(f"Expected 'speed_ups' of at least 1 (got {self.speed_ups})")
        if min(self.steps_before, self.steps_after) < 0 or self.norm_examples < 1:
            raise ConfigError("Expected steps of at least 0 and 'norm_examples' of at least 1")


@dataclass(frozen=True, slots=True)
class PruningRow:
    """One method at one speed-up.

    Attributes:
        method: Its name.
        speed_up: Wanted.
        multiply_adds: Of the cut network.
        num_parameters: Of the cut network.
        full: Accuracy of the full network before the cut, after its steps of training.
        before: Accuracy after the cut, with running statistics measured anew and nothing trained.
        stale: The same with the running statistics of the full network.
        after: Accuracy after fine-tuning.
    """

    method: str
    speed_up: float
    multiply_adds: int
    num_parameters: int
    full: float
    before: float
    stale: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A method in a comparison.

    Attributes:
        name: How rows call it.
        method: How units are chosen: one of `METHODS`.
        prepare: Another state to begin with, such as a metanetwork's; None: the trained one.
        penalty: Added to the loss in the steps before the cut, as a function of the parameters; None: nothing.
    """

    name: str
    method: str = "l2"
    prepare: Prepare | None = None
    penalty: Penalty | None = None


def compare_pruning(
    graph: ComputationalGraph,
    state: State,
    data: SearchData,
    candidates: Sequence[Candidate | str],
    *,
    test: Split,
    seed: int,
    initial: State | None = None,
    teacher: Tensor | None = None,
    config: CompareConfig | None = None,
) -> list[PruningRow]:
    """Cut one trained network by several methods at the same multiply-adds, with equal steps of training for all.

    Each method: steps on the full network, the cut, steps on what is left. Methods that change nothing before the cut share
    their first steps. Accuracies are those on `test`: choose nothing by them.

    Args:
        graph: The network.
        state: Its trained state.
        data: Training data; validation data are not used.
        candidates: Methods, or their names for those of `METHODS`.
        test: Examples to measure on.
        seed: Of all training and of "random".
        initial: The state before training, for "lottery".
        teacher: Logits for each training example, for distillation after the cut.
        config: Speed-ups and steps.

    Returns:
        One row per method and speed-up.
    """
    config = config or CompareConfig()
    chosen = [Candidate(name=each, method=each) if isinstance(each, str) else each for each in candidates]
    plain: State | None = None
    rows = []
    for candidate in chosen:
        is_plain = candidate.prepare is None and candidate.penalty is None
        if is_plain and plain is not None:
            full = plain
        else:
            start = state if candidate.prepare is None else candidate.prepare(graph, state)
            full = finetune(
                graph, start, data.train, steps=config.steps_before, seed=derive_seed(seed, "before"),
                config=config.tuning, penalty=candidate.penalty,
            )  # fmt: skip
            plain = full if is_plain else plain
        accuracy = _accuracy(graph, full, test)
        for speed_up in config.speed_ups:
            cut = prune_by(
                graph, full, candidate.method, speed_up=speed_up, data=data.train, initial=initial,
                min_share=config.min_share, seed=seed,
            )  # fmt: skip
            rows.append(
                _row(candidate.name, cut, accuracy, speed_up, data.train, test, seed, teacher, config)
            )
    return rows


def _row(
    name: str,
    cut: Edited,
    full: float,
    speed_up: float,
    train: Split,
    test: Split,
    seed: int,
    teacher: Tensor | None,
    config: CompareConfig,
) -> PruningRow:
    fresh = recompute_batch_norm(cut.graph, cut.state, train, max_examples=config.norm_examples)
    tuned = finetune(
        cut.graph, fresh, train, steps=config.steps_after, seed=derive_seed(seed, "after"),
        config=config.tuning, teacher=teacher,
    )  # fmt: skip
    cost = cost_of(cut.graph)
    return PruningRow(
        method=name,
        speed_up=speed_up,
        multiply_adds=cost.multiply_adds,
        num_parameters=cost.num_parameters,
        full=full,
        before=_accuracy(cut.graph, fresh, test),
        stale=_accuracy(cut.graph, cut.state, test),
        after=_accuracy(cut.graph, tuned, test),
    )


def _accuracy(graph: ComputationalGraph, state: State, split: Split) -> float:
    return measure(Program(graph), state, split, batch_size=500)[1]


def group_sparsity(
    graph: ComputationalGraph, *, strength: float, alpha: float = 16.0, relative: bool = True
) -> Penalty:
    """A penalty that makes unimportant units smaller still: half the sum of gamma times the squared weights of each unit.

    Per unit `gamma = alpha ** ((I_max - I) / (I_max - I_min))`, where I is its group-L2 importance among the units of its group
    (Fang et al. 2023, "DepGraph", section 3.3; Liu et al. 2025, "Meta pruning via graph metanetworks"). Gamma is not
    differentiated, so that the plain gradient is `strength * gamma * w`, as in both papers.

    Before a batch norm the size of weights has no effect, and the plain penalty is lowered most cheaply by making all weights
    smaller, which helps no pruning. The relative one divides each group's sum by the group's squared weights: the weights move
    from unimportant units to important ones, and scaling a group changes nothing.

    Args:
        graph: The network.
        strength: Factor of the whole.
        alpha: How much more the least important unit pays than the most important.
        relative: Whether each group's sum is divided by its squared weights.

    Returns:
        A function of the parameters.
    """
    counted = {
        name for name, spec in graph.parameters.items() if spec.role in ("weight", "scale", "embedding")
    }
    groups = [
        (group.size, [(m.parameter, m.axis, m.places()) for m in group.members if m.parameter in counted])
        for group in symmetry_table(graph).groups
    ]

    def penalty(parameters: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for size, members in groups:
            squares = torch.zeros(size)
            for parameter, axis, places in members:
                rows = parameters[parameter].square().movedim(axis, 0)
                each = rows.flatten(1).sum(1) if rows.ndim > 1 else rows
                squares = squares + each[places].sum(1)
            with torch.no_grad():
                scores = squares.sqrt()
                spread = (scores.max() - scores.min()).clamp_min(1e-12)
                gamma = alpha ** ((scores.max() - scores) / spread)
            term = (gamma * squares).sum()
            total = total + (term / squares.sum().clamp_min(1e-12) if relative else term)
        return strength / 2 * total

    return penalty
