"""How much faster two processes are than one, on the same trials.

    python -m benchmarks.search.parallel --repeats 5

Real trainings on the bundled digits. One worker and two, in turn, so that a busy moment of the machine meets both; the same seed and
the same `ahead`, so the trials are the same, which is checked. The clock starts when every worker has made its first
evaluation ready (a warm-up search), as in a search of more than a minute. With `--drivers URL` also two searches that share one
study in that storage, against one.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import optuna
import torch

from benchmarks.common import save
from nasgraph.data import load_dataset
from nasgraph.evaluate import Evaluator, TrainConfig, TrainEvaluator
from nasgraph.search import (
    Executor,
    ProcessExecutor,
    SearchConfig,
    SearchResult,
    SerialExecutor,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.spaces import load_space


def make_evaluator(epochs: int, worker: int) -> Evaluator:  # noqa: ARG001  all alike
    torch.set_num_threads(1)
    return TrainEvaluator(load_dataset("digits").search, TrainConfig(epochs=epochs))


def search(executor: Executor, storage: str | Path, study: str, *, trials: int, seed: int) -> SearchResult:
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    opened = create_or_resume(
        open_storage(storage), study, space=space, objective="val_accuracy", resume=True, or_create=True, seed=seed,
        sampler=make_sampler("evolution", seed=seed, space=space),
    )  # fmt: skip
    return run_search(space, executor, opened, SearchConfig(num_trials=trials, seed=seed, ahead=4))


def driver(url: str, study: str, *, trials: int, epochs: int) -> None:
    search(SerialExecutor(make_evaluator(epochs, 0)), url, study, trials=trials, seed=0)


def forked(url: str, study: str, *, trials: int, epochs: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            driver(url, study, trials=trials, epochs=epochs)
        finally:
            os._exit(0)
    return pid


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--drivers", help="URL of a database; an empty one")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    executors = {n: ProcessExecutor(partial(make_evaluator, arguments.epochs), n) for n in (1, 2)}
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        for workers, executor in executors.items():
            search(executor, Path(name) / f"warm{workers}", "s", trials=4, seed=99)
        for repeat in range(arguments.repeats):
            found = []
            for workers, executor in executors.items():
                journal = Path(name) / f"{workers}-{repeat}"
                started = time.monotonic()
                result = search(executor, journal, "s", trials=arguments.trials, seed=repeat)
                seconds[workers].append(time.monotonic() - started)
                found.append([(t.number, t.candidate.graph.fingerprint, t.values) for t in result.trials])
            assert found[0] == found[1], "the course depends on the number of workers"
    for executor in executors.values():
        executor.close()
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    row: dict[str, object] = {
        "trials": arguments.trials,
        "seconds with 1 worker": seconds[1],
        "seconds with 2 workers": seconds[2],
        "speed-up": ratios,
        "median speed-up": statistics.median(ratios),
        "load at the end": os.getloadavg(),
    }
    if arguments.drivers:
        options = {"trials": arguments.trials, "epochs": arguments.epochs}
        ratios = []
        for repeat in range(arguments.repeats):
            times = []
            for count in (1, 2):
                started = time.monotonic()
                study = f"drivers-{count}-{repeat}-{os.getpid()}"
                for pid in [forked(arguments.drivers, study, **options) for _ in range(count)]:
                    os.waitpid(pid, 0)
                times.append(time.monotonic() - started)
            ratios.append(times[0] / times[1])
        row["speed-up of two searches on one database"] = ratios
    print(row)
    save("search_parallel", row)


if __name__ == "__main__":
    main()
