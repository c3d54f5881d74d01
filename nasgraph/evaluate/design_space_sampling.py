"""Populations for an analysis of design spaces: random networks, trained, or the rows of a table."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.evaluate.design_space_models import COSTS, SampledModel, model_from_json, model_of
from nasgraph.evaluate.evaluation import Evaluator, never_stop
from nasgraph.evaluate.table import Table
from nasgraph.files import parse_json, read_json, write_json
from nasgraph.ir import cost_of
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import Candidate, SearchSpace, sample

ATTEMPTS_PER_MODEL = 200


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a population is drawn.

    Attributes:
        num_models: Different networks.
        seed: Decides which.
        limits: Least and most of each of `COSTS` that is named, both included.
    """

    num_models: int = 50
    seed: int = 0
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_models < 1:
            raise ConfigError(f"Expected 'num_models' of at least 1 (got {self.num_models})")
        for name, (low, high) in self.limits.items():
            if name not in COSTS or not 0 <= low <= high:
                raise ConfigError(
                    f"Expected limits of {', '.join(COSTS)} from low to high (got '{name}' {low} to {high})"
                )


def draw_candidates(space: SearchSpace, config: SampleConfig) -> tuple[Candidate, ...]:
    """Random networks of a space within the limits, no two with one graph. Equal arguments give equal networks.

    Every choice is uniform given the earlier ones, and so what is drawn is uniform over architectures only where all ask
    the same questions.

    Raises:
        NasGraphError: If so many cannot be found.
    """
    rng = generator(config.seed, "design-space", space.name)
    found: dict[str, Candidate] = {}
    for _ in range(ATTEMPTS_PER_MODEL * config.num_models):
        candidate = sample(space, rng)
        cost = cost_of(candidate.graph)
        if all(low <= getattr(cost, name) <= high for name, (low, high) in config.limits.items()):
            found.setdefault(candidate.graph.fingerprint, candidate)
        if len(found) == config.num_models:
            return tuple(found.values())
    limits = ", ".join(f"{name} {low:,} to {high:,}" for name, (low, high) in config.limits.items())
    raise NasGraphError(
        f"Found {len(found)} of {config.num_models} different networks of '{space.name}' with {limits or 'any cost'} in "
        f"{ATTEMPTS_PER_MODEL * config.num_models:,} draws: ask for fewer, or widen the limits"
    )


def train_candidates(
    candidates: Sequence[Candidate],
    evaluate: Evaluator,
    *,
    seed: int,
    known: Mapping[int, SampledModel] | None = None,
    on_model: Callable[[SampledModel], None] = lambda _: None,
) -> tuple[SampledModel, ...]:
    """Measure networks one after another; the error is one less the objective, such as the validation accuracy.

    A network that cannot be measured is kept without an error. A programming error in an evaluator is not told from that;
    see the reasons.

    Args:
        candidates: What to measure.
        evaluate: Measures; its objective lies in [0, 1].
        seed: Each network's own is derived from it.
        known: Models that an earlier process measured, by index; these are taken as they are.
        on_model: Told of each new one.

    Raises:
        NasGraphError: If a known model is of another graph.
    """
    models = []
    for index, candidate in enumerate(candidates):
        old = (known or {}).get(index)
        if old is not None:
            if old.fingerprint != candidate.graph.fingerprint:
                raise NasGraphError(
                    f"Model {index} of '{old.population}' was measured with another graph: the space has changed"
                )
            models.append(old)
            continue
        own_seed = derive_seed(seed, "design-space", candidate.architecture.space, index)
        try:
            evaluation = evaluate(candidate.graph, seed=own_seed, keep_going=never_stop)
        except Exception as error:  # noqa: BLE001  the contract of Evaluator: one failure does not end the rest
            model = model_of(candidate, index=index, reason=f"{type(error).__name__}: {error}")
        else:
            model = model_of(candidate, index=index, error=1.0 - evaluation.value)
        models.append(model)
        on_model(model)
    return tuple(models)


def table_population(table: Table, *, metric: str, config: SampleConfig) -> tuple[SampledModel, ...]:
    """Random rows of a table as a population. The choices are not known, the costs are those of the graphs.

    The error of a metric of which higher is better is what it lacks to 1, or to 100 where any value exceeds 1; otherwise it is
    the metric itself.

    Args:
        table: Rows of graphs and numbers.
        metric: Which column.
        config: How many rows, and within which limits.

    Raises:
        NasGraphError: If no row is within the limits.
    """
    values = np.asarray(table.column(metric), dtype=float)
    if table.metric(metric).higher_is_better is not False:
        values = (100.0 if np.nanmax(values) > 1 else 1.0) - values
    models = []
    for row in generator(config.seed, "design-space", table.info.name).permutation(len(table)):
        graph = table.graph(int(row))
        cost = cost_of(graph)
        costs = {name: getattr(cost, name) for name in COSTS}
        if np.isnan(values[row]) or not all(
            low <= costs[name] <= high for name, (low, high) in config.limits.items()
        ):
            continue
        models.append(
            SampledModel(
                population=table.info.name,
                index=int(row),
                fingerprint=graph.fingerprint,
                choices=(),
                costs=costs,
                error=float(values[row]),
            )
        )
        if len(models) == config.num_models:
            break
    if not models:
        raise NasGraphError(f"No row of the table '{table.info.name}' is within the limits")
    return tuple(models)


class ModelRecord:
    """Measured models in a folder, one line each as they come, so that an analysis that was killed goes on.

    Args:
        folder: Where. Made if it is not there.
        settings: What the models depend on. A folder with other settings is refused.

    Raises:
        ConfigError: If the folder holds models of other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._folder = folder
        path = folder / "settings.json"
        wanted = parse_json(json.dumps(dict(settings)))
        if path.exists() and read_json(path) != wanted:
            raise ConfigError(
                f"The folder '{folder}' holds an analysis with other settings; choose another one, or remove it"
            )
        write_json(path, wanted)

    def known(self, population: str) -> dict[int, SampledModel]:
        """What was measured before, by index. A last line that was cut off by a crash is left out."""
        path = self._path(population)
        if not path.exists():
            return {}
        lines = path.read_text(encoding="utf-8").split("\n")
        whole = "\n".join(lines[:-1]) + "\n" if len(lines) > 1 else ""
        if lines[-1]:  # what follows would be glued to it
            path.write_text(whole, encoding="utf-8")
        models = [model_from_json(parse_json(line, source=f"'{path}'")) for line in whole.splitlines()]
        return {model.index: model for model in models}

    def add(self, model: SampledModel) -> None:
        """Write one model down."""
        with self._path(model.population).open("a", encoding="utf-8") as file:
            file.write(json.dumps(model.to_json(), allow_nan=False) + "\n")

    def _path(self, population: str) -> Path:
        return self._folder / f"{population}.rows.jsonl"
