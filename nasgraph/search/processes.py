"""Evaluating in several processes of this machine."""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluator
from nasgraph.search.executors import Finished, OnReport, Task
from nasgraph.search.measuring import Outcome, failure, measure, reason_of

logger = logging.getLogger(__name__)

MakeEvaluator = Callable[[int], Evaluator]
"""Makes the evaluator of a worker, in its process, given its number from 0. Must be picklable: a function of a module, a
`functools.partial` of one, or an object of a class with `__call__`."""

OVERTIME = 2.0
OVERTIME_S = 10.0
"""A worker that works `OVERTIME` times the time limit and so many seconds more does not report any more, and is killed."""
READY, REPORT, DONE, BROKEN = "ready", "report", "done", "broken"


@dataclass(frozen=True, slots=True)
class Constant:
    """A `MakeEvaluator` that gives every worker a copy of one evaluator."""

    evaluate: Evaluator

    def __call__(self, worker: int) -> Evaluator:  # noqa: ARG002  all the same
        return self.evaluate


@dataclass
class _Worker:
    """A process, and what it is doing."""

    index: int
    process: BaseProcess
    connection: Connection
    life: Connection
    task: Task | None = None
    since: float = 0.0
    is_ready: bool = False

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.life.close()


@dataclass
class ProcessExecutor:
    """Evaluates in processes of this machine, one task each at a time. An `Executor`.

    A worker that dies (killed, out of memory, a crash in compiled code) takes its task with it and is replaced. Workers end
    when the search's process does, however it ends. Outcomes come back as bytes through a pipe, weights included.

    Processes are started afresh (`forkserver`), so that threads and locks of the search do not come along; a script that
    uses this needs the usual `if __name__ == "__main__":`.

    Attributes:
        make: Makes a worker's evaluator.
        num_workers: Processes.
        environment: Variables of each worker by its number, set before anything is imported that computes; for example
            `CUDA_VISIBLE_DEVICES`.

    Raises:
        ConfigError: If there is no worker, or `make` cannot be pickled.
    """

    make: MakeEvaluator
    num_workers: int
    environment: Sequence[Mapping[str, str]] = ()
    _waiting: list[Task] = field(default_factory=list, init=False)
    _workers: list[_Worker] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"Expected at least one worker (got {self.num_workers})")
        try:
            self._make_bytes = pickle.dumps(self.make)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"The evaluator cannot be sent to other processes: {error}. Define it in a module, not inside a function"
            ) from error

    def submit(self, task: Task) -> None:
        self._waiting.append(task)
        self._hand_out()

    def wait(self, on_report: OnReport, *, timeout_s: float) -> Sequence[Finished]:
        """See `Executor`.

        Raises:
            NasGraphError: If a worker cannot make its evaluator.
        """
        until = time.monotonic() + timeout_s
        finished: list[Finished] = []
        while not finished and any(worker.task is not None for worker in self._workers):
            finished += self._kill_overdue()
            left = until - time.monotonic()
            if left <= 0:
                break
            by_connection = {worker.connection: worker for worker in self._workers}
            for connection in wait(list(by_connection), timeout=min(left, 1.0)):
                assert isinstance(connection, Connection)
                finished += self._hear(by_connection[connection], on_report)
        self._hand_out()
        return finished

    def close(self) -> None:
        self._waiting.clear()
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _hand_out(self) -> None:
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None:
                if len(self._workers) >= self.num_workers:
                    return
                idle = self._start()
            task = self._waiting.pop(0)
            idle.task, idle.since = task, time.monotonic()
            try:
                idle.connection.send_bytes(pickle.dumps(task))
            except OSError:  # it died idle: nothing of the task was begun
                self._drop(idle)
                self._waiting.insert(0, task)

    def _start(self) -> _Worker:
        used = {worker.index for worker in self._workers}
        index = next(i for i in range(self.num_workers) if i not in used)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nasgraph.search.processes"])
        ours, theirs = context.Pipe()
        life, watched = context.Pipe()
        environment = dict(self.environment[index]) if index < len(self.environment) else {}
        process = context.Process(
            target=_work,
            args=(theirs, watched, self._make_bytes, index, environment),
            daemon=True,
            name=f"nasgraph worker {index}",
        )
        process.start()
        theirs.close()
        watched.close()
        worker = _Worker(index, process, ours, life)
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker, on_report: OnReport) -> list[Finished]:
        try:
            kind, content = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            return self._drop(worker)
        if kind == READY:
            worker.is_ready, worker.since = True, time.monotonic()
        elif kind == BROKEN:
            raise NasGraphError(f"A worker could not make its evaluator: {content}")
        elif kind == REPORT:
            assert worker.task is not None
            goes_on = on_report(worker.task.number, *content)
            try:
                worker.connection.send_bytes(pickle.dumps(goes_on))
            except OSError:
                return self._drop(worker)
        else:
            assert worker.task is not None
            assert isinstance(content, Outcome)
            number, worker.task = worker.task.number, None
            return [Finished(number, content)]
        return []

    def _drop(self, worker: _Worker) -> list[Finished]:
        """Forget a worker that died. Its task, if any, ended without an outcome."""
        task, worker.task = worker.task, None
        self._workers.remove(worker)
        worker.kill()
        logger.warning("Worker %d died (exit code %s)", worker.index, worker.process.exitcode)
        return [] if task is None else [Finished(task.number, None)]

    def _kill_overdue(self) -> list[Finished]:
        finished = []
        for worker in list(self._workers):
            limit = worker.task.time_limit_s if worker.task is not None and worker.is_ready else None
            seconds = time.monotonic() - worker.since
            if limit is not None and seconds > OVERTIME * limit + OVERTIME_S:
                assert worker.task is not None
                number = worker.task.number
                self._workers.remove(worker)
                worker.kill()
                reason = f"time limit of {limit:g} s: it did not stop when told, and was killed"
                finished.append(Finished(number, failure(reason, seconds=seconds)))
        return finished


def _work(
    connection: Connection, life: Connection, make_bytes: bytes, index: int, environment: Mapping[str, str]
) -> None:
    """What a worker does: take a task, evaluate it, send the outcome; until the pipe closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the search's process, which then closes the pipe
    os.environ.update(environment)
    threading.Thread(target=_die_with_the_search, args=(life,), daemon=True).start()
    try:
        _serve(connection, make_bytes, index)
    except (EOFError, OSError):
        os._exit(1)  # the search is gone, and nobody reads what we could say of it


def _serve(connection: Connection, make_bytes: bytes, index: int) -> None:
    try:
        evaluate = pickle.loads(make_bytes)(index)
    except Exception as error:  # noqa: BLE001  told to the search, which stops
        connection.send_bytes(pickle.dumps((BROKEN, reason_of(error))))
        return
    connection.send_bytes(pickle.dumps((READY, None)))

    def on_report(step: int, value: float) -> bool:
        connection.send_bytes(pickle.dumps((REPORT, (step, value))))
        return bool(pickle.loads(connection.recv_bytes()))

    while True:
        task: Task = pickle.loads(connection.recv_bytes())
        outcome = measure(
            evaluate,
            task.graph,
            seed=task.seed,
            time_limit_s=task.time_limit_s,
            on_report=on_report,
            parent=task.parent,
        )
        connection.send_bytes(pickle.dumps((DONE, outcome)))


def _die_with_the_search(life: Connection) -> None:
    try:
        life.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
