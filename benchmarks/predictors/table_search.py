"""How many queries do searches of NAS-Bench-201 need? Best so far over seeds, random search beside it.

    python -m benchmarks.predictors.table_search
    python -m benchmarks.predictors.table_search --strategies bayesian robot --side training-free --queries 50
    python -m benchmarks.predictors.table_search --report

Two queries, both reported in the mean test accuracy at 200 epochs of the best row by query: the mean validation accuracy at 200 epochs,
and the validation accuracy at 12 epochs. Protocol: `nasgraph.evaluate.table_search`; all strategies with their defaults, the same for both.
No strategy knows anything of the table but its graphs, its keys, and the values of the rows that it asked for; with `--side training-free`
also the columns that are known without training.

Rows are kept in a .rows.jsonl file: an interrupted run goes on where it stopped. CPU seconds are those of the process, so that other load on
the machine counts only as far as it takes caches.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from benchmarks.common import RESULTS, save
from nasgraph.evaluate.table import open_table
from nasgraph.evaluate.table_search import (
    SearchProtocolConfig,
    SearchRun,
    queries_to_best,
    run_search_protocol,
)
from nasgraph.evaluate.table_strategies import STRATEGIES
from nasgraph.evaluate.table_strategy import SearchView, SeededStrategy, StrategyFactory

QUERY_METRICS = ("cifar10_valid_200ep", "cifar10_valid_12ep")
REPORT_METRIC = "cifar10_test_200ep"
SHOWN = (10, 20, 25, 32, 50, 64, 100)
ROWS = RESULTS / "table_search.rows.jsonl"
Row = Mapping[str, object]


class Once:
    """A factory that prepares once for one table, and gives the same again: sound while rows and side columns stay."""

    def __init__(self, factory: StrategyFactory) -> None:
        self.factory = factory
        self.seeded: SeededStrategy | None = None

    def __call__(self, view: SearchView) -> SeededStrategy:
        """The strategy, prepared."""
        if self.seeded is None:
            self.seeded = self.factory(view)
        return self.seeded


def read_rows() -> list[Row]:
    """What has been measured; a torn last line is left out."""
    if not ROWS.exists():
        return []
    found = []
    for line in ROWS.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def measure(strategy: str, *, side: Sequence[str], queries: int, seeds: Sequence[int]) -> None:
    """Add the rows of one strategy that are not there yet."""
    table, factory = open_table("nasbench201"), Once(STRATEGIES[strategy])
    for metric in QUERY_METRICS:
        key = {"strategy": strategy, "query_metric": metric, "side": list(side), "queries": queries}
        done = {row["seed"] for row in read_rows() if {name: row[name] for name in key} == key}
        missing = tuple(seed for seed in seeds if seed not in done)
        if not missing:
            continue
        config = SearchProtocolConfig(
            query_metric=metric,
            report_metric=REPORT_METRIC,
            num_queries=queries,
            seeds=missing,
            side_columns=tuple(side),
        )

        def write(run: SearchRun, key: Row = key) -> None:
            row = {
                **key,
                "seed": run.seed,
                "best_so_far": [round(value, 5) for value in run.best_so_far],
                "report": [round(value, 5) for value in run.report],
                "queries_to_best": run.queries_to_best,
                "cpu_seconds": round(run.cpu_seconds, 5),
                "load": os.getloadavg()[0],
            }
            with ROWS.open("a") as file:
                file.write(json.dumps(row) + "\n")

        result = run_search_protocol(table, factory, config, on_run=write)
        print(f"{strategy} {metric}: prepared in {result.prepare_cpu_seconds:.2f} CPU seconds", flush=True)


def report() -> None:
    """Mean, spread and queries to the best of every strategy that has been measured."""
    table = open_table("nasbench201")
    average = float(table.column(REPORT_METRIC).astype(np.float64).mean())
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in read_rows():
        groups.setdefault(
            (row["query_metric"], row["strategy"], tuple(row["side"]), row["queries"]),  # type: ignore[arg-type]  # a list
            [],
        ).append(row)
    results = []
    for (metric, strategy, side, queries), rows in sorted(groups.items(), key=str):
        final = np.array([row["report"] for row in rows], dtype=float)
        counts = [row["queries_to_best"] for row in rows]
        to_best = queries_to_best(counts)  # type: ignore[arg-type]  # integers and None
        shown = [count for count in SHOWN if count <= final.shape[1]]
        results.append(
            {
                "query_metric": metric,
                "report_metric": REPORT_METRIC,
                "strategy": strategy,
                "side": side,
                "queries": queries,
                "seeds": sorted(row["seed"] for row in rows),  # type: ignore[type-var]  # integers
                "report": {
                    str(n): {"mean": final[:, n - 1].mean(), "std": final[:, n - 1].std(ddof=1)}
                    for n in shown
                },
                "queries_to_best": {"median": to_best.median, "max": to_best.max, "share": to_best.share},
                "all_queries_to_best": counts,
                "relative_improvement_percent": 100 * float(final[:, -1].mean() - average) / average,
                "cpu_seconds_per_query": float(np.mean([row["cpu_seconds"] for row in rows]))
                / final.shape[1],
                "load": [min(row["load"] for row in rows), max(row["load"] for row in rows)],  # type: ignore[type-var]  # numbers
            }
        )
        curve = "  ".join(f"{final[:, n - 1].mean():.3f}@{n}" for n in shown)
        print(f"{metric:22s}{strategy:14s}{side!s:22s}{len(rows):3d} seeds  {curve}  {to_best}")
    rows_of = table.column(QUERY_METRICS[0])
    best = int(rows_of.argmax())
    facts = {
        "average_report": average,
        "best_query": float(rows_of[best]),
        "report_at_best": float(table.column(REPORT_METRIC)[best]),
    }
    print(save("table_search", {"table": facts, "results": results}))


def main() -> None:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--strategies", nargs="+", default=["random", "evolution", "bayesian"], choices=STRATEGIES
    )
    parser.add_argument("--side", nargs="*", default=[])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--report", action="store_true", help="only report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.report:
        for strategy in options.strategies:
            measure(strategy, side=options.side, queries=options.queries, seeds=range(options.seeds))
    report()


if __name__ == "__main__":
    main()
