"""Who is working on a trial, and whether that process still lives.

A killed process leaves its trial marked as running. Each trial therefore carries its owner: machine, process and
the process's start, for process numbers are used again. Processes of the same machine are looked up; those of other machines
show that they live by a number in the study that they raise now and then.
"""

import fcntl
import logging
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from optuna import Study
from optuna.storages import InMemoryStorage

from nasgraph.search.records import StudyError

logger = logging.getLogger(__name__)

Owner = Mapping[str, str | int]
BEAT_S = 15.0
GRACE_S = 90.0
"""A run on another machine whose heartbeat does not change for so long is taken for dead."""

_active_runs: set[str] = set()


@contextmanager
def run_identity() -> Iterator[dict[str, str | int]]:
    """The owner to write into the trials of one run of a search. It counts as alive inside the context."""
    run = uuid.uuid4().hex
    _active_runs.add(run)
    try:
        yield {**_process_identity(os.getpid()), "run": run}
    finally:
        _active_runs.discard(run)


@contextmanager
def heartbeat(study: Study, owner: Owner) -> Iterator[None]:
    """Show other machines that a run lives, from a thread, as long as the context is open."""
    if isinstance(study._storage, InMemoryStorage):
        yield
        return
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_S):
            count += 1
            try:
                study.set_user_attr(_beat_of(owner), count)
            except Exception:
                logger.debug("A heartbeat could not be written", exc_info=True)

    thread = threading.Thread(target=beat, name="nasgraph heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5.0)


@dataclass
class Heartbeats:
    """Which runs on other machines live. Their beats are compared with each other over our own clock, so that clocks of
    different machines need not agree."""

    _seen: dict[str, tuple[object, float]] = field(default_factory=dict)
    _changes: dict[str, int] = field(default_factory=dict)

    def has_stopped(self, study: Study, owner: Owner) -> bool:
        """Whether a run's beat did not change for `GRACE_S` seconds in which we looked now and then."""
        key = _beat_of(owner)
        beat, now = study.user_attrs.get(key), time.monotonic()
        if key not in self._seen or self._seen[key][0] != beat:
            self._changes[key] = self._changes.get(key, -1) + 1
            self._seen[key] = (beat, now)
        return now - self._seen[key][1] > GRACE_S

    def num_changes(self, owner: Owner) -> int:
        """How often we saw a run's beat change."""
        return self._changes.get(_beat_of(owner), 0)


def _beat_of(owner: Owner) -> str:
    return f"heartbeat {owner.get('run', '')}"


def is_here(owner: Owner) -> bool:
    """Whether the owner belongs to this machine."""
    return owner.get("host") == socket.gethostname()


def is_dead(owner: Owner) -> bool:
    """Whether the owner has certainly ended. False for an owner on another machine."""
    if not is_here(owner):
        return False
    pid = int(owner["pid"])
    if pid == os.getpid() and owner["started"] == _started(pid):
        return owner["run"] not in _active_runs
    return owner["boot"] != _boot() or not _exists(pid) or owner["started"] != _started(pid)


@contextmanager
def machine_lock() -> Iterator[None]:
    """Keep other searches of this machine out while a trial is taken, claimed or given back. For milliseconds only.

    Not reentrant. The kernel releases it when its holder dies.

    Raises:
        StudyError: If the temporary folder cannot hold the lock.
    """
    try:
        path = Path(tempfile.gettempdir()) / f"nasgraph-{os.getuid()}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StudyError(
            f"Cannot lock the machine for the search: {error}. Set TMPDIR to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@cache
def _process_identity(pid: int) -> dict[str, str | int]:
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "started": _started(pid)}


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: process numbers have to do
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty where the system does not tell."""
    fields = _stat_fields(pid)
    return fields[19] if fields else ""


def _exists(pid: int) -> bool:
    fields = _stat_fields(pid)
    if fields:
        return fields[0] not in "ZX"  # killed, but not yet collected by its parent
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat_fields(pid: int) -> list[str]:
    """What /proc tells about a process, from its state on; empty where it tells nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
