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


FINAL_DEFAULTS = {"epochs": 24, "shift_pixels": 1, "label_smoothing": 0.05}


class SearchSettings(_Strict):
    """One search from data to a registered model. Every field has a default; a TOML file may set some.

    Attributes:
        space: Name of the search space.
        data: Name of a data set, or the path of a .npz archive, .csv table or image folder.
        data_dir: Folder where named data sets lie.
        image_size: Resize images to this height and width.
        num_train: Keep so many training examples.
        trials: Candidates that are trained for real.
        screened: Candidates that the GHN scores before the first trial.
        kept: Best of them, which become the first trials.
        sampler: Optuna sampler that proposes the other trials.
        pruner: Stops trials that will not win: "none", "median", or "curve" by extrapolation with the shipped `lc-pfn`. Worth its
            while from ten epochs or so.
        ghn: "auto" (a shipped GHN trained on this data, if there is one), "none", the name of a zoo entry, or a folder.
        tune_steps: Optimiser steps from the predicted weights before a candidate is scored.
        rank_by: Scores whose ranks are summed to rank screened candidates.
        seed: Decides everything random.
        device: "auto", "cpu", "cuda" ...
        threads: Threads of one operation on the CPU.
        time_limit_s: No trial starts after so many seconds.
        trial_time_limit_s: One evaluation may take so many seconds.
        train: How trials are trained. `init = "auto"`: both with a GHN, else random.
        final: How the winner is trained before it is registered.
        model: Name under which the winner is registered; None: space and data set.
    """

    space: str = "convnet"
    data: str = "digits"
    data_dir: Path | None = None
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    num_train: Annotated[int, Field(ge=2)] | None = None
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    screened: Annotated[int, Field(ge=0, le=10_000_000)] = 160
    kept: Annotated[int, Field(ge=0)] = 6
    sampler: str = "tpe"
    pruner: Literal["none", "median", "curve"] = "none"
    ghn: str = "auto"
    tune_steps: Annotated[int, Field(ge=0, le=100_000)] = 0
    rank_by: tuple[str, ...] = ("ghn_accuracy", "log_parameters")
    seed: int = 0
    device: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    trial_time_limit_s: Annotated[float, Field(gt=0)] | None = None
    train: TrainingSettings = TrainingSettings()
    final: TrainingSettings = TrainingSettings.model_validate(FINAL_DEFAULTS)
    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_final(cls, document: Any) -> Any:
        """`final` has defaults of its own, also where a file sets only some of its fields."""
        if isinstance(document, dict) and isinstance(document.get("final"), dict):
            return {**document, "final": {**FINAL_DEFAULTS, **document["final"]}}
        return document

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
