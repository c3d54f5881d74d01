"""The live view of a search: every number right, plain lines without a terminal, nothing with --quiet."""

import io
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from nasgraph.commands.board import (
    Board,
    clock_text,
    draw_board,
    rate_per_minute,
    sparkline,
    status_line,
    time_left,
)
from nasgraph.commands.dashboard import SearchDashboard
from nasgraph.commands.output import Output
from nasgraph.search import SearchListener, SearchResult, TrialState
from nasgraph.search.snapshot import StudyView, TrialView
from tests.tracking.searches import info, screened, trial


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


_TRIAL = TrialView(
    number=0, state="complete", values=(0.8,), metrics={"val_accuracy": 0.8}, reason="", seconds=1.0, started=1.0, ended=2.0,
    worker="host:1", is_orphan=False, architecture="",
)  # fmt: skip
VIEW = StudyView(
    study="toy", space="toy", data="digits", seed=0, objectives=(("val_accuracy", True),), num_duplicates=7,
    trials=(_TRIAL, replace(_TRIAL, number=1, state="failed", values=(), reason="boom", ended=3.0)),
)  # fmt: skip


def ended(*, duplicates: int = 0) -> SearchResult:
    return SearchResult("toy", (), None, (), duplicates, "finished", 1.0)


def drawn(board: Board, *, width: int = 80) -> list[str]:
    file = Terminal()
    console = Console(
        file=file, width=width, force_terminal=False, markup=False, highlight=False, emoji=False
    )
    console.print(draw_board(board))
    return file.getvalue().splitlines()


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal. To be called in the test itself: pytest sets stderr anew before each."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return screen


def test_it_is_a_listener() -> None:
    assert isinstance(SearchDashboard(Output()), SearchListener)


def test_the_board_counts_what_the_search_tells() -> None:
    clock = Clock()
    with SearchDashboard(Output(), workers=2, quiet=True, clock=clock) as dashboard:
        dashboard.on_start(info(num_trials=10))
        for number, accuracy in enumerate((0.5, 0.7, 0.6)):
            clock.now += 30
            dashboard.on_trial(trial(number, accuracy=accuracy))
        clock.now += 30
        dashboard.on_trial(trial(3, state=TrialState.FAILED))
        board = dashboard.board
    assert (board.done, board.total, board.complete, board.failed, board.pruned) == (4, 10, 3, 1, 0)
    assert (board.best, board.best_trial) == (0.7, 1)
    assert board.curve == (0.5, 0.7, 0.7, 0.7)
    assert board.failure == "trial 3: loss is NaN"
    assert board.per_minute == pytest.approx(2.0)
    assert board.eta_s == pytest.approx(180.0)
    assert board.elapsed_s == pytest.approx(120.0)
    assert (board.workers, board.running) == (2, 2)


def test_a_resumed_search_shows_what_was_found_before_and_its_duplicates() -> None:
    looks: list[StudyView] = []

    def look() -> StudyView:
        looks.append(VIEW)
        return VIEW

    clock = Clock()
    with SearchDashboard(Output(), quiet=True, look=look, clock=clock) as dashboard:
        dashboard.on_start(info(num_trials=10, resumed_trials=2))
        before = dashboard.board
        for number in range(2, 8):
            clock.now += 2
            dashboard.on_trial(trial(number, accuracy=0.6))
        after = dashboard.board
    assert (before.done, before.complete, before.failed, before.best, before.best_trial) == (2, 1, 1, 0.8, 0)
    assert before.curve == (0.8, 0.8)
    assert before.duplicates == 7
    assert (after.done, after.best, after.best_trial) == (8, 0.8, 0)
    assert len(looks) == 3, "at the start, and not more often than every five seconds"


def test_the_time_left_is_that_of_the_budget_if_it_ends_first() -> None:
    assert time_left(done=4, total=10, per_minute=2.0) == pytest.approx(180.0)
    assert time_left(done=4, total=10, per_minute=2.0, limit_s=150.0, elapsed_s=120.0) == pytest.approx(30.0)
    assert time_left(done=4, total=10, per_minute=None) is None
    assert time_left(done=12, total=10, per_minute=1.0) == 0.0


def test_the_rate_is_that_of_the_latest_trials() -> None:
    assert rate_per_minute([0.0]) is None
    slow, quick = [float(60 * n) for n in range(50)], [2940.0 + n for n in range(1, 21)]
    assert rate_per_minute(slow) == pytest.approx(1.0)
    assert rate_per_minute([*slow, *quick]) == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((0.0, 1.0), "▁█"),
        ((0.0, 0.5, 1.0), "▁▅█"),
        ((float("nan"), 2.0, 2.0), "██"),
        ((1.0,), ""),
        (tuple(float(n) for n in range(1000)), "▁▁▁▁▂▂▂▂▃▃▃▃▄▄▄▄▅▅▅▅▆▆▆▆▇▇▇▇████"),
    ],
)
def test_a_sparkline_rises_with_its_values(values: tuple[float, ...], line: str) -> None:
    assert sparkline(values) == line


def test_where_lower_is_better_the_best_is_still_the_highest_bar() -> None:
    assert sparkline((3.0, 2.0, 1.0), higher_is_better=False) == "▁▅█"
    assert sparkline((0.0, 1.0), ascii_only=True) == "_#"


def test_durations_read_as_a_clock() -> None:
    assert [clock_text(seconds) for seconds in (0, 65.4, 7384, -3)] == ["0:00", "1:05", "2:03:04", "0:00"]


BOARD = Board(
    title="first · convnet · digits", phase="searching", objective="val_accuracy", done=6, total=10, complete=4, pruned=1, failed=1,
    running=2, workers=2, duplicates=3, best=0.97123, best_trial=4, curve=(0.5, 0.7, 0.9, 0.9, 0.97, 0.97),
    failure="trial 3: out of memory: " + "x" * 300, per_minute=4.25, elapsed_s=83.0, eta_s=45.0,
)  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_board_fits_the_terminal_and_shows_everything(width: int) -> None:
    lines = drawn(BOARD, width=width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 5
    if width >= 80:
        text = "\n".join(lines)
        for part in ("first · convnet", "6/10 trials", "1:23", "0:45 left", "val_accuracy 0.97123 (trial 4)", "▁", "4 complete",
                     "1 pruned", "1 failed", "3 duplicates", "2 running", "2 workers", "4.25/min", "out of memory"):  # fmt: skip
            assert part in text, part


def test_the_line_for_logs_says_the_same() -> None:
    line = status_line(BOARD)
    for part in (
        "searching: 6/10 trials",
        "0.97123 (trial 4)",
        "1 failed",
        "3 duplicates",
        "0:45 left",
        "out of memory",
    ):
        assert part in line
    assert "\n" not in line
    assert status_line(replace(BOARD, phase="finished", eta_s=None)).startswith("finished: 6/10 trials")


def test_without_a_terminal_there_is_one_plain_line_per_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchDashboard(Output()) as dashboard:
        dashboard.on_start(info(num_trials=3, resumed_trials=2))
        dashboard.on_screened(screened(4), total=4)
        dashboard.on_kept(screened(4))
        dashboard.on_trial(trial(0, accuracy=0.5))
        dashboard.on_trial(trial(1, accuracy=0.4))
        dashboard.on_trial(trial(2, state=TrialState.FAILED))
        dashboard.on_end(ended(duplicates=5))
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert err.splitlines() == [
        "Continuing after 2 trials",
        "trial   0  validation accuracy 0.5000    1.5 s  best so far",
        "trial   1  validation accuracy 0.4000    1.5 s",
        "trial   2  failed: loss is NaN",
        "5 proposals were known graphs and not trained again",
    ]


def test_on_a_terminal_the_board_stays_below_the_trials_and_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with SearchDashboard(Output()) as dashboard:
        dashboard.on_start(info(num_trials=3))
        dashboard.on_trial(trial(0, accuracy=0.5))
        dashboard._live.refresh()  # type: ignore[union-attr]  # it draws twice per second by itself
        dashboard.on_end(ended())
    text = terminal.getvalue()
    assert "1/3 trials" in text
    assert "trial   0  validation accuracy 0.5000" in text
    assert sys.stderr is terminal
    assert text.endswith("\x1b[2K")  # the last line of the board is erased


def test_colours_follow_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    for no_color, has_colour in ((None, True), ("1", False)):
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        with SearchDashboard(Output()) as dashboard:
            dashboard.on_start(info())
            dashboard.on_trial(trial(0))
        text = terminal.getvalue()
        assert ("\x1b[32m" in text) == has_colour  # green
        terminal.truncate(0)
        terminal.seek(0)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with SearchDashboard(Output()) as dashboard:
        dashboard.on_start(info())
        dashboard.on_trial(trial(0))
    assert terminal.getvalue().startswith("trial   0")
    assert "\x1b" not in terminal.getvalue()


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with SearchDashboard(Output(), quiet=True) as dashboard:
        dashboard.on_start(info(resumed_trials=1))
        dashboard.on_trial(trial(0))
        dashboard.on_end(ended(duplicates=2))
    assert terminal.getvalue() == ""


def test_an_error_in_the_search_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)

    def search() -> None:
        with SearchDashboard(Output()) as dashboard:
            dashboard.on_start(info())
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        search()
    assert (
        terminal.getvalue().count("\x1b[?25h") == terminal.getvalue().count("\x1b[?25l") == 1
    )  # the cursor is back
    assert sys.stderr is terminal
