"""A search whose trainings survive the death of its process."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from nasgraph.data import SearchData, load_dataset
from nasgraph.evaluate import Evaluation, KeepGoing, TrainConfig, TrainEvaluator
from nasgraph.ir import ComputationalGraph
from nasgraph.search import SearchConfig, create_or_resume, make_sampler, open_storage, run_search
from nasgraph.search.checkpoint_cleaner import CheckpointCleaner
from nasgraph.spaces import load_space
from tests.search.processes import STUDY, exit_code, fork, trajectory

EPOCHS = 6
TRIALS = 3


@pytest.fixture(scope="module")
def few_digits() -> SearchData:
    return load_dataset("digits").search.subset(120, 60, seed=0)


class Noting:
    """Notes every epoch that ends, and takes its time."""

    def __init__(self, evaluate: TrainEvaluator, log: Path) -> None:
        self.evaluate = evaluate
        self.log = log

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        def note(step: int, value: float) -> bool:
            with self.log.open("a") as file:
                file.write(f"{graph.fingerprint} {step} {value!r}\n")
            time.sleep(0.05)
            return keep_going(step, value)

        return self.evaluate(graph, seed=seed, keep_going=note)


def search(folder: Path, data: SearchData) -> None:
    torch.set_num_threads(1)
    space = load_space("mlp", input_shape=data.input_shape, num_classes=data.num_classes)
    study = create_or_resume(
        open_storage(folder / "journal"), STUDY, space=space, objective="val_accuracy", resume=True, seed=2,
        sampler=make_sampler("random", seed=2),
    )  # fmt: skip
    kept = folder / "checkpoints"
    config = TrainConfig(epochs=EPOCHS, batch_size=40, noise_std=0.1)
    evaluate = Noting(TrainEvaluator(data, config, checkpoints=kept), folder / "log")
    run_search(
        space, evaluate, study, SearchConfig(num_trials=TRIALS, seed=2), listeners=[CheckpointCleaner(kept)]
    )


def num_epochs(folder: Path) -> int:
    log = folder / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_killed_search_goes_on_in_the_middle_of_a_training_and_ends_the_same(
    few_digits: SearchData, tmp_path: Path
) -> None:
    for name in ("reference", "killed"):
        (tmp_path / name).mkdir()
    assert exit_code(fork(lambda: search(tmp_path / "reference", few_digits))) == 0
    killed, kills = tmp_path / "killed", 0
    for target in (2, 9, 11):
        pid = fork(lambda: search(killed, few_digits))
        while num_epochs(killed) < target:
            assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        assert exit_code(pid) == -signal.SIGKILL
        kills += 1
    assert exit_code(fork(lambda: search(killed, few_digits))) == 0

    assert trajectory(killed / "journal") == trajectory(tmp_path / "reference" / "journal")
    reference = Counter((tmp_path / "reference" / "log").read_text().splitlines())
    again = Counter((killed / "log").read_text().splitlines())
    assert set(again) == set(reference)
    # Each kill costs at most the answer about one epoch, or the one that was underway: no training began anew.
    assert TRIALS * EPOCHS <= sum(again.values()) <= TRIALS * EPOCHS + kills
    assert not list((killed / "checkpoints").iterdir())
