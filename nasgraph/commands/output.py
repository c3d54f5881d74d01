"""What commands print. With `--json` one object goes to stdout and all else to stderr; else tables go to stdout."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Cell = str | int | float | bool | None
_WIDTH_IN_FILES = 160


class Output:
    """The one way in which commands print.

    Results that people read are tables on stdout; messages and progress bars go to stderr. With `json_mode` stdout
    gets exactly one JSON object, from `result`, and tables go to stderr too. Colours follow the terminal and the
    environment variable NO_COLOR. Text is printed as it is, never read as markup.
    """

    def __init__(self, *, json_mode: bool = False) -> None:
        self.json_mode = json_mode
        self._has_result = False

    def result(self, value: Mapping[str, object]) -> None:
        """Print the JSON object; nothing without `json_mode`. Call it once, at the end of every command.

        Numbers that JSON cannot express (NaN, infinities) become null; tuples become lists.
        """
        assert not self._has_result, "a command prints one result"
        self._has_result = True
        if self.json_mode:
            sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False) + "\n")

    def message(self, text: str) -> None:
        """Print one line for people to stderr."""
        sys.stderr.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str = "") -> None:
        """Print a table for people. Numbers stand right, with thousands separated; None is left empty.

        Columns without any name make a table without a head.
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        has_head = any(columns)
        heading = Text(title, style="bold") if title else None
        style = box.SIMPLE_HEAD if has_head else None
        table = Table(title=heading, title_justify="left", box=style, show_header=has_head)
        for place, name in enumerate(columns):
            numeric = all(isinstance(row[place], int | float) for row in rows) and bool(rows)
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        self._console(to_stderr=self.json_mode).print(table, end="" if has_head else "\n")

    def facts(self, facts: Mapping[str, Cell], *, title: str = "") -> None:
        """Print names and values as a table with two columns."""
        self.table(["", ""], [[name, _cell(value)] for name, value in facts.items()], title=title)

    @contextmanager
    def progress(self, description: str, *, total: int | None = None) -> Iterator["Bar"]:
        """Show a progress bar on stderr for the time of a `with` block. It vanishes at the end.

        Silent where stderr is no terminal.

        Args:
            description: What goes on, in a few words.
            total: Steps in all; None while unknown.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        console = self._console(to_stderr=True)
        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Remaining())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            yield Bar(progress, progress.add_task(description, total=total))

    def _console(self, *, to_stderr: bool) -> "Console":
        from rich.console import Console

        file = sys.stderr if to_stderr else sys.stdout
        width = None if file.isatty() else _WIDTH_IN_FILES
        return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


class Bar:
    """One progress bar. Made by `Output.progress`."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self._progress.advance(self._task, steps)

    def update(
        self, *, completed: int | None = None, total: int | None = None, description: str | None = None
    ) -> None:
        """Set what is given, leave the rest."""
        self._progress.update(self._task, completed=completed, total=total, description=description)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
