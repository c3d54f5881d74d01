"""How well are real learning curves extrapolated? The shipped network beside plain methods, on curves that nobody trained on.

    python -m benchmarks.predictors.curves
    python -m benchmarks.predictors.curves --report

Each curve is cut at 10, 20, 40 and 80 % of its length; its last value is predicted. Four sets: NAS-Bench-NLP (validation loss on
WikiText-2, 341 recurrent cells, 50 epochs), nanoGPT speed runs (validation loss, at most two runs per record), and the accuracies of
`record_curves` on digits and Fashion-MNIST. Losses are normalised by the loss of a uniform guess over the vocabulary. The
network's prior was never changed after a score was seen.

Scores of the normalised last value: absolute error of the median; log score, the negative logarithm of the mean density within
0.005 of the truth (so that no method wins by guessing the very steps in which accuracies come); continuous ranked probability
score; how often the 90 % interval holds the truth.
"""

import argparse
import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.predict.curves import (
    ACCURACY,
    CurvePosterior,
    CurvePredictor,
    LastValue,
    LeastSquares,
    NetworkCurves,
    PartialCurve,
    SampledPrior,
    load_curve_network,
    loss_scale,
)
from nasgraph.seeding import generator

CUTS = (0.1, 0.2, 0.4, 0.8)
WIDTH = 0.01
NETWORK = Path(__file__).resolve().parents[2] / "zoo" / "lc-pfn"
ROWS = RESULTS / "curve_extrapolation.rows.jsonl"
METHODS: dict[str, Callable[[], CurvePredictor]] = {
    "last value": LastValue,
    "pow3 least squares": LeastSquares,
    "mmf least squares": lambda: LeastSquares("mmf"),
    "prior, importance sampling": lambda: SampledPrior(num_draws=20_000),
    "network": lambda: NetworkCurves(load_curve_network(NETWORK)),
}


def curve_sets() -> dict[str, list[PartialCurve]]:
    """Whole curves by the name of their set; sets whose files are missing are left out."""
    sets = {"NAS-Bench-NLP": _nlp(), "nanoGPT": _nanogpt()}
    for name in ("digits", "fashion-mnist"):
        sets[name] = _recorded(RESULTS / f"learning_curves_{name}.rows.jsonl")
    return {name: curves for name, curves in sets.items() if curves}


def _nlp() -> list[PartialCurve]:
    path = SHARED_DATA / "nasbench_nlp_wikitext2_curves.json.gz"
    if not path.exists():
        return []
    rows = json.loads(gzip.decompress(path.read_bytes()))
    scale = loss_scale(math.log(33_278))  # words of WikiText-2
    return [
        PartialCurve(tuple(row["val_losses"]), horizon=50.0, scale=scale)
        for row in rows
        if row["status"] == "OK" and len(row["val_losses"]) == 50
    ]


def _nanogpt() -> list[PartialCurve]:
    path = SHARED_DATA / "nanogpt_speedrun_curves.npz"
    if not path.exists():
        return []
    table = np.load(path, allow_pickle=False)
    scale = loss_scale(math.log(50_257))  # tokens of GPT-2
    curves, seen = [], Counter[str]()
    for run, log in enumerate(table["log_path"]):
        here = table["run"] == run
        steps, losses, total = table["step"][here], table["val_loss"][here], int(table["total_steps"][run])
        steps, losses = steps[steps > 0], losses[steps > 0]
        record = str(log).split("/")[1]
        if len(steps) < 12 or steps[-1] != total or (np.diff(steps) <= 0).any() or seen[record] == 2:
            continue
        seen[record] += 1
        values = tuple(float(value) for value in losses)
        curves.append(PartialCurve(values, horizon=float(total), steps=tuple(map(float, steps)), scale=scale))
    return curves


def _recorded(path: Path) -> list[PartialCurve]:
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    curves = [row["val_accuracy"] for row in rows if "val_accuracy" in row]
    return [PartialCurve(tuple(curve), horizon=float(len(curve)), scale=ACCURACY) for curve in curves]


def cut(curve: PartialCurve, share: float) -> PartialCurve:
    """What is known of a curve at a share of its length; at least one point."""
    count = max(1, int((curve.times <= share + 1e-9).sum()))
    return PartialCurve(curve.values[:count], curve.horizon, curve.steps[:count], curve.scale)


def scores(posterior: CurvePosterior, curve: PartialCurve) -> dict[str, float]:
    """All scores of one prediction, on the scale from 0 to 1."""
    span = abs(curve.scale.best - curve.scale.worst)
    truth, half = curve.values[-1], WIDTH * span / 2
    mass = posterior.probability_below(truth + half) - posterior.probability_below(truth - half)
    low, high = posterior.interval(0.9)
    return {
        "error": abs(posterior.median - truth) / span,
        "log_score": -math.log(max(mass, 1e-12) / WIDTH),
        "crps": _crps(posterior, truth) / span,
        "inside": float(low <= truth <= high),
        "width": (high - low) / span,
    }


def _crps(posterior: CurvePosterior, truth: float) -> float:
    """Continuous ranked probability score: the integral of (cdf - step at the truth)^2."""
    grid = np.unique(np.concatenate([posterior.borders, [truth], np.linspace(*_ends(posterior, truth), 400)]))
    middle = (grid[1:] + grid[:-1]) / 2
    below = np.interp(middle, posterior.borders, np.concatenate([[0.0], np.cumsum(posterior.probabilities)]))
    return float(((below - (middle > truth)) ** 2) @ np.diff(grid))


def _ends(posterior: CurvePosterior, truth: float) -> tuple[float, float]:
    return min(truth, float(posterior.borders[0])), max(truth, float(posterior.borders[-1]))


def measure(names: Sequence[str], sets: Mapping[str, list[PartialCurve]]) -> None:
    """Write a row per set, cut and method that is not there yet."""
    done = set()
    if ROWS.exists():
        done = {(row["set"], row["cut"], row["method"]) for row in _rows()}
    for name in names:
        model: CurvePredictor | None = None
        for dataset, curves in sets.items():
            for share in CUTS:
                if (dataset, share, name) in done:
                    continue
                model = model or METHODS[name]()
                started = time.process_time()
                said = model.predict([cut(curve, share) for curve in curves])
                seconds = time.process_time() - started
                found = [scores(posterior, curve) for posterior, curve in zip(said, curves, strict=True)]
                row = {
                    "set": dataset,
                    "cut": share,
                    "method": name,
                    "cpu_ms_per_curve": 1000 * seconds / len(curves),
                }
                columns = {key: [round(one[key], 6) for one in found] for key in found[0]}
                with ROWS.open("a") as file:
                    file.write(json.dumps({**row, **columns}) + "\n")


def _rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()]


def report() -> dict[str, object]:
    """Means with 95 % bootstrap intervals over curves, and paired differences from the network."""
    table = {(row["set"], row["cut"], row["method"]): row for row in _rows()}
    result: dict[str, object] = {}
    for dataset, share in sorted({(str(key[0]), float(str(key[1]))) for key in table}):
        ours = table[dataset, share, "network"]
        cell: dict[str, object] = {}
        for name in METHODS:
            if (dataset, share, name) not in table:
                continue  # not measured yet
            theirs = table[dataset, share, name]
            facts: dict[str, object] = {"cpu_ms_per_curve": theirs["cpu_ms_per_curve"]}
            for key in ("error", "log_score", "crps", "inside", "width"):
                values, own = np.array(theirs[key]), np.array(ours[key])
                facts[key] = _interval(values)
                if name != "network" and key in ("error", "log_score", "crps"):
                    facts[f"{key} less the network's"] = _interval(values - own)
            facts["median log_score"] = float(np.median(np.array(theirs["log_score"])))
            cell[name] = facts
        result[f"{dataset} at {share:.0%}"] = {"curves": len(np.array(ours["error"])), "methods": cell}
    return result


def _interval(values: np.ndarray) -> dict[str, float]:
    rng = generator(0, "bootstrap")
    draws = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--report", action="store_true", help="only make the result file from the rows")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    if not settings.report:
        chosen = {name: curves for name, curves in curve_sets().items() if name in (settings.sets or [name])}
        measure(settings.methods, chosen)
        if settings.sets or len(settings.methods) < len(METHODS):
            return
    result = report()
    for title, cell in result.items():
        print(title)
        for name, facts in cell["methods"].items():
            numbers = " ".join(
                f"{key} {facts[key]['mean']:.4f}" for key in ("error", "log_score", "crps", "inside")
            )
            print(f"  {name:28s} {numbers}  {facts['cpu_ms_per_curve']:.2f} ms")
    save(
        "curve_extrapolation", {"scores": result, "load": "shared machine: times are CPU times of one thread"}
    )


if __name__ == "__main__":
    main()
