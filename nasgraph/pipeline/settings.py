"""Settings of a whole search, from a file, from flags or from Python, checked once."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nasgraph.errors import ConfigError

MAX_CONFIG_BYTES = 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingSettings(_Strict):
    """How networks are trained; the fields of `nasgraph.evaluate.TrainConfig`."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 5
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-2
    patience: Annotated[int, Field(ge=1)] | None = None
    init: Literal["auto", "random", "predicted", "both"] = "auto"
    shift_pixels: Annotated[int, Field(ge=0, le=64)] = 0
    flip: bool = False
    noise_std: Annotated[float, Field(ge=0, le=10)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    eval_batch: Annotated[int, Field(ge=1, le=65_536)] = 256


class NodeSettings(_Strict):
    """How graph networks are trained where the data are nodes of a graph, in trials and at the end; the fields of
    `nasgraph.evaluate.NodeTrainConfig`."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.02
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 5e-4
    patience: Annotated[int, Field(ge=1)] | None = 10


WITH_PARENTS = ("evolution",)
"""Samplers that tell of which trial a candidate is a mutation."""
FINAL_DEFAULTS = {"epochs": 24, "shift_pixels": 1, "label_smoothing": 0.05}


class SearchSettings(_Strict):
    """One search from data to a registered model. Every field has a default; a TOML file may set some.

    Attributes:
        space: Name of the search space.
        around: A model to search around in place of `space`: model.py:factory or package.module:factory.
        input_shape: With `around`, shape of one example of the model's input, such as "3,32,32"; None: that of the data.
        data: Name of a data set, or the path of a .npz archive, .csv table or image folder.
        data_dir: Folder where named data sets lie.
        image_size: Resize images to this height and width.
        num_train: Keep so many training examples.
        trials: Candidates that are trained for real.
        screened: Candidates that the GHN scores before the first trial; with `cascade` in every round.
        kept: Best of them, which become the first trials; with `cascade` the trials of a round.
        cascade: Choose all trials in rounds: candidates pass zero-cost proxies, the GHN's score and what the trials so far teach a
            predictor, and the survivors are trained.
        finalists: Best trials that are trained in full before one of them is the winner.
        sampler: Proposes the other trials; see `nasgraph.search.make_sampler`.
        inherit: Children of an evolution start from what their parents learnt, in place of random or predicted weights.
        pruner: Stops trials that will not win: "none", "median", "halving" (asynchronous successive halving), "hyperband", or
            "curve" by extrapolation with the shipped `lc-pfn`. Worth its while from ten epochs or so.
        objectives: What is optimised, such as ("val_accuracy", "num_parameters"); a winner is the best in the first.
        constraints: What every candidate keeps, such as ("num_parameters<=1e6", "multiply_adds<200M").
        workers: Processes of this machine that train candidates.
        ahead: See `nasgraph.search.SearchConfig`.
        ghn: "auto" (a shipped GHN trained on this data, if there is one), "none", the name of a zoo entry, or a folder.
        tune_steps: Optimiser steps from the predicted weights before a candidate is scored.
        rank_by: Scores whose ranks are summed to rank screened candidates.
        seed: Decides everything random.
        device: "auto", "cpu", "cuda" ...
        threads: Threads of one operation on the CPU.
        time_limit_s: No trial starts after so many seconds.
        max_flops: No trial starts after so many floating-point operations of training.
        trial_time_limit_s: One evaluation may take so many seconds.
        train: How trials are trained. `init = "auto"`: both with a GHN, else random.
        final: How the winner is trained before it is registered.
        nodes: How graph networks are trained, where the data are nodes of a graph; in place of `train` and `final`.
        model: Name under which the winner is registered; None: space and data set.
    """

    space: str = "convnet"
    around: str | None = None
    input_shape: str | None = None
    data: str = "digits"
    data_dir: Path | None = None
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    num_train: Annotated[int, Field(ge=2)] | None = None
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    screened: Annotated[int, Field(ge=0, le=10_000_000)] = 160
    kept: Annotated[int, Field(ge=0)] = 6
    cascade: bool = False
    finalists: Annotated[int, Field(ge=1, le=1000)] = 1
    sampler: str = "tpe"
    inherit: bool = False
    pruner: Literal["none", "median", "halving", "hyperband", "curve"] = "none"
    objectives: tuple[str, ...] = ("val_accuracy",)
    constraints: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    ahead: Annotated[int, Field(ge=0, le=10_000)] | None = None
    ghn: str = "auto"
    tune_steps: Annotated[int, Field(ge=0, le=100_000)] = 0
    rank_by: tuple[str, ...] = ("ghn_accuracy", "log_parameters")
    seed: int = 0
    device: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    max_flops: Annotated[float, Field(gt=0)] | None = None
    trial_time_limit_s: Annotated[float, Field(gt=0)] | None = None
    train: TrainingSettings = TrainingSettings()
    final: TrainingSettings = TrainingSettings.model_validate(FINAL_DEFAULTS)
    nodes: NodeSettings = NodeSettings()
    model: str | None = None

    @property
    def objectives_by_name(self) -> tuple[str, ...]:
        """Names of the metrics that are optimised, without their directions."""
        from nasgraph.search import parse_objectives

        return tuple(objective.name for objective in parse_objectives(self.objectives))

    @model_validator(mode="before")
    @classmethod
    def _fill_final(cls, document: Any) -> Any:
        """`final` has defaults of its own, also where a file sets only some of its fields."""
        if isinstance(document, dict) and isinstance(document.get("final"), dict):
            return {**document, "final": {**FINAL_DEFAULTS, **document["final"]}}
        return document

    @model_validator(mode="after")
    def _check_meaning(self) -> "SearchSettings":
        from nasgraph.search import parse_constraints, parse_objectives

        objectives = parse_objectives(self.objectives)
        parse_constraints([text for text in self.constraints if ":" not in text])
        if objectives[0].name != "val_accuracy":
            raise ValueError(
                f"the first objective decides the winner and must be 'val_accuracy' (got '{objectives[0].name}')"
            )
        if self.inherit and self.sampler not in WITH_PARENTS:
            raise ValueError(
                f"'inherit' needs a sampler whose candidates are mutations: {', '.join(WITH_PARENTS)} (got '{self.sampler}')"
            )
        if len(objectives) > 1 and self.pruner != "none":
            raise ValueError("a pruner looks at one objective; with several it must be 'none'")
        return self

    @model_validator(mode="after")
    def _check_counts(self) -> "SearchSettings":
        if self.kept > min(self.screened, self.trials):
            raise ValueError(
                f"'kept' can be at most 'screened' and 'trials' (got {self.kept}, {self.screened} and {self.trials})"
            )
        return self


def read_settings(path: Path | None, overrides: Mapping[str, Any]) -> SearchSettings:
    """Settings from a TOML file, changed by what was given on the command line.

    Args:
        path: The file; None: only defaults.
        overrides: Values by field name; None means "not given". `epochs` inside `train` is written `train.epochs`.

    Raises:
        ConfigError: If the file cannot be read, or a field is unknown or wrong. All wrong fields are named at once.
    """
    document = _read_toml(path) if path is not None else {}
    for name, value in overrides.items():
        if value is not None:
            *parents, last = name.split(".")
            place = document
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
    if "kept" not in document:  # follows the numbers that it depends on
        known = SearchSettings()
        counts = [document.get("screened", known.screened), document.get("trials", known.trials), known.kept]
        if all(isinstance(count, int) for count in counts):
            document["kept"] = max(0, min(counts))
    return settings_from_json(document, source=f"'{path}'" if path is not None else "the command")


def settings_from_json(document: object, *, source: str) -> SearchSettings:
    """Settings from parsed JSON or TOML. Raises `ConfigError` that names all wrong fields."""
    try:
        return SearchSettings.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {_short(item['msg'])}"
            for item in error.errors()
        )
        raise ConfigError(f"Wrong settings in {source}: {wrong}") from error


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"Expected a settings file of at most 1 MiB (got '{path}')")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read '{path}': {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"Not valid TOML in '{path}': {error}") from error
