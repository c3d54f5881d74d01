"""Checkpoints go when their trials are told."""

from pathlib import Path

from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.search import SearchConfig, SearchListener, create_or_resume, open_storage, run_search
from nasgraph.search.checkpoint_cleaner import CheckpointCleaner
from tests.search.toys import OBJECTIVE, Chain, evaluation, quality


def test_a_trial_that_is_told_leaves_nothing_and_others_are_left_alone(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        folder = tmp_path / f"{graph.fingerprint}-{seed}" / "random"
        folder.mkdir(parents=True)
        (folder / "training.json").write_text("{}")
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        if len(seen) == 2:
            raise RuntimeError("a trial that fails is told, too")
        return evaluation(quality(graph), seed=seed)

    (tmp_path / "underway-1").mkdir()
    space = Chain()
    study = create_or_resume(
        open_storage("memory"), "s", space=space, objective=OBJECTIVE, resume=False, seed=0
    )
    cleaner = CheckpointCleaner(tmp_path)
    assert isinstance(cleaner, SearchListener)
    run_search(space, evaluate, study, SearchConfig(num_trials=5), listeners=[cleaner])
    assert [len(names) for names in seen] == [2] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["underway-1"]


def test_the_end_removes_what_a_kill_left_behind(tmp_path: Path) -> None:
    space = Chain()
    study = create_or_resume(
        open_storage("memory"), "s", space=space, objective=OBJECTIVE, resume=False, seed=0
    )

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        return evaluation(quality(graph), seed=seed)

    first = run_search(space, evaluate, study, SearchConfig(num_trials=2))
    for trial in first.trials:
        (tmp_path / f"{trial.candidate.graph.fingerprint}-7").mkdir()
    run_search(space, evaluate, study, SearchConfig(num_trials=3), listeners=[CheckpointCleaner(tmp_path)])
    assert list(tmp_path.iterdir()) == []
