"""Where evaluations run: one small interface for this process, several processes, or a cluster."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nasgraph.evaluate.evaluation import Evaluator
from nasgraph.ir import ComputationalGraph
from nasgraph.search.measuring import Outcome, measure

OnReport = Callable[[int, int, float], bool]
"""Called with the number of a trial, a step, and the objective after it. False: stop that evaluation."""


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation to make. Can be pickled.

    Attributes:
        number: Number of the trial.
        graph: What to measure.
        seed: Seed of the measurement.
        time_limit_s: Seconds after which it is stopped and has failed; None: no limit.
        parent: Fingerprint of the graph of which it is a mutation; empty if of none. For an `InheritingEvaluator`.
    """

    number: int
    graph: ComputationalGraph
    seed: int
    time_limit_s: float | None = None
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that ended.

    Attributes:
        number: Number of the trial.
        outcome: How it went; None if whoever evaluated it died.
    """

    number: int
    outcome: Outcome | None


@runtime_checkable
class Executor(Protocol):
    """Evaluates tasks. Used by one thread, that of the search; workers know nothing of the study.

    Attributes:
        num_workers: Tasks that it works on at a time. The search never submits more than that.
    """

    num_workers: int

    def submit(self, task: Task) -> None:
        """Begin a task, or remember it for `wait`."""

    def wait(self, on_report: OnReport, *, timeout_s: float) -> Sequence[Finished]:
        """Tasks that ended since the last call; blocks until there is one, at most `timeout_s` seconds.

        Calls `on_report` for what evaluations report meanwhile, and passes its answer on. An executor that cannot do
        that says so in its docstring: its evaluations are never pruned.
        """

    def close(self) -> None:
        """Stop whatever is running, without waiting for its end, and release everything. May be called twice."""


class SerialExecutor:
    """Evaluates in this process, one task at a time, while `wait` is called.

    Args:
        evaluate: Measures a graph.
    """

    num_workers = 1

    def __init__(self, evaluate: Evaluator) -> None:
        self._evaluate = evaluate
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def wait(self, on_report: OnReport, *, timeout_s: float) -> Sequence[Finished]:  # noqa: ARG002  it always has an answer
        if not self._tasks:
            return ()
        task = self._tasks.popleft()
        outcome = measure(
            self._evaluate,
            task.graph,
            seed=task.seed,
            time_limit_s=task.time_limit_s,
            on_report=lambda step, value: on_report(task.number, step, value),
            parent=task.parent,
        )
        return (Finished(task.number, outcome),)

    def close(self) -> None:
        self._tasks.clear()
