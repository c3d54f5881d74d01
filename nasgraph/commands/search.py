"""`nasgraph search`: from data to a trained and registered model."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DataDirOption,
    DeviceOption,
    JsonOption,
    TrackingUriOption,
    WrongUsageError,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.files import Json
    from nasgraph.pipeline import Ingredients, SearchSettings, Workspace
    from nasgraph.search import SearchResult

FOLDER = Path("nasgraph-runs")


def search(
    space: Annotated[
        str | None, typer.Option("--space", help="Search space.", show_default="convnet")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Data set, or path of .npz, .csv or image folder.", show_default="digits"
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Candidates to train for real.", show_default="10")
    ] = None,
    screened: Annotated[
        int | None,
        typer.Option("--screened", help="Candidates that the GHN scores first.", show_default="160"),
    ] = None,
    kept: Annotated[
        int | None, typer.Option("--kept", help="Best of them, trained first.", show_default="6")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="random, tpe, nsgaii or gp.", show_default="tpe")
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option("--pruner", help="Stop hopeless trials: none, median or curve.", show_default="none"),
    ] = None,
    ghn: Annotated[
        str | None,
        typer.Option("--ghn", help="auto, none, a shipped one by name, or a folder.", show_default="auto"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs per trial.", show_default="5")
    ] = None,
    final_epochs: Annotated[
        int | None, typer.Option("--final-epochs", help="Epochs for the winner.", show_default="24")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Resize images to this size.")
    ] = None,
    num_train: Annotated[
        int | None, typer.Option("--num-train", help="Keep so many training examples.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Start no trial after this time, such as 10min or 2h.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with settings; flags override it.")
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Name of the study.", show_default="space, data and time")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue --study, or the newest one, with its settings.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Name of the winner in the zoo.", show_default="space and data"),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", help="Project folder for studies, runs and models.")
    ] = FOLDER,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Decides everything random.", show_default="0")
    ] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of one CPU operation.", show_default="1")
    ] = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Search for an architecture, train the winner, test it once, and register it in the zoo.

    A graph hypernetwork predicts weights for many candidates and scores them; the best are trained for real, then those
    that an Optuna sampler proposes. Ctrl-C stops cleanly; the same command with --resume goes on.
    """
    from nasgraph.commands.output import Output
    from nasgraph.pipeline import SearchSettings, Workspace, new_study_name, read_settings, studies_in

    given: Mapping[str, object] = {
        "space": space,
        "data": data,
        "data_dir": str(data_dir) if data_dir is not None else None,
        "trials": trials,
        "screened": screened,
        "kept": kept,
        "sampler": sampler,
        "pruner": pruner,
        "ghn": ghn,
        "train.epochs": epochs,
        "final.epochs": final_epochs,
        "image_size": image_size,
        "num_train": num_train,
        "time_limit_s": parse_duration(budget) if budget is not None else None,
        "seed": seed,
        "device": device if device != "auto" else None,
        "threads": threads,
        "model": model,
    }
    settings: SearchSettings
    if resume:
        names = studies_in(folder)
        if study is None and not names:
            raise WrongUsageError(f"There is no study to resume in '{folder}'")
        workspace = Workspace(folder, study or names[0])
        settings = _with_changes(workspace.settings(), given, config)
    else:
        settings = read_settings(config, given)
        workspace = Workspace(folder, study or new_study_name(settings))
        workspace.begin(settings)
    run(settings, workspace, Output(json_mode=json), resume=resume, tracking_uri=tracking_uri)


_MAY_CHANGE = ("device", "threads", "time_limit_s", "data_dir", "trials")


def _with_changes(
    settings: "SearchSettings", given: Mapping[str, object], config: Path | None
) -> "SearchSettings":
    """A resumed search keeps its settings; what does not change the meaning of finished trials may be given anew."""
    from nasgraph.pipeline import settings_from_json

    if config is not None:
        raise WrongUsageError("'--config' has no meaning with '--resume': the search keeps its settings")
    for name, value in given.items():
        if value is None or name in _MAY_CHANGE:
            continue
        known: object = settings
        for part in name.split("."):
            known = getattr(known, part)
        if str(known) != str(value):
            raise WrongUsageError(
                f"The search was begun with '{name}' {known!r}; it cannot be resumed with {value!r}"
            )
    changes = {name: value for name, value in given.items() if name in _MAY_CHANGE and value is not None}
    return settings_from_json({**settings.model_dump(mode="json"), **changes}, source="the command")


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `10min` or `2h`.

    Raises:
        WrongUsageError: If the text is none of these, or not above zero.
    """
    import re

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|sec|min|m|h)?", text.strip())
    seconds = float(found[1]) * {"m": 60, "min": 60, "h": 3600}.get(found[2] or "s", 1) if found else 0.0
    if seconds <= 0:
        raise WrongUsageError(f"Expected a time such as 90s, 10min or 2h (got '{text:.40}')")
    return seconds


def run(
    settings: "SearchSettings",
    workspace: "Workspace",
    output: "Output",
    *,
    resume: bool,
    tracking_uri: str | None,
) -> None:
    """Do all of it, and print the result."""
    from nasgraph.commands.search_report import ProgressListener, print_result
    from nasgraph.errors import NasGraphError
    from nasgraph.mlflow_client import resolve_tracking_uri
    from nasgraph.modelzoo import load_entry
    from nasgraph.modelzoo.store import Zoo
    from nasgraph.pipeline import finish, load_ingredients, open_study
    from nasgraph.pipeline import search as run_pipeline_search
    from nasgraph.pipeline.publish import write_winner
    from nasgraph.tracking import MlflowListener

    logging.getLogger("optuna").setLevel(logging.WARNING)  # it reports every trial; so do we
    uri = resolve_tracking_uri(tracking_uri, folder=workspace.folder)
    if (known := workspace.result()) is not None:
        output.message(f"The search '{workspace.study}' is over; nothing is left to do")
        print_result(output, known)
        return
    parts = load_ingredients(settings)
    _announce(parts, workspace, output)
    study = open_study(parts, workspace, resume=resume)
    tracker = MlflowListener(uri, storage=str(workspace.journal.resolve()))
    with ProgressListener(output) as progress:
        result = run_pipeline_search(parts, study, listeners=[tracker, progress])
    if result.stopped_because == "interrupted":
        output.message(
            f"Stopped. What is done is safe; go on with: nasgraph search --resume --study {workspace.study}"
        )
        raise KeyboardInterrupt
    name = settings.model or f"{settings.space}-{parts.data.name}"
    entry_folder = workspace.folder / "models" / f"{name}-{workspace.study}"
    run_id = tracker.trial_run_id(result.best.number) or "" if result.best is not None else ""
    if entry_folder.exists():  # whole, or it would not exist: an earlier process got this far
        entry = load_entry(entry_folder)
    else:
        with output.progress("Training the winner"):
            final = finish(parts, result)
        entry = write_winner(entry_folder, name, parts, result, final, run_id=run_id)
    assert result.best is not None
    try:
        version = Zoo(uri).add(entry_folder, name, run_id=run_id or None)
        registered: str | None = str(version)
    except NasGraphError as error:
        output.message(f"warning: the model could not be registered ({error}). It lies in '{entry_folder}'")
        registered = None
    test, validation = entry.card.measured("test"), entry.card.measured("validation")
    assert test is not None
    assert validation is not None
    summary = _summary(result, workspace, uri)
    summary["best"] = {
        "trial": result.best.number,
        "architecture": dict(result.best.candidate.architecture.choices),
        "fingerprint": result.best.candidate.graph.fingerprint,
        "metrics": {
            "search_val_accuracy": result.best.metrics["val_accuracy"],
            "val_accuracy": validation.value,
            "test_accuracy": test.value,
        },
        "num_parameters": entry.card.num_parameters,
        "multiply_adds": entry.card.multiply_adds,
        "zoo": registered,
        "folder": str(entry_folder),
        "picture": str(entry_folder / "architecture.svg"),
    }
    tracking = tracker.summary()
    summary["tracking"] = {"written": tracking.written, "missing": tracking.failed + tracking.pending}
    if registered is not None:
        workspace.end(summary)
    print_result(output, summary)


def _announce(parts: "Ingredients", workspace: "Workspace", output: "Output") -> None:
    data, settings = parts.data, parts.settings
    counts = f"{len(data.search.train):,} / {len(data.search.validation):,} / {len(data.test):,}"
    output.message(f"study   {workspace.study}")
    output.message(
        f"data    {data.name}: {counts} examples to train / validate / test, {data.num_classes} classes"
    )
    if parts.ghn is not None:
        output.message(
            f"GHN     {parts.ghn_name} scores {settings.screened} candidates; the best {settings.kept} are trained"
        )
    else:
        output.message(
            f"GHN     none fits '{data.name}' and '{settings.space}' (train one: nasgraph ghn train)"
        )
    output.message(
        f"space   {settings.space}, {settings.trials} trials, sampler {settings.sampler}, {parts.device}"
    )


def _summary(result: "SearchResult", workspace: "Workspace", uri: str) -> "dict[str, Json]":
    states: dict[str, int] = {}
    for trial in result.trials:
        states[trial.state.value] = states.get(trial.state.value, 0) + 1
    return {
        "study": result.study,
        "trials": len(result.trials),
        "states": dict(states),
        "screened": len(result.screened),
        "duplicates": result.num_duplicates,
        "stopped_because": result.stopped_because,
        "seconds": result.seconds,
        "tracking_uri": uri,
        "folder": str(workspace.folder),
        "leaderboard": [
            {
                "trial": trial.number,
                "fingerprint": trial.candidate.graph.fingerprint,
                "val_accuracy": trial.metrics["val_accuracy"],
                "num_parameters": int(trial.metrics["num_parameters"]),
                "ghn_accuracy": trial.scores.get("ghn_accuracy"),
            }
            for trial in sorted(
                (t for t in result.trials if t.metrics), key=lambda t: (-t.metrics["val_accuracy"], t.number)
            )[:5]
        ],
    }
