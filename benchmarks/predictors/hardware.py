"""How well is the latency or energy of a network on a device predicted from a few measurements there?

    python -m benchmarks.predictors.hardware --space nasbench201
    python -m benchmarks.predictors.hardware --space nasbench201 --others --sizes 10 100
    python -m benchmarks.predictors.hardware --space fbnet
    python -m benchmarks.predictors.hardware --space fbnet --others --sizes 10 100
    python -m benchmarks.predictors.hardware --report

Tables: 27 device settings each for NAS-Bench-201 (15,625 cells) and FBNet (5,000 networks) as measured for HELP (Lee et al. 2021), and
the three energies of HW-NAS-Bench (Li et al. 2021) on CIFAR-10. Labels: n random networks; reported: all the rest of the table; no
other labels of the device are seen. Spreads are over seeds. Methods:

- multiply-adds: the order by multiply-adds; for errors in per cent, scaled by one factor fitted to the labels.
- lookup: a ridge regression on one-hot choices, as a table of times per place and operator would be learnt (BayesianRidge).
- ours: `fit_hardware`, the core of `HardwarePredictor`, from costs of the graph alone.
- ours, 13 devices known: the same with what 13 other devices need, as predicted by our predictors fitted to 900 random
  networks on each. The devices are those on which HELP trains and validates (it uses 900 networks each on NAS-Bench-201 and 4,000 on FBNet).

NAS-Bench-201 cells are described *as run*: a device computes branches that reach no output and multiplies by zero where
the cell says "none". "as searched" leaves dead branches out, as graphs of the search space do.

Rows are kept in .rows.jsonl files: an interrupted run goes on where it stopped.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from benchmarks.common import RESULTS, SHARED_DATA, save
from benchmarks.tables.cells import nasbench201_graph
from benchmarks.tables.fbnet import fbnet_graphs
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.predict import CostColumns, fit_hardware
from nasgraph.seeding import generator
from search_spaces.nasbench201 import EDGES, OPERATIONS

Array = np.ndarray
SIZES = (10, 20, 50, 100, 900)
SOURCE_LABELS = 900
SOURCES = {
    "nasbench201": [
        "1080ti_1",
        "1080ti_32",
        "1080ti_256",
        "silver_4114",
        "silver_4210r",
        "samsung_a50",
        "pixel3",
        "essential_ph_1",
        "samsung_s7",
        "titanx_1",
        "titanx_32",
        "titanx_256",
        "gold_6240",
    ],
    "fbnet": [
        "1080ti_1",
        "1080ti_32",
        "1080ti_64",
        "silver_4114",
        "silver_4210r",
        "samsung_a50",
        "pixel3",
        "essential_ph_1",
        "samsung_s7",
        "titanx_1",
        "titanx_32",
        "titanx_64",
        "gold_6240",
    ],
}
TARGETS = {
    "nasbench201": ["titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga"],
    "fbnet": ["raspi4", "eyeriss", "fpga"],
}
PUBLISHED = {
    "source": (
        "Spearman on unseen devices; README of github.com/HayeonLee/HELP (tables 2 and 3 of Lee et al. 2021), as kept in "
        "github.com/abdelfattah-lab/nasflat_latency, correlation_trainer/HELP, commit 82924343a2a9"
    ),
    "nasbench201": {
        "order": TARGETS["nasbench201"],
        "FLOPs": [0.950, 0.826, 0.765, 0.846, 0.437, 0.900],
        "BRP-NAS, 900 labels": [0.814, 0.796, 0.666, 0.847, 0.811, 0.801],
        "BRP-NAS, 3200 labels": [0.822, 0.805, 0.693, 0.853, 0.830, 0.828],
        "HELP, 10 labels": [0.987, 0.989, 0.802, 0.890, 0.940, 0.985],
    },
    "fbnet": {
        "order": TARGETS["fbnet"],
        "MAML, 10 labels": [0.718, 0.763, 0.727],
        "Meta-SGD, 10 labels": [0.821, 0.822, 0.776],
        "HELP, 10 labels": [0.887, 0.943, 0.892],
    },
}


def cell_as_run(ops: Sequence[int]) -> ComputationalGraph:
    """One NAS-Bench-201 cell with everything that its module computes: dead branches, and zeros where there is no operation."""
    g = GraphBuilder()
    values = [g("input", shape=(16, 32, 32))]
    for target in range(1, 4):
        arriving = [
            _edge(g, OPERATIONS[int(op)], values[source])
            for op, (source, its_target) in zip(ops, EDGES, strict=True)
            if its_target == target
        ]
        values.append(arriving[0] if len(arriving) == 1 else g("add", *arriving))
    return g.finish(values[-1])


def _edge(g: GraphBuilder, operation: str, x: int) -> int:
    if operation == "none":
        return g("zero", x)
    if operation == "skip_connect":
        return g("identity", x)
    if operation == "avg_pool_3x3":
        return g("avg_pool2d", x, kernel_size=3, stride=1, padding=1)
    kernel = 1 if operation == "nor_conv_1x1" else 3
    x = g("conv2d", g("relu", x), out_channels=16, kernel_size=kernel, padding=kernel // 2, bias=False)
    return g("batch_norm", x)


class Table:
    """A space with the costs of its networks and what devices need."""

    def __init__(self, space: str) -> None:
        self.space = space
        name = {"nasbench201": "nasbench201_hardware", "fbnet": "fbnet_hardware"}[space]
        with np.load(SHARED_DATA / f"{name}.npz", allow_pickle=False) as data:
            if space == "fbnet":
                self.needs = dict(zip(data["device_names"].tolist(), data["latency_ms"].T, strict=True))
                self.choices, count = data["arch"], 9
            else:
                self.needs = dict(
                    zip(data["help_device_names"].tolist(), data["help_latency_ms"].T, strict=True)
                )
                metrics = dict(
                    zip(data["hwnasbench_metric_names"].tolist(), data["hwnasbench_cifar10"].T, strict=True)
                )
                self.needs |= {f"hw_nas_bench_{key}": v for key, v in metrics.items() if "energy" in key}
                with np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False) as cells:
                    self.choices, count = cells["ops"], 5
        self.needs = {key: value.astype(np.float64) for key, value in self.needs.items()}
        self.one_hot = np.eye(count)[self.choices].reshape(len(self.choices), -1)
        self.names, self.costs = self._cached("as_run")
        self.searched = self._cached("as_searched")[1] if space == "nasbench201" else self.costs

    def _cached(self, form: str) -> tuple[list[str], Array]:
        path = Path(tempfile.gettempdir()) / f"nasgraph_costs_{self.space}_{form}.npz"
        if not path.exists():
            if self.space == "fbnet":
                graphs = fbnet_graphs()
            else:
                build = cell_as_run if form == "as_run" else nasbench201_graph
                graphs = [build(ops) for ops in self.choices]
            columns = CostColumns.of(graphs)
            np.savez(path, names=np.array(columns.names), costs=columns(graphs))
        with np.load(path, allow_pickle=False) as data:
            return data["names"].tolist(), data["costs"]

    def known(self) -> Array:
        """What the source devices need, as predicted for every network."""
        path = Path(tempfile.gettempdir()) / f"nasgraph_known_{self.space}.npz"
        if not path.exists():
            columns = []
            for device in SOURCES[self.space]:
                rows = generator(0, "sources", device).permutation(len(self.costs))[:SOURCE_LABELS]
                model = fit_hardware(self.costs[rows], self.needs[device][rows])
                columns.append(np.exp(model(self.costs)[0]))
            np.savez(path, known=np.column_stack(columns))
        with np.load(path, allow_pickle=False) as data:
            known: Array = data["known"]
            return known


def predict(table: Table, method: str, rows: Array, labels: Array, seed: int) -> tuple[Array, Array | None]:
    """What a method says of every network, and its log standard deviation if it has one."""
    if method == "multiply-adds":
        x = table.costs[:, table.names.index("multiply_adds")] + 1.0
        return x * np.exp(np.median(np.log(labels / x[rows]))), None
    if method == "lookup":
        from sklearn.linear_model import BayesianRidge

        model = BayesianRidge().fit(table.one_hot[rows], labels)
        return np.maximum(model.predict(table.one_hot), 1e-3 * labels.min()), None
    costs = table.searched if method == "ours, as searched" else table.costs
    known = table.known() if method == "ours, 13 devices known" else None
    fitted = fit_hardware(costs[rows], labels, known=None if known is None else known[rows], seed=seed)
    mean, std = fitted(costs, known)
    return np.exp(mean), std


def measure(table: Table, device: str, method: str, n: int, seed: int) -> dict[str, object]:
    """One row of results."""
    truth = table.needs[device]
    order = generator(seed, "labels").permutation(len(truth))
    rows, rest = order[:n], order[n:]
    started = time.process_time()
    said, std = predict(table, method, rows, truth[rows], seed)
    seconds = time.process_time() - started
    off = np.abs(said - truth)[rest] / truth[rest]
    result: dict[str, object] = {
        "device": device,
        "method": method,
        "n": n,
        "seed": seed,
        "spearman": float(spearmanr(said[rest], truth[rest]).statistic),
        "tau": float(kendalltau(said[rest], truth[rest]).statistic),
        "mape": 100 * float(off.mean()),
        "median_ape": 100 * float(np.median(off)),
        "cpu_seconds": seconds,
    }
    if std is not None:
        z = np.abs(np.log(truth[rest]) - np.log(said[rest])) / std[rest]
        result["coverage90"] = float((z <= 1.6449).mean())
        result["width90"] = float(np.exp(2 * 1.6449 * np.median(std[rest])))
    return result


def run(space: str, num_seeds: int, sizes: Sequence[int], *, others: bool) -> None:
    table = Table(space)
    path = RESULTS / f"hardware_{space}.rows.jsonl"
    done = {(r["device"], r["method"], r["n"], r["seed"]) for r in read_rows(path)}
    devices = [name for name in table.needs if name not in TARGETS[space]] if others else TARGETS[space]
    with path.open("a") as out:
        for device in devices:
            methods = ["multiply-adds", "lookup", "ours"]
            if not others:
                methods += [
                    "ours, 13 devices known",
                    *(["ours, as searched"] if space == "nasbench201" else []),
                ]
            for n in sizes:
                for method in methods:
                    for seed in range(num_seeds):
                        if (device, method, n, seed) not in done:
                            out.write(json.dumps(measure(table, device, method, n, seed)) + "\n")
                            out.flush()
            print(device, flush=True)


def read_rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of each measure, by device, method and n; of widths, which may be endless, the median."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        groups.setdefault(f"{row['device']} | {row['method']} | {row['n']}", []).append(row)
    result = {}
    for key, members in groups.items():
        entry = {"seeds": float(len(members))}
        for name in ("spearman", "tau", "mape", "median_ape", "coverage90", "cpu_seconds"):
            values = [row[name] for row in members if name in row]
            if len(values) > 1:
                entry |= {name: float(np.mean(values)), f"{name}_std": float(np.std(values, ddof=1))}
        if "width90" in members[0]:
            entry["width90"] = float(np.median([row["width90"] for row in members]))
        if len(members) > 1:
            result[key] = entry
    return result


def over_devices(
    cells: dict[str, dict[str, float]], chosen: Sequence[str] | None
) -> dict[str, dict[str, float]]:
    """Means over devices by method and n."""
    groups: dict[str, list[dict[str, float]]] = {}
    for key, entry in cells.items():
        device, method, n = key.split(" | ")
        if chosen is None or device in chosen:
            groups.setdefault(f"{method} | {n}", []).append(entry)
    names = ("spearman", "tau", "mape", "median_ape", "coverage90", "width90")
    return {
        key: {"devices": float(len(members))}
        | {name: float(np.mean([m[name] for m in members])) for name in names if name in members[0]}
        for key, members in groups.items()
    }


def report() -> None:
    result: dict[str, object] = {
        "published": PUBLISHED,
        "machine": "shared with many other jobs; no time is claimed",
    }
    for space in SOURCES:
        cells = summary(read_rows(RESULTS / f"hardware_{space}.rows.jsonl"))
        result[space] = {
            "HELP's target devices": over_devices(cells, TARGETS[space]),
            "all devices": over_devices(cells, None),
            "by device": cells,
        }
        for key, entry in over_devices(cells, TARGETS[space]).items():
            print(space, key, {name: round(value, 3) for name, value in entry.items()})
        for key, entry in over_devices(cells, None).items():
            print(space, "ALL", key, {name: round(value, 3) for name, value in entry.items()})
    save("hardware", result)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=sorted(SOURCES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--others", action="store_true", help="the devices that HELP was not tested on")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.space:
        run(options.space, options.seeds, options.sizes, others=options.others)
    if options.report:
        report()


if __name__ == "__main__":
    main()
