"""Writes to a server that may go away: in order, retried, bounded, and never silent."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from nasgraph.mlflow_client import first_line

_logger = logging.getLogger(__name__)

_MAX_PAUSE_S = 60.0
_FINAL_PATIENCE = 3


@dataclass(frozen=True, slots=True)
class TrackingSummary:
    """What became of the writes to the tracking store.

    Attributes:
        written: Writes that succeeded, late ones included.
        failed: Writes that were given up: the store refused them, or the queue was full.
        pending: Writes that still wait. After the end of a search: writes that are not in the store.
        last_error: Text of the latest failure; empty if there was none.
    """

    written: int
    failed: int
    pending: int
    last_error: str


@dataclass(slots=True)
class _Item:
    what: str
    write: Callable[[], None]


class Outbox:
    """A queue of writes that outlives failures of the store.

    A write runs at once if nothing waits before it. One that fails waits and is repeated at later calls, in the order
    of arrival; after a failure the store is left alone for at least four times as long as the attempt took, so that
    a store that hangs costs a search at most a fifth of its time. A write that the store refuses for good (a client
    error) is given up. The first failure of each kind is logged as a warning.

    A write may be repeated after it half succeeded, so it must be safe to repeat.

    Args:
        capacity: Most writes that wait; when one more comes, the oldest is given up.
        clock: Seconds that only go forward.
    """

    def __init__(self, *, capacity: int = 256, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._waiting: deque[_Item] = deque()
        self._not_before = float("-inf")
        self._pause_s = 0.0
        self._written = 0
        self._failed = 0
        self._last_error = ""
        self._warned: set[str] = set()

    def send(self, what: str, write: Callable[[], None]) -> None:
        """Run a write now, or later if the store does not answer. Never raises for a failure of the store.

        Args:
            what: Kind of the write, for the warning, such as "trial".
            write: Does it. Any exception counts as a failure of the store.
        """
        if len(self._waiting) >= self._capacity:
            lost = self._waiting.popleft()
            self._failed += 1
            self._warn(
                "full", f"Too many writes wait for the tracking store; the oldest ({lost.what}) is given up"
            )
        self._waiting.append(_Item(what, write))
        if self._clock() >= self._not_before:
            self._work_off(patience=1)

    def flush(self) -> None:
        """Try all waiting writes now, whatever failed before; stop after three failures in a row."""
        self._work_off(patience=_FINAL_PATIENCE)

    def summary(self) -> TrackingSummary:
        """Counts so far."""
        return TrackingSummary(self._written, self._failed, len(self._waiting), self._last_error)

    def _work_off(self, *, patience: int) -> None:
        kept: list[_Item] = []
        while self._waiting and patience:
            item = self._waiting.popleft()
            started = self._clock()
            try:
                item.write()
            except Exception as error:  # noqa: BLE001  stores and artifact repositories are plug-ins without a common base
                if self._give_up(item, error):
                    continue
                kept.append(item)
                patience -= 1
                self._pause(self._clock() - started)
            except BaseException:  # Ctrl-C in the middle of a write: it is not lost
                self._waiting.extendleft([item, *reversed(kept)])
                raise
            else:
                self._written += 1
                self._pause_s = 0.0
        self._waiting.extendleft(reversed(kept))

    def _give_up(self, item: _Item, error: Exception) -> bool:
        """Note a failure; True if repeating cannot help."""
        self._last_error = f"{item.what}: {first_line(error)}"
        for_good = _refused_for_good(error)
        fate = "it is given up" if for_good else "it will be tried again"
        text = f"Tracking failed for {item.what}, {fate}; the search goes on: {first_line(error)}"
        self._warn(f"{item.what} {type(error).__name__} {for_good}", text)
        self._failed += for_good
        return for_good

    def _pause(self, attempt_s: float) -> None:
        self._pause_s = min(max(2 * self._pause_s, 1.0), _MAX_PAUSE_S)
        self._not_before = self._clock() + max(self._pause_s, 4 * attempt_s)

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _logger.warning(text)


def _refused_for_good(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return False
    status: int = error.get_http_status_code()
    return 400 <= status < 500 and status not in (408, 429)
