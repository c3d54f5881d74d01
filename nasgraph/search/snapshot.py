"""What a study holds right now, for those who only look: live views and reports. Nothing is written, locked or repaired."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nasgraph.search.history import (
    ARCHITECTURE,
    DUPLICATE_OF,
    FINGERPRINT,
    METRICS,
    OWNER,
    REASON,
    REFUSED,
    SECONDS,
)
from nasgraph.search.owners import is_dead
from nasgraph.search.records import StudyError
from nasgraph.search.study import study_facts

_STATES = {
    OptunaState.COMPLETE: "complete",
    OptunaState.PRUNED: "pruned",
    OptunaState.FAIL: "failed",
    OptunaState.RUNNING: "running",
    OptunaState.WAITING: "waiting",
}
_PREFIXES = ("max:", "min:", "-")


class ReadOnlyJournal(BaseJournalBackend):
    """Reads the journal file of a study that another process may be writing.

    A last line that is not whole yet is left for the next reading.

    Args:
        path: The file.

    Raises:
        StudyError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._num_read = 0
        self._position = 0
        self._open().close()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The records from number `log_number_from` on.

        Raises:
            StudyError: If a whole line is no record.
        """
        if log_number_from < self._num_read:
            self._num_read = self._position = 0
        with self._open() as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._num_read += 1
                self._position += len(line)
                if self._num_read > log_number_from:
                    yield self._parse(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:  # noqa: ARG002
        """Refused.

        Raises:
            StudyError: Always.
        """
        raise StudyError(f"The study file '{self.path}' is open for reading only")

    def _open(self) -> Any:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise StudyError(f"Cannot read the study file '{self.path}': {error.strerror}") from error

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise StudyError(f"Line {self._num_read} of the study file '{self.path}' is damaged") from error
        if not isinstance(record, dict) or not {"op_code", "worker_id"} <= record.keys():
            raise StudyError(f"Line {self._num_read} of '{self.path}' is no record of an Optuna journal")
        return record


def open_read_only(path: Path) -> BaseStorage:
    """The storage in a journal file, for looking only. What is written later is seen too.

    Raises:
        StudyError: If the file cannot be read, or a line of it is damaged.
    """
    try:
        return JournalStorage(ReadOnlyJournal(path))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise StudyError(f"'{path}' is no study file ({type(error).__name__}: {error})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialView:
    """One trial that evaluated, or evaluates, a graph of its own.

    Attributes:
        number: Its number.
        state: "complete", "pruned", "failed", "running" or "waiting".
        values: One number per objective; empty unless it is complete.
        metrics: Everything that was measured.
        reason: Why it failed or was pruned.
        seconds: Wall time of its evaluation.
        started: When it began, in seconds since 1970; None if it did not.
        ended: When it ended; None if it did not.
        worker: Machine and process that evaluates it, or did; empty if not known.
        is_orphan: Whether it is marked as running, and its process has ended on this machine.
        architecture: Canonical JSON of its choices; empty before it is proposed.
    """

    number: int
    state: str
    values: tuple[float, ...]
    metrics: Mapping[str, float]
    reason: str
    seconds: float
    started: float | None
    ended: float | None
    worker: str
    is_orphan: bool
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """What a study holds.

    Attributes:
        study: Its name.
        space: Name of its search space; empty if it does not say.
        data: Its data set; empty if it does not say.
        seed: Its seed; None if it does not say.
        objectives: Name of each objective, and whether higher is better.
        trials: By number, without those that only repeated a known graph.
        num_duplicates: Proposals that were known graphs.
        attributes: The study's user attributes.
    """

    study: str
    space: str
    data: str
    seed: int | None
    objectives: tuple[tuple[str, bool], ...]
    trials: tuple[TrialView, ...]
    num_duplicates: int
    attributes: Mapping[str, object] = field(default_factory=dict)

    def with_state(self, *states: str) -> tuple[TrialView, ...]:
        """Trials in one of some states."""
        return tuple(trial for trial in self.trials if trial.state in states)

    @property
    def evaluated(self) -> tuple[TrialView, ...]:
        """Trials that ended, in the order in which they did."""
        done = self.with_state("complete", "pruned", "failed")
        return tuple(sorted(done, key=lambda trial: (trial.ended or 0.0, trial.number)))

    def best_so_far(self) -> tuple[float, ...]:
        """Best value of the first objective after each evaluated trial; NaN before the first complete one."""
        best, curve = float("nan"), []
        higher = self.objectives[0][1]
        for trial in self.evaluated:
            if trial.values and (best != best or (trial.values[0] > best) is higher):
                best = trial.values[0]
            curve.append(best)
        return tuple(curve)

    @property
    def best(self) -> TrialView | None:
        """The complete trial with the best first objective, the earliest of equals."""
        sign = 1.0 if self.objectives[0][1] else -1.0
        complete = self.with_state("complete")
        return max(complete, key=lambda trial: (sign * trial.values[0], -trial.number), default=None)


def view_study(storage: BaseStorage, name: str) -> StudyView:
    """Read a study.

    Args:
        storage: From `open_read_only`, or any other storage.
        name: Name of the study.

    Raises:
        KeyError: If there is no such study (yet).
        StudyError: If a line of the journal is damaged.
    """
    return view_of(optuna.load_study(study_name=name, storage=storage))


def view_of(study: optuna.Study) -> StudyView:
    """What an open study holds. See `view_study`."""
    facts = study_facts(study)
    trials = study.get_trials(deepcopy=False)
    own = [trial for trial in trials if _counts(trial)]
    return StudyView(
        study=study.study_name,
        space=str(facts.get("space", "")),
        data=str(facts.get("data", "")),
        seed=seed if isinstance(seed := facts.get("seed"), int) else None,
        objectives=_objectives(str(facts.get("objective", "")), study.directions),
        trials=tuple(map(_view, own)),
        num_duplicates=_num_duplicates(trials),
        attributes=dict(study.user_attrs),
    )


def _num_duplicates(trials: Iterable[FrozenTrial]) -> int:
    return sum(
        int(trial.user_attrs.get(REFUSED, 0))
        + (DUPLICATE_OF in trial.user_attrs and trial.state.is_finished())
        for trial in trials
    )


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial evaluates a graph, or may yet: not one that repeated a known graph, or was refused."""
    attrs = trial.user_attrs
    is_foreign = bool(trial.values) and DUPLICATE_OF not in attrs  # of a study that nasgraph did not make
    return FINGERPRINT in attrs or not trial.state.is_finished() or is_foreign


def _view(trial: FrozenTrial) -> TrialView:
    attrs = trial.user_attrs
    owner = attrs.get(OWNER) or {}
    is_running = trial.state == OptunaState.RUNNING
    return TrialView(
        number=trial.number,
        state=_STATES[trial.state],
        values=tuple(trial.values) if trial.state == OptunaState.COMPLETE and trial.values else (),
        metrics=dict(attrs.get(METRICS, {})),
        reason=str(attrs.get(REASON, "")),
        seconds=float(attrs.get(SECONDS, 0.0)),
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        worker=f"{owner['host']}:{owner['pid']}" if owner else "",
        is_orphan=is_running and bool(owner) and is_dead(owner),
        architecture=str(attrs.get(ARCHITECTURE, "")),
    )


def _objectives(text: str, directions: list[StudyDirection]) -> tuple[tuple[str, bool], ...]:
    """Names from what the study says, directions from Optuna."""
    names = [_bare(part.strip()) for part in text.split(",")] if text else []
    if len(names) != len(directions):
        names = ["value"] if len(directions) == 1 else [f"value {n}" for n in range(len(directions))]
    return tuple((name, way != StudyDirection.MINIMIZE) for name, way in zip(names, directions, strict=True))


def _bare(text: str) -> str:
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text
