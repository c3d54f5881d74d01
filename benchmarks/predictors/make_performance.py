"""Makes the shipped predictor of CIFAR-10 accuracy (zoo/performance-cifar10) and measures it on cells it does not know.

    nice -n 5 python -m benchmarks.predictors.make_performance --cache /tmp/performance-rows.safetensors

Cells of NAS-Bench-201 are drawn at random from all 15,625 and built as whole networks (3x32x32, 5 cells per stage, 10
classes); of cells with equal graphs the first drawn counts. The first `--rows` graphs are the shipped ones; they are judged
on the next `--held-out`. For the spread, the same graphs are divided anew `--draws` times. Draws are written as they come.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.stats import kendalltau, spearmanr

from benchmarks.common import RESULTS, save
from nasgraph.evaluate.table import Table, open_table
from nasgraph.files import write_atomically, write_text
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.ensemble import EnsembleConfig
from nasgraph.predict.graph_features import GraphFeatures
from nasgraph.predict.known import KnownPerformance, PerformanceMetric, describe
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, load_space, replay

COLUMN = "cifar10_test_200ep"
INPUT_SHAPE, CLASSES = (3, 32, 32), 10
EDGES = [(source, target) for target in range(1, 4) for source in range(target)]
LEVELS = (0.5, 0.8, 0.9, 0.95)
METRIC = PerformanceMetric(
    name="test accuracy",
    unit="percent",
    data="CIFAR-10",
    protocol="200 epochs with the recipe of NAS-Bench-201 (SGD, momentum 0.9, cosine from 0.1, batches of 256, flips and crops), mean over its 1 to 3 seeds",
    lowest=0.0,
    highest=100.0,
)
SOURCE = "NAS-Bench-201 (Dong and Yang 2020, MIT), column cifar10_test_200ep of the shipped table nasbench201"


def main() -> None:
    """Draw, describe, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--held-out", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("zoo/performance-cifar10"))
    arguments = parser.parse_args()
    table = open_table("nasbench201")
    drawn, rows = described(
        table, arguments.rows + arguments.held_out, seed=arguments.seed, cache=arguments.cache
    )
    known = known_of(table, drawn, rows, np.arange(arguments.rows))
    recipe = {
        "seed": arguments.seed,
        "rows": arguments.rows,
        "population": "all 15,625 cells, distinct whole networks",
        "command": "python -m benchmarks.predictors.make_performance",
    }
    known.save(arguments.folder, recipe=recipe)
    everything = np.arange(len(drawn))
    shipped = measured(
        known, rows, table.column(COLUMN)[drawn], np.setdiff1d(everything, everything[: len(known)])
    )
    print("shipped", json.dumps(shipped), flush=True)
    draws = repeated(table, drawn, rows, arguments.rows, arguments.draws)
    save(
        "performance_cifar10",
        {
            "protocol": __doc__,
            "settings": recipe,
            "shipped": shipped,
            "draws": draws,
            "summary": summary(draws),
        },
    )
    write_text(arguments.folder / "README.md", card(known, shipped, draws, arguments.held_out))


def network_of(table: Table, row: int) -> ComputationalGraph:
    """The whole network of a row of the table."""
    operations = [part.split("~")[0] for part in table.key(row).replace("+", "").split("|") if part]
    choices = tuple((f"edge_{s}_{t}", op) for (s, t), op in zip(EDGES, operations, strict=True))
    space = load_space("nasbench201", input_shape=INPUT_SHAPE, num_classes=CLASSES)
    return replay(space, Architecture("nasbench201", choices)).graph


def described(table: Table, count: int, *, seed: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table with distinct networks, and their features. Kept in a file, since they take a minute."""
    if cache.is_file():
        kept = load_file(cache)
        if len(kept["drawn"]) == count:
            return kept["drawn"], kept["rows"]
    features = GraphFeatures.universal()
    seen: set[str] = set()
    drawn: list[int] = []
    parts: list[np.ndarray] = []
    for row in generator(seed, "performance-cifar10").permutation(len(table)).tolist():
        graph = network_of(table, row)
        if graph.fingerprint in seen:
            continue
        seen.add(graph.fingerprint)
        drawn.append(row)
        parts.append(describe(features, [graph])[0])
        if len(drawn) == count:
            break
    result = {"drawn": np.array(drawn), "rows": np.stack(parts)}
    write_atomically(cache, lambda path: save_file(result, path))
    return result["drawn"], result["rows"]


def known_of(table: Table, drawn: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> KnownPerformance:
    """What is known if the chosen ones are."""
    return KnownPerformance(
        metric=METRIC,
        features=GraphFeatures.universal(),
        rows_NF=rows[chosen],
        targets_N=table.column(COLUMN)[drawn[chosen]].astype(np.float64),
        keys=tuple(table.key(row) for row in drawn[chosen].tolist()),
        fingerprints=tuple(network_of(table, row).fingerprint for row in drawn[chosen].tolist()),
        input_shape=INPUT_SHAPE,
        num_classes=CLASSES,
        source=SOURCE,
    )


def measured(
    known: KnownPerformance,
    rows: np.ndarray,
    truth: np.ndarray,
    others: np.ndarray,
    *,
    levels: tuple[float, ...] = LEVELS,
) -> dict[str, object]:
    """How well the others are predicted."""
    y, x = truth[others].astype(np.float64), rows[others]
    began = time.process_time()
    fitted = known.predictor()
    seconds = time.process_time() - began
    mean = fitted.predict_rows(x).mean.numpy()
    far = fitted.distances(x).min(axis=1) > 1
    outside = np.array([len(columns) > fitted.most_outside for columns in fitted.outside(x)])
    intervals = {}
    for level in levels:
        low, high = (
            end.numpy() for end in known.predictor(EnsembleConfig(level=level)).predict_rows(x).interval()
        )
        held = (low <= y) & (y <= high)
        intervals[str(level)] = {"coverage": float(held.mean()), "median_width": float(np.median(high - low))}
    return {
        "rows": len(known),
        "held_out": len(others),
        "kendall_tau": float(kendalltau(mean, y).statistic),
        "spearman": float(spearmanr(mean, y).statistic),
        "mean_absolute_error": float(np.abs(mean - y).mean()),
        "median_absolute_error": float(np.median(np.abs(mean - y))),
        "intervals": intervals,
        "share_warned": float((far | outside).mean()),
        "fit_cpu_seconds": seconds,
    }


def repeated(
    table: Table, drawn: np.ndarray, rows: np.ndarray, count: int, draws: int
) -> list[dict[str, object]]:
    """The same graphs divided anew; each division is written as it is done, and read back by a second call."""
    path = RESULTS / "performance_cifar10.rows.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = [row for row in done if row["rows"] == count and row["held_out"] == len(drawn) - count]
    for draw in range(len(done), draws):
        order = generator(draw, "performance-cifar10", "division").permutation(len(drawn))
        known = KnownPerformance(
            metric=METRIC,
            features=GraphFeatures.universal(),
            rows_NF=rows[order[:count]],
            targets_N=table.column(COLUMN)[drawn[order[:count]]].astype(np.float64),
            keys=("",) * count,
            fingerprints=("",) * count,
        )
        result = measured(known, rows, table.column(COLUMN)[drawn], order[count:], levels=(0.9,))
        done.append({"draw": draw, **result})
        with path.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print("draw", draw, json.dumps(result), flush=True)
    return done[:draws]


def summary(draws: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the divisions."""
    values = {
        name: np.array([each[name] for each in draws], dtype=float)
        for name in ("kendall_tau", "spearman", "mean_absolute_error", "share_warned")
    }
    values["coverage_90"] = np.array([each["intervals"]["0.9"]["coverage"] for each in draws])  # type: ignore[index]  # plain JSON
    values["median_width_90"] = np.array([each["intervals"]["0.9"]["median_width"] for each in draws])  # type: ignore[index]  # plain JSON
    return {
        name: {"mean": float(each.mean()), "std": float(each.std(ddof=1))} for name, each in values.items()
    }


def card(
    known: KnownPerformance, shipped: dict[str, object], draws: list[dict[str, object]], held_out: int
) -> str:
    """The README of the folder."""
    mean = summary(draws)
    intervals = shipped["intervals"]
    assert isinstance(intervals, dict)
    both = [
        ("Kendall's tau", f"{shipped['kendall_tau']:.3f}", mean["kendall_tau"], ".3f"),
        (
            "mean absolute error, percentage points",
            f"{shipped['mean_absolute_error']:.2f}",
            mean["mean_absolute_error"],
            ".2f",
        ),
        ("90 % intervals hold", f"{intervals['0.9']['coverage']:.1%}", mean["coverage_90"], ".1%"),
        (
            "median width of a 90 % interval",
            f"{intervals['0.9']['median_width']:.2f}",
            mean["median_width_90"],
            ".2f",
        ),
        ("warned of as unlike the known ones", f"{shipped['share_warned']:.1%}", mean["share_warned"], ".1%"),
    ]
    table = "\n".join(
        f"| {name} | {own} | {s['mean']:{form}} ± {s['std']:{form}} |" for name, own, s, form in both
    )
    sizes = np.expm1(known.rows_NF[:, known.features.names.index("log parameters")].astype(float)) / 1e6
    levels = ", ".join(f"{float(level):.0%}: {value['coverage']:.1%}" for level, value in intervals.items())
    return f"""---
license: "Apache-2.0"
library_name: nasgraph
tags: ["nasgraph", "performance-prediction"]
datasets: ["cifar10"]
---

# performance-cifar10

What `nasgraph predict` and `nasgraph.predict.performance` know about test accuracy on CIFAR-10: {len(known)} networks of NAS-Bench-201, each as a row of
{known.rows_NF.shape[1]} numbers that describe its graph in words that all networks share, with the accuracy that was measured. No fitted model is stored; loading fits
an ensemble (a Gaussian process and trees) to the rows, which takes a few seconds.

| fact | value |
| --- | --- |
| predicts | {METRIC.name} in {METRIC.unit} on {METRIC.data} |
| protocol | {METRIC.protocol} |
| networks | {len(known)} distinct ones, drawn at random (seed 0) from all 15,625 cells; whole networks of 5 cells per stage, 16 to 64 channels |
| inputs, classes | 3x32x32, {CLASSES} |
| source | {SOURCE} |
| made by | `benchmarks/predictors/make_performance.py`; results in `benchmarks/results/performance_cifar10.json` |

Measured on {held_out:,} other networks of the same space, which it does not know:

| | this one | {len(draws)} divisions of the same graphs |
| --- | --- | --- |
{table}

Intervals of this one hold, by level: {levels}.

**What it does not know.** All of this holds for networks like those of NAS-Bench-201: small convolutional networks, the known ones of {sizes.min():.2f} to {sizes.max():.2f} million parameters, trained by that recipe. A network with attention, with
linear layers in its trunk, much larger or trained otherwise is outside; predictions for it come with a warning and an interval that promises nothing.
"""


if __name__ == "__main__":
    main()
