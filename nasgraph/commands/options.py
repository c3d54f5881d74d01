"""Options that mean the same in every command, declared once."""

from pathlib import Path
from typing import Annotated

import typer

from nasgraph.errors import NasGraphError

DEFAULT_INPUT_SHAPE = "1,8,8"
"""The shape of `digits`, the embedded data set."""
DEFAULT_CLASSES = 10


class WrongUsageError(NasGraphError, ValueError):
    """The command line asks for something that has no meaning. Ends with exit code 2."""


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout, and everything else to stderr.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Decides everything random.")]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="NASGRAPH_DATA", help="Folder with data sets.", show_default=False),
]
TrackingUriOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow store of runs and models.",
        show_default="sqlite in ./nasgraph-runs",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
SpaceOption = Annotated[
    str | None,
    typer.Option("--space", help="Search space. List them with 'nasgraph spaces list'.", show_default=False),
]
InputShapeOption = Annotated[
    str, typer.Option("--input-shape", metavar="INT,..", help="Shape of one example, such as 3,32,32.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Model: NAME, NAME/VERSION or NAME@ALIAS.")]
ClassesOption = Annotated[int, typer.Option("--classes", min=1, help="Number of classes.")]


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape that `--input-shape` names: `3,32,32` or `3x32x32`.

    Raises:
        WrongUsageError: If it is not 1 to 8 positive integers.
    """
    parts = text.replace("x", ",").split(",")
    if not 1 <= len(parts) <= 8 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise WrongUsageError(
            f"Expected '--input-shape' as positive integers such as 3,32,32 (got '{text:.60}')"
        )
    return tuple(int(part) for part in parts)
