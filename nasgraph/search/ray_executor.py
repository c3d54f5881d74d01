"""Evaluating on a Ray cluster. The driver owns the study; machines only evaluate, and know nothing of it.

Ray's core alone is used: tasks that ask for CPUs and GPUs, `ray.wait`, and one small actor that carries reports. Every
machine needs the same versions of Python, Ray and nasgraph, and the data at the same path. Since Ray 2.60 the nodes of a cluster
prove themselves by a token, which must be the same on all of them (`ray get-auth-token --generate` writes it to
`~/.ray/auth_token`; `RAY_AUTH_MODE=disabled` turns it off in a network that is trusted).
"""

import asyncio
import importlib
import logging
import os
import pickle
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluator
from nasgraph.search.executors import Finished, OnReport, Task
from nasgraph.search.measuring import Outcome, failure, measure, reason_of
from nasgraph.search.processes import OVERTIME, OVERTIME_S, MakeEvaluator

logger = logging.getLogger(__name__)

MAX_NODE_LOSSES = 10
"""Machines that may be lost under one task before it counts as ended without an outcome."""
PATIENCE_S = 1.0
NO_RAY = "Evaluating on a Ray cluster needs Ray: pip install 'nasgraph[ray]'"

Key = tuple[int, int]
"""Number of a trial, and how many machines were lost under it: reports of the lost ones are not heard."""


@dataclass(frozen=True, slots=True)
class RayConfig:
    """What a task asks for, and which cluster.

    Attributes:
        address: Of the cluster, such as `auto` or `ray://host:10001`; empty: that of RAY_ADDRESS, or a cluster of this
            machine alone, which ends with the search.
        num_workers: Tasks at a time; 0: as many as the cluster has room for when the search begins.
        num_cpus: CPU cores of one task.
        num_gpus: GPUs of one task; parts of one are allowed, such as 0.5.
        temp_dir: Where a cluster of this machine alone keeps its sockets; their paths must stay below 107 characters. Empty:
            Ray's own, in /tmp.

    Raises:
        ConfigError: If a task asks for less than nothing, or for no CPU and no GPU.
    """

    address: str = ""
    num_workers: int = 0
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    temp_dir: str = ""

    def __post_init__(self) -> None:
        if self.num_workers < 0 or min(self.num_cpus, self.num_gpus) < 0:
            raise ConfigError("Expected no negative number of workers, CPUs or GPUs")
        if not self.num_cpus and not self.num_gpus:
            raise ConfigError(
                "Expected each worker to ask for a CPU or a GPU, or nothing limits how many start"
            )


@dataclass
class _Running:
    """A task on its way."""

    task: Task
    num_losses: int = 0
    since: float | None = None
    answers: dict[int, bool] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.task.number, self.num_losses


class RayExecutor:
    """Evaluates on the machines of a Ray cluster, one task each at a time. An `Executor`.

    A worker process that dies takes its task with it, which `wait` says. A machine that is lost is no fault of the candidate:
    its tasks are begun anew elsewhere, and what they had reported before is answered as it was then. Reports reach the pruner,
    and their answer is waited for, so that pruning is the same as in one process. When the search's process ends,
    however it does, Ray ends its tasks.

    Args:
        make: Makes the evaluator of a worker process, in that process; called with 0, since Ray gives each task GPUs of its own
            and numbers them from 0. It is sent to every machine once.
        config: Cluster and resources.

    Raises:
        NasGraphError: If Ray is not installed, the cluster does not answer, or no machine has what a task asks for.
        ConfigError: If `make` cannot be pickled.
    """

    def __init__(self, make: MakeEvaluator, config: RayConfig = RayConfig()) -> None:
        try:
            content = pickle.dumps(make)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"The evaluator cannot be sent to other machines: {error}. Define it in a module, not inside a function"
            ) from error
        self._ray = _import_ray()
        self._is_ours = _connect(self._ray, config)
        self.num_workers = _room(self._ray, config)
        self._make = self._ray.put(content)
        self._name = uuid.uuid4().hex
        self._mailbox = _start_mailbox(self._ray)
        self._news = self._mailbox.take.remote()
        self._evaluate = self._ray.remote(_evaluate).options(
            num_cpus=config.num_cpus, num_gpus=config.num_gpus, max_retries=0
        )
        self._running: dict[Any, _Running] = {}
        self._is_closed = False

    def submit(self, task: Task) -> None:
        """See `Executor`. Ray begins the task when a machine has room."""
        self._begin(_Running(task))

    def wait(self, on_report: OnReport, *, timeout_s: float) -> Sequence[Finished]:
        """See `Executor`.

        Raises:
            NasGraphError: If a worker cannot make its evaluator, or the cluster is lost.
        """
        until = time.monotonic() + timeout_s
        finished: list[Finished] = []
        while not finished and self._running:
            finished += self._cancel_overdue()
            left = until - time.monotonic()
            if left <= 0 or finished:
                break
            ready = self._ready(min(left, PATIENCE_S))
            if self._news in ready:
                self._hear(on_report)
            for reference in ready:
                if reference in self._running:
                    finished += self._collect(reference)
        return finished

    def close(self) -> None:
        """Stop all tasks; leave a cluster of others running, and end one that was started here."""
        if self._is_closed:
            return
        self._is_closed = True
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.kill(self._mailbox)
        if self._is_ours:
            self._ray.shutdown()

    def _begin(self, running: _Running) -> None:
        running.since = None
        reference = self._evaluate.remote(self._name, self._make, running.task, running.key, self._mailbox)
        self._running[reference] = running

    def _ready(self, timeout_s: float) -> list[Any]:
        """News and tasks that ended; blocks until there is one."""
        references = [self._news, *self._running]
        try:
            ready, _ = self._ray.wait(references, num_returns=1, timeout=timeout_s, fetch_local=False)
            if ready:  # then all there are, in the order in which the tasks were begun
                ready, _ = self._ray.wait(
                    references, num_returns=len(references), timeout=0, fetch_local=False
                )
        except self._ray.exceptions.RayError as error:
            raise _lost_cluster(error) from error
        return list(ready)

    def _hear(self, on_report: OnReport) -> None:
        """Pass reports on, and their answers back."""
        try:
            news: list[tuple[Key, int | None, float]] = self._ray.get(self._news)
        except self._ray.exceptions.RayError as error:
            raise _lost_cluster(error) from error
        self._news = self._mailbox.take.remote()
        by_key = {running.key: running for running in self._running.values()}
        for key, step, value in news:
            running = by_key.get(key)
            if running is None:  # of a task that was lost or cancelled
                continue
            if step is None:
                running.since = time.monotonic()
                continue
            if step not in running.answers:
                running.answers[step] = on_report(running.task.number, step, value)
            self._mailbox.answer.remote(key, running.answers[step])

    def _collect(self, reference: Any) -> list[Finished]:
        running = self._running.pop(reference)
        number = running.task.number
        errors = self._ray.exceptions
        try:
            outcome: Outcome | str = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise NasGraphError(f"A worker of the cluster failed: {_last_line(error)}") from error
        except errors.NodeDiedError:
            logger.warning("Trial %d lost its machine and begins anew elsewhere", number)
            running.num_losses += 1
            if running.num_losses <= MAX_NODE_LOSSES:
                self._begin(running)
                return []
            return [Finished(number, None)]
        except errors.RayError as error:
            logger.warning("The worker of trial %d died: %s", number, _last_line(error))
            return [Finished(number, None)]
        if isinstance(outcome, str):
            raise NasGraphError(f"A worker could not make its evaluator: {outcome}")
        return [Finished(number, outcome)]

    def _cancel_overdue(self) -> list[Finished]:
        finished = []
        for reference, running in list(self._running.items()):
            limit = running.task.time_limit_s
            if limit is None or running.since is None:
                continue
            seconds = time.monotonic() - running.since
            if seconds > OVERTIME * limit + OVERTIME_S:
                self._ray.cancel(reference, force=True)
                del self._running[reference]
                reason = f"time limit of {limit:g} s: it did not stop when told, and was killed"
                finished.append(Finished(running.task.number, failure(reason, seconds=seconds)))
        return finished


# ---- the cluster


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by default
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise NasGraphError(NO_RAY) from error


def _connect(ray: Any, config: RayConfig) -> bool:
    """Join the cluster. Whether this began, and so has to end, the connection."""
    if ray.is_initialized():
        return False
    address = config.address or os.environ.get("RAY_ADDRESS", "")
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address:
        settings["address"] = address
    else:
        settings |= {"include_dashboard": False, "num_cpus": os.cpu_count()}
        if config.temp_dir:
            settings["_temp_dir"] = config.temp_dir
    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and errors of its own
        where = f"the Ray cluster at '{address}'" if address else "a Ray cluster on this machine"
        raise NasGraphError(f"Cannot use {where}: {_last_line(error)}") from error
    return True


def _room(ray: Any, config: RayConfig) -> int:
    """Workers that the machines of the cluster have room for, or so many as are wanted.

    Raises:
        NasGraphError: If no machine has room for one.
    """
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            counts = [
                int(has.get(name, 0) / wanted + 1e-9)
                for name, wanted in (("CPU", config.num_cpus), ("GPU", config.num_gpus))
                if wanted
            ]
            room += min(counts)
    if room == 0:
        raise NasGraphError(
            f"No machine of the Ray cluster has {config.num_cpus:g} CPUs and {config.num_gpus:g} GPUs for a worker"
        )
    return config.num_workers or room


def _start_mailbox(ray: Any) -> Any:
    """The actor that carries reports, beside the driver, so that no lost machine takes it along."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()


def _lost_cluster(error: Exception) -> NasGraphError:
    return NasGraphError(
        f"The Ray cluster is lost: {_last_line(error)}. Finished trials are safe; resume the search"
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]


# ---- what runs in the cluster


class _Mailbox:
    """Carries reports from tasks to the driver, and its answers back."""

    def __init__(self) -> None:
        self._news: list[tuple[Key, int | None, float]] = []
        self._arrived = asyncio.Event()
        self._answers: dict[Key, asyncio.Future[bool]] = {}

    async def begin(self, key: Key) -> None:
        """A task has its evaluator, and begins."""
        self._news.append((key, None, 0.0))
        self._arrived.set()

    async def report(self, key: Key, step: int, value: float) -> bool:
        """A task has done a step. Answers whether it should go on."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[key] = answer
        self._news.append((key, step, value))
        self._arrived.set()
        return await answer

    async def take(self) -> list[tuple[Key, int | None, float]]:
        """What arrived since the last call; waits until something has."""
        await self._arrived.wait()
        self._arrived.clear()
        news, self._news = self._news, []
        return news

    async def answer(self, key: Key, goes_on: bool) -> None:
        """Answer the last report of a task."""
        waiting = self._answers.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(goes_on)


_evaluators: dict[str, Evaluator] = {}
"""Of this worker process, by the name of the executor that it serves."""


def _evaluate(name: str, make: bytes, task: Task, key: Key, mailbox: Any) -> Outcome | str:
    """Evaluate one task; a text if there is no evaluator."""
    ray = importlib.import_module("ray")
    if name not in _evaluators:
        try:
            made: Evaluator = pickle.loads(make)(0)
        except Exception as error:  # noqa: BLE001  told to the driver, which stops
            return reason_of(error)
        _evaluators.clear()
        _evaluators[name] = made
    mailbox.begin.remote(key)

    def on_report(step: int, value: float) -> bool:
        return bool(ray.get(mailbox.report.remote(key, step, value)))

    return measure(
        _evaluators[name],
        task.graph,
        seed=task.seed,
        time_limit_s=task.time_limit_s,
        on_report=on_report,
        parent=task.parent,
    )
