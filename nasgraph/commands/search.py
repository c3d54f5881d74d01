"""`nasgraph search`: from data to a trained and registered model."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.around_option import AroundOption, AroundShapeOption, around_maker, print_around
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
    from nasgraph.search import SearchResult, Study
    from nasgraph.tracking import MlflowListener

FOLDER = Path("nasgraph-runs")


def search(
    space: Annotated[
        str | None, typer.Option("--space", help="Search space.", show_default="convnet")
    ] = None,
    around: AroundOption = None,
    input_shape: AroundShapeOption = None,
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
    cascade: Annotated[
        bool | None,
        typer.Option(
            "--cascade/--no-cascade",
            help="Choose all trials in rounds of --screened candidates, by ever dearer scores.",
            show_default="no",
        ),
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option("--finalists", min=1, help="Best trials that are trained in full.", show_default="1"),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            help="random, tpe, nsgaii, gp; with an eye for graphs: bayesian, bananas, evolution, local-search, graph-nsga, "
            "controller, gflownet.",
            show_default="tpe",
        ),
    ] = None,
    inherit: Annotated[
        bool | None,
        typer.Option(
            "--inherit/--no-inherit",
            help="With --sampler evolution: children start from what their parents learnt, from the first mutation (trial 30) on.",
            show_default="no",
        ),
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option(
            "--pruner",
            help="Stop hopeless trials: none, median, halving, hyperband or curve.",
            show_default="none",
        ),
    ] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            help="What to optimise, several times for several: val_accuracy, num_parameters, multiply_adds, memory_bytes.",
            show_default="val_accuracy",
        ),
    ] = None,
    constraints: Annotated[
        list[str] | None,
        typer.Option("--constraint", help="What every candidate keeps, such as 'num_parameters<=100k'."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes that train candidates.", show_default="1"),
    ] = None,
    ahead: Annotated[
        int | None,
        typer.Option(
            "--ahead",
            min=0,
            help="Trials underway that a proposal does not see: the same course with any number of workers. 0: it sees all "
            "that has ended.",
            show_default="1, or twice the workers",
        ),
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
        str | None,
        typer.Option(
            "--budget",
            help="Start no trial beyond it: 10min, 2h, '100 trials', 1e15flops, or several with commas.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Keep the study where other machines can reach it: postgresql://user:password@host/name or grpc://host:port.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            help="Train on the Ray cluster at this address, --workers at a time; 'local' starts one here.",
        ),
    ] = None,
    join: Annotated[
        bool,
        typer.Option(
            "--join", help="With --storage and --study: take part in the search, or begin it if nobody has."
        ),
    ] = False,
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")] = False,
    json: JsonOption = False,
) -> None:
    """Search for an architecture, train the winner, test it once, and register it in the zoo.

    A graph hypernetwork predicts weights for many candidates and scores them; the best are trained for real, then those
    that an Optuna sampler proposes. Ctrl-C stops cleanly; the same command with --resume goes on.
    """
    from nasgraph.commands.output import Output
    from nasgraph.pipeline import (
        SearchSettings,
        Workspace,
        new_study_name,
        read_settings,
        settings_in_storage,
        studies_in,
    )

    given: Mapping[str, object] = {
        "space": space,
        "around": around,
        "input_shape": input_shape,
        "data": data,
        "data_dir": str(data_dir) if data_dir is not None else None,
        "screened": screened,
        "kept": kept,
        "cascade": cascade,
        "finalists": finalists,
        "sampler": sampler,
        "inherit": inherit,
        "pruner": pruner,
        "objectives": objectives or None,
        "constraints": constraints or None,
        "workers": workers,
        "ahead": ahead,
        "ghn": ghn,
        "train.epochs": epochs,
        "final.epochs": final_epochs,
        "image_size": image_size,
        "num_train": num_train,
        **limits(budget, trials, is_new=not resume),
        "seed": seed,
        "device": device if device != "auto" else None,
        "threads": threads,
        "model": model,
    }
    settings: SearchSettings
    if join and (storage is None or study is None):
        raise WrongUsageError("'--join' needs '--storage' and '--study', which say what to join")
    if join:
        assert storage is not None
        assert study is not None
        workspace = Workspace(folder, study)
        known = settings_in_storage(storage, study)
        settings = read_settings(config, given) if known is None else _with_changes(known, given, config)
        if not workspace.state_file.exists():
            workspace.begin(settings)
    elif resume:
        names = studies_in(folder)
        if study is None and not names:
            raise WrongUsageError(f"There is no study to resume in '{folder}'")
        workspace = Workspace(folder, study or names[0])
        settings = _with_changes(workspace.settings(), given, config)
    else:
        settings = read_settings(config, given)
        workspace = Workspace(folder, study or new_study_name(settings))
        workspace.begin(settings)
    run(
        settings,
        workspace,
        Output(json_mode=json),
        resume=resume or join,
        tracking_uri=tracking_uri,
        storage=storage,
        or_create=join,
        quiet=quiet,
        ray=ray,
    )


_MAY_CHANGE = ("device", "threads", "workers", "time_limit_s", "max_flops", "data_dir", "trials")
UNLIMITED = 1_000_000
"""Trials of a search that something else ends."""


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


def limits(budget: str | None, trials: int | None, *, is_new: bool) -> dict[str, float | int | None]:
    """What `--budget` and `--trials` say together, by the names of the settings. A new search whose budget is one of time or
    operations has no limit of trials of its own.

    Raises:
        WrongUsageError: If the budget cannot be read, or both limit the trials.
    """
    from nasgraph.errors import ConfigError
    from nasgraph.search import parse_budget

    if budget is None:
        return {"trials": trials}
    try:
        said = parse_budget(budget)
    except ConfigError as error:
        raise WrongUsageError(str(error)) from error
    if said.trials is not None and trials is not None:
        raise WrongUsageError("Both '--trials' and '--budget' limit the trials. Give one of them")
    known = trials if trials is not None else said.trials
    return {
        "trials": UNLIMITED if known is None and is_new else known,
        "time_limit_s": said.seconds,
        "max_flops": said.flops,
    }


def run(
    settings: "SearchSettings",
    workspace: "Workspace",
    output: "Output",
    *,
    resume: bool,
    tracking_uri: str | None,
    storage: str | None = None,
    or_create: bool = False,
    quiet: bool = False,
    ray: str | None = None,
) -> None:
    """Do all of it, and print the result."""
    from nasgraph.commands.dashboard import SearchDashboard
    from nasgraph.commands.search_report import print_result
    from nasgraph.mlflow_client import resolve_tracking_uri
    from nasgraph.pipeline import load_ingredients, open_study
    from nasgraph.pipeline import search as run_pipeline_search
    from nasgraph.search import finishing, view_of
    from nasgraph.search.storage import shown_url
    from nasgraph.spaces.around import AroundGraph
    from nasgraph.tracking import MlflowListener

    logging.getLogger("optuna").setLevel(logging.WARNING)  # it reports every trial; so do we
    uri = resolve_tracking_uri(tracking_uri, folder=workspace.folder)
    if (known := workspace.result()) is not None:
        output.message(f"The search '{workspace.study}' is over; nothing is left to do")
        print_result(output, known)
        return
    make_space = around_maker(settings.around, input_shape=settings.input_shape) if settings.around else None
    parts = load_ingredients(settings, make_space=make_space)
    if isinstance(parts.space, AroundGraph) and not output.json_mode:
        print_around(output, parts.space)
    _announce(parts, workspace, output)
    study = open_study(parts, workspace, resume=resume, storage=storage, or_create=or_create)
    tracker = MlflowListener(uri, storage=storage or str(workspace.journal.resolve()))
    look = partial(view_of, study)
    with SearchDashboard(output, workers=settings.workers, quiet=quiet, look=look) as progress:
        result = run_pipeline_search(
            parts, study, listeners=[tracker, progress], checkpoints=workspace.checkpoints.resolve(), ray=ray
        )
    if result.stopped_because == "interrupted":
        again = f"--join --storage '{shown_url(storage)}'" if storage else "--resume"
        output.message(
            f"Stopped. What is done is safe; go on with: nasgraph search {again} --study {workspace.study}"
        )
        raise KeyboardInterrupt
    with finishing(study) if storage else nullcontext(True) as mine:
        if mine:
            _end(parts, study, result, workspace, tracker, output)
        else:
            output.message(
                "The search is over. Another process that takes part trains and registers the winner"
            )
            output.result(_summary(result, study, workspace, uri))


def _end(
    parts: "Ingredients",
    study: "Study",
    result: "SearchResult",
    workspace: "Workspace",
    tracker: "MlflowListener",
    output: "Output",
) -> None:
    """Train the winner, register it, and print what was found."""
    from nasgraph.commands.search_report import print_result
    from nasgraph.errors import NasGraphError
    from nasgraph.modelzoo import load_entry
    from nasgraph.modelzoo.store import Zoo
    from nasgraph.pipeline import finish
    from nasgraph.pipeline.publish import write_winner

    settings, uri = parts.settings, tracker.uri
    name = settings.model or f"{parts.space.name}-{parts.data.name}"
    entry_folder = workspace.folder / "models" / f"{name}-{workspace.study}"
    if entry_folder.exists():  # whole, or it would not exist: an earlier process got this far
        entry = load_entry(entry_folder)
    else:
        with output.progress("Training the winner"):
            final = finish(parts, result, study, checkpoints=workspace.checkpoints)
        entry = write_winner(entry_folder, name, parts, result, final, run_of=tracker.trial_run_id)
    won = next(trial for trial in result.trials if trial.number == entry.card.lineage.trial)
    run_id = tracker.trial_run_id(won.number)
    try:
        version = Zoo(uri).add(entry_folder, name, run_id=run_id)
        registered: str | None = str(version)
    except NasGraphError as error:
        output.message(f"warning: the model could not be registered ({error}). It lies in '{entry_folder}'")
        registered = None
    test, validation = entry.card.measured("test"), entry.card.measured("validation")
    assert test is not None
    assert validation is not None
    summary = _summary(result, study, workspace, uri)
    summary["best"] = {
        "trial": won.number,
        "architecture": dict(won.candidate.architecture.choices),
        "fingerprint": won.candidate.graph.fingerprint,
        "metrics": {
            "search_val_accuracy": won.metrics["val_accuracy"],
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
            f"GHN     {parts.ghn_name} scores {settings.screened} candidates{' of each round' if settings.cascade else ''}; "
            f"the best {settings.kept} are trained"
        )
    else:
        output.message(
            f"GHN     none fits '{data.name}' and '{parts.space.name}' (train one: nasgraph ghn train)"
        )
    output.message(
        f"space   {parts.space.name}, {_trials(settings)}, sampler {settings.sampler}, {parts.device}"
    )


def _trials(settings: "SearchSettings") -> str:
    return "trials until the budget ends" if settings.trials == UNLIMITED else f"{settings.trials} trials"


def _summary(result: "SearchResult", study: "Study", workspace: "Workspace", uri: str) -> "dict[str, Json]":
    from nasgraph.search import objectives_of, rounds_of

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
                "ghn_accuracy": trial.scores.get("ghn_accuracy", trial.scores.get("ghn.accuracy")),
            }
            for trial in sorted(
                (t for t in result.trials if t.metrics), key=lambda t: (-t.metrics["val_accuracy"], t.number)
            )[:5]
        ],
        "objectives": [objective.name for objective in objectives_of(study)],
        "front": [
            {
                "trial": trial.number,
                "fingerprint": trial.candidate.graph.fingerprint,
                "values": list(trial.values),
            }
            for trial in result.front
        ],
        "rounds": [
            {
                "round": each.number,
                "candidates": each.num_candidates,
                "kept": each.num_kept,
                "cpu_seconds": each.cpu_s,
                "stages": [stage.to_json() for stage in each.stages],
            }
            for each in rounds_of(study)
        ],
    }
