"""Search against random search at equal CPU time: best-so-far curves over seeds.

    python benchmarks/search_vs_random.py --data digits --ghn zoo/ghn-digits --budget 45 --epochs 8
    python benchmarks/search_vs_random.py --data fashion-mnist --image-size 16 --num-train 4000 --ghn FOLDER --budget 100 --epochs 4

Strategies, all with the same training protocol per candidate (epochs, optimiser, schedule, seeds):

    random          random candidates, trained from random weights
    screen          GHN screening (rank sum of predicted-weights accuracy and parameters), then TPE; random weights
    screen + init   the same, trained from predicted weights
    random + init   random candidates, trained from predicted weights (what the warm start alone brings)

The clock is the CPU time of the process, screening included; measuring test accuracy is not counted. A run goes on
until its budget is spent. Finished runs are kept in a .jsonl file, so that an interrupted benchmark continues.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import torch
from scipy.stats import wilcoxon

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import DataSet, load_dataset
from nasgraph.evaluate import (
    PredictedWeightsConfig,
    PredictedWeightsScorer,
    TrainConfig,
    TrainEvaluator,
    measure,
)
from nasgraph.hyper import GraphHyperNetwork, load_ghn
from nasgraph.modules import Program
from nasgraph.search import (
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchResult,
    TrialResult,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.spaces import load_space

STRATEGIES = {
    "random": (False, "random"),
    "screen": (True, "random"),
    "screen + init": (True, "predicted"),
    "random + init": (False, "predicted"),
}


class CpuBudget:
    """Listener that notes each trial with the CPU seconds spent, and ends the search when they are used up."""

    def __init__(self, data: DataSet, budget_s: float) -> None:
        self._data, self._budget_s = data, budget_s
        self._started, self._outside = time.process_time(), 0.0
        self.rows: list[dict[str, float]] = []

    def spent(self) -> float:
        return time.process_time() - self._started - self._outside

    def on_start(self, info: SearchInfo) -> None: ...

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None: ...

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None: ...

    def on_end(self, result: SearchResult) -> None: ...

    def on_trial(self, result: TrialResult) -> None:
        spent = self.spent()
        if result.evaluation is not None and spent <= self._budget_s:
            before = time.process_time()
            program = Program(result.candidate.graph)
            _, test = measure(program, result.evaluation.state, self._data.test, batch_size=256)
            self.rows.append({"cpu": spent, "val": result.metrics["val_accuracy"], "test": test,
                              "parameters": result.metrics["num_parameters"]})  # fmt: skip
            self._outside += time.process_time() - before
        if spent > self._budget_s:
            raise KeyboardInterrupt


def run_once(
    strategy: str, seed: int, data: DataSet, ghn: GraphHyperNetwork, arguments: argparse.Namespace
) -> dict[str, object]:
    screening, init = STRATEGIES[strategy]
    space = load_space(arguments.space, input_shape=data.input_shape, num_classes=data.num_classes)
    config = TrainConfig(epochs=arguments.epochs, learning_rate=arguments.learning_rate, init=init)
    evaluate = TrainEvaluator(data.search, config, ghn if init == "predicted" else None)
    screen = PredictedWeightsScorer(ghn, data.search, PredictedWeightsConfig()) if screening else None
    sampler = make_sampler("tpe" if screening else "random", seed=seed)
    study = create_or_resume(
        open_storage("memory"),
        "s",
        space=space,
        objective="val_accuracy",
        resume=False,
        seed=seed,
        sampler=sampler,
    )
    search = SearchConfig(
        num_trials=100_000,
        num_screened=arguments.screened if screening else 0,
        num_kept=arguments.kept if screening else 0,
        rank_by=("ghn_accuracy", "log_parameters"),
        seed=seed,
    )
    clock = CpuBudget(data, arguments.budget)
    run_search(space, evaluate, study, search, screen=screen, listeners=[clock])
    return {"strategy": strategy, "seed": seed, "trials": clock.rows}


def best_so_far(rows: list[dict[str, float]], grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test accuracy of the incumbent (best by validation) at each time; NaN before the first."""
    val, test = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    best = -1.0
    for row in rows:
        if row["val"] > best:
            best = row["val"]
            val[grid >= row["cpu"]], test[grid >= row["cpu"]] = row["val"], row["test"]
    return val, test


def summarise(runs: list[dict], budget: float) -> dict[str, object]:
    grid = np.linspace(0, budget, 61)[1:]
    curves = {s: [best_so_far(r["trials"], grid) for r in runs if r["strategy"] == s] for s in STRATEGIES}
    result: dict[str, object] = {"cpu seconds": grid.tolist()}
    average = float(np.mean([t["test"] for r in runs if r["strategy"] == "random" for t in r["trials"]]))
    result["mean test accuracy of random architectures"] = average
    final = {s: np.array([test[-1] for _, test in c]) for s, c in curves.items() if c}
    final_val = {s: np.array([val[-1] for val, _ in c]) for s, c in curves.items() if c}
    for s in final:
        val, test = np.array([c[0] for c in curves[s]]), np.array([c[1] for c in curves[s]])
        seen = (~np.isnan(val)).all(axis=0)
        result[s] = {
            "runs": len(val),
            "trials per run": float(np.mean([len(r["trials"]) for r in runs if r["strategy"] == s])),
            "final validation accuracy": {
                "mean": float(final_val[s].mean()),
                "std": float(final_val[s].std(ddof=1)),
            },
            "final test accuracy": {"mean": float(final[s].mean()), "std": float(final[s].std(ddof=1))},
            "relative improvement over the average architecture": float(final[s].mean() / average - 1),
            "validation curve mean": [
                float(v) if ok else None for v, ok in zip(val.mean(0), seen, strict=True)
            ],
            "validation curve std": [
                float(v) if ok else None for v, ok in zip(val.std(0, ddof=1), seen, strict=True)
            ],
            "test curve mean": [float(v) if ok else None for v, ok in zip(test.mean(0), seen, strict=True)],
        }
        if s != "random" and len(final[s]) == len(final["random"]):
            difference = final[s] - final["random"]
            wins = int((difference > 0).sum())
            p = float(wilcoxon(final[s], final["random"]).pvalue) if difference.any() else 1.0
            val_difference = final_val[s] - final_val["random"]
            result[s]["against random, test"] = {"mean difference": float(difference.mean()), "wins": wins,
                "ties": int((difference == 0).sum()), "wilcoxon p": p}  # fmt: skip
            p = float(wilcoxon(final_val[s], final_val["random"]).pvalue) if val_difference.any() else 1.0
            result[s]["against random, validation"] = {"mean difference": float(val_difference.mean()),
                "wins": int((val_difference > 0).sum()), "ties": int((val_difference == 0).sum()), "wilcoxon p": p}  # fmt: skip
    return result


def plot(summary: dict, path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    grid = np.array(summary["cpu seconds"])
    for s in STRATEGIES:
        if s not in summary:
            continue
        for axis, key in zip(axes, ("validation", "test"), strict=True):
            mean = np.array([np.nan if v is None else v for v in summary[s][f"{key} curve mean"]])
            (line,) = axis.plot(grid, 100 * mean, label=s)
            if key == "validation":
                std = np.array([np.nan if v is None else v for v in summary[s]["validation curve std"]])
                axis.fill_between(
                    grid, 100 * (mean - std), 100 * (mean + std), color=line.get_color(), alpha=0.12
                )
    late = [
        value
        for s in STRATEGIES
        if s in summary
        for key in ("test", "validation")
        for value in summary[s][f"{key} curve mean"][len(grid) // 2 :]
        if value is not None
    ]
    for axis in axes:  # the first seconds of random search lie far below and would flatten the rest
        axis.set_ylim(100 * min(late) - 4, min(100.5, 100 * max(late) + 3))
    for axis, key in zip(axes, ("validation (mean and std)", "test (of the incumbent)"), strict=True):
        axis.set_xlabel("CPU seconds")
        axis.set_title(f"{title}: best so far, {key}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy in %")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--num-train", type=int)
    parser.add_argument("--space", default="convnet")
    parser.add_argument("--ghn", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=45.0, help="CPU seconds per run")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--screened", type=int, default=200)
    parser.add_argument("--kept", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_dataset(
        arguments.data, data_dir=SHARED_DATA, image_size=arguments.image_size, num_train=arguments.num_train
    )
    ghn, recipe = load_ghn(arguments.ghn)
    name = f"search_vs_random_{data.name}"
    partial = RESULTS / f"{name}.runs.jsonl"
    runs = [json.loads(line) for line in partial.read_text().splitlines()] if partial.exists() else []
    done = {(run["strategy"], run["seed"]) for run in runs}
    for seed in range(arguments.seeds):
        for strategy in arguments.strategies:
            if (strategy, seed) not in done:
                runs.append(run_once(strategy, seed, data, ghn, arguments))
                with partial.open("a") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
                best = max(runs[-1]["trials"], key=lambda row: row["val"], default=None)
                print(seed, strategy, len(runs[-1]["trials"]), best, flush=True)
    settings = {key: str(value) for key, value in vars(arguments).items()}
    summary = summarise(runs, arguments.budget)
    path = save(name, {"settings": settings, "ghn recipe": recipe, **summary})
    plot(summary, path.with_suffix(".png"), data.name)
    print({s: summary[s].get("against random, test") for s in STRATEGIES if s in summary})


if __name__ == "__main__":
    main()
