"""Protocol B2: what predictors learnt in some spaces are worth in another one, with 0, 10 and 50 labels there.

    python -m benchmarks.predictors.cross_space run [PAIR ...]     rows as they come; a second call goes on.
                                                    [PAIR:3,4]      some seeds of a pair
    python -m benchmarks.predictors.cross_space report             rows -> benchmarks/results/cross_space.json

One configuration for all pairs: the defaults of `Pretraining`, `NetworkTraining` and `TransferPredictor`. A pre-training
seed draws the graphs of the sources, the weights and the batches; the same seed draws the labels. All methods of a seed see
the same labels and are ranked over the same graphs without them.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau, norm, rankdata, spearmanr

from benchmarks.common import RESULTS, SHARED_DATA, save
from benchmarks.tables.cells import nasbench101_graphs, nasbench201_graphs, nasbench_graph_graphs
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.predict import (
    GraphNetworkPredictor,
    NetworkTraining,
    PathFeatures,
    Pretraining,
    fit_features,
    pretrain,
)
from nasgraph.predict.graph_network import Description, GraphTensors, PretrainedPredictor, graph_tensors
from nasgraph.predict.graph_network.pretrained import Tables
from nasgraph.predict.transfer import fit_transfer
from nasgraph.seeding import generator

Array = np.ndarray
ROWS = RESULTS / "cross_space.rows.jsonl"
NUM_LABELS = (10, 50)
PER_SOURCE = 2000
TUNED_STEPS = 60
TUNED_OVER = 1000


@dataclass(frozen=True)
class Pair:
    """Source tables, the table left out, and how many seeds and graphs of it are looked at."""

    sources: tuple[str, ...]
    target: str
    seeds: int
    population: int | None = None
    tuned: bool = False


_OTHER_GRAPH = ("graph-citeseer", "graph-pubmed", "graph-physics", "graph-photo", "graph-computers")
PAIRS: Mapping[str, Pair] = {
    "101-201": Pair(("nb101",), "nb201", 10),
    "201-101": Pair(("nb201",), "nb101", 10, 5000),
    "101-201-tuned": Pair(("nb101",), "nb201", 10, tuned=True),
    "101+graph-201": Pair(("nb101", "graph-cora", "graph-arxiv"), "nb201", 3),
    "others-cora": Pair(_OTHER_GRAPH, "graph-cora", 3, 5000),
    "others-cs": Pair(_OTHER_GRAPH, "graph-cs", 3, 5000),
    "others-arxiv": Pair(_OTHER_GRAPH, "graph-arxiv", 3, 5000),
    "101+201-cora": Pair(("nb101", "nb201"), "graph-cora", 3, 5000),
}


def table(name: str) -> tuple[int, Callable[[Sequence[int]], list[ComputationalGraph]], Array]:
    """Number of rows, what makes their graphs, and what they reached."""
    if name == "nb201":
        values = _column("nasbench201", "cifar10_test_200ep")
        return len(values), nasbench201_graphs, values
    if name == "nb101":
        values = _column("nasbench101_sample", "valid_accuracy")[:, -1]
        return len(values), nasbench101_graphs, values
    values = _column("nasbench_graph_light", f"{name.removeprefix('graph-')}_test_perf")
    return len(values), nasbench_graph_graphs, values


@cache
def _column(file: str, key: str) -> Array:
    with np.load(SHARED_DATA / f"{file}.npz", allow_pickle=False) as data:
        result: Array = data[key]
    return result


@dataclass(frozen=True)
class Target:
    """The graphs of the table left out, equal ones once, and where each row stands among them."""

    graphs: list[ComputationalGraph]
    place: Array
    values: Array
    rows: Array


@cache
def target_of(name: str, population: int | None) -> Target:
    count, make, values = table(name)
    rows = np.arange(count)
    if population is not None:
        rows = np.sort(generator(0, "population", name).permutation(count)[:population])
    made = make(rows.tolist())
    first: dict[ComputationalGraph, int] = {}
    place = np.array([first.setdefault(graph, len(first)) for graph in made])
    return Target(list(first), place, values[rows], rows)


@cache
def read_target(name: str, population: int | None, vocabulary: tuple[str, ...]) -> list[GraphTensors]:
    return [graph_tensors(graph, vocabulary) for graph in target_of(name, population).graphs]


@cache
def base_of(sources: tuple[str, ...], seed: int) -> PretrainedPredictor:
    """Pre-trained on `PER_SOURCE` random graphs of each source."""
    tables: dict[str, tuple[list[ComputationalGraph], torch.Tensor]] = {}
    for name in sources:
        count, make, values = table(name)
        rows = generator(seed, "source", name).permutation(count)[:PER_SOURCE]
        tables[name] = (make(rows.tolist()), torch.from_numpy(values[rows].astype(np.float64)))
    given: Tables = tables
    return pretrain(given, replace(Pretraining(), seed=seed))


def sizes_of(target: Target) -> dict[str, Array]:
    """Multiply-adds and parameters of every row."""
    costs = [cost_of(graph) for graph in target.graphs]
    return {
        "multiply-adds": np.array([cost.multiply_adds for cost in costs])[target.place],
        "parameters": np.array([cost.num_parameters for cost in costs])[target.place],
    }


def run_seed(pair: Pair, seed: int) -> Iterator[dict[str, object]]:
    """Every method without tuned networks."""
    target = target_of(pair.target, pair.population)
    started = time.process_time()
    base = base_of(pair.sources, seed)
    pretrain_s = time.process_time() - started
    inputs = read_target(pair.target, pair.population, base.vocabulary)
    distinct = base.describe_read(inputs)
    described = distinct.rows(target.place.tolist())
    zero = {
        "zero-shot": described.zero_shot().mean.numpy(),
        "zero-shot, path features": described.path_score_G,
        "zero-shot, network": described.network_score_G,
        "zero-shot, ranks within the target": _with_ranks(base, described.columns_GK),
        **sizes_of(target),
    }
    for method, scores in zero.items():
        yield _row(method, 0, scores, target, np.zeros(0, dtype=int), pretrain_cpu_s=round(pretrain_s, 1))
    for count in NUM_LABELS:
        labelled = generator(seed, "labels", count).permutation(len(target.values))[:count]
        for method, scores in _few_labels(distinct, target, labelled, seed).items():
            yield _row(method, count, scores, target, labelled)


def _with_ranks(base: PretrainedPredictor, columns: Array) -> Array:
    """The path half with every column as normal scores within its own space, the pool of the target included."""
    said = []
    for memory in base.memory:
        model = fit_features(
            _ranked(memory.columns_LK), torch.from_numpy(memory.scores_L), regressor="blend", seed=0
        )
        said.append(model(_ranked(columns)).mean.numpy())
    result: Array = np.mean(said, axis=0)
    return result


def _ranked(columns: Array) -> Array:
    return np.stack([norm.ppf((rankdata(column) - 0.5) / len(column)) for column in columns.T], axis=1)


def _few_labels(distinct: Description, target: Target, labelled: Array, seed: int) -> dict[str, Array]:
    """Predictions for every row, by method."""
    targets = torch.from_numpy(target.values[labelled].astype(np.float64))
    place, nothing = target.place, np.zeros((len(distinct), 0))
    own = distinct.rows(place[labelled].tolist())
    blank = np.zeros(len(distinct))
    no_base = replace(
        distinct,
        embedding_GD=np.zeros((len(distinct), 0)),
        path_score_G=blank,
        path_std_G=blank,
        network_score_G=blank,
        network_std_G=blank,
    )
    scratch = fit_features(distinct.columns_GK[place[labelled]], targets, regressor="blend", seed=seed)
    without = fit_transfer(no_base.rows(place[labelled].tolist()), nothing[place[labelled]], targets)
    transfer = fit_transfer(own, nothing[place[labelled]], targets)
    return {
        "transfer": transfer(distinct, nothing).mean.numpy()[place],
        "transfer without a base": without(no_base, nothing).mean.numpy()[place],
        "from scratch, path features": scratch(distinct.columns_GK).mean.numpy()[place],
        "zero-shot": distinct.zero_shot().mean.numpy()[place],
    }


def run_tuned(pair: Pair, seed: int) -> Iterator[dict[str, object]]:
    """Networks whose weights change on the labels, over `TUNED_OVER` random graphs; and one from scratch."""
    target, base = target_of(pair.target, pair.population), base_of(pair.sources, 0)
    order = generator(seed, "tuned").permutation(len(target.values))
    training = NetworkTraining(steps=TUNED_STEPS)
    for count in NUM_LABELS:
        labelled, others = order[:count], order[count : count + TUNED_OVER]
        given = [target.graphs[place] for place in target.place[labelled]]
        targets = torch.from_numpy(target.values[labelled].astype(np.float64))
        makers = {
            f"network, {tuning} tuned": GraphNetworkPredictor(
                training,
                num_members=2,
                start=base.networks,
                tuning=tuning,
                seed=seed,
            )
            for tuning in ("all", "adapters", "head")
        }
        makers["network from scratch"] = GraphNetworkPredictor(training, num_members=2, seed=seed)
        asked = [target.graphs[place] for place in target.place[others]]
        for method, predictor in makers.items():
            predictor.fit(given, targets)
            yield _statistics(method, count, predictor.predict(asked).mean.numpy(), target.values[others])
        described = base.describe(asked)
        transfer = fit_transfer(base.describe(given), np.zeros((count, 0)), targets)
        yield _statistics(
            "transfer",
            count,
            transfer(described, np.zeros((len(asked), 0))).mean.numpy(),
            target.values[others],
        )
        yield _statistics("network, zero-shot", count, described.network_score_G, target.values[others])


def _row(
    method: str, count: int, scores: Array, target: Target, labelled: Array, **more: object
) -> dict[str, object]:
    rest = np.setdiff1d(np.arange(len(target.values)), labelled)
    row = _statistics(method, count, scores[rest], target.values[rest])
    if len(target.values) == 15_625:
        alive = rest[_column("nasbench201", "no_unreachable_ops")[rest]]
        row["spearman_9445"] = _statistics(method, count, scores[alive], target.values[alive])["spearman"]
    return {**row, **more}


def _statistics(method: str, count: int, scores: Array, values: Array) -> dict[str, object]:
    if scores.std() == 0:
        return {"method": method, "labels": count, "spearman": 0.0, "kendall_tau": 0.0}
    return {
        "method": method,
        "labels": count,
        "spearman": round(float(spearmanr(scores, values).statistic), 5),
        "kendall_tau": round(float(kendalltau(scores, values).statistic), 5),
    }


def run(names: Sequence[str]) -> None:
    """Run what is not there yet."""
    torch.set_num_threads(1)
    done = {(row["pair"], row["seed"]) for row in _rows()}
    jobs = [(name, seed) for wanted in names for name, seed in _jobs(wanted)]
    for name, seed in jobs:
        if (name, seed) in done:
            continue
        started = time.process_time()
        rows = list((run_tuned if PAIRS[name].tuned else run_seed)(PAIRS[name], seed))
        with ROWS.open("a") as file:
            for row in rows:
                file.write(json.dumps({"pair": name, "seed": seed, **row}) + "\n")
        shown = {f"{row['method']}@{row['labels']}": row["spearman"] for row in rows}
        print(name, seed, f"{time.process_time() - started:.0f} CPU s", shown, flush=True)


def _jobs(wanted: str) -> list[tuple[str, int]]:
    name, _, some = wanted.partition(":")
    return [(name, seed) for seed in (map(int, some.split(",")) if some else range(PAIRS[name].seeds))]


def report() -> None:
    """Means and spreads over seeds."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in _rows():
        groups.setdefault((row["pair"], row["labels"], row["method"]), []).append(row)
    table_: list[dict[str, object]] = []
    for (pair, labels, method), rows in sorted(groups.items()):
        entry: dict[str, object] = {
            "pair": pair,
            "labels": labels,
            "method": method,
            "seeds": len(rows),
        }
        shown = []
        for key in ("spearman", "kendall_tau", "spearman_9445"):
            values = [row[key] for row in rows if key in row]
            if values:
                mean, std = float(np.mean(values)), float(np.std(values))
                entry[key] = {"mean": mean, "std": std, "min": min(values)}
                shown.append(f"{key} {mean:.3f} ± {std:.3f}")
        table_.append(entry)
        print(f"{pair:15s} {labels:3d} {method:36s} n={len(rows):2d}", *shown)
    settings = {
        "per_source": PER_SOURCE,
        "tuned_steps": TUNED_STEPS,
        "tuned_over": TUNED_OVER,
        "pairs": {
            name: {
                "sources": list(pair.sources),
                "target": pair.target,
                "population": pair.population or "all",
            }
            for name, pair in PAIRS.items()
        },
        "columns": list(PathFeatures().names),
        "load": "other jobs ran on the two cores (load 10 to 30); CPU seconds are of this process",
    }
    print(save("cross_space", {"settings": settings, "results": table_}))


def _rows() -> list[dict[str, Any]]:
    """Every row once, the latest, should two runs have worked on one seed."""
    found = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    return list({(row["pair"], row["seed"], row["method"], row["labels"]): row for row in found}.values())


if __name__ == "__main__":
    command, *chosen = sys.argv[1:] or ["run"]
    if command == "report":
        report()
    else:
        run(chosen or list(PAIRS))
