"""Write a table of 30,001 NAS-Bench-101 cells from the shared sample.

python -m benchmarks.tables.make_nasbench101 [-o FILE]
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED_DATA
from benchmarks.tables.cells import nasbench101_graphs
from nasgraph.evaluate.table import Metric, TableInfo, make_table, write_table

SOURCE = "tiga1231/nasbench-vis static/data (7aec0e76fbcd)"
LICENCE = "none found at this source; the benchmark is Apache-2.0"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("nasbench101.safetensors"))
    output = parser.parse_args().output
    with np.load(SHARED_DATA / "nasbench101_sample.npz", allow_pickle=False) as file:
        table = dict(file)
    accuracy = [
        Metric(
            name=f"valid_accuracy_{epochs}ep",
            higher_is_better=True,
            unit="fraction",
            split="validation",
            protocol=f"CIFAR-10, {epochs} epochs; the best of three repeats, as it seems, not the mean",
            source=SOURCE,
            licence=LICENCE,
        )
        for epochs in table["budgets_epochs"].tolist()
    ]
    seconds = Metric(
        name="training_seconds",
        higher_is_better=False,
        unit="s",
        protocol="108 epochs",
        source=SOURCE,
        licence=LICENCE,
    )
    size = Metric(
        name="params_M", higher_is_better=False, unit="M", training_free=True, source=SOURCE, licence=LICENCE
    )
    info = TableInfo(
        name="nasbench101",
        description=(
            "30,001 of the 423,624 cells of NAS-Bench-101, consecutive by hash and so as good as random. A graph is one cell "
            "with 128 channels at 32 x 32; a key is the benchmark's hash."
        ),
        source="NAS-Bench-101 (Ying et al. 2019, Apache-2.0)",
        licence="Apache-2.0; of the copy see the metrics",
        metrics=(*accuracy, seconds, size),
        train_metric=accuracy[-1].name,
        test_metric=accuracy[-1].name,
    )
    columns = {metric.name: table["valid_accuracy"][:, i] for i, metric in enumerate(accuracy)}
    columns |= {
        "training_seconds": table["training_seconds"],
        "params_M": (table["trainable_parameters"] / 1e6).astype(np.float64),
    }
    made = make_table(nasbench101_graphs(), columns, info, keys=table["module_hash"].tolist())
    write_table(output, made)
    print(f"{output}: {len(made):,} rows, {made.num_graphs:,} graphs, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
