"""What `nasgraph search` shows while it runs: a live board on a terminal, plain lines in a file or a pipe."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nasgraph.commands.board import (
    UNLIMITED,
    Board,
    board_console,
    draw_board,
    is_ascii_only,
    rate_per_minute,
    time_left,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from nasgraph.commands.output import Output
    from nasgraph.search import ScreenedCandidate, SearchInfo, SearchResult, TrialResult
    from nasgraph.search.snapshot import StudyView

LOOK_EVERY_S = 5.0
LOOK_SHARE = 0.02
"""Looking into the study takes at most this share of the time."""


class SearchDashboard:
    """Shows a search on stderr. Satisfies `nasgraph.search.SearchListener`; use it as a context.

    On a terminal a board of a few lines stays at the bottom and the trials pass above it; elsewhere there is a line per
    trial and nothing else. Colours follow the environment variable NO_COLOR.

    Args:
        output: Where lines go.
        workers: Processes that evaluate.
        quiet: Show nothing at all.
        look: Reads the study: gives what a resumed search had found before, and the number of duplicates. None: these are
            not shown.
        clock: Seconds from any beginning.
    """

    def __init__(
        self,
        output: "Output",
        *,
        workers: int = 1,
        quiet: bool = False,
        look: "Callable[[], StudyView] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._quiet = quiet
        self._look = look
        self._clock = clock
        self._live: Live | None = None
        self._board = Board(title="", phase="searching", objective="", workers=workers)
        self._started = clock()
        self._times: list[float] = []
        self._limit_s: float | None = None
        self._next_look = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def board(self) -> Board:
        """What is shown right now."""
        now = self._clock()
        elapsed = now - self._started
        per_minute = rate_per_minute(self._times)
        left = time_left(
            done=self._board.done,
            total=self._board.total,
            per_minute=per_minute,
            limit_s=self._limit_s,
            elapsed_s=elapsed,
        )
        # Looks fall between two trials of ours, when these do not run.
        board = self._board
        own = board.workers if board.total is None else min(board.workers, max(0, board.total - board.done))
        running = max(board.running, own) if board.phase == "searching" else 0
        return replace(board, running=running, per_minute=per_minute, elapsed_s=elapsed, eta_s=left)

    def on_start(self, info: "SearchInfo") -> None:
        """Show the board, with what an earlier process found."""
        self._started = self._clock()
        self._times = [self._started]
        self._limit_s = info.config.time_limit_s
        self._board = replace(
            self._board,
            title=" · ".join(part for part in (info.study, info.space, info.tags.get("data", "")) if part),
            objective=info.objective or "objective",
            higher_is_better=info.objectives[0].maximise if info.objectives else True,
            done=info.resumed_trials,
            total=info.config.num_trials if info.config.num_trials < UNLIMITED else None,
            to_screen=info.config.num_screened,
        )
        self._look_again(at_start=True)
        if info.resumed_trials:
            self._say(f"Continuing after {info.resumed_trials} trials")
        self._live = None if self._quiet else _live_board(self._draw)
        if self._live is not None:
            self._live.start()

    def on_screened(self, screened: "Sequence[ScreenedCandidate]", *, total: int) -> None:
        """Count scored candidates."""
        count = self._board.screened + len(screened)
        self._board = replace(self._board, phase="screening", screened=count, to_screen=total)

    def on_kept(self, screened: "Sequence[ScreenedCandidate]") -> None:
        """Tell what screening found."""
        self._times = [self._clock()]
        self._board = replace(self._board, phase="searching")
        accuracy = [item.scores["ghn_accuracy"] for item in screened if "ghn_accuracy" in item.scores]
        if accuracy:
            mean, kept = sum(accuracy) / len(accuracy), [item for item in screened if item.kept]
            best = sum(item.scores["ghn_accuracy"] for item in kept) / max(1, len(kept))
            self._say(
                f"Scored {len(screened)} candidates without training: accuracy with predicted weights {mean:.3f} on "
                f"average, {best:.3f} for the {len(kept)} that are kept"
            )

    def on_trial(self, result: "TrialResult") -> None:
        """Count a trial, and print its line."""
        self._times.append(self._clock())
        board = replace(self._board, phase="searching", done=self._board.done + 1)
        value = self._value(result)
        is_best = False
        if result.state.value == "complete" and value is not None:
            is_best = board.best is None or (value > board.best) is board.higher_is_better
            board = replace(board, complete=board.complete + 1)
        elif result.state.value == "pruned":
            board = replace(board, pruned=board.pruned + 1)
        else:
            board = replace(board, failed=board.failed + 1, failure=f"trial {result.number}: {result.reason}")
        if is_best:
            board = replace(board, best=value, best_trial=result.number)
        best_now = math.nan if board.best is None else board.best
        self._board = replace(board, curve=(*board.curve, best_now))
        self._say(_trial_line(result, value, board.objective, is_best=is_best))
        self._look_again()

    def on_end(self, result: "SearchResult") -> None:
        """Take the board away."""
        self._board = replace(self._board, phase=result.stopped_because, duplicates=result.num_duplicates)
        self._stop()
        if result.num_duplicates:
            self._say(f"{result.num_duplicates} proposals were known graphs and not trained again")

    def _value(self, result: "TrialResult") -> float | None:
        """The first objective, as measured; for a pruned trial as far as it got."""
        if result.values:
            return result.values[0]
        if self._board.objective in result.metrics:
            return result.metrics[self._board.objective]
        return None if result.evaluation is None else result.evaluation.value

    def _look_again(self, *, at_start: bool = False) -> None:
        """Ask the study for what listeners are not told, seldom enough to cost nothing."""
        began = self._clock()
        if self._look is None or (not at_start and began < self._next_look):
            return
        view = self._look()
        cost = self._clock() - began
        self._next_look = began + max(LOOK_EVERY_S, cost / LOOK_SHARE)
        board = replace(self._board, duplicates=view.num_duplicates, running=len(view.with_state("running")))
        if at_start:
            best = view.best
            board = replace(
                board,
                complete=len(view.with_state("complete")),
                pruned=len(view.with_state("pruned")),
                failed=len(view.with_state("failed")),
                curve=view.best_so_far(),
                best=best.values[0] if best is not None else None,
                best_trial=best.number if best is not None else None,
            )
        self._board = board

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._output.message(text)

    def _draw(self, ascii_only: bool) -> "RenderableType":
        return draw_board(self.board, ascii_only=ascii_only)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _trial_line(result: "TrialResult", value: float | None, objective: str, *, is_best: bool) -> str:
    head = f"trial {result.number:>3}  "
    if value is None or result.state.value == "failed":
        return f"{head}{result.state.value}: {result.reason}"
    name = "validation accuracy" if objective == "val_accuracy" else objective
    size = result.metrics.get("num_parameters")
    parts = [f"{name} {value:.4f}", *([f"{int(size):>9,} parameters"] if size is not None else [])]
    parts.append(f"{result.seconds:5.1f} s")
    parts += ["best so far"] if is_best else [result.reason] if result.reason else []
    return head + "  ".join(parts)


def _live_board(draw: "Callable[[bool], RenderableType]") -> "Live | None":
    """Draws on stderr, once it is started; None where that is no terminal that can move its cursor."""
    from rich.live import Live

    console = board_console()
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return Live(
        console=console,
        get_renderable=partial(draw, is_ascii_only(console)),
        refresh_per_second=2,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
