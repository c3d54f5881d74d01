"""Write a table of the 26,206 networks of NAS-Bench-Graph, with all data sets but proteins, which has a part of them only.

python -m benchmarks.tables.make_nasbench_graph [-o FILE]
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED_DATA
from benchmarks.tables.cells import OPERATIONS_GRAPH, nasbench_graph_graphs
from nasgraph.evaluate.table import Metric, TableInfo, make_table, write_table

DATA_SETS = ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv")
ACCURACY = Metric(name="accuracy", higher_is_better=True, unit="fraction", protocol="mean of three seeds")
LATENCY = Metric(
    name="latency", higher_is_better=False, unit="s", protocol="as published; the unit is assumed"
)
SIZE = Metric(name="size", higher_is_better=False, unit="M", training_free=True)


def columns(table: dict[str, np.ndarray]) -> Iterator[tuple[Metric, np.ndarray]]:
    """Metrics of every data set."""
    for data in DATA_SETS:
        yield replace(ACCURACY, name=f"{data}_valid", split="validation"), table[f"{data}_valid_perf"]
        yield replace(ACCURACY, name=f"{data}_test", split="test"), table[f"{data}_test_perf"]
        yield replace(LATENCY, name=f"{data}_latency_s"), table[f"{data}_latency_s"]
        yield replace(SIZE, name=f"{data}_params_M"), table[f"{data}_params_M"]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("nasbench_graph.safetensors"))
    output = parser.parse_args().output
    with np.load(SHARED_DATA / "nasbench_graph_light.npz", allow_pickle=False) as file:
        table = dict(file)
    found = list(columns(table))
    info = TableInfo(
        name="nasbench_graph",
        description=(
            "The 26,206 graph networks of NAS-Bench-Graph. Graph convolutions are opaque nodes named as in the benchmark; "
            "a key lists what each of the four nodes reads, and its operation."
        ),
        source="NAS-Bench-Graph (Qin et al. 2022), THUMNLab/NAS-Bench-Graph nas-bench-graph/light (be42534b56f6)",
        licence="Apache-2.0",
        metrics=tuple(metric for metric, _ in found),
        train_metric="cora_valid",
        test_metric="cora_test",
    )
    keys = [
        "|".join(f"{OPERATIONS_GRAPH[op]}~{source}" for source, op in zip(link, ops, strict=True))
        for link, ops in zip(table["link"].tolist(), table["ops"].tolist(), strict=True)
    ]
    made = make_table(
        nasbench_graph_graphs(), {metric.name: values for metric, values in found}, info, keys=keys
    )
    write_table(output, made)
    print(f"{output}: {len(made):,} rows, {made.num_graphs:,} graphs, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
