"""Who owns a trial, and whether that process lives."""

import os
import signal
import time

from nasgraph.search.owners import _started, is_dead, is_here, machine_lock, run_identity
from tests.search.processes import exit_code, fork


def test_this_run_lives_until_it_ends() -> None:
    with run_identity() as owner:
        assert is_here(owner)
        assert not is_dead(owner)
    assert is_dead(owner)


def test_another_process_lives_until_it_is_killed() -> None:
    receiving, sending = os.pipe()

    def live() -> None:
        with run_identity() as owner, os.fdopen(sending, "w") as pipe:
            pipe.write(repr(owner))
            pipe.close()
            time.sleep(60)

    pid = fork(live)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        owner = eval(pipe.read())
    assert owner["pid"] == pid
    assert not is_dead(owner)
    os.kill(pid, signal.SIGKILL)
    while not is_dead(owner):  # at the latest when it is a zombie: nobody has waited for it yet
        time.sleep(0.001)
    exit_code(pid)
    assert is_dead(owner)


def test_a_process_number_that_is_used_again_is_another_process() -> None:
    with run_identity() as owner:
        assert is_dead({**owner, "pid": 1})
        assert is_dead({**owner, "started": "1"})


def test_a_restart_of_the_machine_ends_all_processes() -> None:
    with run_identity() as owner:
        assert not is_dead({**owner, "pid": 1, "started": _started(1)})
        assert is_dead({**owner, "pid": 1, "started": _started(1), "boot": "before"})


def test_other_machines_cannot_be_judged() -> None:
    with run_identity() as owner:
        other = {**owner, "host": "elsewhere", "pid": 0, "started": ""}
    assert not is_here(other)
    assert not is_dead(other)


def test_the_machine_lock_excludes() -> None:
    receiving, sending = os.pipe()

    def hold() -> None:
        with machine_lock():
            os.write(sending, b"a")
            time.sleep(0.2)
            os.write(sending, b"b")

    pid = fork(hold)
    assert os.read(receiving, 1) == b"a"
    with machine_lock():
        os.set_blocking(receiving, False)
        assert os.read(receiving, 1) == b"b"
    exit_code(pid)
    os.close(receiving)
    os.close(sending)
