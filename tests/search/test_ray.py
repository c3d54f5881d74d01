"""A search on a Ray cluster finds what it finds in one process, and survives the loss of a machine.

A real cluster of three nodes on this machine, which costs half a minute.
"""

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation, Evaluator, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.search import (
    SearchConfig,
    SearchResult,
    TrialResult,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.search.executors import Executor
from nasgraph.search.processes import Constant
from nasgraph.search.ray_executor import RayConfig, RayExecutor
from nasgraph.spaces import SearchSpace
from tests.search.toys import OBJECTIVE, Chain, Diary, evaluation, quality

ROOT = Path(__file__).resolve().parents[2]
has_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'nasgraph[ray]'"
)
AHEAD = 4


class Steps:
    """Reports three steps; notes in a folder which node works on what, and until when."""

    def __init__(self, folder: Path, *, seconds: float = 0.0, deadly: str = "") -> None:
        self.folder = folder
        self.seconds = seconds
        self.deadly = deadly

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        note = self.folder / f"{graph.fingerprint}-{os.getpid()}"
        note.write_text(_node())
        if graph.fingerprint == self.deadly:
            os._exit(9)
        stopped = False
        for step in range(3):
            time.sleep(self.seconds / 3)
            stopped = not keep_going(step, quality(graph) * (step + 1) / 3)
            if stopped:
                break
        note.unlink()
        return evaluation(quality(graph), seed=seed)


def _node() -> str:
    ray: Any = import_module("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else "none"


class Broken:
    """Cannot make its evaluator."""

    def __call__(self, worker: int) -> Evaluator:
        raise RuntimeError("no data on this machine")


def search(
    evaluate: Evaluator | Executor, *, trials: int = 12, pruner: optuna.pruners.BasePruner | None = None, listener: Any = None,
    place: Path | str = "memory",
) -> SearchResult:  # fmt: skip
    space: SearchSpace = Chain(num_layers=4)
    study = create_or_resume(
        open_storage(place), "toy", space=space, objective=OBJECTIVE, resume=False, seed=1,
        sampler=make_sampler("tpe", seed=1), pruner=pruner,
    )  # fmt: skip
    config = SearchConfig(num_trials=trials, seed=1, ahead=AHEAD)
    return run_search(space, evaluate, study, config, listeners=[listener] if listener else [])


def course(result: SearchResult) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state, trial.candidate.graph.fingerprint, dict(trial.metrics), trial.reason)
        for trial in result.trials
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs and two nodes with one each. Tests may lose a node if they add another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        ray: Any = import_module("ray")
        made = import_module("ray.cluster_utils").Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


slow_with_ray = [
    has_ray,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def marked(function: Any) -> Any:
    for mark in slow_with_ray:
        function = mark(function)
    return function


@marked
def test_the_course_is_that_of_one_process_and_pruning_too(cluster: Any, notes: Path) -> None:
    middle = sorted(trial.metrics[OBJECTIVE] for trial in search(Steps(notes)).trials)[6]
    pruner = optuna.pruners.ThresholdPruner(lower=middle * 2 / 3, n_warmup_steps=1)
    executor = RayExecutor(Constant(Steps(notes)))
    assert isinstance(executor, Executor)
    assert executor.num_workers == 2
    ours = search(executor, pruner=pruner)
    executor.close()
    executor.close()
    alone = search(Steps(notes), pruner=pruner)
    assert course(ours) == course(alone)
    assert {trial.state.value for trial in ours.trials} == {"complete", "pruned"}


def nodes_at_work(notes: Path) -> set[str]:
    busy = set()
    for note in notes.iterdir():
        with suppress(FileNotFoundError):  # its trial has ended since
            busy.add(note.read_text())
    return busy - {""}


@marked
def test_a_node_that_is_lost_in_a_trial_costs_no_trial(cluster: Any, notes: Path, tmp_path: Path) -> None:
    lost: list[str] = []

    def kill() -> None:
        """Removes a node, without notice, on which a trial is underway: the driver goes on meanwhile."""
        deadline = time.monotonic() + 60
        while not (busy := nodes_at_work(notes)):
            assert time.monotonic() < deadline, "no trial began"
            time.sleep(0.02)
        [victim] = [node for node in cluster.list_all_nodes() if node.node_id == sorted(busy)[0]]
        cluster.remove_node(victim, allow_graceful=False)
        lost.append(victim.node_id)

    class Kill(Diary):
        def on_trial(self, result: TrialResult) -> None:
            super().on_trial(result)
            if len(self.trials) == 3:
                killers.append(threads.submit(kill))

    killers: list[Future[None]] = []
    executor = RayExecutor(Constant(Steps(notes, seconds=1.5)))
    with ThreadPoolExecutor(1) as threads:
        result = search(executor, listener=Kill(), place=tmp_path / "toy.journal")
        for killer in killers:
            killer.result()
    executor.close()
    cluster.add_node(num_cpus=1)
    assert len(lost) == 1
    assert any(note.read_text() == lost[0] for note in notes.iterdir()), "a trial was underway on it"
    assert [trial.state.value for trial in result.trials] == ["complete"] * 12
    assert result.stopped_because == "finished"
    for note in notes.iterdir():
        note.unlink()
    assert course(result) == course(search(Steps(notes)))


@marked
def test_a_candidate_that_kills_its_worker_fails_and_the_others_do_not(cluster: Any, notes: Path) -> None:
    victim = search(Steps(notes)).trials[4]
    executor = RayExecutor(Constant(Steps(notes, deadly=victim.candidate.graph.fingerprint)))
    result = search(executor)
    executor.close()
    failed = [trial for trial in result.trials if trial.state.value == "failed"]
    assert [trial.candidate.graph.fingerprint for trial in failed] == [victim.candidate.graph.fingerprint]
    assert "the process died 3 times" in failed[0].reason
    assert len(result.trials) == 12


@marked
def test_a_worker_without_an_evaluator_stops_the_search_with_the_reason(cluster: Any) -> None:
    executor = RayExecutor(Broken())
    with pytest.raises(
        NasGraphError, match="could not make its evaluator: RuntimeError: no data on this machine"
    ):
        search(executor)
    executor.close()


@marked
def test_what_no_machine_has_is_refused_at_once(cluster: Any, notes: Path) -> None:
    with pytest.raises(NasGraphError, match="No machine of the Ray cluster has 1 CPUs and 1 GPUs"):
        RayExecutor(Constant(Steps(notes)), RayConfig(num_gpus=1))
    executor = RayExecutor(Constant(Steps(notes)), RayConfig(num_cpus=0.5))
    assert executor.num_workers == 4
    executor.close()


def test_without_ray_the_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NasGraphError, match=r"pip install 'nasgraph\[ray\]'"):
        RayExecutor(Constant(Steps(tmp_path)))


@pytest.mark.parametrize("wrong", [{"num_cpus": -1}, {"num_workers": -2}, {"num_cpus": 0}])
def test_senseless_resources_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        RayConfig(**wrong)


def test_an_evaluator_that_cannot_travel_is_refused_before_a_cluster_starts() -> None:
    with pytest.raises(ConfigError, match="Define it in a module"):
        RayExecutor(lambda worker: Steps(Path(str(worker))))
