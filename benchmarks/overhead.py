"""CPU time of the search loop itself: sample, build, fingerprint, store, track; the evaluation is excluded.

    python -m benchmarks.overhead --trials 10000 --sampler evolution local-search bayesian

Journal storage and MLflow on SQLite, both on disk, as in a real search. The evaluator returns at once with 20,000 numbers
as "weights", so that writing artifacts is part of the cost. Each configuration runs in a process of its own; its row
replaces an earlier one of the same space and sampler in the result file.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import RESULTS, save
from nasgraph.evaluate import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.mlflow_client import default_tracking_uri
from nasgraph.search import (
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchResult,
    TrialResult,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.spaces import load_space
from nasgraph.tracking import MlflowListener

MARKS = (100, 1000, 5000, 10_000)
WEIGHTS = {"weight": torch.zeros(20_000)}


class NoEvaluation:
    """Gives each graph a fixed value and notes the CPU time of doing so."""

    def __init__(self) -> None:
        self.spent = 0.0

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        started = time.process_time()
        value = int(graph.fingerprint, 16) / 16**16
        metrics = {
            "val_accuracy": value,
            "val_loss": 1 - value,
            "train_seconds": 0.0,
            "num_parameters": 20_000.0,
        }
        result = Evaluation("val_accuracy", metrics, (value,), seed, False, WEIGHTS)
        self.spent += time.process_time() - started
        return result


class Clock:
    """Listener that notes the CPU time after each trial."""

    def __init__(self, evaluator: NoEvaluation) -> None:
        self._evaluator = evaluator
        self.cpu: list[float] = []

    def on_start(self, info: SearchInfo) -> None:
        self._started = time.process_time()

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None: ...

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None: ...

    def on_trial(self, result: TrialResult) -> None:
        self.cpu.append(time.process_time() - self._started - self._evaluator.spent)

    def on_end(self, result: SearchResult) -> None:
        self.duplicates = result.num_duplicates


def once(space_name: str, sampler: str, trials: int, limit_s: float) -> dict[str, object]:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        space = load_space(space_name, input_shape=(1, 8, 8), num_classes=10)
        study = create_or_resume(
            open_storage(folder / "study.journal"), "s", space=space, objective="val_accuracy", resume=False,
            seed=0, sampler=make_sampler(sampler, seed=0, space=space),
        )  # fmt: skip
        evaluator = NoEvaluation()
        clock = Clock(evaluator)
        tracker = MlflowListener(default_tracking_uri(folder), storage=str(folder / "study.journal"))
        config = SearchConfig(num_trials=trials, seed=0, time_limit_s=limit_s)
        run_search(space, evaluator, study, config, listeners=[tracker, clock])
        summary = tracker.summary()
    at = {}
    for mark in MARKS:
        if len(clock.cpu) >= mark:
            window = min(50, mark // 2)
            at[str(mark)] = {
                "mean so far": 1000 * clock.cpu[mark - 1] / mark,
                f"last {window}": 1000 * (clock.cpu[mark - 1] - clock.cpu[mark - 1 - window]) / window,
            }
    return {"space": space_name, "sampler": sampler, "trials": len(clock.cpu), "duplicates": clock.duplicates,
            "CPU ms per trial": at, "writes missing in MLflow": summary.failed + summary.pending}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", nargs="*", default=["nasbench201", "convnet"])
    parser.add_argument("--sampler", nargs="*", default=["random", "tpe", "nsgaii"])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--limit", type=float, default=1800.0, help="wall seconds per configuration")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments.space[0], arguments.sampler[0], arguments.trials, arguments.limit)))
        return
    path = RESULTS / "overhead.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for space in arguments.space:
        for sampler in arguments.sampler:
            command = [sys.executable, "-m", "benchmarks.overhead", "--once", "--space", space, "--sampler", sampler,
                       "--trials", str(arguments.trials), "--limit", str(arguments.limit)]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows = [row for row in rows if (row["space"], row["sampler"]) != (space, sampler)]
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(rows[-1], flush=True)
            save("overhead", {"rows": rows})


if __name__ == "__main__":
    main()
