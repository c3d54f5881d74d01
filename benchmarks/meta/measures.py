"""How well measures of generalisation rank networks that differ in one hyper-parameter.

    python -m benchmarks.meta.measures_grid   # once: trains the grid
    python -m benchmarks.meta.measures

The grid: perceptrons on 500 images of Fashion-MNIST at 14 x 14 pixels; width, depth, batch size, learning rate, weight decay and seed are varied in all
combinations, and every network is taken when its training loss first is at most 0.1 (those that never get there are left out). The target is the gap between
training and test accuracy, on 5,000 test images. Rows go to `meta_measures.jsonl`; a second call goes on where the first stopped.
"""

import json
import time
from itertools import product

import numpy as np
import torch
from scipy.stats import kendalltau

from benchmarks.common import RESULTS, save
from benchmarks.meta.measures_grid import BATCHES, DEPTHS, FOLDER, STOP, WIDTHS, data, graph_of, load_cell
from nasgraph.ir import cost_of
from nasgraph.meta.measures import MEASURES, generalisation_measures, granulated_tau, robust_sign_error

ROWS = RESULTS / "meta_measures.jsonl"
SETTINGS = ("width", "depth", "batch", "rate", "decay", "seed")


def measure_cell(width: int, depth: int, batch: int) -> list[dict[str, float]]:
    """Measures of the networks of one cell, with its seconds."""
    started = time.process_time()
    train, _ = data()
    graph = graph_of(width, depth)
    state, initial, rows = load_cell(width, depth, batch)
    found = generalisation_measures(graph, state, train, initial=initial, draws=3, steps=10)
    seconds = round((time.process_time() - started) / len(rows), 3)
    size = cost_of(graph).num_parameters
    return [
        {**row, "num_parameters": size, "cpu_seconds": seconds, **{name: float(value[k]) for name, value in found.items()}}
        for k, row in enumerate(rows)
    ]  # fmt: skip


def summary(rows: list[dict[str, float]]) -> list[dict[str, object]]:
    """Plain tau, granulated tau and sign errors of every measure."""
    kept = [row for row in rows if row["reached"] >= 0]
    gap = np.array([row["train_accuracy"] - row["test_accuracy"] for row in kept])
    settings = {name: [row[name] for row in kept] for name in SETTINGS}
    result = []
    for name in (*MEASURES, "num_parameters", "random"):
        values = (
            np.random.default_rng(0).normal(size=len(kept))
            if name == "random"
            else np.array([row[name] for row in kept])
        )
        errors = robust_sign_error(values, gap, settings)
        result.append(
            {
                "measure": name,
                "networks": len(kept),
                "tau": float(kendalltau(values, gap).statistic),
                "granulated": {
                    k: None if np.isnan(v) else v for k, v in granulated_tau(values, gap, settings).items()
                },
                "sign_error_worst": errors["worst"],
                "sign_error_mean": errors["mean"],
                "environments": len(errors) - 2,
            }
        )
    return result


def main() -> None:
    """Measure what is missing, then write the summary."""
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {(row["width"], row["depth"], row["batch"]) for row in rows}
    for cell in product(WIDTHS, DEPTHS, BATCHES):
        path = FOLDER / f"{cell[0]}-{cell[1]}-{cell[2]}.json"
        if cell in done or not path.exists():
            continue
        found = measure_cell(*cell)
        rows += found
        with ROWS.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in found))
        print(cell, found[0]["cpu_seconds"], flush=True)
    gaps = [row["train_accuracy"] - row["test_accuracy"] for row in rows if row["reached"] >= 0]
    save(
        "meta_measures",
        {
            "rows": summary(rows),
            "trained": len(rows),
            "stop_at_training_loss": STOP,
            "gap": {"low": min(gaps), "mean": float(np.mean(gaps)), "high": max(gaps)},
            "cpu_seconds_per_network": float(np.mean([row["cpu_seconds"] for row in rows])),
        },
    )


if __name__ == "__main__":
    main()
