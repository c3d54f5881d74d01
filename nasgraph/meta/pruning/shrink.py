"""One call that makes a trained network smaller: choose, cut, measure norms anew, fine-tune towards the network before."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from torch import Tensor

from nasgraph.data import SearchData
from nasgraph.errors import ConfigError
from nasgraph.evaluate import measure
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.merge import recompute_batch_norm
from nasgraph.meta.networks import Metanetwork
from nasgraph.meta.pruning.methods import METHODS, prune_by
from nasgraph.meta.pruning.rewrite import rewrite
from nasgraph.meta.pruning.tuning import FineTuneConfig, finetune, teacher_logits
from nasgraph.meta.pruning.width import WidthConfig, search_width
from nasgraph.modules import Program, State, check_state
from nasgraph.seeding import derive_seed

Way = Literal["group", "meta", "width"]


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig:
    """How a network is made smaller.

    Attributes:
        way: "group": the units that a criterion ranks lowest go; "meta": a metanetwork rewrites the weights first; "width":
            widths are searched by gradient, and the most important units stay.
        criterion: For "group" and "meta": one of `METHODS` but "lottery".
        speed_up: Multiply-adds before, divided by those after.
        steps: Of fine-tuning after the cut.
        teach: Whether the network before the cut teaches the one after it.
        seed: Of everything that is drawn.
        tuning: How to fine-tune.
        width: How widths are searched.
    """

    way: Way = "group"
    criterion: str = "l2"
    speed_up: float = 2.0
    steps: int = 500
    teach: bool = True
    seed: int = 0
    tuning: FineTuneConfig = field(default_factory=FineTuneConfig)
    width: WidthConfig = field(default_factory=WidthConfig)

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise ConfigError(f"Expected 'way' among {', '.join(get_args(Way))} (got {self.way!r})")
        known = [method for method in METHODS if method != "lottery"]
        if self.criterion not in known:
            raise ConfigError(f"Expected 'criterion' among {', '.join(known)} (got {self.criterion!r})")
        if self.speed_up <= 1:
            raise ConfigError(f"Expected 'speed_up' above 1 (got {self.speed_up})")
        if self.steps < 0:
            raise ConfigError(f"Expected 'steps' of at least 0 (got {self.steps})")


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A network that was made smaller.

    Attributes:
        graph: Its architecture.
        state: Its parameters, running statistics and constants.
        note: One line on what was done, for lineage.
        multiply_adds, num_parameters: Of the network.
        speed_up: Multiply-adds of the network before, divided by those of this one.
        val_accuracy_full: Validation accuracy of the network before.
        val_accuracy_before: After the cut, with running statistics measured anew and nothing trained.
        val_accuracy: After fine-tuning.
    """

    graph: ComputationalGraph
    state: dict[str, Tensor]
    note: str
    multiply_adds: int
    num_parameters: int
    speed_up: float
    val_accuracy_full: float
    val_accuracy_before: float
    val_accuracy: float


def shrink(
    graph: ComputationalGraph,
    state: State,
    data: SearchData,
    *,
    config: ShrinkConfig | None = None,
    editor: Metanetwork | None = None,
) -> Shrunk:
    """Make a trained classifier smaller and fine-tune it.

    Args:
        graph: The network.
        state: Its trained state. Not changed.
        data: Its data; accuracies are those on the validation split, by which nothing is chosen.
        config: How.
        editor: For "meta": from `train_editor` or `load_editor`.

    Raises:
        ConfigError: If "meta" comes without a metanetwork.
        EditError: If nothing can be cut, or the speed-up is out of reach.
        StateError: If the state does not belong to the graph.
        DivergedError: If a loss stops being finite.
    """
    config = config or ShrinkConfig()
    check_state(graph, state)
    teacher = teacher_logits(graph, state, data.train) if config.teach and config.steps else None
    small, start, note = _cut(graph, state, data, config, editor)
    start = recompute_batch_norm(small, start, data.train, max_examples=4096)
    tuned = finetune(
        small,
        start,
        data.train,
        steps=config.steps,
        seed=derive_seed(config.seed, "shrink"),
        config=config.tuning,
        teacher=teacher,
    )
    cost = cost_of(small)
    full, before, after = (
        measure(Program(each), weights, data.validation, batch_size=500)[1]
        for each, weights in ((graph, state), (small, start), (small, tuned))
    )
    return Shrunk(
        graph=small,
        state=tuned,
        note=f"{note}; {config.steps} steps of fine-tuning",
        multiply_adds=cost.multiply_adds,
        num_parameters=cost.num_parameters,
        speed_up=cost_of(graph).multiply_adds / cost.multiply_adds,
        val_accuracy_full=full,
        val_accuracy_before=before,
        val_accuracy=after,
    )


def _cut(
    graph: ComputationalGraph,
    state: State,
    data: SearchData,
    config: ShrinkConfig,
    editor: Metanetwork | None,
) -> tuple[ComputationalGraph, dict[str, Tensor], str]:
    """The smaller network, its state, and what was done."""
    if config.way == "width":
        width = replace(config.width, seed=config.seed)
        found = search_width(graph, data, target_ratio=1 / config.speed_up, state=state, config=width)
        widths = ", ".join(f"{name} to {size}" for name, size in found.widths.items())
        return found.graph, found.state, f"search widths: {widths:.200}"
    before = ""
    if config.way == "meta":
        if editor is None:
            raise ConfigError(
                "'meta' needs a metanetwork: train one with 'train_editor', or read one with 'load_editor'"
            )
        state, before = rewrite(editor, graph, state, train=data.train), "rewrite weights; "
    cut = prune_by(
        graph, state, config.criterion, speed_up=config.speed_up, data=data.train, seed=config.seed
    )
    return cut.graph, cut.state, f"{before}{cut.note} by {config.criterion}"
