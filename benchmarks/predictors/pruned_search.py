"""What pruning saves in a search, and what it costs: recorded curves are replayed in random orders through Optuna.

    python -m benchmarks.predictors.pruned_search

A search draws 40 of the recorded trainings at random (`--trials`), one after the other; the pruner sees each value as it would
have been reported and may stop the training. Counted: the share of all epochs that was spent, and the regret: how far the best
finished training lies behind the best of all 40, in the units of the metric. All pruners see the same orders. Beside the
curve pruner with the network and with a least-squares power law stand Optuna's median pruner and successive halving (as in ASHA,
Li et al. 2020; reduction factor 3), with their defaults otherwise. The random order is what a random search does; a sampler that
learns would draw better trials later, which helps every pruner.

The table also holds the curve pruner's accuracy and cost at other thresholds, and how much a search without any pruner would lose if
it stopped after the same number of epochs: the fair comparison, for stopping early is a pruner too.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from benchmarks.common import RESULTS, save
from benchmarks.predictors.curves import NETWORK, curve_sets
from nasgraph.predict.curves import (
    CurvePosterior,
    CurvePredictor,
    LeastSquares,
    NetworkCurves,
    PartialCurve,
    load_curve_network,
)
from nasgraph.search import CurvePruner
from nasgraph.seeding import generator

ROWS = RESULTS / "pruned_search.rows.jsonl"
PrunerMaker = Callable[[Sequence[PartialCurve]], optuna.pruners.BasePruner]


@dataclass
class Remembered(CurvePredictor):
    """A predictor that computes each answer once. The replays ask for the same prefixes again and again."""

    predictor: CurvePredictor
    known: dict[PartialCurve, CurvePosterior] = field(default_factory=dict)

    def predict(
        self, curves: Sequence[PartialCurve], *, step: float | int | None = None
    ) -> list[CurvePosterior]:
        assert step is None
        new = [curve for curve in curves if curve not in self.known]
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            self.known.update(zip(part, self.predictor.predict(part), strict=True))
        return [self.known[curve] for curve in curves]


def prefixes(curve: PartialCurve) -> list[PartialCurve]:
    """All that a pruner may be asked about a curve."""
    return [
        PartialCurve(curve.values[:count], curve.horizon, curve.steps[:count], curve.scale)
        for count in range(2, len(curve.values))
    ]


def pruner_makers() -> dict[str, PrunerMaker]:
    """All pruners by name; each is made anew for a set of curves."""
    power = Remembered(LeastSquares())
    network = Remembered(NetworkCurves(load_curve_network(NETWORK))) if NETWORK.exists() else power

    def by_curve(predictor: CurvePredictor, threshold: float) -> PrunerMaker:
        def make(curves: Sequence[PartialCurve]) -> optuna.pruners.BasePruner:
            predictor.predict([prefix for curve in curves for prefix in prefixes(curve)])
            return CurvePruner(
                predictor, num_steps=len(curves[0].values), threshold=threshold, scale=curves[0].scale
            )

        return make

    return {
        "none": lambda _: optuna.pruners.NopPruner(),
        "median": lambda _: optuna.pruners.MedianPruner(),
        "successive halving": lambda _: optuna.pruners.SuccessiveHalvingPruner(reduction_factor=3),
        "curve, network, 0.05": by_curve(network, 0.05),
        "curve, network, 0.01": by_curve(network, 0.01),
        "curve, network, 0.2": by_curve(network, 0.2),
        "curve, pow3, 0.05": by_curve(power, 0.05),
    }


def replay(curves: Sequence[PartialCurve], pruner: optuna.pruners.BasePruner) -> dict[str, object]:
    """One search over curves in the given order."""
    direction = curves[0].scale.direction
    study = optuna.create_study(
        direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    spent, started = [], time.process_time()
    for curve in curves:
        trial = study.ask()
        for step, value in enumerate(curve.values):
            trial.report(value, step)
            if trial.should_prune() and step + 1 < len(curve.values):
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve.values[-1])
        spent.append(step + 1)
    finals = np.array([curve.values[-1] for curve in curves])
    sign = 1 if direction == "maximize" else -1
    total = len(curves) * len(curves[0].values)
    trained = max(1, round(sum(spent) / len(curves[0].values)))
    return {
        "epochs": sum(spent),
        "share": sum(spent) / total,
        "regret": float((sign * finals).max() - sign * study.best_value) + 0.0,  # no -0.0
        "regret of fewer trials": float((sign * finals).max() - (sign * finals[:trained]).max()),
        "finished": len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))),
        "cpu_seconds": round(time.process_time() - started, 3),
    }


def measure(num_trials: int, num_seeds: int, sets: Sequence[str], pruners: Sequence[str]) -> None:
    """Write a row per set, pruner and seed that is not there yet."""
    done = {(row["set"], row["pruner"], row["seed"]) for row in _rows()}
    makers = pruner_makers()
    for dataset, curves in curve_sets().items():
        if dataset not in (sets or [dataset]) or len({curve.steps for curve in curves}) > 1:
            continue  # trainings of different lengths are no search
        for name in pruners or makers:
            for seed in range(num_seeds):
                if (dataset, name, seed) in done:
                    continue
                order = generator(seed, "order", dataset).permutation(len(curves))[:num_trials]
                row = replay([curves[i] for i in order], makers[name](curves))
                with ROWS.open("a") as file:
                    file.write(
                        json.dumps(
                            {"set": dataset, "pruner": name, "seed": seed, "trials": len(order), **row}
                        )
                        + "\n"
                    )


def _rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def report() -> dict[str, object]:
    """Means, standard deviations over seeds, and the speed-up against no pruner."""
    rows = _rows()
    result: dict[str, object] = {}
    for dataset in sorted({str(row["set"]) for row in rows}):
        cell: dict[str, object] = {}
        for name in dict.fromkeys(str(row["pruner"]) for row in rows):
            mine = [row for row in rows if row["set"] == dataset and row["pruner"] == name]
            facts: dict[str, object] = {"seeds": len(mine), "trials": mine[0]["trials"]}
            for key in ("share", "regret", "regret of fewer trials", "finished"):
                values = np.array([float(str(row[key])) for row in mine])
                facts[key] = {"mean": values.mean(), "std": values.std(ddof=1), "max": values.max()}
            shares = np.array([float(str(row["share"])) for row in mine])
            regrets = np.array([float(str(row["regret"])) for row in mine])
            facts["speed-up"] = {"mean": float((1 / shares).mean()), "std": float((1 / shares).std(ddof=1))}
            facts["found the best"] = float((regrets < 1e-9).mean())
            cell[name] = facts
        result[dataset] = cell
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--pruners", nargs="*", help="only these pruners")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    measure(settings.trials, settings.seeds, settings.sets or [], settings.pruners or [])
    if settings.sets or settings.pruners:
        return
    result = report()
    for dataset, cell in result.items():
        print(dataset)
        for name, facts in cell.items():
            print(
                f"  {name:24s} speed-up {facts['speed-up']['mean']:.2f}  regret {facts['regret']['mean']:.5f} "
                f"(fewer trials {facts['regret of fewer trials']['mean']:.5f})  found the best {facts['found the best']:.2f}"
            )
    save("pruned_search", {"searches": result})


if __name__ == "__main__":
    main()
