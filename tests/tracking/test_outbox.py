"""The queue of writes, with a clock that the test moves."""

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from nasgraph.tracking.outbox import Outbox


class Store:
    """Takes writes while it is up; each attempt costs `attempt_s` on its clock."""

    def __init__(self) -> None:
        self.up = True
        self.now = 0.0
        self.attempt_s = 0.0
        self.attempts = 0
        self.content: list[int] = []

    def clock(self) -> float:
        return self.now

    def write(self, value: int) -> Callable[[], None]:
        def attempt() -> None:
            self.attempts += 1
            self.now += self.attempt_s
            if not self.up:
                raise MlflowException("connection refused", error_code=TEMPORARILY_UNAVAILABLE)
            self.content.append(value)

        return attempt


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=40))
def test_writes_arrive_once_and_in_order_whatever_the_outages(steps: list[tuple[bool, float]]) -> None:
    store = Store()
    outbox = Outbox(clock=store.clock)
    for number, (up, seconds) in enumerate(steps):
        store.up = up
        store.now += seconds
        outbox.send("trial", store.write(number))
        assert store.content == list(range(len(store.content)))
    store.up = True
    outbox.flush()
    assert store.content == list(range(len(steps)))
    summary = outbox.summary()
    assert (summary.written, summary.failed, summary.pending) == (len(steps), 0, 0)


def test_a_store_that_hangs_costs_at_most_a_fifth_of_the_time() -> None:
    store = Store()
    outbox = Outbox(clock=store.clock)
    store.up, store.attempt_s = False, 15.0
    for number in range(1000):
        store.now += 1.0
        outbox.send("trial", store.write(number))
    assert store.attempts * store.attempt_s <= 0.2 * store.now + store.attempt_s


def test_a_write_that_is_refused_does_not_block_the_others(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    outbox = Outbox(clock=store.clock)

    def refused() -> None:
        raise MlflowException("no such field", error_code=INVALID_PARAMETER_VALUE)

    outbox.send("trial", refused)
    outbox.send("trial", refused)
    outbox.send("trial", store.write(1))
    summary = outbox.summary()
    assert (summary.written, summary.failed, summary.pending) == (1, 2, 0)
    assert summary.last_error == "trial: no such field"
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "once per kind"


def test_the_queue_is_bounded_and_says_what_it_dropped(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.up = False
    outbox = Outbox(capacity=3, clock=store.clock)
    for number in range(10):
        outbox.send("trial", store.write(number))
    assert outbox.summary().pending == 3
    assert outbox.summary().failed == 7
    assert "Too many writes wait" in caplog.text
    store.up = True
    outbox.flush()
    assert store.content == [7, 8, 9]


def test_a_dead_store_is_tried_three_times_at_the_end() -> None:
    store = Store()
    store.up = False
    outbox = Outbox(clock=store.clock)
    for number in range(50):
        outbox.send("trial", store.write(number))
    store.attempts = 0
    outbox.flush()
    assert store.attempts == 3
    assert outbox.summary().pending == 50


def test_ctrl_c_in_the_middle_of_a_write_loses_nothing() -> None:
    store = Store()
    outbox = Outbox(clock=store.clock)
    presses = [KeyboardInterrupt()]

    def interrupted() -> None:
        if presses:
            raise presses.pop()
        store.content.append(1)

    store.up = False
    outbox.send("trial", store.write(0))
    outbox.send("trial", interrupted)
    outbox.send("trial", store.write(2))
    with pytest.raises(KeyboardInterrupt):
        outbox.flush()
    assert outbox.summary().pending == 3
    store.up = True
    outbox.flush()
    assert store.content == [0, 1, 2]
