"""How long does a table take to open, and how long one query?

    python -m benchmarks.tables.speed [TABLE ...]       tables by name or path; the shipped one if none is named

Opening: in a process that has imported what it needs and has the file in the cache of the system; median of many. The first
opening of a process is told, too. Query: the value of one metric by the key of the row, for random keys; opening has built
the index of keys. Numbers are of a shared machine: `load` says how busy it was.
"""

import argparse
import os
import time
from statistics import median, quantiles

import numpy as np

from benchmarks.common import save
from nasgraph.evaluate.table import Table, open_table
from nasgraph.seeding import generator

OPENINGS, QUERIES, ROUNDS = 50, 2_000, 25


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=["nasbench201"])
    rows = []
    for name in parser.parse_args().tables:
        rows.append(measure(name))
        print(rows[-1])
    save(
        "tables_speed",
        {"load": os.getloadavg(), "openings": OPENINGS, "queries": QUERIES * ROUNDS, "tables": rows},
    )


def measure(name: str) -> dict[str, object]:
    """Times of one table."""
    started = time.perf_counter()
    table = open_table(name)
    first_opening = time.perf_counter() - started
    openings = []
    for _ in range(OPENINGS):
        started = time.perf_counter()
        table = open_table(name)
        openings.append(time.perf_counter() - started)
    metric = table.info.test_metric
    keys = [table.key(int(row)) for row in generator(0, "speed").integers(len(table), size=QUERIES)]
    each = _queries(table, keys, metric)
    started = time.perf_counter()
    graphs = table.graphs(range(0, len(table), max(1, len(table) // 1000)))
    return {
        "table": table.info.name,
        "rows": len(table),
        "metrics": len(table.info.metrics),
        "first_opening_seconds": first_opening,
        "opening_seconds": _spread(openings),
        "query_microseconds": _spread(each),
        "graph_microseconds": 1e6 * (time.perf_counter() - started) / len(graphs),
    }


def _queries(table: Table, keys: list[str], metric: str) -> list[float]:
    """Microseconds per query, one number per round."""
    result = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for key in keys:
            table.value(key, metric)
        result.append(1e6 * (time.perf_counter() - started) / len(keys))
    assert np.isfinite(table.value(keys[0], metric))
    return result


def _spread(values: list[float]) -> dict[str, float]:
    tenths = quantiles(values, n=10)
    return {"median": median(values), "tenth": tenths[0], "ninetieth": tenths[-1], "worst": max(values)}


if __name__ == "__main__":
    main()
