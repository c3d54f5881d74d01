"""A real search for graph neural networks on Cora and CiteSeer, beside GCN and GAT with the same training.

    python -m benchmarks.search.gnn_search --trials 100 --seeds 5
    python -m benchmarks.search.gnn_search --report

Each trial trains a network of the space `gnn` on the public split (full-batch Adam, early stopping on the 500 validation
nodes; see `NodeTrainConfig`). A search sees validation accuracies only. The network with the best one is taken, and its
test accuracy read; then its architecture is trained again from ten fresh seeds, as GCN (16 and 64 wide) and GAT (8 heads of
8, no dropout of attention) are from twenty, so that architectures are compared and not lucky seeds. Rows are kept in a .jsonl
file as they come; the same command goes on where it was stopped.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data.nodes import prepare_nodes
from nasgraph.data.planetoid import load_citeseer, load_cora
from nasgraph.data.prepare import Preparation
from nasgraph.data.records import DataRequest, DataSet
from nasgraph.errors import CandidateError
from nasgraph.evaluate import measure, never_stop
from nasgraph.evaluate.node_classification import NodeClassificationEvaluator, NodeTrainConfig
from nasgraph.files import parse_json
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.records import TrialState
from nasgraph.search.strategies.evolution import EvolutionConfig, RegularisedEvolution
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import Candidate, SearchSpace, architecture_from_json, replay, sample
from search_spaces.gnn import GNN

ROWS = RESULTS / "gnn_search.rows.jsonl"
TRAINING = NodeTrainConfig()
STRATEGIES = ("random", "evolution")
EVOLUTION = EvolutionConfig(population=20, sample=5)
NUM_BASELINE_SEEDS = 20
NUM_FINAL_SEEDS = 10

Row = dict[str, object]


def gcn(data: DataSet, *, hidden_dim: int) -> ComputationalGraph:
    """The two-layer network of Kipf and Welling (2017)."""
    g = GraphBuilder()
    x = g("dropout", g("input", shape=data.input_shape), p=0.5)
    x = g("relu", g("gcn_conv", x, out_features=hidden_dim))
    return g.finish(g("gcn_conv", g("dropout", x, p=0.5), out_features=data.num_classes))


def gat(data: DataSet) -> ComputationalGraph:
    """The two-layer network of Velickovic et al. (2018), without dropout of attention."""
    g = GraphBuilder()
    x = g("dropout", g("input", shape=data.input_shape), p=0.6)
    x = g("elu", g("gat_conv", x, out_features=64, num_heads=8))
    return g.finish(g("gat_conv", g("dropout", x, p=0.6), out_features=data.num_classes))


def baselines(data: DataSet) -> dict[str, ComputationalGraph]:
    return {"GCN-16": gcn(data, hidden_dim=16), "GCN-64": gcn(data, hidden_dim=64), "GAT": gat(data)}


class Rows:
    """The result file: rows by what they answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = []
        text = path.read_text() if path.exists() else ""
        if text and not text.endswith("\n"):  # a kill tore the last line
            text = text[: text.rfind("\n") + 1]
            path.write_text(text)
        self.rows = [json.loads(line) for line in text.splitlines()]
        self._known = {self._key(row): row for row in self.rows}

    @staticmethod
    def _key(row: Mapping[str, object]) -> tuple[object, ...]:
        return tuple(row.get(name) for name in ("kind", "data", "model", "strategy", "seed", "number"))

    def find(self, **key: object) -> Row | None:
        return self._known.get(self._key(key))

    def add(self, row: Row) -> Row:
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._known[self._key(row)] = row
        return row


def trained(graph: ComputationalGraph, data: DataSet, *, seed: int) -> Row:
    """Train once; accuracies and CPU seconds. A training that breaks down has no accuracy."""
    started = time.process_time()
    try:
        evaluation = NodeClassificationEvaluator(data.search, TRAINING)(
            graph, seed=seed, keep_going=never_stop
        )
    except CandidateError as error:
        return {"error": str(error), "cpu_seconds": time.process_time() - started}
    seconds = time.process_time() - started
    _, test = measure(Program(graph), evaluation.state, data.test, batch_size=1)
    return {
        "val": evaluation.value,
        "test": test,
        "epochs": len(evaluation.curve),
        "num_parameters": evaluation.metrics["num_parameters"],
        "cpu_seconds": seconds,
    }


def run_baselines(rows: Rows, data: DataSet) -> None:
    for model, graph in baselines(data).items():
        for seed in range(NUM_BASELINE_SEEDS):
            key: Row = {"kind": "baseline", "data": data.name, "model": model, "seed": seed}
            if rows.find(**key) is None:
                rows.add({**key, **trained(graph, data, seed=derive_seed(seed, "baseline") % 2**31)})


def proposals(strategy: str, space: SearchSpace, experience: Experience, *, seed: int) -> Iterator[Candidate]:
    """What a strategy proposes, one after another, given what `experience` holds by then."""
    sampler: ArchitectureSampler | None = None
    if strategy == "evolution":
        sampler = RegularisedEvolution(space, seed=seed, config=EVOLUTION)
    number = 0
    while True:
        for attempt in range(1000):
            if sampler is None:
                candidate = sample(space, generator(seed, "random search", number, attempt))
            else:
                candidate = sampler.propose(experience, number=number, attempt=attempt)
            if experience.is_new(candidate.graph):
                break
        yield candidate
        number += 1


def run_search(rows: Rows, data: DataSet, strategy: str, *, seed: int, num_trials: int) -> None:
    """One search, then its winner from fresh seeds."""
    space = GNN(input_shape=data.input_shape, num_classes=data.num_classes)
    known: set[str] = set()
    observations: list[Observation] = []
    experience = Experience(space, observations=observations, known=known)
    best: tuple[float, Candidate] | None = None
    for number, candidate in zip(
        range(num_trials), proposals(strategy, space, experience, seed=seed), strict=False
    ):
        key: Row = {
            "kind": "trial",
            "data": data.name,
            "strategy": strategy,
            "seed": seed,
            "number": number,
        }
        row = rows.find(**key)
        if row is None:
            architecture = parse_json(candidate.architecture.to_json())
            result = trained(candidate.graph, data, seed=derive_seed(seed, "trial", number) % 2**31)
            row = rows.add({**key, **result, "architecture": architecture})
        else:
            candidate = replay(space, architecture_from_json(row["architecture"]))  # type: ignore[arg-type]  # JSON
        value = row.get("val")
        state = TrialState.FAILED if value is None else TrialState.COMPLETE
        gains = () if value is None else (float(value),)  # type: ignore[arg-type]  # a number in JSON
        observations.append(Observation(number, candidate, state, gains))
        known.add(candidate.graph.fingerprint)
        if gains and (best is None or gains[0] > best[0]):
            best = (gains[0], candidate)
    assert best is not None
    for number in range(NUM_FINAL_SEEDS):
        key = {"kind": "final", "data": data.name, "strategy": strategy, "seed": seed, "number": number}
        if rows.find(**key) is None:
            result = trained(best[1].graph, data, seed=derive_seed(seed, "final", number) % 2**31)
            rows.add({**key, **result, "trials": num_trials})


# ---- report


def summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "n": len(values),
    }


def numbers(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name) is not None]  # type: ignore[arg-type]  # numbers in JSON


def report(rows: Rows) -> dict[str, object]:
    """Baselines, searches and their winners by data set. Only whole searches count, of one length."""
    done = [row for row in rows.rows if row["kind"] == "final"]
    result: dict[str, object] = {}
    for data in ("cora", "citeseer"):
        mine = [row for row in rows.rows if row["data"] == data]
        by_model: dict[str, object] = {}
        for model in dict.fromkeys(row["model"] for row in mine if row["kind"] == "baseline"):
            found = [row for row in mine if row.get("model") == model]
            by_model[str(model)] = {
                name: summary(numbers(found, name)) for name in ("val", "test", "cpu_seconds")
            }
        searches: dict[str, object] = {}
        for strategy in dict.fromkeys(row["strategy"] for row in done if row["data"] == data):
            searches[str(strategy)] = _searches([row for row in mine if row.get("strategy") == strategy])
        result[data] = {"baselines": by_model, "searches": searches}
    return result


def _searches(mine: Sequence[Row]) -> dict[str, object]:
    finals = [row for row in mine if row["kind"] == "final"]
    seeds = sorted({row["seed"] for row in finals}, key=str)
    curves, tests, winners, everyone, architectures = [], [], [], [], []
    for seed in seeds:
        trials = [row for row in mine if row["kind"] == "trial" and row["seed"] == seed]
        complete = [row for row in trials if row.get("val") is not None]
        best = max(complete, key=lambda row: (float(row["val"]), -int(row["number"])))  # type: ignore[arg-type, call-overload]
        values = [float(row["val"]) if row.get("val") is not None else 0.0 for row in trials]  # type: ignore[arg-type]
        curves.append(np.maximum.accumulate(values))
        tests.append(float(best["test"]))  # type: ignore[arg-type]
        winners.append(float(np.mean(numbers([row for row in finals if row["seed"] == seed], "test"))))
        everyone += numbers(trials, "test")
        architectures.append(best["architecture"])
    length = min(map(len, curves))
    best_so_far = np.array([curve[:length] for curve in curves])
    average = float(np.mean(everyone))
    return {
        "searches": len(seeds),
        "trials": length,
        "failed_trials": sum(row.get("val") is None for row in mine if row["kind"] == "trial"),
        "best_validation": summary(best_so_far[:, -1].tolist()),
        "best_so_far": {"mean": best_so_far.mean(0).tolist(), "std": best_so_far.std(0).tolist()},
        "test_of_best": summary(tests),
        "test_of_winner_trained_again": summary(winners),
        "mean_test_of_all_trials": average,
        "relative_improvement_over_average": (float(np.mean(winners)) - average) / average,
        "cpu_seconds_per_trial": summary(
            numbers([row for row in mine if row["kind"] == "trial"], "cpu_seconds")
        ),
        "winners": architectures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="only summarise what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(ROWS)
    if not arguments.report:
        request, settings = DataRequest(SHARED_DATA), Preparation()
        sets = [
            prepare_nodes(load(request), name=name, settings=settings)
            for name, load in (("cora", load_cora), ("citeseer", load_citeseer))
        ]
        for seed in range(arguments.seeds):
            for data in sets:
                for strategy in STRATEGIES:
                    run_search(rows, data, strategy, seed=seed, num_trials=arguments.trials)
                    _save(rows)
                run_baselines(rows, data)
    _save(rows)


def _save(rows: Rows) -> None:
    save(
        "gnn_search",
        {
            "training": vars(TRAINING),
            "evolution": vars(EVOLUTION) if hasattr(EVOLUTION, "__dict__") else str(EVOLUTION),
            "load": "one process at nice 10; others used the machine, so CPU seconds are upper bounds",
            "results": report(rows),
        },
    )


if __name__ == "__main__":
    main()
