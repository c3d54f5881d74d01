"""The default home of a study: a journal file that survives kill -9, torn lines and full disks.

Optuna's journal is one JSON record per line. Optuna's own file backend has two traps, both met in practice: its lock
is a link that a killed process leaves behind, and a line cut off by a power failure makes the next record
unreadable for ever. Here the lock is `flock`, which the kernel releases with its holder, and whoever finds a
torn last line under the lock cuts it off.
"""

import fcntl
import json
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from nasgraph.search.records import StudyError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20

# Operation codes of Optuna's journal format. The rest are about studies and rare.
CREATE_TRIAL = 4
SET_TRIAL_PARAM = 5
SET_TRIAL_STATE_VALUES = 6
SET_TRIAL_INTERMEDIATE_VALUE = 7
SET_TRIAL_USER_ATTR = 8
SET_TRIAL_SYSTEM_ATTR = 9

_STEPS = frozenset(
    {SET_TRIAL_PARAM, SET_TRIAL_INTERMEDIATE_VALUE, SET_TRIAL_USER_ATTR, SET_TRIAL_SYSTEM_ATTR}
)


class FileJournal(BaseJournalBackend):
    """Appends to and reads from one file, shared by any number of processes of one machine.

    Guarantees:

    - A record is whole or absent. When a write fails, the file is cut back to its state before.
    - Records that finish a trial or change a study are on the disk when the call returns; since a file is
      flushed as a whole, so is everything before them. Steps within a trial reach the operating system, so
      they survive the death of the process, though not of the machine.
    - A torn last line is removed, with a warning, before anything is added.

    `flock` works on local disks and on most network disks; where it does not, opening says so.

    Args:
        path: The file. It and its folder are created.

    Raises:
        StudyError: If the file cannot be opened, locked or repaired.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = -1  # where the last record ends, as far as this process knows
        self._open()
        with self._locked():
            self._cut_torn_tail()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._end = -1
        self._open()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records at the end.

        Raises:
            StudyError: If the disk is full, or the file was deleted, or cannot be written. Nothing was added.
        """
        data = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        durable = any(_must_be_durable(log) for log in logs)
        self._reopen_after_fork()
        with self._locked():
            if durable:
                self._refuse_deleted()
            end = os.fstat(self._descriptor).st_size
            if end != self._end:
                end = self._cut_torn_tail()
            self._write(data, end, durable=durable)
            self._end = end + len(data)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from number `log_number_from` on. A line that is still being written is left out.

        Raises:
            StudyError: If a line is not a record. The message names the line.
        """
        self._reopen_after_fork()
        if log_number_from < self.num_read:
            self._start_over()
        rest = b""
        while chunk := self._read(self._position + len(rest)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.num_read += 1
                self._position += len(line) + 1
                if self.num_read > log_number_from:
                    yield self._parse(line)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StudyError(f"Cannot open the study file '{self.path}': {error.strerror}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self._process = os.getpid()
        self._start_over()

    def _start_over(self) -> None:
        self.num_read = 0
        self._position = 0

    def _reopen_after_fork(self) -> None:
        # Parent and child would share one descriptor and so one lock, which then keeps neither out.
        if self._process != os.getpid():
            num_read, position = self.num_read, self._position
            self._open()
            self.num_read, self._position = num_read, position

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise StudyError(
                f"Cannot lock the study file '{self.path}': {error.strerror}. "
                "Put it on a local disk, or keep the study in a database (sqlite:///..., postgresql://...)"
            ) from error
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _cut_torn_tail(self) -> int:
        """Remove what follows the last newline; return the size then. Call it with the lock held."""
        size = end = os.fstat(self._descriptor).st_size
        while end > 0:
            start = max(0, end - CHUNK_BYTES)
            newline = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            logger.warning(
                "Removed a torn last line (%d bytes) from the study file '%s'", size - end, self.path
            )
            try:
                os.ftruncate(self._descriptor, end)
            except OSError as error:
                raise StudyError(f"Cannot repair the study file '{self.path}': {error.strerror}") from error
        return end

    def _write(self, data: bytes, end: int, *, durable: bool) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            if durable:
                os.fsync(self._descriptor)
        except BaseException as error:
            with suppress(OSError):  # a tail that stays is cut off under the next lock
                os.ftruncate(self._descriptor, end)
            if isinstance(error, OSError):
                raise StudyError(
                    f"Cannot write to the study file '{self.path}': {error.strerror}. What was finished before is safe"
                ) from error
            raise

    def _read(self, position: int) -> bytes:
        try:
            return os.pread(self._descriptor, CHUNK_BYTES, position)
        except OSError as error:
            raise StudyError(f"Cannot read the study file '{self.path}': {error.strerror}") from error

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"it is not JSON ({error})") from error
        if not isinstance(record, dict) or not {"op_code", "worker_id"} <= record.keys():
            raise self.damaged("it is not a record of an Optuna journal")
        return record

    def damaged(self, what: str) -> StudyError:
        """An error about the record that was read last."""
        return StudyError(
            f"Line {self.num_read} of the study file '{self.path}' is damaged: {what}. "
            "Restore the file from a copy, or keep the lines before it"
        )

    def _refuse_deleted(self) -> None:
        # Writes would succeed and go nowhere.
        try:
            same = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise StudyError(f"The study file '{self.path}' was deleted or replaced while it was in use")


def _must_be_durable(log: dict[str, Any]) -> bool:
    operation = log["op_code"]
    if operation in _STEPS:
        return False
    if operation in (CREATE_TRIAL, SET_TRIAL_STATE_VALUES):
        return TrialState(log.get("state", TrialState.RUNNING)).is_finished()
    return True
