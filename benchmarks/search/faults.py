"""Kill searches at random moments, go on, and compare with one that was never killed.

    python -m benchmarks.search.faults --kills 100

For 1 worker and for 4: the search's process is killed with SIGKILL after the journal has grown by a random number of bytes, and
started again, until it was killed so many times; then it runs to its end. Reported: finished trials that were lost, trials left
running, graphs evaluated under two numbers, and whether the trajectory (number, state, value, graph, choices of every trial) is
that of a search with one worker that was never killed, with the same seed and the same `ahead`.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import forkserver
from pathlib import Path

import optuna

from benchmarks.common import save
from nasgraph.evaluate import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.search import (
    Constant,
    Executor,
    ProcessExecutor,
    SearchConfig,
    SerialExecutor,
    create_or_resume,
    history,
    load_study,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.spaces import load_space

STUDY = "study"


@dataclass(frozen=True)
class Uneven:
    """A made-up accuracy, after a time that the graph decides."""

    seconds: float

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        number = int(sha256(graph.fingerprint.encode()).hexdigest()[:8], 16) / 2**32
        time.sleep(self.seconds * number)
        value = 1 - 1 / (1 + cost_of(graph).depth) + 0.1 * number
        return Evaluation("val_accuracy", {"val_accuracy": value}, (), seed)


def search(journal: Path, *, sampler: str, workers: int, trials: int, ahead: int, seconds: float) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = load_space("nasbench201", input_shape=(1, 8, 8), num_classes=10)
    study = create_or_resume(
        open_storage(journal), STUDY, space=space, objective="val_accuracy", resume=True, seed=0,
        sampler=make_sampler(sampler, seed=0, space=space),
    )  # fmt: skip
    evaluate = Uneven(seconds)
    executor: Executor = SerialExecutor(evaluate)
    if workers > 1:
        executor = ProcessExecutor(Constant(evaluate), workers)
    try:
        run_search(space, executor, study, SearchConfig(num_trials=trials, ahead=ahead))
    finally:
        executor.close()


def in_fork(journal: Path, **options: object) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        forkserver._forkserver.__init__()  # type: ignore[misc]  # not that of the parent
        search(journal, **options)  # type: ignore[arg-type]
    finally:
        os._exit(0)


def trajectory(journal: Path) -> list[tuple[object, ...]]:
    return [
        (t.number, t.state.name, t.value, t.user_attrs.get("fingerprint"), sorted(t.params.items()))
        for t in load_study(open_storage(journal), STUDY).get_trials(deepcopy=False)
    ]


def finished(journal: Path) -> dict[int, float | None]:
    try:
        study = load_study(open_storage(journal), STUDY)
    except Exception:  # noqa: BLE001  killed before there was a study
        return {}
    return {t.number: t.value for t in study.get_trials(deepcopy=False) if t.state.is_finished()}


def kill_and_resume(journal: Path, *, kills: int, seed: int, **options: object) -> dict[str, int]:
    """Kill and go on. The bytes until a kill are such that the kills fall all along the search."""
    rng, done, lost = random.Random(seed), 0, 0
    before: dict[int, float | None] = {}
    while done < kills:
        pid = in_fork(journal, **options)
        start = journal.stat().st_size if journal.exists() else 0
        until = start + rng.randrange(1, 4000)
        ended = False
        while not journal.exists() or journal.stat().st_size < until:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                ended = True
                break
            time.sleep(0.0003)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        now = finished(journal)
        lost += sum(now.get(number) != value for number, value in before.items())
        before = now
        if ended:
            break
        done += 1
    os.waitpid(in_fork(journal, **options), 0)
    trials = load_study(open_storage(journal), STUDY).get_trials(deepcopy=False)
    graphs = [t.user_attrs["fingerprint"] for t in trials if "fingerprint" in t.user_attrs]
    return {
        "kills": done,
        "finished trials lost": lost + sum(dict(finished(journal)).get(n) != v for n, v in before.items()),
        "trials left running": sum(not t.state.is_finished() for t in trials),
        "graphs evaluated under two numbers": len(graphs) - len(set(graphs)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--samplers", nargs="*", default=["evolution", "tpe"])
    parser.add_argument("--trials", type=int, default=300)
    arguments = parser.parse_args()
    history.MAX_DEATHS = 10**6  # random kills may hit one candidate three times
    rows = []
    for sampler in arguments.samplers:
        for workers in arguments.workers:
            with tempfile.TemporaryDirectory() as name:
                folder, started = Path(name), time.monotonic()
                options = {"sampler": sampler, "trials": arguments.trials, "ahead": 4}
                os.waitpid(in_fork(folder / "whole", workers=1, seconds=0.0, **options), 0)
                row: dict[str, object] = {"sampler": sampler, "workers": workers}
                row |= kill_and_resume(
                    folder / "killed",
                    kills=arguments.kills,
                    seed=workers,
                    workers=workers,
                    seconds=0.03,
                    **options,
                )
                row["trials"] = len(trajectory(folder / "killed"))
                row["trajectory as if never killed"] = trajectory(folder / "killed") == trajectory(
                    folder / "whole"
                )
                row["minutes"] = (time.monotonic() - started) / 60
            rows.append(row)
            print(row, flush=True)
            save("search_faults", {"rows": rows})


if __name__ == "__main__":
    main()
