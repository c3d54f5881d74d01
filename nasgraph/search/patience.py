"""Waiting for a database that is away for a while: restarted, failed over, or cut off."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError

from nasgraph.search.records import StudyError

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAIT_S = 600.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0


def patiently(call: Callable[[], T]) -> T:
    """Call, and call again as long as the storage does not answer, for ten minutes at most.

    Args:
        call: What may be repeated, also when it broke off half-way.

    Raises:
        StudyError: If the storage stays away.
    """
    started, pause = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return call()
        except Exception as error:
            if not is_away(error):
                raise
            waited = time.monotonic() - started
            if waited > MAX_WAIT_S:
                raise StudyError(
                    f"The study's storage has not answered for {waited:.0f} s: {_first_line(error)}. What was finished "
                    "before is safe; repeat the command when it is back"
                ) from error
            logger.warning("The study's storage does not answer (%s). Trying again", _first_line(error))
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def is_away(error: BaseException) -> bool:
    """Whether an error says that the connection to a storage is broken, not that something was wrong with what was asked."""
    if type(error).__module__.partition(".")[0] == "grpc":
        code = getattr(error, "code", None)
        return callable(code) and getattr(code(), "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    kind = type(cause)
    if kind.__module__ != "sqlalchemy.exc" or kind.__name__ not in ("OperationalError", "InterfaceError"):
        return False
    text = str(cause).lower()
    return not any(words in text for words in ("disk is full", "readonly", "no such table", "does not exist"))


def _first_line(error: Exception) -> str:
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
