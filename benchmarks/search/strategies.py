"""The search strategies that see graphs, in memory on NAS-Bench-201.

    python -m benchmarks.search.strategies single      best so far, and how different the good ones are
    python -m benchmarks.search.strategies multi       accuracy against latency: hypervolume, beside Optuna's NSGA-II
    python -m benchmarks.search.strategies cost        CPU time of a proposal at 1,000 and 10,000 observations
    python -m benchmarks.search.strategies report      only the report, from the rows that exist

A query is the 200-epoch validation accuracy on CIFAR-10. The graph of a cell leaves out operations that cannot matter, so
several rows of the table have one graph; the row whose dead operations are "none" (of equals the one with the fewest
multiply-adds, then the first) stands for all. No graph is evaluated twice, by any method. What is known of the
table are the queries alone.

multi: latency as measured on six devices (HELP, Lee et al. 2021, and HW-NAS-Bench, Li et al. 2021). Regret is the share of the
hypervolume of the table's true front that the evaluated set lacks; the reference point lies one tenth of the front's range
below its worst. The settings were chosen on the devices called "seen", with seeds below 100; the others were not looked at, and
all seeds here are above. Optuna's NSGA-II proposes cells again and again: in "distinct", a repeated graph is told
its values at no cost, which favours it; in "trials", each of its trials counts, as in a plain `study.optimize`.

Rows are kept in .rows.jsonl files: an interrupted run goes on where it stopped.
"""

import argparse
import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import optuna

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.evaluate.table import open_table
from nasgraph.ir import ComputationalGraph
from nasgraph.search import TrialChooser
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.pareto import hypervolume_so_far, reference_point
from nasgraph.search.records import TrialState
from nasgraph.search.strategies.controller import Controller
from nasgraph.search.strategies.evolution import RegularisedEvolution
from nasgraph.search.strategies.gflownet import OrderPreservingGFlowNet
from nasgraph.search.strategies.local_search import LocalSearch
from nasgraph.search.strategies.multi_objective import GraphNSGA, NSGAConfig
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, Chooser, ReplayChooser, SearchSpace, realise, replay, sample
from search_spaces.convnet import ConvNet
from search_spaces.nasbench201 import EDGES, NAME, OPERATIONS, NASBench201, architecture_from_string

Array = np.ndarray
FIRST_SEED = 100
QUERIES = (50, 100, 200, 300)
EVALUATIONS = (100, 200, 400)
MAX_TRIALS = 2000
SEEN = ("edgegpu", "fpga", "eyeriss")
UNSEEN = ("raspi4", "titan_rtx_256", "samsung_a50")
COLUMN = "cifar10_valid_200ep"
EDGE_NAMES = tuple(f"edge_{source}_{target}" for source, target in EDGES)


class Cells(SearchSpace):
    """NAS-Bench-201 for small images, with every graph built once: it is not the builds that are measured here."""

    def __init__(self) -> None:
        super().__init__(input_shape=(3, 8, 8), num_classes=10)
        self._inner = NASBench201(input_shape=(3, 8, 8), num_classes=10)
        self._graphs: dict[tuple[str, ...], ComputationalGraph] = {}

    @property
    def name(self) -> str:
        return NAME

    def build(self, choose: Chooser) -> ComputationalGraph:
        answers = tuple(choose.categorical(name, OPERATIONS) for name in EDGE_NAMES)
        if answers not in self._graphs:
            choices = dict(zip(EDGE_NAMES, answers, strict=True))
            self._graphs[answers] = self._inner.build(ReplayChooser(choices))
        return self._graphs[answers]


class Rows:
    """The row of the table that stands for a graph, and what was measured."""

    def __init__(self, space: Cells) -> None:
        table = open_table("nasbench201")
        keys = [table.key(row) for row in range(len(table.column(COLUMN)))]
        self.row_of: dict[str, int] = {}
        for row in np.lexsort((np.arange(len(keys)), table.column("flops_M"))):
            graph = replay(space, architecture_from_string(keys[row])).graph
            self.row_of.setdefault(graph.fingerprint, int(row))
        self.accuracy = np.asarray(table.column(COLUMN), dtype=float)
        self.all = np.array(sorted(self.row_of.values()))

    def of(self, candidate: Candidate) -> int:
        """The row that stands for a candidate."""
        return self.row_of[candidate.graph.fingerprint]


@cache
def cells() -> tuple[Cells, Rows]:
    """The space and the table, once for a process."""
    space = Cells()
    return space, Rows(space)


@cache
def latencies() -> Mapping[str, Array]:
    """Latency in ms of every row on each device."""
    with np.load(SHARED_DATA / "nasbench201_hardware.npz", allow_pickle=False) as data:
        devices = dict(zip(data["help_device_names"].tolist(), data["help_latency_ms"].T, strict=True))
        metrics = data["hwnasbench_metric_names"].tolist()
        devices["edgegpu"] = data["hwnasbench_cifar10"][:, metrics.index("edgegpu_latency")]
    return {name: np.asarray(devices[name], dtype=float) for name in (*SEEN, *UNSEEN)}


class RandomSearch(ArchitectureSampler):
    """Uniform draws of architectures, without repeated graphs."""

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        rng = generator(self.seed, "random", number, attempt)
        while True:
            candidate = sample(self.space, rng)
            if experience.is_new(candidate.graph):
                return candidate


Make = Callable[[SearchSpace, int], ArchitectureSampler]
SINGLE: Mapping[str, Make] = {
    "random": lambda space, seed: RandomSearch(space, seed=seed),
    "evolution": lambda space, seed: RegularisedEvolution(space, seed=seed),
    "local search": lambda space, seed: LocalSearch(space, seed=seed),
    "controller": lambda space, seed: Controller(space, seed=seed),
    "gflownet": lambda space, seed: OrderPreservingGFlowNet(space, seed=seed),
    "graph nsga": lambda space, seed: GraphNSGA(space, seed=seed),
}
MULTI: Mapping[str, Make] = {
    "random": SINGLE["random"],
    "graph nsga": SINGLE["graph nsga"],
    "graph nsga, no model": lambda space, seed: GraphNSGA(space, seed=seed, config=NSGAConfig(screen=1)),
    "graph nsga, reference points": lambda space, seed: GraphNSGA(
        space, seed=seed, config=NSGAConfig(survival="reference points")
    ),
    "local search": SINGLE["local search"],
}
OPTUNA = {"optuna nsga-ii, population 20": 20, "optuna nsga-ii, population 50": 50}


# ---- single


def search(make: Make, seed: int, gains: Array, num_queries: int) -> list[int]:
    """Rows in the order of the queries. `gains` holds the objectives of every row."""
    space, rows = cells()
    known: set[str] = set()
    seen: list[Observation] = []
    experience = Experience(space, num_objectives=gains.shape[1], observations=seen, known=known)
    sampler = make(space, seed)
    found = []
    for number in range(num_queries):
        candidate = sampler.propose(experience, number=number)
        if candidate.graph.fingerprint in known:
            raise AssertionError(f"A known graph was proposed at {number}")
        known.add(candidate.graph.fingerprint)
        row = rows.of(candidate)
        seen.append(Observation(number, candidate, TrialState.COMPLETE, tuple(map(float, gains[row]))))
        found.append(row)
    return found


def single(seed: int, method: str) -> dict[str, object]:
    """Best so far, and the good ones that were found: graphs among the best 5 % of the table's, and how they differ."""
    _, rows = cells()
    found = search(SINGLE[method], seed, rows.accuracy[:, None], QUERIES[-1])
    best = np.maximum.accumulate(rows.accuracy[found])
    threshold = np.quantile(rows.accuracy[rows.all], 0.95)
    good = [row for row in found if rows.accuracy[row] >= threshold]
    ranked = sorted(found, key=lambda row: -rows.accuracy[row])
    optimum = rows.accuracy[rows.all].max()
    return {
        "best": [float(best[queries - 1]) for queries in QUERIES],
        "queries_to_best": int(np.argmax(best == optimum)) + 1 if best[-1] == optimum else None,
        "num_good": len(good),
        "good_distance": mean_distance(good),
        "top_distance": mean_distance(ranked[: len(found) // 20]),
        "last_100_mean": float(rows.accuracy[found[-100:]].mean()),
    }


def mean_distance(found: Sequence[int]) -> float:
    """Mean number of choices, of six, in which two of the rows differ."""
    if len(found) < 2:
        return 0.0
    table = open_table("nasbench201")
    answers = np.array(
        [[answer for _, answer in architecture_from_string(table.key(row)).choices] for row in found]
    )
    different = (answers[:, None] != answers[None]).sum(axis=2)
    return float(different[np.triu_indices(len(found), 1)].mean())


# ---- multi


def multi(seed: int, method: str, device: str) -> dict[str, object]:
    """Regret in hypervolume after some evaluations."""
    _, rows = cells()
    gains = np.stack([rows.accuracy, -latencies()[device]], axis=1)
    if method in MULTI:
        found = search(MULTI[method], seed, gains, EVALUATIONS[-1])
        return {"distinct": regrets(gains, found)}
    trials = optuna_search(OPTUNA[method], seed, gains, EVALUATIONS[-1])
    distinct = list(dict.fromkeys(trials))
    return {
        "distinct": regrets(gains, distinct),
        "trials": regrets(gains, trials),
        "num_trials": len(trials),
        "num_distinct": len(distinct),
    }


def regrets(gains: Array, found: Sequence[int]) -> list[float | None]:
    """The share of the hypervolume that is lacking after each number of evaluations; None where there were not as many."""
    _, rows = cells()
    reference = reference_point(gains[rows.all])
    whole = hypervolume_so_far(gains[rows.all], reference)[-1]
    curve = hypervolume_so_far(gains[np.array(found)], reference)
    return [float(1 - curve[number - 1] / whole) if number <= len(found) else None for number in EVALUATIONS]


def optuna_search(population: int, seed: int, gains: Array, num_distinct: int) -> list[int]:
    """Rows in the order of Optuna's trials, until there are enough distinct ones (or five times as many trials)."""
    space, rows = cells()
    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    found: list[int] = []
    while len(set(found)) < num_distinct and len(found) < MAX_TRIALS:
        trial = study.ask()
        row = rows.of(realise(space, TrialChooser(trial))[0])
        study.tell(trial, [float(value) for value in gains[row]])
        found.append(row)
    return found


# ---- cost


def cost(num_observations: int, method: str) -> dict[str, object]:
    """CPU ms of a proposal with everything that follows, of one build, and of a fresh object's first proposal."""
    space = ConvNet(input_shape=(1, 8, 8), num_classes=10)
    candidates, build_ms = random_candidates(num_observations)
    num_objectives = 2 if method.startswith("graph nsga") else 1
    known = {candidate.graph.fingerprint for candidate in candidates}
    rng = generator(0, "gains")
    seen = [
        Observation(number, candidate, TrialState.COMPLETE, tuple(rng.normal(size=num_objectives)))
        for number, candidate in enumerate(candidates)
    ]
    experience = Experience(space, num_objectives=num_objectives, observations=seen, known=known)
    sampler = {**SINGLE, **MULTI}[method](space, 0)
    gc.collect()
    gc.freeze()  # or one collection of ten thousand graphs counts for a hundred proposals
    started = time.process_time()
    sampler.propose(experience, number=num_observations)
    fresh = time.process_time() - started
    spent = []
    for number in range(num_observations, num_observations + 100):
        started = time.process_time()
        candidate = sampler.propose(experience, number=number)
        spent.append(time.process_time() - started)
        known.add(candidate.graph.fingerprint)
        gains = tuple(rng.normal(size=num_objectives))
        seen.append(Observation(number, candidate, TrialState.COMPLETE, gains))
    return {
        "proposal_ms": 1000 * float(np.mean(spent)),
        "proposal_ms_median": 1000 * float(np.median(spent)),
        "proposal_ms_95": 1000 * float(np.quantile(spent, 0.95)),
        "build_ms": build_ms,
        "replay_seconds": fresh,
    }


@cache
def random_candidates(number: int) -> tuple[list[Candidate], float]:
    """Random candidates with distinct graphs, and the CPU ms of drawing, building and naming one."""
    space = ConvNet(input_shape=(1, 8, 8), num_classes=10)
    distinct: dict[str, Candidate] = {}
    started, draw = time.process_time(), 0
    while len(distinct) < number:
        candidate = sample(space, generator(0, "cost", draw))
        distinct.setdefault(candidate.graph.fingerprint, candidate)
        draw += 1
    return list(distinct.values()), 1000 * (time.process_time() - started) / draw


# ---- rows and report


def tasks(kind: str, num_seeds: int) -> Iterator[dict[str, object]]:
    """What is to be measured; all methods and devices for one seed before the next, so that a part is balanced."""
    if kind == "cost":
        for number in (1000, 10000):
            for method in {**SINGLE, **MULTI}:
                yield {"num_observations": number, "method": method}
        return
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
        if kind == "single":
            for method in SINGLE:
                yield {"seed": seed, "method": method}
        else:
            for device in (*SEEN, *UNSEEN):
                for method in (*MULTI, *OPTUNA):
                    yield {"seed": seed, "method": method, "device": device}


MEASURES: Mapping[str, Callable[..., dict[str, object]]] = {"single": single, "multi": multi, "cost": cost}


def run(kind: str, num_seeds: int) -> None:
    """Measure what has no row yet."""
    path = RESULTS / f"search_strategies_{kind}.rows.jsonl"
    done = {json.dumps(row["task"], sort_keys=True) for row in read_rows(kind)}
    for task in tasks(kind, num_seeds):
        if json.dumps(task, sort_keys=True) in done:
            continue
        started = time.process_time()
        result = MEASURES[kind](**task)
        row = {"task": task, **result, "cpu_seconds": time.process_time() - started}
        with path.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")


def read_rows(kind: str) -> list[dict[str, object]]:
    """The rows that exist."""
    path = RESULTS / f"search_strategies_{kind}.rows.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation, median and worst case are all that a reader needs of some seeds."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "median": float(np.median(values)),
        "max": float(np.max(values)),
        "num": len(values),
    }


def report_single(rows: Sequence[dict]) -> dict[str, object]:  # type: ignore[type-arg]  # parsed JSON
    """Per method."""
    result: dict[str, object] = {}
    for method in SINGLE:
        own = [row for row in rows if row["task"]["method"] == method]
        if not own:
            continue
        to_best = [row["queries_to_best"] or np.inf for row in own]
        result[method] = {
            "best_so_far": {
                str(q): spread([row["best"][place] for row in own]) for place, q in enumerate(QUERIES)
            },
            "found_best": float(np.mean(np.isfinite(to_best))),
            "median_queries_to_best": None if np.isinf(np.median(to_best)) else float(np.median(to_best)),
            **{
                key: spread([row[key] for row in own])
                for key in ("num_good", "good_distance", "top_distance", "last_100_mean")
            },
        }
    return result


def report_multi(rows: Sequence[dict]) -> dict[str, object]:  # type: ignore[type-arg]  # parsed JSON
    """Regret in per cent per device and method, and ours beside Optuna's."""
    result: dict[str, object] = {}
    for device in (*SEEN, *UNSEEN):
        table = {}
        for method in (*MULTI, *OPTUNA):
            own = [row for row in rows if row["task"]["method"] == method and row["task"]["device"] == device]
            for count in ("distinct", "trials"):
                if own and count in own[0]:
                    table[f"{method} ({count})"] = {
                        str(n): spread([100 * row[count][i] for row in own if row[count][i] is not None])
                        for i, n in enumerate(EVALUATIONS)
                    }
        result[device] = {"regret_percent": table, "beside_optuna": beside_optuna(rows, device)}
    return result


def beside_optuna(rows: Sequence[dict], device: str) -> dict[str, object]:  # type: ignore[type-arg]  # parsed JSON
    """On the seeds that both have: mean regret of the graph NSGA, of Optuna's, and the share of seeds where ours is lower."""
    result: dict[str, object] = {}
    ours = {
        row["task"]["seed"]: row["distinct"]
        for row in rows
        if row["task"]["method"] == "graph nsga" and row["task"]["device"] == device
    }
    for method in OPTUNA:
        theirs = {
            row["task"]["seed"]: row
            for row in rows
            if row["task"]["method"] == method
            and row["task"]["device"] == device
            and row["task"]["seed"] in ours
        }
        for count in ("distinct", "trials") if theirs else ():
            for place, number in enumerate(EVALUATIONS):
                pairs = [
                    (ours[seed][place], row[count][place])
                    for seed, row in sorted(theirs.items())
                    if row[count][place] is not None
                ]
                result[f"{method} ({count}), {number}"] = {
                    "ours": 100 * float(np.mean([own for own, _ in pairs])),
                    "theirs": 100 * float(np.mean([their for _, their in pairs])),
                    "share_lower": float(np.mean([own < their for own, their in pairs])),
                    "num": len(pairs),
                }
    return result


def main() -> None:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=[*MEASURES, "report"])
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.kind != "report":
        run(options.kind, options.seeds)
    save(
        "search_strategies",
        {
            "single": report_single(read_rows("single")),
            "multi": report_multi(read_rows("multi")),
            "cost": read_rows("cost"),
        },
    )


if __name__ == "__main__":
    main()
