"""Meta-pruning: a metanetwork that rewrites a trained network so that cutting units hurts less.

Liu et al. 2025, "Meta pruning via graph metanetworks": the metanetwork reads the parameter graph of a network and gives new
weights of the same network. It is trained on a few trained networks by the cross-entropy of what it writes and by group
sparsity; used, it makes one forward pass, and ordinary fine-tuning and group pruning follow. Departures: the parameter graph
and the groups are those of the symmetry table, so that any traced network can be read; the sparsity term is relative to
the weights of each group (see `group_sparsity`), since otherwise the metanetwork learns to make all weights smaller; and in
each step what is left after a cut by group-L2 counts too, which is what the rewriting is for (`EditorConfig.cut`), and the
weights that are read have noise (`EditorConfig.noise`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split, batches
from nasgraph.edits import choose_units, importance
from nasgraph.errors import ConfigError
from nasgraph.evaluate.train import DivergedError
from nasgraph.files import Json
from nasgraph.ir import ComputationalGraph
from nasgraph.merge import recompute_batch_norm
from nasgraph.meta.graph import parameter_graph
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig, load_metanetwork, save_metanetwork
from nasgraph.meta.pruning.methods import group_sparsity
from nasgraph.meta.pruning.tuning import Penalty, warm_cosine
from nasgraph.modules import State, check_state, is_parameter, is_statistic, run_network
from nasgraph.seeding import derive_seed, generator
from nasgraph.symmetry import symmetry_table

EDITOR = MetanetworkConfig(layers=3, node_dim=32, edge_dim=12, graph_dim=16, frequencies=8)
"""The metanetwork that `train_editor` makes: small, for networks of some 100,000 parameters."""


@dataclass(frozen=True, kw_only=True)
class EditorConfig:
    """How an editing metanetwork is trained.

    Attributes:
        steps: Updates of the metanetwork.
        batch_size: Training examples per step: large, since batch norms use the statistics of the batch.
        learning_rate: Peak of AdamW's learning rate: linear warm-up, then a cosine to 0.
        weight_decay: AdamW's decoupled weight decay.
        sparsity: Strength of group sparsity, see `group_sparsity`.
        alpha: How much more the least important unit pays than the most important.
        cut: Weight of the cross-entropy of what is written without its least important units; 0: as in the paper.
        speed_ups: For that: by how much it is cut, drawn in each step.
        noise: Relative noise on the weights that are read in each step, so that few networks are not learnt by heart.
        clip: Largest norm of the gradient.
        seed: Decides initial weights and all orders.
    """

    steps: int = 150
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    sparsity: float = 0.05
    alpha: float = 16.0
    cut: float = 1.0
    speed_ups: tuple[float, ...] = (2.0, 3.0, 5.0)
    noise: float = 0.1
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "alpha", "clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if min(self.sparsity, self.weight_decay, self.cut, self.noise) < 0:
            raise ConfigError("Expected 'sparsity', 'cut', 'noise' and 'weight_decay' of at least 0")
        if not self.speed_ups or min(self.speed_ups) < 1:
            raise ConfigError(f"Expected 'speed_ups' of at least 1 (got {self.speed_ups})")


@dataclass(frozen=True, slots=True)
class EditorStep:
    """One update of the metanetwork: which network it rewrote, and the parts of the loss.

    `cross_entropy` is that of what is written, `cut` that of what is left of it after a cut (0 if it is not used).
    """

    step: int
    network: int
    cross_entropy: float
    sparsity: float
    cut: float


def train_editor(
    networks: Sequence[tuple[ComputationalGraph, State]],
    train: Split,
    *,
    config: EditorConfig | None = None,
    shape: MetanetworkConfig | None = None,
    on_step: Callable[[EditorStep], None] | None = None,
) -> Metanetwork:
    """Train a metanetwork to rewrite networks so that pruning hurts less.

    Args:
        networks: Trained networks ("data models"), of one or several architectures, with one output of class scores.
        train: Their training data.
        config: How to train.
        shape: Shape of the metanetwork; None: `EDITOR`.
        on_step: Called after each update.

    Returns:
        The metanetwork, for `rewrite`.

    Raises:
        ConfigError: If there are no networks.
        StateError: If a state does not belong to its graph.
        DivergedError: If a loss stops being finite.
    """
    config = config or EditorConfig()
    if not networks:
        raise ConfigError("Expected at least one trained network to learn from")
    metanetwork = Metanetwork(shape or EDITOR, seed=derive_seed(config.seed, "editor"))
    tasks = [_Task(graph, state, config) for graph, state in networks]
    optimizer = torch.optim.AdamW(
        metanetwork.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    examples = _endless(train, config)
    order = generator(config.seed, "networks")
    rng = torch.Generator().manual_seed(derive_seed(config.seed, "noise"))
    for step in range(config.steps):
        if step % len(tasks) == 0:
            turns = order.permutation(len(tasks))
        number = int(turns[step % len(tasks)])
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm_cosine(step, config.steps)
        inputs, targets = next(examples)
        speed_up = config.speed_ups[int(order.integers(len(config.speed_ups)))]
        losses = tasks[number].losses(metanetwork, inputs, targets, speed_up=speed_up, rng=rng)
        loss = losses[0] + losses[1] + config.cut * losses[2]
        if not torch.isfinite(loss):
            raise DivergedError(
                f"The loss of the metanetwork became {float(loss.detach())} in step {step + 1}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(metanetwork.parameters(), config.clip)
        optimizer.step()
        if on_step is not None:
            on_step(EditorStep(step, number, *(float(part.detach()) for part in losses)))
    return metanetwork.eval()


class _Task:
    """One network that the metanetwork learns to rewrite."""

    def __init__(self, graph: ComputationalGraph, state: State, config: EditorConfig) -> None:
        check_state(graph, state)
        self._graph, self._state, self._config = graph, state, config
        self._penalty: Penalty = group_sparsity(graph, strength=config.sparsity, alpha=config.alpha)

    def losses(
        self,
        metanetwork: Metanetwork,
        inputs: Tensor,
        targets: Tensor,
        *,
        speed_up: float,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of the rewritten network, its group sparsity, and its cross-entropy after a cut.

        Norms use the statistics of the batch.
        """
        read = parameter_graph(self._graph, self._noisy(rng))
        written = {**self._state, **read.to_states(*metanetwork.edit(read))[0]}
        whole = self._cross_entropy(written, inputs, targets)
        left = (
            self._cross_entropy(self.cut(written, speed_up), inputs, targets)
            if self._config.cut
            else 0 * whole
        )
        return whole, self._penalty(written), left

    def _noisy(self, rng: torch.Generator) -> dict[str, Tensor]:
        return {
            name: tensor * (1 + self._config.noise * torch.randn(tensor.shape, generator=rng))
            if is_parameter(name, tensor)
            else tensor
            for name, tensor in self._state.items()
        }

    def _cross_entropy(self, state: State, inputs: Tensor, targets: Tensor) -> Tensor:
        (logits,) = run_network(self._graph, state, [inputs], use_batch=True)
        return F.cross_entropy(logits, targets)

    def cut(self, state: State, speed_up: float) -> dict[str, Tensor]:
        """The state with zeros in the place of the units that group-L2 pruning would remove. Differentiable in what is left."""
        frozen = {name: tensor.detach() for name, tensor in state.items()}
        keep = choose_units(
            self._graph, importance(self._graph, frozen, "l2"), speed_up=speed_up, min_share=0.1
        )
        result = dict(state)
        for name, units in keep.items():
            group = symmetry_table(self._graph).group(name)
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[units] = False
            for member in group.members:
                tensor = result[member.parameter]
                if not is_statistic(member.parameter):
                    mask = torch.ones(tensor.shape[member.axis], dtype=tensor.dtype)
                    mask[member.places()[gone].flatten()] = 0
                    result[member.parameter] = (tensor.movedim(member.axis, -1) * mask).movedim(
                        -1, member.axis
                    )
        return result


def _endless(train: Split, config: EditorConfig) -> "_Batches":
    return _Batches(train, min(config.batch_size, len(train)), derive_seed(config.seed, "examples"))


class _Batches:
    """Batches of a split, epoch after epoch."""

    def __init__(self, train: Split, size: int, seed: int) -> None:
        self._train, self._size, self._seed = train, size, seed
        self._epoch = 0
        self._running = batches(train, batch_size=size, seed=seed, epoch=0, drop_last=True)

    def __next__(self) -> tuple[Tensor, Tensor]:
        for batch in self._running:
            return batch
        self._epoch += 1
        self._running = batches(
            self._train, batch_size=self._size, seed=self._seed, epoch=self._epoch, drop_last=True
        )
        return next(self._running)


def rewrite(
    metanetwork: Metanetwork,
    graph: ComputationalGraph,
    state: State,
    *,
    train: Split | None = None,
    norm_examples: int = 2000,
) -> dict[str, Tensor]:
    """New weights of the same network, in one forward pass of a metanetwork.

    Args:
        metanetwork: From `train_editor`.
        graph: The network.
        state: Its trained state. Not changed.
        train: Examples by which running statistics are measured anew; None: they stay as they were, and hardly fit.
        norm_examples: How many of them.

    Raises:
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    with torch.no_grad():
        read = parameter_graph(graph, state)
        written = {**state, **read.to_states(*metanetwork.edit(read))[0]}
    if train is None:
        return written
    return recompute_batch_norm(graph, written, train, max_examples=norm_examples)


def save_editor(
    metanetwork: Metanetwork, folder: Path, *, config: EditorConfig, facts: dict[str, Json]
) -> None:
    """Write an editing metanetwork, to be read by `load_editor`.

    Args:
        metanetwork: From `train_editor`.
        folder: Where; created if missing.
        config: How it was trained.
        facts: What else is to be known: data, networks, versions.
    """
    recipe: dict[str, Json] = {"task": "meta-pruning", "training": asdict(config), **facts}
    save_metanetwork(metanetwork, folder, recipe=recipe)


def load_editor(folder: Path) -> Metanetwork:
    """Read an editing metanetwork.

    Raises:
        CheckpointError: If a file is missing, damaged or foreign.
    """
    return load_metanetwork(folder)
