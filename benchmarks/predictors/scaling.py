"""Do scaling laws fitted to small models hold for larger ones, and do their intervals cover?

    python -m benchmarks.predictors.scaling

Three tables. HW-GPT-Bench: log perplexity of 10,000 GPT-S sub-networks against parameters; fit to random models below the median
size, predict random ones of the largest fifth, 10 seeds. timm: ImageNet error against parameters within families that share name,
training tag and image size; fit to the smaller models, predict the larger third. nanoGPT speed runs: validation loss against steps;
fit to the first half of a training, predict its end. The last is meant to fail: a learning rate that falls bends the curve, which
no fit to the first half can know. Beside the law stand "no change" (the best measured loss) and a straight line in logarithms (no
floor) with the usual interval of a regression.
"""

import argparse
import csv
import json
import logging
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from benchmarks.common import RESULTS, SHARED_DATA, save
from benchmarks.predictors.curves import curve_sets
from nasgraph.predict.curves import ScalingConfig, ScalingError, fit_scaling_law
from nasgraph.seeding import generator

ROWS = RESULTS / "scaling_laws.rows.jsonl"
CONFIG = ScalingConfig(num_resamples=60, starts_kept=1)


def case(title: str, x: np.ndarray, y: np.ndarray, new_x: np.ndarray, new_y: np.ndarray) -> dict[str, object]:
    """One study: fit to (x, y), compare with what was measured at `new_x`."""
    row: dict[str, object] = {"case": title, "points": len(x), "asked": len(new_x)}
    try:
        law = fit_scaling_law(y.tolist(), {"size": x.tolist()}, CONFIG)
    except ScalingError as error:
        return {**row, "refused": str(error)}
    said = [law.predict({"size": float(size)}) for size in new_x]
    plain = [
        law._interval({"size": float(size)}, coverage=0.9, of="model", widening=1.0, distance=0.0)
        for size in new_x
    ]
    line = straight_line(x, y, new_x)
    row |= {
        "floor": law.floor,
        "exponent": law.exponents[0],
        "widening": law.widening,
        "distance": float(np.mean([one.distance for one in said])),
        "law": _scores([(one.mean, one.low, one.high) for one in said], new_y),
        "law without its record": _scores([(one.mean, one.low, one.high) for one in plain], new_y),
        "straight line": _scores(line, new_y),
        "no change": {"error": float(np.mean(np.abs(np.log(new_y / y.min()))))},
    }
    return row


def straight_line(x: np.ndarray, y: np.ndarray, new_x: np.ndarray) -> list[tuple[float, float, float]]:
    """Least squares of log y on log x, with 90 % prediction intervals."""
    u, v, new = np.log(x), np.log(y), np.log(new_x)
    design = np.stack([np.ones_like(u), u], axis=1)
    solution, *_ = np.linalg.lstsq(design, v, rcond=None)
    residuals = v - design @ solution
    freedom = len(x) - 2
    std = math.sqrt(float(residuals @ residuals) / freedom)
    inverse = np.linalg.inv(design.T @ design)
    found = []
    for value in new:
        row = np.array([1.0, value])
        half = float(student.ppf(0.95, freedom)) * std * math.sqrt(1 + float(row @ inverse @ row))
        centre = float(row @ solution)
        found.append((math.exp(centre), math.exp(centre - half), math.exp(centre + half)))
    return found


def _scores(said: Sequence[tuple[float, float, float]], truth: np.ndarray) -> dict[str, float]:
    mean, low, high = (np.array(column) for column in zip(*said, strict=True))
    return {
        "error": float(np.mean(np.abs(np.log(mean / truth)))),
        "inside": float(np.mean((low <= truth) & (truth <= high))),
        "width": float(np.mean(np.log(high / low))),
    }


def cases() -> dict[str, list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]:
    """Title, sizes and losses to fit, sizes and losses to predict; by table. Missing files are left out."""
    found = {"hwgpt": _hwgpt(), "timm": _timm(), "nanogpt": _nanogpt()}
    return {name: rows for name, rows in found.items() if rows}


def _hwgpt() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    path = SHARED_DATA / "hwgpt_bench_s.npz"
    if not path.exists():
        return []
    table = np.load(path, allow_pickle=False)
    x, y = table["params"].astype(float), np.log(table["perplexity"].astype(float))
    small, large = np.flatnonzero(x < np.median(x)), np.flatnonzero(x > np.quantile(x, 0.8))
    found = []
    for count in (10, 30):
        for seed in range(10):
            rng = generator(seed, "hwgpt", count)
            fit, ask = rng.choice(small, count, replace=False), rng.choice(large, 50, replace=False)
            found.append((f"{count} models, seed {seed}", x[fit], y[fit], x[ask], y[ask]))
    return found


def _timm() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    path = SHARED_DATA / "timm_results" / "results-imagenet.csv"
    if not path.exists():
        return []
    families: dict[tuple[str, str, str], dict[float, float]] = defaultdict(dict)
    for row in csv.DictReader(path.open()):
        name, _, tag = row["model"].partition(".")
        family = name.split("_")[0].rstrip("0123456789")
        families[family, tag, row["img_size"]].setdefault(
            float(row["param_count"].replace(",", "")) * 1e6, float(row["top1_err"]) / 100
        )
    found = []
    for (family, tag, size), points in sorted(families.items()):
        if len(points) < 8 or family in ("test", "legacy", "tf"):
            continue
        x, y = np.array(sorted(points)), np.array([points[key] for key in sorted(points)])
        kept = math.ceil(2 * len(x) / 3)
        found.append((f"{family}.{tag} at {size}", x[:kept], y[:kept], x[kept:], y[kept:]))
    return found


def _nanogpt() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    found = []
    for index, curve in enumerate(curve_sets().get("nanoGPT", [])):
        x, y = np.array(curve.steps), np.array(curve.values)
        half = int((curve.times <= 0.5).sum())
        if half >= 8 and index % 4 == 0:
            found.append((f"run {index}", x[:half], y[:half], x[-1:], y[-1:]))
    return found


def _rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def report() -> dict[str, object]:
    """Means over the studies of each group, with 95 % bootstrap intervals over studies."""
    groups: dict[str, list[dict[str, object]]] = defaultdict(list)
    for row in _rows():
        title = str(row["case"]).split(", seed")[0] if row["table"] == "hwgpt" else "all"
        groups[f"{row['table']}: {title}"].append(row)
    result: dict[str, object] = {}
    for name, rows in groups.items():
        fitted = [row for row in rows if "refused" not in row]
        facts: dict[str, object] = {"studies": len(rows), "refused": len(rows) - len(fitted)}
        for key in ("distance", "widening", "exponent"):
            facts[f"median {key}"] = float(np.median([float(str(row[key])) for row in fitted]))
        for method in ("law", "law without its record", "straight line", "no change"):
            columns = [json.loads(json.dumps(row[method])) for row in fitted]
            facts[method] = {key: _interval(np.array([one[key] for one in columns])) for key in columns[0]}
        result[name] = facts
    return result


def _interval(values: np.ndarray) -> dict[str, float]:
    rng = generator(0, "bootstrap")
    draws = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    logging.getLogger("nasgraph").setLevel(logging.ERROR)  # warnings of distance: it stands in the table
    done = {(row["table"], row["case"]) for row in _rows()}
    for table, studies in cases().items():
        for title, *data in studies:
            if (table, title) not in done:
                with ROWS.open("a") as file:
                    file.write(json.dumps({"table": table, **case(title, *data)}) + "\n")
    result = report()
    for name, facts in result.items():
        print(name, facts["studies"], "studies, distance", round(facts["median distance"], 2))
        for method in ("law", "law without its record", "straight line", "no change"):
            print(f"  {method:24s}", {key: round(value["mean"], 4) for key, value in facts[method].items()})
    save("scaling_laws", {"studies": result})


if __name__ == "__main__":
    main()
