"""Who is working on a trial, and whether that process still lives.

A killed process leaves its trial marked as running. Each trial therefore carries its owner: machine, process and
the process's start, for process numbers are used again. Only processes of the same machine can be checked.
"""

import fcntl
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from nasgraph.search.records import StudyError

Owner = Mapping[str, str | int]

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
