"""Searches with several workers: the same course whatever their number and speed, and nothing lost when some die."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import forkserver
from pathlib import Path

import pytest
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.search import SearchConfig, TrialState, create_or_resume, history, make_sampler, open_storage
from nasgraph.search.executors import Executor, SerialExecutor, Task
from nasgraph.search.loop import run_search
from nasgraph.search.processes import Constant, ProcessExecutor
from nasgraph.search.pruners import make_pruner
from nasgraph.search.records import SearchResult
from tests.search.processes import STUDY, evaluations, exit_code, fork, kill_after_growth, load, trajectory
from tests.search.toys import OBJECTIVE, Chain, evaluation, instant, quality


@dataclass(frozen=True)
class Uneven:
    """Takes a time that only the graph decides, and notes what it finished."""

    log: Path
    seconds: float

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        time.sleep(self.seconds * int(sha256(graph.fingerprint.encode()).hexdigest()[:4], 16) / 2**16)
        with self.log.open("a") as file:
            file.write(f"{graph.fingerprint}\n")
        return evaluation(quality(graph), seed=seed, worker=float(os.getpid()))


def in_fork(work: Callable[[], object]) -> int:
    """`fork`, for what starts workers: a forked process must not talk to the fork server of its parent."""

    def start_over() -> None:
        forkserver._forkserver.__init__()  # type: ignore[misc]
        work()

    return fork(start_over)


def parallel(
    journal: Path, config: SearchConfig, *, workers: int, sampler: str = "tpe", seconds: float = 0.02
) -> SearchResult:
    """Start or go on with the search in a journal."""
    evaluate = Uneven(Path(f"{journal}.log"), seconds)
    executor: Executor = (
        SerialExecutor(evaluate) if workers == 1 else ProcessExecutor(Constant(evaluate), workers)
    )
    study = create_or_resume(
        open_storage(journal), STUDY, space=Chain(), objective=OBJECTIVE, resume=True, seed=config.seed,
        sampler=make_sampler(sampler, seed=config.seed, space=Chain()),
    )  # fmt: skip
    try:
        return run_search(Chain(), executor, study, config)
    finally:
        executor.close()


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "evolution"])
def test_one_worker_and_three_take_the_same_course(tmp_path: Path, sampler: str) -> None:
    config = SearchConfig(num_trials=40, seed=5, ahead=4)
    parallel(tmp_path / "one", config, workers=1, sampler=sampler, seconds=0)
    result = parallel(tmp_path / "three", config, workers=3, sampler=sampler)
    assert trajectory(tmp_path / "three") == trajectory(tmp_path / "one")
    assert len({trial.metrics["worker"] for trial in result.trials}) == 3
    assert all(trial.metrics["worker"] != os.getpid() for trial in result.trials)
    assert sorted(evaluations(tmp_path / "three")) == sorted(evaluations(tmp_path / "one"))


def test_how_many_trials_are_hidden_decides_the_course(tmp_path: Path) -> None:
    for ahead in (1, 4):
        parallel(
            tmp_path / f"{ahead}", SearchConfig(num_trials=40, seed=5, ahead=ahead), workers=1, seconds=0
        )
    assert trajectory(tmp_path / "1") != trajectory(tmp_path / "4")


def test_a_parallel_search_killed_at_random_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_DEATHS", 1000)
    config, rng = SearchConfig(num_trials=60, seed=7, ahead=4), random.Random(0)
    parallel(tmp_path / "reference", config, workers=1, seconds=0)
    journal, kills = tmp_path / "killed", 0
    for _ in range(4):
        if not kill_after_growth(
            in_fork(lambda: parallel(journal, config, workers=2)), journal, rng.randrange(15_000)
        ):
            break
        kills += 1
    assert exit_code(in_fork(lambda: parallel(journal, config, workers=3))) == 0
    assert kills >= 2
    assert trajectory(journal) == trajectory(tmp_path / "reference")


@dataclass(frozen=True)
class Suicidal:
    """Kills its process at every graph of the given fingerprints."""

    deadly: frozenset[str]

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        if graph.fingerprint in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return instant(graph, seed=seed, keep_going=keep_going)


def new_study(**options: object):  # type: ignore[no-untyped-def]
    return create_or_resume(
        open_storage("memory"), STUDY, space=Chain(), objective=OBJECTIVE, resume=False, seed=0,
        sampler=make_sampler("random", seed=0), **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_worker_that_dies_is_replaced_and_its_candidate_fails_after_three_deaths() -> None:
    config = SearchConfig(num_trials=8, ahead=2)
    reference = run_search(Chain(), instant, new_study(), config)
    deadly = reference.trials[3].candidate.graph.fingerprint
    executor = ProcessExecutor(Constant(Suicidal(frozenset({deadly}))), 2)
    try:
        result = run_search(Chain(), executor, new_study(), config)
    finally:
        executor.close()
    assert [t.state for t in result.trials].count(TrialState.FAILED) == 1
    assert result.trials[3].state == TrialState.FAILED
    assert "died 3 times" in result.trials[3].reason
    assert [t.candidate for t in result.trials] == [t.candidate for t in reference.trials]


@dataclass(frozen=True)
class Reporting:
    """Reports ten steps; some graphs do worse from the first on."""

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        for step in range(10):
            if not keep_going(step, quality(graph) * step):
                return evaluation(quality(graph) * step, seed=seed)
        return evaluation(quality(graph), seed=seed)


def test_workers_report_and_are_pruned() -> None:
    study = new_study(pruner=make_pruner("median", num_steps=10, warmup_steps=1))
    executor = ProcessExecutor(Constant(Reporting()), 2)
    try:
        result = run_search(Chain(), executor, study, SearchConfig(num_trials=20))
    finally:
        executor.close()
    states = [trial.state for trial in result.trials]
    assert states.count(TrialState.PRUNED) >= 3
    assert states.count(TrialState.COMPLETE) >= 5
    steps = [len(t.intermediate_values) for t in study.trials if t.state == OptunaState.PRUNED]
    assert max(steps) < 10


@dataclass(frozen=True)
class Deaf:
    """Never asks whether to stop."""

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        time.sleep(60)
        return evaluation(0.0)


def test_a_worker_that_does_not_heed_the_time_limit_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasgraph.search.processes.OVERTIME_S", 0.2)
    executor = ProcessExecutor(Constant(Deaf()), 1)
    try:
        result = run_search(
            Chain(), executor, new_study(), SearchConfig(num_trials=1, trial_time_limit_s=0.1)
        )
    finally:
        executor.close()
    assert result.trials[0].state == TrialState.FAILED
    assert "time limit of 0.1 s" in result.trials[0].reason


def test_workers_end_with_the_search_that_was_killed(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    pid = in_fork(lambda: parallel(journal, SearchConfig(num_trials=500, ahead=4), workers=2, seconds=0.05))
    while len(workers := {t.user_attrs["metrics"]["worker"] for t in finished(journal)}) < 2:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    exit_code(pid)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{int(worker)}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(journal: Path):  # type: ignore[no-untyped-def]
    try:
        return load(journal).get_trials(deepcopy=False, states=[OptunaState.COMPLETE])
    except KeyError:  # there is no study yet
        return []


def test_a_search_that_breaks_off_leaves_nothing_running_in_an_executor_that_goes_on() -> None:
    class Stop:
        """A listener that gives up after the first trial."""

        def on_start(self, info): ...  # type: ignore[no-untyped-def]
        def on_screened(self, screened, *, total): ...  # type: ignore[no-untyped-def]
        def on_kept(self, screened): ...  # type: ignore[no-untyped-def]
        def on_end(self, result): ...  # type: ignore[no-untyped-def]
        def on_trial(self, result):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    config = SearchConfig(num_trials=6, ahead=2)
    executor = ProcessExecutor(Constant(instant), 2)
    try:
        first = run_search(Chain(), executor, new_study(), config, listeners=[Stop()])
        second = run_search(Chain(), executor, new_study(), config)
    finally:
        executor.close()
    assert (first.stopped_because, len(first.trials)) == ("interrupted", 1)
    alone = run_search(Chain(), instant, new_study(), config)
    assert [t.values for t in second.trials] == [t.values for t in alone.trials]


def broken(worker: int) -> Suicidal:
    raise OSError(f"no data for worker {worker}")


def test_workers_that_cannot_make_their_evaluator_stop_the_search() -> None:
    executor = ProcessExecutor(broken, 2)
    try:
        with pytest.raises(NasGraphError, match="could not make its evaluator: OSError: no data for worker"):
            run_search(Chain(), executor, new_study(), SearchConfig(num_trials=4))
    finally:
        executor.close()


def test_an_evaluator_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be sent to other processes"):
        ProcessExecutor(lambda _: instant, 2)
    with pytest.raises(ConfigError, match="at least one worker"):
        ProcessExecutor(Constant(instant), 0)


def test_a_process_executor_returns_what_a_serial_one_does() -> None:
    space, graphs = Chain(), []
    result = run_search(space, instant, new_study(), SearchConfig(num_trials=3))
    graphs = [trial.candidate.graph for trial in result.trials]
    outcomes = []
    for executor in (SerialExecutor(instant), ProcessExecutor(Constant(instant), 2)):
        values: dict[int, float] = {}
        for number, graph in enumerate(graphs):
            executor.submit(Task(number, graph, seed=number))
        while len(values) < len(graphs):
            for done in executor.wait(lambda *_: True, timeout_s=10.0):
                assert done.outcome is not None
                assert done.outcome.evaluation is not None
                values[done.number] = done.outcome.evaluation.value
        executor.close()
        outcomes.append(dict(sorted(values.items())))
    assert outcomes[0] == outcomes[1]
