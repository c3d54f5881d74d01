"""How do zero-cost proxies rank NAS-Bench-201 cells, and what do they cost beside the reference implementation?

    python -m benchmarks.predictors.zero_cost --stage rows
    python -m benchmarks.predictors.zero_cost --stage speed --peer FOLDER   # a checkout of SamsungLabs/zero-cost-nas
    python -m benchmarks.predictors.zero_cost --stage report

Rows: the published network (5 cells per stage, 32x32) of random cells without unreachable operations, 32 training images of
CIFAR-10, one draw of the weights. Truth: the published CIFAR-10 test accuracy after 200 epochs, mean over seeds. Beside each proxy of
ours stand the values of the same cells in NAS-Bench-Suite-Zero (computed by NASLib), with their correlation on these
cells and on all 9,445, and the rank correlation of our values with theirs. Rows are written as they come; an interrupted
run goes on where it stopped.

Speed: CPU seconds for the measures that both have, the same cells and batch of 64 images, one after the other in one process,
one thread. The reference gets the very same network with the same weights, written as plain torch layers by
`graph_to_source`; its time leaves out building, ours does not. It makes several passes per measure; ours share them.
"""

import argparse
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from time import process_time
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr
from torch import nn

from benchmarks.common import RESULTS, SHARED_DATA, cpu_seconds, save, tau_with_interval
from nasgraph.data import Split, load_dataset
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import build, graph_to_source, source_parameters
from nasgraph.predict.zero_cost import PROXIES, az_nas, proxy_scores
from nasgraph.seeding import generator
from nasgraph.spaces import replay
from search_spaces.nasbench201 import NASBench201, architecture_from_string

Row = dict[str, Any]
NAME = "zero_cost_nb201"
BATCH, SPEED_BATCH = 32, 64
PUBLISHED = {
    "num_parameters": "params",
    "multiply_adds": "flops",
    "jacov": "jacov",
    **{
        name: name for name in ("epe_nas", "fisher", "grad_norm", "grasp", "l2_norm", "nwot", "plain", "snip")
    },
    "synflow": "synflow",
    "zen": "zen",
}
"""Our names, and those of NAS-Bench-Suite-Zero."""
SHARED = ("grad_norm", "snip", "grasp", "fisher", "synflow", "plain", "jacov")
"""Measures that the reference computes too, by our names. Its `l2_norm` is not among those it loads, and fails if it is."""
LITERATURE = {
    "multiply_adds": 0.799, "grad_norm": 0.438, "grasp": 0.505, "snip": 0.591, "synflow": 0.758, "jacov": 0.800,
    "nwot": 0.762, "zen": 0.103, "zico": 0.802, "ntk": 0.722, "num_weight_layers": 0.767, "AZ-NAS": 0.892,
}  # fmt: skip
"""Spearman on all 15,625 cells as published in VKDNW (Tybl and Neumann 2025), table 1; TE-NAS stands for `ntk`."""


class Cells:
    """The published table, and the order in which cells are measured."""

    def __init__(self) -> None:
        table = np.load(SHARED_DATA / "nasbench201.npz")
        self.strings, self.truth = table["arch_str"], table["cifar10_test_200ep"].astype(float)
        self.order = generator(2026, "zero_cost").permutation(np.flatnonzero(table["no_unreachable_ops"]))
        self._space = NASBench201(input_shape=(3, 32, 32), num_classes=10)

    def graph(self, index: int) -> ComputationalGraph:
        """The published network of a cell."""
        return replay(self._space, architecture_from_string(str(self.strings[index]))).graph


def first_images(count: int) -> Split:
    """The first training images of CIFAR-10, in a random order that never changes."""
    train = load_dataset("cifar10", data_dir=SHARED_DATA).search.train
    return Split(train.inputs[:count].clone(), train.targets[:count].clone())


# ---- rows


def measure(cells: Cells, path: Path, count: int) -> None:
    """Score the cells that have no row yet."""
    known = {row["index"] for row in read_rows(path)}
    batch = first_images(BATCH)
    with path.open("a") as file:
        for index in map(int, cells.order[:count]):
            if index in known:
                continue
            graph = cells.graph(index)
            (scores,), spent = cpu_seconds(partial(proxy_scores, [graph], batch, names=tuple(PROXIES)))
            values = {
                name: None if np.isnan(value) else float(f"{value:.8g}") for name, value in scores.items()
            }
            row = {"index": index, "cpu seconds": round(spent, 3), **values, "reasons": scores.reasons}
            file.write(json.dumps(row) + "\n")
            file.flush()


def read_rows(path: Path) -> list[Row]:
    """Rows in order; NaN was written as null."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: np.nan if value is None else value for key, value in row.items()} for row in rows]


# ---- speed


def speed(cells: Cells, peer: Path, count: int) -> dict[str, object]:
    """CPU seconds of the shared measures, ours and the reference's, interleaved; and whether values agree."""
    predictive = _reference(peer)
    batch = first_images(SPEED_BATCH)
    path = RESULTS / "zero_cost_speed.rows.jsonl"
    known = {row["index"] for row in read_rows(path)}
    for place, index in enumerate(
        [cells.order[0], *cells.order[:count]]
    ):  # the first cell warms up and is not counted
        if place and int(index) in known:
            continue
        graph, text = cells.graph(int(index)), str(cells.strings[index])
        network = _torch_network(graph)
        row: dict[str, Any] = {"index": int(index)}
        parts: list[tuple[str, Callable[[], Mapping[str, float]]]] = [
            ("ours", partial(_our_scores, graph, batch)),
            ("reference", partial(_reference_scores, predictive, network, batch)),
        ]
        for name, run in parts if place % 2 else parts[::-1]:
            row[f"{name} values"], row[name] = cpu_seconds(run)
        row["ours values"] = dict(row["ours values"])
        if place:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(text, f"ours {row['ours']:.2f} reference {row['reference']:.2f}", flush=True)
    rows = [row for row in read_rows(path) if row["index"] in cells.order[:count]]
    ratios = [row["reference"] / row["ours"] for row in rows]
    one = {name: _single_seconds(cells, rows, batch, (name,)) for name in SHARED}
    return {
        "cells": len(rows),
        "measures": SHARED,
        "batch": SPEED_BATCH,
        "CPU seconds per cell, ours": mean(row["ours"] for row in rows),
        "CPU seconds per cell, reference": mean(row["reference"] for row in rows),
        "ratio of totals": sum(row["reference"] for row in rows) / sum(row["ours"] for row in rows),
        "ratio per cell": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "ours, one proxy alone, CPU seconds per cell (3 cells)": one,
    }


def _single_seconds(cells: Cells, rows: Sequence[Row], batch: Split, names: Sequence[str]) -> float:
    started = process_time()
    for row in rows[:3]:
        proxy_scores([cells.graph(row["index"])], batch, names=names)
    return (process_time() - started) / len(rows[:3])


def _reference(folder: Path) -> Any:
    """The reference's entry point, without its loaders of data sets, which need packages that nothing here uses."""
    if not (folder / "foresight").is_dir():
        raise SystemExit(f"No checkout of SamsungLabs/zero-cost-nas in '{folder}'")
    sys.path.insert(0, str(folder))
    sys.modules.setdefault("foresight.dataset", types.ModuleType("foresight.dataset"))
    from foresight.pruners import predictive  # type: ignore[import-not-found]

    return predictive


def _torch_network(graph: ComputationalGraph) -> nn.Module:
    """The network as plain torch layers, which the reference looks for, with the initial parameters of seed 0."""
    scope: dict[str, Any] = {}
    exec(graph_to_source(graph), scope)  # our own text
    network: nn.Module = scope["Network"]()
    names, state = source_parameters(graph), build(graph, seed=0).state_dict()
    network.load_state_dict({names[name]: tensor for name, tensor in state.items()}, strict=False)
    return network


def _our_scores(graph: ComputationalGraph, batch: Split) -> Mapping[str, float]:
    return proxy_scores([graph], batch, names=SHARED)[0]


def _reference_scores(predictive: Any, network: Any, batch: Split) -> dict[str, float]:
    names = [{"jacov": "jacob_cov"}.get(name, name) for name in SHARED]
    loader = [(batch.inputs.clone(), batch.targets)]
    found = predictive.find_measures(
        network, loader, ("random", 1, 10), torch.device("cpu"), measure_names=names
    )
    return {name: float(np.real(found[{"jacov": "jacob_cov"}.get(name, name)])) for name in SHARED}


# ---- report


def report(cells: Cells, rows: Sequence[Row]) -> dict[str, object]:
    """Rank correlations of every proxy with accuracy, beside the published values of the same cells."""
    index = np.array([row["index"] for row in rows])
    truth = cells.truth[index]
    table = np.load(SHARED_DATA / "nasbench201_zero_cost.npz")
    place = {int(cell): row for row, cell in enumerate(table["index"])}
    columns = {name: np.array([row[name] for row in rows], float) for name in PROXIES}
    columns["AZ-NAS"] = az_nas(rows).mean.numpy()
    scores = {}
    for name, values in columns.items():
        low = np.nan_to_num(values, nan=-1e30)
        entry: dict[str, Any] = {
            "spearman": float(spearmanr(low, truth).statistic),
            **tau_with_interval(low, truth, resamples=500),
            "undefined": int(np.isnan(values).sum()),
            "literature, all 15,625 cells": LITERATURE.get(name),
        }
        if name in PUBLISHED:
            theirs = table["cifar10"][:, list(table["proxy_names"]).index(PUBLISHED[name])]
            same = theirs[[place[int(cell)] for cell in index]]
            entry |= {
                "spearman, published values, same cells": float(spearmanr(same, truth).statistic),
                "tau, published values, same cells": float(kendalltau(same, truth).statistic),
                "spearman, published values, 9,445 cells": float(
                    spearmanr(theirs, cells.truth[table["index"]]).statistic
                ),
                "spearman, ours with published values": float(spearmanr(low, same).statistic),
            }
        scores[name] = entry
    return {
        "cells": len(rows),
        "population": "cells without unreachable operations",
        "batch": BATCH,
        "draws of weights": 1,
        "CPU seconds per cell, all proxies": mean(row["cpu seconds"] for row in rows),
        "proxies": scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=("rows", "speed", "report"), required=True)
    parser.add_argument("--count", type=int, default=500, help="cells to score")
    parser.add_argument("--speed-count", type=int, default=12, help="cells to time")
    parser.add_argument("--peer", type=Path, help="a checkout of SamsungLabs/zero-cost-nas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells, path = Cells(), RESULTS / f"{NAME}.rows.jsonl"
    if arguments.stage == "rows":
        measure(cells, path, arguments.count)
    elif arguments.stage == "speed":
        if arguments.peer is None:
            raise SystemExit("Expected --peer FOLDER, a checkout of SamsungLabs/zero-cost-nas")
        print(save("zero_cost_speed", speed(cells, arguments.peer, arguments.speed_count)))
    else:
        print(save(NAME, report(cells, read_rows(path))))


if __name__ == "__main__":
    main()
