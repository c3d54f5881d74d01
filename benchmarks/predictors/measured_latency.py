"""Is latency that we measure ourselves predicted as well as that of the tables?

    python -m benchmarks.predictors.measured_latency

Random networks of two spaces are measured on this machine (batch 1, one thread, LatencyConfig's adaptive repeats), in an
order that mixes the spaces; each is measured a second time afterwards, which tells how repeatable the numbers are. A predictor is
trained on two thirds of each space and judged on the rest, over 10 divisions, against multiply-adds and against the second measurement.

The measurements are kept in measured_latency.rows.jsonl. The load of the machine is noted with each.
"""

import argparse
import json
import os
from dataclasses import asdict

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.common import RESULTS, save
from nasgraph.evaluate import LatencyConfig, measure_latency
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.predict import HardwarePredictor
from nasgraph.seeding import generator
from nasgraph.spaces import sample
from search_spaces.convnet import ConvNet
from search_spaces.nasbench201 import NASBench201

Array = np.ndarray
SPACES = {
    "nasbench201": NASBench201(input_shape=(3, 32, 32), num_classes=10, num_cells=1),
    "convnet": ConvNet(input_shape=(3, 32, 32), num_classes=10),
}
CONFIG = LatencyConfig(max_seconds=1.0)


def networks(space: str, count: int) -> list[ComputationalGraph]:
    """Distinct random networks of a space."""
    rng = generator(0, "networks", space)
    found: dict[str, ComputationalGraph] = {}
    while len(found) < count:
        graph = sample(SPACES[space], rng).graph
        found.setdefault(graph.fingerprint, graph)
    return list(found.values())


def measure_all(graphs: dict[str, list[ComputationalGraph]]) -> list[dict[str, object]]:
    path = RESULTS / "measured_latency.rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["space"], row["network"], row["round"]) for row in rows}
    jobs = [(space, index) for space, own in graphs.items() for index in range(len(own))]
    with path.open("a") as out:
        for round_ in (0, 1):
            for place in generator(round_, "order").permutation(len(jobs)):
                space, index = jobs[place]
                if (space, index, round_) in done:
                    continue
                latency = measure_latency(graphs[space][index], config=CONFIG)
                row = {
                    "space": space,
                    "network": index,
                    "round": round_,
                    "load": os.getloadavg()[0],
                    **asdict(latency),
                }
                rows.append(row)
                out.write(json.dumps(row) + "\n")
                out.flush()
    return rows


def column(rows: list[dict[str, object]], space: str, round_: int, name: str, count: int) -> Array:
    found = {row["network"]: row[name] for row in rows if (row["space"], row["round"]) == (space, round_)}
    return np.array([found[index] for index in range(count)], dtype=np.float64)


def judge(said: Array, truth: Array) -> dict[str, float]:
    return {
        "spearman": float(spearmanr(said, truth).statistic),
        "mape": float(100 * np.mean(np.abs(said - truth) / truth)),
    }


def divisions(graphs: list[ComputationalGraph], first: Array, second: Array) -> list[dict[str, float]]:
    """Results of ten divisions into networks to learn from and networks to judge."""
    multiply_adds = np.array([cost_of(graph).multiply_adds for graph in graphs], dtype=np.float64)
    results = []
    for seed in range(10):
        order = generator(seed, "division").permutation(len(graphs))
        train, test = np.split(order, [2 * len(graphs) // 3])
        predictor = HardwarePredictor(seed=seed)
        predictor.fit([graphs[i] for i in train], torch.from_numpy(first[train]))
        tested = [graphs[i] for i in test]
        low, high = (bound.numpy() for bound in predictor.interval(tested))
        row = {f"ours_{k}": v for k, v in judge(predictor.predict(tested).mean.numpy(), first[test]).items()}
        scaled = multiply_adds * np.median(first[train] / multiply_adds[train])
        row |= {f"multiply_adds_{k}": v for k, v in judge(scaled[test], first[test]).items()}
        row |= {f"second_measurement_{k}": v for k, v in judge(second[test], first[test]).items()}
        row["coverage90"] = float(((low <= first[test]) & (first[test] <= high)).mean())
        results.append(row)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60, help="networks of each space")
    options = parser.parse_args()
    graphs = {space: networks(space, options.count) for space in SPACES}
    rows = measure_all(graphs)
    result: dict[str, object] = {
        "config": asdict(CONFIG),
        "device": rows[0]["device"],
        "load": {"lowest": min(row["load"] for row in rows), "highest": max(row["load"] for row in rows)},  # type: ignore[type-var]
        "caution": "the machine's two cores were shared with many other jobs; see 'load' and the second measurement",
    }
    for space, own in graphs.items():
        for name in ("median_ms", "p10_ms"):
            first, second = (column(rows, space, round_, name, options.count) for round_ in (0, 1))
            found = divisions(own, first, second)
            entry = {
                key: {
                    "mean": float(np.mean([r[key] for r in found])),
                    "std": float(np.std([r[key] for r in found], ddof=1)),
                }
                for key in found[0]
            }
            entry["range_ms"] = {"lowest": float(first.min()), "highest": float(first.max())}
            result[f"{space}, {name}"] = entry
            print(space, name, json.dumps(entry, indent=1))
    save("measured_latency", result)


if __name__ == "__main__":
    main()
