"""What a search optimises: named metrics, each with a direction that is stated and never guessed.

val_accuracy                     its known direction: higher is better
-latency_ms, min:latency_ms      lower is better
max:my_score                     higher is better
val_accuracy,num_parameters      two objectives: a cost is minimised unless something else is said
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nasgraph.errors import ConfigError, NasGraphError, UnknownNameError
from nasgraph.evaluate.costs import GRAPH_COSTS, LATENCY_MS

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {
        "val_accuracy": True,
        "val_loss": False,
        "train_loss": False,
        "minus_latency_ms": True,
        LATENCY_MS: False,
        "train_seconds": False,
        "train_flops": False,
        **dict.fromkeys(GRAPH_COSTS, False),
    }
)
"""Metrics whose better direction is known, so that it need not be said."""
COST_PREFIXES = ("latency:", "energy:")
_QUALITIES = ("val_accuracy", "val_loss", "train_loss")
"""Metrics of which nobody can want the worse end. A cost may be maximised, as a rough guess of quality."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One metric and its better direction.

    Attributes:
        name: Name of the metric in `Evaluation.metrics`, or of a cost of the graph.
        maximise: Whether higher is better.

    Raises:
        ConfigError: If the name is empty, or the direction is the worse one of a metric such as an accuracy.
    """

    name: str
    maximise: bool

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise ConfigError(f"Expected the name of a metric (got {self.name!r})")
        if self.name in _QUALITIES and HIGHER_IS_BETTER[self.name] is not self.maximise:
            better, worse = ("higher", "lower") if not self.maximise else ("lower", "higher")
            raise ConfigError(f"Of '{self.name}' {better} is better (got an objective that wants it {worse})")

    @property
    def direction(self) -> str:
        """Optuna's word for it: "maximize" or "minimize"."""
        return "maximize" if self.maximise else "minimize"

    def gain(self, value: float) -> float:
        """The value, turned so that higher is better."""
        return value if self.maximise else -value

    def __str__(self) -> str:
        """Text that `parse_objective` reads back."""
        return f"{'max' if self.maximise else 'min'}:{self.name}"


def parse_objective(text: str) -> Objective:
    """Read one objective: `NAME`, `-NAME`, `min:NAME` or `max:NAME`.

    Raises:
        ConfigError: If the name is missing, or its direction is neither stated nor known.
    """
    said = text.strip()
    for prefix, maximise in (("max:", True), ("min:", False), ("-", False)):
        if said.startswith(prefix):
            return Objective(said.removeprefix(prefix).strip(), maximise)
    if not said:
        raise ConfigError("Expected the name of a metric to optimise (got nothing)")
    if said.startswith(COST_PREFIXES):
        return Objective(said, maximise=False)
    if said not in HIGHER_IS_BETTER:
        raise ConfigError(
            f"Expected 'max:{said}' or 'min:{said}': which end of '{said}' is better is not known"
        )
    return Objective(said, HIGHER_IS_BETTER[said])


def parse_objectives(text: str | Sequence[str], *, known: Collection[str] = ()) -> tuple[Objective, ...]:
    """Read one or more objectives, separated by commas if they are one text.

    Args:
        text: Such as "val_accuracy,-latency_ms".
        known: Metrics that will be there; if there are any, every objective must be one of them.

    Raises:
        ConfigError: If there is none, one is wrong, or a metric comes twice.
        UnknownNameError: If a metric is not among `known`.
    """
    parts = text.split(",") if isinstance(text, str) else list(text)
    objectives = tuple(parse_objective(part) for part in parts)
    if not objectives:
        raise ConfigError("Expected at least one objective")
    seen: dict[str, Objective] = {}
    for objective in objectives:
        earlier = seen.setdefault(objective.name, objective)
        if earlier is not objective:
            how = "twice" if earlier == objective else "as large and as small as can be"
            raise ConfigError(f"The objectives contradict each other: '{objective.name}' is wanted {how}")
        if known and objective.name not in known:
            raise UnknownNameError("metric", objective.name, known)
    return objectives


def values_of(objectives: Sequence[Objective], metrics: Mapping[str, float]) -> tuple[float, ...]:
    """The value of every objective, as it was measured: what `study.tell` gets.

    Raises:
        NasGraphError: If a metric is missing. What there is, is named.
    """
    for objective in objectives:
        if objective.name not in metrics:
            raise NasGraphError(
                f"Expected the metric '{objective.name}', which the search optimises (got {', '.join(sorted(metrics)) or 'none'})"
            )
    return tuple(float(metrics[objective.name]) for objective in objectives)


def gains(objectives: Sequence[Objective], metrics: Mapping[str, float]) -> tuple[float, ...]:
    """The value of every objective, turned so that higher is better. See `values_of` for what is raised."""
    return tuple(
        objective.gain(value)
        for objective, value in zip(objectives, values_of(objectives, metrics), strict=True)
    )


def are_finite(numbers: Sequence[float]) -> bool:
    """Whether all are numbers that an objective may have."""
    return all(math.isfinite(number) for number in numbers)
