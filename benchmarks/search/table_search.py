"""How many queries does Bayesian optimisation need on tables of trained networks? One configuration for all of them.

    python -m benchmarks.search.table_search --tasks nasbench201-200ep nasbench201-12ep --seeds 50
    python -m benchmarks.search.table_search --tasks nasbench101 --tables FOLDER
    python -m benchmarks.search.table_search --report

The strategy is `bayesian` of `nasgraph bench search` with its defaults. It knows the graphs and keys of a table, and the values of the
rows that it asked for; where a task says so, also the columns that are known without training. Its defaults were chosen with
seeds 100 to 139 of NAS-Bench-201, after runs of two earlier configurations on seeds 0 to 49 (medians 25 and 25) had been seen; seeds
from 200 on were not looked at before.

Rows are kept in a .rows.jsonl file: an interrupted run goes on where it stopped. CPU seconds are those of the process, so that other load on
the machine counts only as far as it takes caches. Tables that are not shipped are made by `benchmarks.tables.make_*`.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, save
from nasgraph.evaluate.protocol import TRAINING_FREE
from nasgraph.evaluate.table import Table, open_table
from nasgraph.evaluate.table_search import (
    SearchProtocolConfig,
    SearchRun,
    queries_to_best,
    run_search_protocol,
)
from nasgraph.evaluate.table_strategies import STRATEGIES
from nasgraph.evaluate.table_strategy import SearchView, SeededStrategy, StrategyFactory

SHOWN = (10, 20, 25, 32, 45, 50, 64, 100, 150, 200, 250)
ROWS = RESULTS / "search_table_queries.rows.jsonl"
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is searched.

    Attributes:
        table: Name of a shipped table, or of a file in the folder of tables.
        query: What the strategy is told.
        report: What is reported of the best row by query.
        queries: Rows that are queried.
        side: Columns that the strategy sees in every row.
    """

    table: str
    query: str
    report: str
    queries: int
    side: tuple[str, ...] = ()


def _nasbench201(query: str, report: str, *side: str) -> Task:
    return Task(table="nasbench201", query=query, report=report, queries=60, side=side)


TASKS: Mapping[str, Task] = {
    "nasbench201-200ep": _nasbench201("cifar10_valid_200ep", "cifar10_test_200ep"),
    "nasbench201-12ep": _nasbench201("cifar10_valid_12ep", "cifar10_test_200ep"),
    "nasbench201-200ep-proxies": _nasbench201("cifar10_valid_200ep", "cifar10_test_200ep", TRAINING_FREE),
    "nasbench201-12ep-proxies": _nasbench201("cifar10_valid_12ep", "cifar10_test_200ep", TRAINING_FREE),
    "nasbench201-cifar100-12ep": _nasbench201("cifar100_valid_12ep", "cifar100_test_200ep"),
    "nasbench201-cifar100-200ep": _nasbench201("cifar100_test_200ep", "cifar100_test_200ep"),
    "nasbench201-imagenet16-12ep": _nasbench201("imagenet16_120_valid_12ep", "imagenet16_120_test_200ep"),
    "nasbench201-imagenet16-200ep": _nasbench201("imagenet16_120_test_200ep", "imagenet16_120_test_200ep"),
    "nasbench101": Task(
        table="nasbench101", query="valid_accuracy_108ep", report="valid_accuracy_108ep", queries=150
    ),
    "nasbench-graph-cora": Task(table="nasbench_graph", query="cora_test", report="cora_test", queries=250),
}
"""The published protocol of NAS-Bench-Graph queries the test accuracy itself, and so does that of BRP-NAS and FLAN on CIFAR-100: for
CIFAR-100 and ImageNet16-120 there is no validation accuracy at 200 epochs of all cells."""


class Once:
    """A factory that prepares once for a table, and gives the same again: sound while rows and side columns stay."""

    def __init__(self, factory: StrategyFactory) -> None:
        self._factory = factory
        self._prepared: dict[int, SeededStrategy] = {}

    def __call__(self, view: SearchView) -> SeededStrategy:
        """The strategy, prepared for as many rows."""
        if len(view) not in self._prepared:
            self._prepared[len(view)] = self._factory(view)
        return self._prepared[len(view)]


def read_rows() -> list[Row]:
    """What has been measured; a torn last line is left out."""
    found = []
    for line in ROWS.read_text().splitlines() if ROWS.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def table_of(task: Task, folder: Path) -> Table:
    """A shipped table, or one in a folder."""
    path = folder / f"{task.table}.safetensors"
    return open_table(task.table if task.table == "nasbench201" else str(path))


def measure(
    name: str, factory: StrategyFactory, *, strategy: str, folder: Path, seeds: Sequence[int]
) -> None:
    """Add the rows of one task that are not there yet."""
    task, key = TASKS[name], {"task": name, "strategy": strategy}
    done = {row["seed"] for row in read_rows() if {k: row[k] for k in key} == key}
    missing = tuple(seed for seed in seeds if seed not in done)
    if not missing:
        return
    config = SearchProtocolConfig(
        query_metric=task.query,
        report_metric=task.report,
        num_queries=task.queries,
        seeds=missing,
        side_columns=task.side,
    )

    def write(run: SearchRun) -> None:
        row = {
            **key,
            "seed": run.seed,
            "best_so_far": [round(value, 5) for value in run.best_so_far],
            "report": [round(value, 5) for value in run.report],
            "queries_to_best": run.queries_to_best,
            "cpu_seconds": round(run.cpu_seconds, 4),
            "load": os.getloadavg()[0],
        }
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")

    run_search_protocol(table_of(task, folder), factory, config, on_run=write)


def report(folder: Path) -> None:
    """Mean, spread and queries to the best of every task that has been measured."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows():
        groups.setdefault((str(row["task"]), str(row["strategy"])), []).append(row)
    results = []
    for (name, strategy), rows in sorted(groups.items()):
        task = TASKS[name]
        table = table_of(task, folder)
        query, truth = (table.column(column).astype(np.float64) for column in (task.query, task.report))
        final = np.array([row["report"] for row in rows], dtype=float)
        counts = [row["queries_to_best"] for row in rows]
        to_best = queries_to_best(counts)  # type: ignore[arg-type]  # integers and None
        shown = [count for count in SHOWN if count <= final.shape[1]]
        results.append(
            {
                "task": name,
                "table": task.table,
                "query_metric": task.query,
                "report_metric": task.report,
                "side": task.side,
                "strategy": strategy,
                "seeds": sorted(int(str(row["seed"])) for row in rows),
                "best_query": float(np.nanmax(query)),
                "report_at_best_query": float(truth[np.nanargmax(query)]),
                "average_report": float(np.nanmean(truth)),
                "report": {
                    str(n): {"mean": final[:, n - 1].mean(), "std": final[:, n - 1].std(ddof=1)}
                    for n in shown
                },
                "queries_to_best": {"median": to_best.median, "max": to_best.max, "share": to_best.share},
                "all_queries_to_best": counts,
                "cpu_ms_per_query": 1000
                * float(np.mean([float(str(row["cpu_seconds"])) for row in rows]))
                / final.shape[1],
                "load": [
                    min(float(str(row["load"])) for row in rows),
                    max(float(str(row["load"])) for row in rows),
                ],
            }
        )
        curve = "  ".join(f"{final[:, n - 1].mean():.4f}@{n}" for n in shown)
        print(f"{name:30s}{strategy:10s}{len(rows):3d} seeds  {curve}  {to_best}")
    print(save("search_table_queries", {"results": results}))


def main() -> None:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--strategy", default="bayesian", choices=STRATEGIES)
    parser.add_argument("--tables", type=Path, default=Path("/tmp/nasgraph/tables"), help="folder of tables")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report:
        return report(options.tables)
    factories: dict[tuple[str, tuple[str, ...]], Once] = {}
    for name in options.tasks:
        key = TASKS[name].table, TASKS[name].side
        factory = factories.setdefault(key, Once(STRATEGIES[options.strategy]))
        measure(
            name,
            factory,
            strategy=options.strategy,
            folder=options.tables,
            seeds=range(options.first_seed, options.first_seed + options.seeds),
        )
    return None


if __name__ == "__main__":
    main()
