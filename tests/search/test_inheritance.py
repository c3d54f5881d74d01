"""Searches whose children start from what their parents learnt."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from nasgraph.data import SearchData, load_dataset
from nasgraph.evaluate import Evaluation, Evaluator, TrainConfig, TrainEvaluator, never_stop
from nasgraph.evaluate.evaluation import KeepGoing
from nasgraph.evaluate.heirs import INHERITED_SHARE, keep_weights, read_weights
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import initial_parameters
from nasgraph.search import (
    ProcessExecutor,
    SearchConfig,
    SearchResult,
    Study,
    WeightsCleaner,
    create_or_resume,
    open_storage,
    run_search,
)
from nasgraph.search.executors import Executor
from nasgraph.search.strategies.evolution import EvolutionConfig, RegularisedEvolution
from nasgraph.seeding import generator
from nasgraph.spaces import SearchSpace, load_space, mutate, sample

NUM_TRIALS = 9
CONFIG = TrainConfig(epochs=1, batch_size=64)


def _data() -> SearchData:
    return load_dataset("digits").search.subset(160, 100, seed=0)


def _space() -> SearchSpace:
    return load_space("mlp", input_shape=(1, 8, 8), num_classes=10)


def _evaluator(weights: Path | None, worker: int = 0) -> TrainEvaluator:
    torch.set_num_threads(1)
    return TrainEvaluator(_data(), CONFIG, weights=weights)


@dataclass
class _Forgetful:
    """Loses what was learnt before a trial begins."""

    inner: TrainEvaluator
    root: Path

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        return self.inner(graph, seed=seed, keep_going=keep_going)

    def from_parent(self, parent: str) -> Evaluator:
        for file in (self.root / parent).glob("*.safetensors"):
            file.write_bytes(b"damaged")
        return self.inner.from_parent(parent)


def _study(folder: Path, space: SearchSpace, config: EvolutionConfig, *, resume: bool = False) -> Study:
    return create_or_resume(
        open_storage(folder / "journal.log"),
        "heirs",
        space=space,
        objective="val_accuracy",
        resume=resume,
        seed=0,
        data="digits",
        sampler=RegularisedEvolution(space, seed=0, config=config),
    )


def _search(
    folder: Path,
    evaluate: Evaluator | Executor,
    *,
    trials: int = NUM_TRIALS,
    resume: bool = False,
    ahead: int = 1,
) -> SearchResult:
    space = _space()
    study = _study(folder, space, EvolutionConfig(population=3, sample=2), resume=resume)
    return run_search(space, evaluate, study, SearchConfig(num_trials=trials, seed=0, ahead=ahead))


def _numbers(result: SearchResult) -> list[tuple[int | None, float, float]]:
    return [
        (trial.parent, trial.metrics.get(INHERITED_SHARE, -1.0), trial.metrics["val_accuracy"])
        for trial in result.trials
    ]


def test_children_of_an_evolution_start_from_the_weights_of_their_parents(tmp_path: Path) -> None:
    result = _search(tmp_path, _evaluator(tmp_path / "weights"))
    first, children = result.trials[:3], result.trials[3:]
    assert all(trial.parent is None and INHERITED_SHARE not in trial.metrics for trial in first)
    assert all(trial.parent is not None and trial.parent < trial.number for trial in children)
    assert all(trial.metrics[INHERITED_SHARE] > 0.3 for trial in children)
    by_number = {trial.number: trial for trial in result.trials}
    for trial in children:
        assert trial.parent is not None
        parent = by_number[trial.parent].candidate.architecture
        ours = dict(trial.candidate.architecture.choices)
        common = [name for name, answer in parent.choices if ours.get(name) == answer]
        assert len(common) >= len(parent.choices) // 2


def test_without_weights_an_evolution_is_what_it_was_and_records_its_parents(tmp_path: Path) -> None:
    result = _search(tmp_path, _evaluator(None), trials=5)
    assert [trial.parent is not None for trial in result.trials] == [False, False, False, True, True]
    assert not any(INHERITED_SHARE in trial.metrics for trial in result.trials)


def test_a_search_that_was_broken_off_goes_on_with_the_same_inheritance(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = _search(tmp_path / "whole", _evaluator(tmp_path / "whole" / "weights"))
    _search(tmp_path / "parts", _evaluator(tmp_path / "parts" / "weights"), trials=5)
    parts = _search(tmp_path / "parts", _evaluator(tmp_path / "parts" / "weights"), resume=True)
    assert _numbers(parts) == _numbers(whole)


def test_several_workers_inherit_as_one_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = _search(tmp_path / "one", _evaluator(tmp_path / "one" / "weights"), trials=7, ahead=2)
    executor = ProcessExecutor(partial(_evaluator, tmp_path / "two" / "weights"), 2)
    try:
        two = _search(tmp_path / "two", executor, trials=7, ahead=2)
    finally:
        executor.close()
    assert _numbers(two) == _numbers(one)
    assert any(share > 0 for _, share, _ in _numbers(two))


def test_a_parent_whose_weights_are_gone_costs_a_warning_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate = _Forgetful(_evaluator(tmp_path / "weights"), tmp_path / "weights")
    with caplog.at_level(logging.WARNING):
        result = _search(tmp_path, evaluate, trials=5)
    assert [trial.metrics.get(INHERITED_SHARE) for trial in result.trials] == [None, None, None, 0.0, 0.0]
    assert sum("starts anew" in message for message in caplog.messages) == 2
    assert all(trial.parent is not None for trial in result.trials[3:])


def test_a_child_with_its_parents_weights_is_ahead_of_one_from_scratch_at_an_equal_budget(
    tmp_path: Path,
) -> None:
    evaluate, space, rng = _evaluator(tmp_path / "weights"), _space(), generator(5, "pairs")
    ahead = []
    for number in range(4):
        parent = sample(space, rng)
        child = mutate(space, parent.architecture, rng)
        evaluate(parent.graph, seed=number, keep_going=never_stop)
        scratch = evaluate(child.graph, seed=number, keep_going=never_stop)
        heir = evaluate.from_parent(parent.graph.fingerprint)(child.graph, seed=number, keep_going=never_stop)
        ahead.append(heir.value - scratch.value)
    assert sum(ahead) / len(ahead) > 0.02


def test_what_is_kept_is_read_back_bit_by_bit_and_damage_is_told(tmp_path: Path) -> None:
    graph = sample(_space(), generator(1, "kept")).graph
    state = initial_parameters(graph, seed=0)
    state |= {
        f"n{i}.running_{what}": torch.rand(graph.shapes[i])
        for i, node in enumerate(graph.nodes)
        if node.op == "batch_norm"
        for what in ("mean", "var")
    }
    keep_weights(tmp_path, graph, state)
    read_graph, read = read_weights(tmp_path, graph.fingerprint)
    assert read_graph == graph
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())
    (tmp_path / graph.fingerprint / "network.safetensors").write_bytes(b"")
    with pytest.raises(Exception, match="damaged"):
        read_weights(tmp_path, graph.fingerprint)


def test_the_cleaner_keeps_the_latest_weights_and_none_when_the_search_is_finished(tmp_path: Path) -> None:
    root = tmp_path / "weights"
    space = _space()
    study = _study(tmp_path, space, EvolutionConfig(population=2, sample=1))
    counts: list[int] = []

    class Counter(WeightsCleaner):
        def on_trial(self, result):  # type: ignore[no-untyped-def]
            super().on_trial(result)
            counts.append(len(list(root.iterdir())))

    run_search(
        space, _evaluator(root), study, SearchConfig(num_trials=6, seed=0), listeners=[Counter(root, kept=3)]
    )
    assert counts == [1, 2, 3, 3, 3, 3]
    assert list(root.iterdir()) == []
