"""How a search gets on that another process runs: read from its files, which are never locked, changed or waited for."""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from nasgraph.errors import NasGraphError, UnknownNameError
from nasgraph.files import parse_json
from nasgraph.pipeline.workspace import Workspace, studies_in
from nasgraph.search.records import StudyError
from nasgraph.search.snapshot import StudyView, TrialView, open_read_only, view_study
from nasgraph.search.storage import study_names
from nasgraph.spaces import Architecture, architecture_from_json
from nasgraph.web.context import BadRequestError

UNLIMITED = 1_000_000
"""Trials of a search that something else ends, such as a time limit."""
RECENT = 20
"""Trials that the rate is the mean of."""
FRESH_S = 3.0
"""Seconds after which a study whose file did not change is read again: a process may have died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One study as it is now.

    Attributes:
        name: Name of the study's files.
        view: What it holds; None before it holds anything.
        phase: What goes on, in words.
        is_running: Whether a process evaluates for it.
        is_over: Whether nothing more will come.
        total: Trials that are wanted; None if not known.
        per_minute: Trials per minute, lately; None if not known.
        eta_s: Seconds that are left; None if not known.
        elapsed_s: Seconds from the first trial's beginning to now, or to its end.
        failures: Reasons of failed trials with their numbers, the most frequent first.
        number: Number of the study in its storage.
    """

    name: str
    view: StudyView | None
    phase: str
    is_running: bool = False
    is_over: bool = False
    total: int | None = None
    per_minute: float | None = None
    eta_s: float | None = None
    elapsed_s: float = 0.0
    failures: tuple[tuple[str, int], ...] = ()
    number: int | None = None

    @property
    def done(self) -> int:
        """Trials that ended."""
        return 0 if self.view is None else len(self.view.evaluated)

    def count(self, state: str) -> int:
        """Trials in a state."""
        return 0 if self.view is None else len(self.view.with_state(state))


@dataclass(slots=True)
class _Open:
    """A study file that was opened: its reader, and what was read last."""

    identity: tuple[int, int]
    read: Callable[[], tuple[StudyView | None, int | None]]
    lock: Lock = field(default_factory=Lock)
    size: int = -1
    read_at: float = float("-inf")
    last: tuple[StudyView | None, int | None] = (None, None)


class Searches:
    """The searches in a project folder. Several threads may ask; each file is read on from where it was left.

    Args:
        folder: Project folder, such as `nasgraph-runs`.
        clock: Seconds since 1970.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._lock = Lock()

    def names(self) -> tuple[str, ...]:
        """Names of the studies, the newest first. Empty where there is no such folder."""
        try:
            return studies_in(self.folder)
        except FileNotFoundError:  # one was deleted while they were listed
            return studies_in(self.folder)

    def progress(self, name: str) -> Progress:
        """How a study gets on.

        Raises:
            BadRequestError: If that cannot be the name of a study.
            UnknownNameError: If there is none of that name.
            StudyError: If a line of its file is damaged, or the file vanished.
        """
        try:
            workspace = Workspace(self.folder, name)
        except NasGraphError as error:
            raise BadRequestError(str(error)) from error
        try:
            state = workspace.journal.stat()
        except OSError as error:
            raise UnknownNameError("study", name, self.names()) from error
        view, number = self._view(workspace.journal, state)
        total, is_over = _plan(workspace)
        return _progress(name, view, total=total, is_over=is_over, now=self._clock(), number=number)

    def _view(self, journal: Path, state: os.stat_result) -> tuple[StudyView | None, int | None]:
        with self._lock:
            known = self._open.get(journal.stem)
            if known is None or known.identity != (state.st_dev, state.st_ino) or state.st_size < known.size:
                known = _Open((state.st_dev, state.st_ino), _reader(journal))
                self._open[journal.stem] = known
        with known.lock:
            now = time.monotonic()
            if known.size != state.st_size or now - known.read_at > FRESH_S:
                known.last = known.read()
                known.size, known.read_at = state.st_size, now
            return known.last


def _reader(journal: Path) -> Callable[[], tuple[StudyView | None, int | None]]:
    storage = open_read_only(journal)

    def read() -> tuple[StudyView | None, int | None]:
        names = study_names(storage)
        name = names[0] if len(names) == 1 else journal.stem
        try:
            return view_study(storage, name), storage.get_study_id_from_name(name)
        except KeyError:
            return None, None  # the file is there, the study not yet
        except (TypeError, ValueError, AttributeError, AssertionError) as error:
            raise StudyError(f"'{journal}' is no study file ({type(error).__name__}: {error})") from error

    return read


def _plan(workspace: Workspace) -> tuple[int | None, bool]:
    """How many trials are wanted, and whether the search is over, as the files beside the journal say."""
    if not workspace.state_file.is_file():
        return None, False
    trials = workspace.settings().trials
    return None if trials >= UNLIMITED else trials, workspace.result() is not None


def _progress(
    name: str, view: StudyView | None, *, total: int | None, is_over: bool, now: float, number: int | None
) -> Progress:
    if view is None:
        return Progress(name=name, view=None, phase="starting", total=total, is_over=is_over)
    ended = view.evaluated
    running = view.with_state("running")
    living = [trial for trial in running if not trial.is_orphan]
    starts = [trial.started for trial in view.trials if trial.started is not None]
    ends = sorted(trial.ended for trial in ended if trial.ended is not None)
    per_minute = _rate([*([min(starts)] if starts else []), *ends])
    until = now if living or not ends else ends[-1]
    eta_s = (
        60 * max(0, total - len(ended)) / per_minute if living and total is not None and per_minute else None
    )
    failures = Counter(trial.reason or "no reason is recorded" for trial in ended if trial.state == "failed")
    return Progress(
        name=name,
        view=view,
        phase=_phase(view, living, done=len(ended), total=total, is_over=is_over),
        is_running=bool(living) and not is_over,
        is_over=is_over,
        total=total,
        per_minute=per_minute,
        eta_s=None if is_over else eta_s,
        elapsed_s=until - min(starts) if starts else 0.0,
        failures=tuple(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        number=number,
    )


def _phase(view: StudyView, living: list[TrialView], *, done: int, total: int | None, is_over: bool) -> str:
    if is_over:
        return "finished"
    if total is not None and done >= total:
        return "all trials are done, the winner is being trained"
    if living:
        return "searching"
    if any(trial.is_orphan for trial in view.trials):
        return "stopped: its process has died, 'nasgraph search --resume' goes on with it"
    return "nothing is being evaluated" if done else "starting"


def _rate(times: list[float]) -> float | None:
    """Events per minute from their times, the first being a beginning; None before there is an event."""
    recent = times[-(RECENT + 1) :]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return 60 * (len(recent) - 1) / (recent[-1] - recent[0])


def architecture_of(trial: TrialView) -> Architecture:
    """The choices of a trial.

    Raises:
        NasGraphError: If its record is not one of ours.
    """
    return architecture_from_json(parse_json(trial.architecture, source=f"trial {trial.number}"))


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
