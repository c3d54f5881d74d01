"""The cascade against plain random search with full training: CPU time until the same accuracy is reached.

    nice -n 10 python -m benchmarks.search.cascade --seeds 5            (measure what is missing, then report)
    python -m benchmarks.search.cascade --report                        (report only)

Both train for real, on a part of Fashion-MNIST and of CIFAR-10 (16 x 16 pixels), in the space `convnet`, from random weights, with one
protocol: `--epochs` epochs of full training. Random search trains `--random` candidates in full. A cascade works in rounds:

    cascade            48 candidates -> nwot (half) -> GHN score (rank sum of accuracy with predicted weights and log of parameters)
                       -> 4 short trainings (`--short` epochs; one of the four drawn at random) -> full training of the best one
    no ghn             the same without the GHN: 48 -> nwot -> 4 -> 1
    short only         4 random candidates -> 4 short trainings -> 1

A best one is the best short training of the search so far that was not trained in full yet. Rounds follow each other until `--share` of the
CPU time that random search took with this seed is spent. The incumbent is the fully trained candidate of the best validation accuracy. Its
accuracy on test data is what counts in the report (measured outside of the clock): the validation accuracy of the best of
many is inflated by the choice, and more so the more there are to choose from. Both are reported.

The clock is the CPU time of this process. The shipped hypernetworks have seen all training data of their data set (once, before any search):
that is not counted, and is what shipping them is for. All trainings start from random weights and see the small part only.
Rows are written as they come; a run that was cut off is begun anew.

A first protocol (1,000 examples, 8 epochs of full training, 2 of short training) was given up after one seed: there a short training
cost a quarter of a full one, and half of the cascade's time went into short trainings. It is a change in the cascade's favour, made after a miss:

    method (Fashion-MNIST, one seed)    CPU s in all    test accuracy of the incumbent
    random, 20 full trainings           131             .8102
    cascade                             43.7            .8062 at 23.8 s (.18 of it), .8102 at 43.7 s (.33)
    no ghn                              56.9            .822 at 27.7 s (.21)

Its rows are kept (`cascade_8_epochs.rows.jsonl`):

    python -m benchmarks.search.cascade --train 1000 --validation 1000 --epochs 8 --short 2 --share 0.3 --rows FILE
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
import torch

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import SearchData, Split, load_dataset
from nasgraph.evaluate import (
    Evaluation,
    PredictedWeightsConfig,
    PredictedWeightsScorer,
    TrainConfig,
    TrainEvaluator,
    measure,
    never_stop,
)
from nasgraph.hyper import load_ghn
from nasgraph.modules import Program
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_records import CascadeConfig, Stage
from nasgraph.search.cascade_rounds import rounds_of
from nasgraph.search.cascade_stages import ghn_stage, proxy_stage
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.records import TrialState
from nasgraph.search.trial_chooser import TrialChooser
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import Candidate, SearchSpace, load_space, realise, sample

ROWS = RESULTS / "cascade.rows.jsonl"
DATA = ("fashion-mnist", "cifar10")
METHODS = ("random", "cascade", "no ghn", "short only")
Row = dict[str, object]


@dataclass
class Clock:
    """CPU seconds of this process, less those of what is not part of a search."""

    began: float = field(default_factory=time.process_time)
    outside: float = 0.0

    def spent(self) -> float:
        return time.process_time() - self.began - self.outside


@dataclass
class Task:
    """One data set with all that is needed to search on it."""

    test: Split
    search: SearchData
    space: SearchSpace
    scorer: PredictedWeightsScorer
    settings: argparse.Namespace

    def train(self, candidate: Candidate, epochs: int, seed: int) -> Evaluation:
        evaluate = TrainEvaluator(self.search, TrainConfig(epochs=epochs, batch_size=32))
        own = derive_seed(seed, "trial", candidate.graph.fingerprint) & 0x7FFFFFFF
        return evaluate(candidate.graph, seed=own, keep_going=never_stop)

    def train_fully(self, candidate: Candidate, seed: int, clock: Clock, full: list[Row]) -> None:
        """Append a row to those of a search; test data are looked at if it is the best so far on validation data."""
        result = self.train(candidate, self.settings.epochs, seed)
        spent, before = clock.spent(), time.process_time()
        row: Row = {"cpu": round(spent, 3), "val": result.value}
        if all(result.value > float(str(each["val"])) for each in full):
            program = Program(candidate.graph)
            _, row["test"] = measure(program, result.state, self.test, batch_size=256)
        clock.outside += time.process_time() - before
        costs = {name: result.metrics[name] for name in ("num_parameters", "multiply_adds")}
        full.append({**row, **costs})


def load_task(name: str, settings: argparse.Namespace) -> Task:
    data = load_dataset(name, data_dir=SHARED_DATA, image_size=16)
    search = data.search.subset(settings.train, settings.validation, seed=0)
    space = load_space("convnet", input_shape=data.input_shape, num_classes=data.num_classes)
    ghn, _ = load_ghn(Path(__file__).parents[2] / "zoo" / f"ghn-{name}")
    test = Split(data.test.inputs[: settings.test], data.test.targets[: settings.test])
    return Task(
        test,
        search,
        space,
        PredictedWeightsScorer(ghn, search, PredictedWeightsConfig(num_examples=256)),
        settings,
    )


def random_search(task: Task, seed: int) -> Row:
    clock, full = Clock(), list[Row]()
    for draw in range(task.settings.random):
        task.train_fully(sample(task.space, generator(seed, "plain", draw)), seed, clock, full)
    return {"full": full, "cpu": clock.spent()}


def stages_of(method: str, task: Task) -> list[Stage]:
    train = task.search.train
    proxies = proxy_stage(Split(train.inputs[:32], train.targets[:32]), keep=0.5, names=("nwot",))
    ghn = ghn_stage(task.scorer, keep=0.2)
    return {"cascade": [proxies, ghn], "no ghn": [proxies]}[method]


def rounds(method: str, task: Task, seed: int) -> Callable[[optuna.Study, Experience], list[Candidate]]:
    """What the next round chooses."""
    kept = task.settings.kept
    if method == "short only":
        return lambda _, experience: [
            sample(task.space, generator(seed, "short", len(experience.observations), draw))
            for draw in range(kept)
        ]
    config = CascadeConfig(
        num_candidates=task.settings.candidates, num_kept=kept, random_share=1 / kept, seed=seed
    )
    cascade = Cascade(stages_of(method, task), config)

    def choose(study: optuna.Study, experience: Experience) -> list[Candidate]:
        cascade.step(study, experience, num_trials=len(study.get_trials(deepcopy=False)))
        chosen = []
        for _ in range(kept):
            trial = study.ask()
            chosen.append(realise(task.space, TrialChooser(trial))[0])
        return chosen

    return choose


def cascade_search(method: str, task: Task, seed: int, limit: float) -> Row:
    clock = Clock()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
    observations: list[Observation] = []
    known: set[str] = set()
    experience = Experience(task.space, observations=observations, known=known)
    choose = rounds(method, task, seed)
    full: list[Row] = []
    parts = {"scoring": 0.0, "short": 0.0, "full": 0.0}
    waiting: dict[str, tuple[float, Candidate]] = {}
    while clock.spent() < limit:
        before = clock.spent()
        chosen = choose(study, experience)
        parts["scoring"] += clock.spent() - before
        for candidate in chosen:
            before = clock.spent()
            value = task.train(candidate, task.settings.short, seed).value
            parts["short"] += clock.spent() - before
            number = len(observations)
            if method != "short only":
                study.tell(number, value)
            known.add(candidate.graph.fingerprint)
            waiting[candidate.graph.fingerprint] = (value, candidate)
            observations.append(Observation(number, candidate, TrialState.COMPLETE, (value,)))
        name = max(waiting, key=lambda each: (waiting[each][0], each))
        short, candidate = waiting.pop(name)
        before = clock.spent()
        task.train_fully(candidate, seed, clock, full)
        full[-1]["short"] = short
        parts["full"] += clock.spent() - before
    reports = [
        {"cpu": each.cpu_s, "stages": [stage.to_json() for stage in each.stages]} for each in rounds_of(study)
    ]
    return {"full": full, "cpu": clock.spent(), "parts": parts, "rounds": reports}


def measure_all(settings: argparse.Namespace) -> None:
    """Write a row per data set, method and seed that is not there yet. Random search comes first: it sets the limit."""
    done = {(row["data"], row["method"], row["seed"]): row for row in read_rows(settings.rows)}
    tasks: dict[str, Task] = {}
    for seed in range(settings.seeds):
        for name in settings.data:
            for method in settings.methods:
                if (name, method, seed) in done:
                    continue
                task = tasks.setdefault(name, load_task(name, settings))
                if method == "random":
                    row = random_search(task, seed)
                else:
                    limit = settings.share * float(str(done[name, "random", seed]["cpu"]))
                    row = cascade_search(method, task, seed, limit)
                row = {"data": name, "method": method, "seed": seed, **row}
                done[name, method, seed] = row
                with settings.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(name, method, seed, round(float(str(row["cpu"])), 1), best_so_far(row)[-1], flush=True)


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def best_so_far(row: Row) -> list[tuple[float, float, float]]:
    """CPU seconds, validation and test accuracy of the incumbent after each full training."""
    curve: list[tuple[float, float, float]] = []
    for each in row["full"]:  # type: ignore[attr-defined]  # a list of rows
        if not curve or each["val"] > curve[-1][1]:
            curve.append((each["cpu"], each["val"], each["test"]))
        else:
            curve.append((each["cpu"], *curve[-1][1:]))
    return curve


def time_to(curve: list[tuple[float, float, float]], place: int, target: float) -> float | None:
    return next((point[0] for point in curve if point[place] >= target), None)


def report(path: Path) -> Row:
    """Per data set and method: the share of random search's CPU time after which its final accuracy is reached."""
    by_key = {(str(row["data"]), str(row["method"]), int(str(row["seed"]))): row for row in read_rows(path)}
    result: Row = {}
    for name in sorted({key[0] for key in by_key}):
        cell: dict[str, object] = {}
        for method in METHODS[1:]:
            seeds = [s for (d, m, s) in by_key if (d, m) == (name, method)]
            if seeds:
                cell[method] = compare(
                    [by_key[name, method, seed] for seed in seeds],
                    [by_key[name, "random", seed] for seed in seeds],
                )
        randoms = [row for (d, m, _), row in by_key.items() if (d, m) == (name, "random")]
        tests = [best_so_far(row)[-1][2] for row in randoms]
        every = [each["val"] for row in randoms for each in row["full"]]  # type: ignore[attr-defined]
        cell["random"] = {
            "seeds": len(randoms),
            "cpu seconds": spread([float(str(row["cpu"])) for row in randoms]),
            "test accuracy": spread(tests),
            "validation accuracy of one candidate": spread(every),
        }
        result[name] = cell
    return result


def compare(rows: list[Row], randoms: list[Row]) -> Row:
    shares: dict[str, list[float | None]] = {"test": [], "validation": []}
    fifth: dict[str, list[float]] = {"test": [], "validation": []}
    for row, plain in zip(rows, randoms, strict=True):
        total, curve, target = float(str(plain["cpu"])), best_so_far(row), best_so_far(plain)[-1]
        for kind, place in (("validation", 1), ("test", 2)):
            reached = time_to(curve, place, target[place])
            shares[kind].append(None if reached is None else reached / total)
            before = [point[place] for point in curve if point[0] <= total / 5]
            if before:
                fifth[kind].append(before[-1] - target[place])
    facts: Row = {"seeds": len(rows)}
    for kind, values in shares.items():
        known = sorted(value if value is not None else np.inf for value in values)
        median = float(np.median(known))
        facts[f"{kind}: share of random search's CPU time until its accuracy"] = {
            "median": median if np.isfinite(median) else None,
            "reached by 1/5": sum(bool(value <= 0.2) for value in known),
            "reached at all": int(np.isfinite(known).sum()),
            "each": values,
        }
        facts[f"{kind}: less that of random search, at 1/5 of its CPU time"] = spread(fifth[kind])
    facts["final test accuracy"] = spread([best_so_far(row)[-1][2] for row in rows])
    facts["cpu seconds by part"] = {
        part: float(np.mean([row["parts"][part] for row in rows]))  # type: ignore[index]
        for part in ("scoring", "short", "full")
    }
    return facts


def spread(values: list[float]) -> Row:
    if not values:
        return {"n": 0}
    return {
        "n": len(values),
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="*", default=list(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=500, help="training examples")
    parser.add_argument("--validation", type=int, default=600, help="validation examples")
    parser.add_argument("--test", type=int, default=5000, help="test examples")
    parser.add_argument("--epochs", type=int, default=24, help="of full training")
    parser.add_argument("--short", type=int, default=3, help="epochs of short training")
    parser.add_argument("--random", type=int, default=20, help="candidates of random search")
    parser.add_argument("--candidates", type=int, default=48, help="of a round of a cascade")
    parser.add_argument("--kept", type=int, default=4, help="short trainings of a round")
    parser.add_argument(
        "--share", type=float, default=0.25, help="of random search's CPU time, for the others"
    )
    parser.add_argument("--methods", nargs="*", default=["random", "cascade", "no ghn"], choices=METHODS)
    parser.add_argument("--rows", type=Path, default=ROWS, help="where the rows are kept")
    parser.add_argument("--report", action="store_true")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not settings.report:
        measure_all(settings)
    result = report(settings.rows)
    save("cascade", {"settings": {k: str(v) for k, v in vars(settings).items()}, "data": result})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
