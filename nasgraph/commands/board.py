"""One screen about a search: what is done, the best so far, what failed, how long it will take."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from nasgraph.search.snapshot import StudyView

UNLIMITED = 1_000_000
"""Trials of a search that something else ends, such as a time limit."""
SPARKS = "▁▂▃▄▅▆▇█"
SPARKS_ASCII = "_.-:=+*#"
CURVE_WIDTH = 32
RECENT = 20
"""Trials that the rate is the mean of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What is shown.

    Attributes:
        title: Study, space and data, in a few words.
        phase: What goes on: "screening", "searching", "finished", "interrupted".
        objective: Name of the metric that is optimised first.
        higher_is_better: Its direction.
        done: Trials that ended.
        total: Trials that are wanted; None if not known.
        screened: Candidates that were scored without training.
        to_screen: How many will be.
        complete, pruned, failed: How the trials ended.
        running: Trials underway.
        workers: Processes that evaluate.
        orphans: Trials whose process has died, which wait for whoever resumes the search.
        duplicates: Proposals that were known graphs; None if not known.
        best: Best value so far; None before the first.
        best_trial: Number of its trial.
        curve: Best so far after each trial, NaN before the first.
        failure: The latest trial that failed, and why; empty if none did.
        per_minute: Trials per minute, lately; None if not known.
        elapsed_s: Seconds since this process, or the search, began.
        eta_s: Seconds that are left; None if not known.
    """

    title: str
    phase: str
    objective: str
    higher_is_better: bool = True
    done: int = 0
    total: int | None = None
    screened: int = 0
    to_screen: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    workers: int = 1
    orphans: int = 0
    duplicates: int | None = None
    best: float | None = None
    best_trial: int | None = None
    curve: tuple[float, ...] = ()
    failure: str = ""
    per_minute: float | None = None
    elapsed_s: float = 0.0
    eta_s: float | None = None


def status_line(board: Board) -> str:
    """The board in one line, for logs."""
    total = "" if board.total is None else f"/{board.total}"
    parts = [f"{board.phase}: {board.done}{total} trials", _best_text(board), *_counts(board)]
    if board.per_minute is not None:
        parts.append(f"{board.per_minute:.3g} per minute")
    if board.eta_s is not None and board.phase in ("searching", "screening"):
        parts.append(f"{clock_text(board.eta_s)} left")
    if board.failure:
        parts.append(f"latest failure: {board.failure}")
    return ", ".join(part for part in parts if part)


def draw_board(board: Board, *, ascii_only: bool = False) -> "RenderableType":
    """The board for a terminal: five lines at most, each cut where the terminal ends."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(padding=(0, 2))
    bar.add_column(max_width=28)  # narrower where there is no room
    for _ in range(4):
        bar.add_column(no_wrap=True)
    is_screening = board.phase == "screening"
    done, total = (board.screened, board.to_screen) if is_screening else (board.done, board.total)
    bar.add_row(
        ProgressBar(total=total, completed=min(done, total or done), pulse=total is None),
        Text(f"{done}{'' if total is None else f'/{total}'} {'scored' if is_screening else 'trials'}"),
        Text(clock_text(board.elapsed_s)),
        Text("" if board.per_minute is None else f"{board.per_minute:.3g}/min"),
        Text("" if board.eta_s is None else f"{clock_text(board.eta_s)} left"),
    )
    lines: list[RenderableType] = [Text(f"{board.title} · {board.phase}", style="bold"), bar]
    best = Text.assemble("best    ", (_best_text(board) or f"no {board.objective} yet", "green"))
    drawn = sparkline(board.curve, ascii_only=ascii_only, higher_is_better=board.higher_is_better)
    if drawn:
        best.append(f"   {drawn}", style="cyan")
    lines += [best, Text("trials  " + " · ".join(_counts(board)))]
    if board.failure:
        lines.append(Text(f"failed  {board.failure}", style="yellow"))
    for line in lines:
        if isinstance(line, Text):
            line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def board_console() -> "Console":
    """The terminal that boards are drawn on: stderr."""
    from rich.console import Console

    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False)


def is_ascii_only(console: "Console") -> bool:
    """Whether a terminal cannot show the bars of a sparkline."""
    return not console.encoding.lower().startswith("utf")


def _best_text(board: Board) -> str:
    if board.best is None:
        return ""
    where = "" if board.best_trial is None else f" (trial {board.best_trial})"
    return f"{board.objective} {board.best:.5g}{where}"


def _counts(board: Board) -> list[str]:
    parts = [f"{board.complete} complete"]
    parts += [f"{board.pruned} pruned"] if board.pruned else []
    parts.append(f"{board.failed} failed")
    if board.duplicates is not None:
        parts.append(f"{board.duplicates} duplicates")
    if board.phase in ("searching", "screening"):
        parts.append(f"{board.running} running")
        parts.append("1 worker" if board.workers == 1 else f"{board.workers} workers")
    parts += [f"{board.orphans} of dead processes"] if board.orphans else []
    return parts


def clock_text(seconds: float) -> str:
    """A duration as `1:05` or `2:03:04`."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(
    values: Sequence[float],
    *,
    width: int = CURVE_WIDTH,
    ascii_only: bool = False,
    higher_is_better: bool = True,
) -> str:
    """A curve as one line of bars, the highest for the best value; empty without two values.

    Longer curves are thinned; the first and the last value are kept. Values that are not finite are left out.
    """
    finite = [value if higher_is_better else -value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    if len(finite) > width:
        finite = [finite[round(place * (len(finite) - 1) / (width - 1))] for place in range(width)]
    bars = SPARKS_ASCII if ascii_only else SPARKS
    low, high = min(finite), max(finite)
    if high == low:
        return bars[-1] * len(finite)
    return "".join(bars[min(int((v - low) / (high - low) * len(bars)), len(bars) - 1)] for v in finite)


def rate_per_minute(times: Sequence[float]) -> float | None:
    """Events per minute from their times in seconds, the first being a beginning; None before there is an event."""
    recent = times[-(RECENT + 1) :]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return 60 * (len(recent) - 1) / (recent[-1] - recent[0])


def time_left(
    *,
    done: int,
    total: int | None,
    per_minute: float | None,
    limit_s: float | None = None,
    elapsed_s: float = 0.0,
) -> float | None:
    """Seconds until all trials are done, or the time is over if that is sooner; None if neither is known."""
    guesses = []
    if total is not None and per_minute:
        guesses.append(60 * max(0, total - done) / per_minute)
    if limit_s is not None:
        guesses.append(max(0.0, limit_s - elapsed_s))
    return min(guesses, default=None)


def board_of(view: "StudyView", *, phase: str, total: int | None, now: float) -> Board:
    """The board of a study that another process searches.

    Args:
        view: What the study holds.
        phase: What goes on.
        total: Trials that are wanted, if that is known.
        now: Seconds since 1970.
    """
    ended = view.evaluated
    running = view.with_state("running")
    starts = [trial.started for trial in view.trials if trial.started is not None]
    times = sorted(trial.ended for trial in ended if trial.ended is not None)
    began = [min(starts)] if starts else []
    per_minute = rate_per_minute([*began, *times])
    living = [trial for trial in running if not trial.is_orphan]
    until = now if living or not times else times[-1]
    failures = [trial for trial in ended if trial.state == "failed"]
    best = view.best
    name, higher = view.objectives[0]
    return Board(
        title=" · ".join(part for part in (view.study, view.space, view.data.split(" ")[0]) if part),
        phase=phase,
        objective=name,
        higher_is_better=higher,
        done=len(ended),
        total=total,
        complete=len(view.with_state("complete")),
        pruned=len(view.with_state("pruned")),
        failed=len(failures),
        running=len(living),
        workers=len({trial.worker for trial in living}),
        orphans=len(running) - len(living),
        duplicates=view.num_duplicates,
        best=best.values[0] if best is not None else None,
        best_trial=best.number if best is not None else None,
        curve=view.best_so_far(),
        failure=f"trial {failures[-1].number}: {failures[-1].reason}" if failures else "",
        per_minute=per_minute,
        elapsed_s=until - began[0] if began else 0.0,
        eta_s=time_left(done=len(ended), total=total, per_minute=per_minute) if living else None,
    )
