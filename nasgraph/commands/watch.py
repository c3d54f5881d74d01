"""`nasgraph watch`: look at a search that another process runs, without touching it."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.board import UNLIMITED
from nasgraph.commands.options import JsonOption, WrongUsageError

if TYPE_CHECKING:
    from nasgraph.commands.board import Board
    from nasgraph.commands.output import Output
    from nasgraph.search.snapshot import BaseStorage, StudyView

Plan = tuple[int | None, bool]
"""How many trials are wanted, and whether the search is over; (None, False) where nobody has written it down."""
FOLDER = Path("nasgraph-runs")
FINISHED = "finished"
IDLE = "nothing is being evaluated"
STOPPED = "stopped: its process has died, go on with 'nasgraph search --resume'"
TRAINING_WINNER = "all trials are done"


def watch(
    study: Annotated[
        str,
        typer.Argument(
            help="Name of a study, a journal file, or a project folder.",
            show_default="the newest study",
        ),
    ] = "",
    folder: Annotated[
        Path, typer.Option("--folder", help="Project folder that names are looked up in.")
    ] = FOLDER,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", help="Database that the study is in, such as postgresql://...", show_default=False
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and leave.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between two looks.")] = 2.0,
    json: JsonOption = False,
) -> None:
    """Show how a running search gets on: best so far, failures, workers, time left.

    The study is only read. On a terminal a board is kept up to date until the search is over; elsewhere a line is printed
    whenever something has changed. Ctrl-C ends the looking, not the search. With --json the state of now is printed, once.
    """  # fmt: skip
    from nasgraph.commands.output import Output

    output = Output(json_mode=json)
    look = _looker(study, folder, storage)
    board = look()
    if json or once:
        _show_once(board, output)
    elif sys.stderr.isatty():
        _follow_on_screen(look, board, interval)
    else:
        _follow_in_lines(look, board, interval, output)


def _looker(study: str, folder: Path, address: str | None) -> "Callable[[], Board]":
    """A function that gives the board of now. What it looks at is found once.

    Raises:
        WrongUsageError: If there is nothing to look at.
    """
    from nasgraph.errors import UnknownNameError
    from nasgraph.search.snapshot import open_read_only
    from nasgraph.search.storage import open_storage, study_names

    if address is None:
        journal = _journal(study, folder)
        storage = open_read_only(journal)
        return lambda: _board(
            storage, _only(study_names(storage), journal.stem), lambda _: _plan_of_folder(journal)
        )
    storage = open_storage(address)
    names = study_names(storage)
    if study not in names and (study or len(names) != 1):
        raise UnknownNameError("study", study, names, hint="Looked in the database.")
    return lambda: _board(storage, study or names[0], _plan_of_study)


def _only(names: "Sequence[str]", otherwise: str) -> str:
    return names[0] if len(names) == 1 else otherwise


def _journal(study: str, folder: Path) -> Path:
    """The journal file that a word on the command line means."""
    from nasgraph.errors import UnknownNameError
    from nasgraph.pipeline import studies_in

    given = Path(study)
    if study and given.is_file():
        return given
    if study and given.is_dir():
        folder, study = given, ""
    names = studies_in(folder)
    if not study and not names:
        raise WrongUsageError(
            f"There is no study in '{folder}'. Start one with 'nasgraph search', or name a journal file"
        )
    if study and study not in names:
        raise UnknownNameError("study", study, names, hint=f"Looked in '{folder}'.")
    return folder / f"{study or names[0]}.journal"


def _board(storage: "BaseStorage", name: str, plan_of: "Callable[[StudyView], Plan]") -> "Board":
    """How the study gets on. One that does not exist yet is empty."""
    from nasgraph.commands.board import Board, board_of
    from nasgraph.search.snapshot import view_study

    try:
        view = view_study(storage, name)
    except KeyError:
        return Board(title=name, phase="starting", objective="objective", workers=0)
    total, is_over = plan_of(view)
    board = board_of(view, phase="searching", total=total, now=time.time())
    if is_over:
        phase = FINISHED
    elif total is not None and board.done >= total:
        phase = TRAINING_WINNER
    elif board.running:
        return board
    else:
        phase = STOPPED if board.orphans else IDLE if board.done else "starting"
    return dataclasses.replace(board, phase=phase, eta_s=None)


def _plan_of_folder(journal: Path) -> "Plan":
    """What the files beside a journal say."""
    from nasgraph.pipeline import Workspace

    if not journal.with_suffix(".json").exists():
        return None, False
    workspace = Workspace(journal.parent, journal.stem)
    return _wanted(workspace.settings().trials), workspace.result() is not None


def _plan_of_study(view: "StudyView") -> "Plan":
    """What a study in a database says. What comes after its trials is not in it, so with them it is over."""
    from nasgraph.pipeline import settings_from_json
    from nasgraph.pipeline.run import SETTINGS

    if SETTINGS not in view.attributes:
        return None, False
    settings = settings_from_json(view.attributes[SETTINGS], source=f"the study '{view.study}'")
    total = _wanted(settings.trials)
    return total, total is not None and len(view.evaluated) >= total


def _wanted(trials: int) -> int | None:
    return None if trials >= UNLIMITED else trials


def _show_once(board: "Board", output: "Output") -> None:
    from nasgraph.commands.board import sparkline, status_line

    if not output.json_mode:
        output.message(board.title)
        output.message(status_line(board))
        drawn = sparkline(board.curve, higher_is_better=board.higher_is_better)
        if drawn:
            output.message(f"best so far  {drawn}")
    output.result(dataclasses.asdict(board))


def _follow_on_screen(look: "Callable[[], Board]", board: "Board", interval: float) -> None:
    """Keep a board up to date until the search is over."""
    from rich.live import Live

    from nasgraph.commands.board import board_console, draw_board, is_ascii_only

    console = board_console()
    ascii_only = is_ascii_only(console)
    with Live(draw_board(board, ascii_only=ascii_only), console=console, auto_refresh=False) as live:
        while board.phase != FINISHED:
            time.sleep(interval)
            board = look()
            live.update(draw_board(board, ascii_only=ascii_only), refresh=True)


def _follow_in_lines(look: "Callable[[], Board]", board: "Board", interval: float, output: "Output") -> None:
    """Print a line whenever a trial has ended or begun, until the search is over."""
    from nasgraph.commands.board import status_line

    output.message(board.title)
    output.message(status_line(board))
    while board.phase != FINISHED:
        time.sleep(interval)
        before, board = board, look()
        if (board.done, board.running, board.phase) != (before.done, before.running, before.phase):
            output.message(status_line(board))
