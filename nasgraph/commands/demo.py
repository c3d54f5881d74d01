"""`nasgraph demo`: the main job on the data that comes with the installation."""

from pathlib import Path
from typing import Annotated

import typer

from nasgraph.commands.options import JsonOption, SeedOption


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Project folder for studies, runs and models.")
    ] = Path("nasgraph-runs"),
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Search for a classifier of handwritten digits, offline, in about a minute.

    A graph hypernetwork scores 160 networks without training them, the best are trained, Optuna proposes more, and the
    winner is trained in earnest, tested once, and registered in the zoo with a card and a picture.
    """
    from nasgraph.commands.output import Output
    from nasgraph.commands.search import run
    from nasgraph.mlflow_client import default_tracking_uri
    from nasgraph.pipeline import SearchSettings, Workspace, new_study_name

    settings = SearchSettings(seed=seed)
    workspace = Workspace(folder, new_study_name(settings).replace("convnet-", "demo-", 1))
    workspace.begin(settings)
    run(settings, workspace, Output(json_mode=json), resume=False, tracking_uri=default_tracking_uri(folder))
