"""How good are predicted weights, and how well do they rank architectures never seen in training?

    python benchmarks/ghn_quality.py --ghn zoo/ghn-digits --data digits --count 60
    python benchmarks/ghn_quality.py --ghn FOLDER --data fashion-mnist --image-size 16 --num-train 8000 --count 50

For each held-out architecture: accuracy with predicted and with random weights, after k steps and one epoch from either,
and after real training from random weights with several seeds (the truth, measured on test data: nothing here is chosen
by it). Rows are kept in a .jsonl file, so that an interrupted run goes on where it stopped.

Plain digits are too easy to rank by: most architectures end within the noise of one another (see "seed against seed").
`--shift-pixels 1 --noise-std 0.66` perturbs the images of all splits once, by a fixed seed, which spreads them out.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from benchmarks.common import RESULTS, SHARED_DATA, cpu_seconds, save, tau_difference, tau_with_interval
from nasgraph.data import Augmentation, DataSet, Split, augment, load_dataset
from nasgraph.evaluate import (
    PredictedWeightsConfig,
    PredictedWeightsScorer,
    TrainConfig,
    measure,
    never_stop,
    train_graph,
)
from nasgraph.hyper import GraphHyperNetwork, held_out_candidates, load_ghn
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import Program, initial_parameters
from nasgraph.seeding import derive_seed
from nasgraph.spaces import load_space


def perturbed(data: DataSet, arguments: argparse.Namespace) -> DataSet:
    """The data set with every image of every split shifted and made noisy once, always in the same way."""
    settings = Augmentation(shift_pixels=arguments.shift_pixels, noise_std=arguments.noise_std)

    def change(split: Split, name: str) -> Split:
        rng = torch.Generator().manual_seed(derive_seed(2026, "perturb", name))
        return Split(augment(split.inputs, settings, rng=rng), split.targets)

    train, validation = change(data.search.train, "train"), change(data.search.validation, "validation")
    return replace(
        data, search=replace(data.search, train=train, validation=validation), test=change(data.test, "test")
    )


def measure_one(
    graph: ComputationalGraph, ghn: GraphHyperNetwork, data: DataSet, arguments: argparse.Namespace
) -> dict[str, object]:
    """Everything about one architecture."""
    program, cost = Program(graph), cost_of(graph)
    random = initial_parameters(graph, seed=1)
    (predicted,), predict_cpu = cpu_seconds(lambda: ghn.predict([graph]))
    validation = data.search.validation
    row: dict[str, object] = {"fingerprint": graph.fingerprint, "num_parameters": cost.num_parameters,
                              "multiply_adds": cost.multiply_adds, "predict_cpu": predict_cpu}  # fmt: skip
    (row["ghn_loss"], row["ghn_accuracy"]), row["score_cpu"] = cpu_seconds(
        lambda: measure(program, predicted, validation, batch_size=256)
    )
    row["random_loss"], row["random_accuracy"] = measure(program, random, validation, batch_size=256)
    for steps in (16,):
        scorer = PredictedWeightsScorer(
            ghn, data.search, PredictedWeightsConfig(tune_steps=steps, num_examples=10**6)
        )
        (scores,), row[f"tuned{steps}_cpu"] = cpu_seconds(lambda scorer=scorer: scorer([graph]))
        row[f"tuned{steps}_accuracy"], row[f"tuned{steps}_loss"] = (
            scores["tuned_accuracy"],
            scores["tuned_loss"],
        )
    one = TrainConfig(epochs=1, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate)
    for name, start in (("random", random), ("ghn", predicted)):
        result, row[f"{name}_1epoch_cpu"] = cpu_seconds(
            lambda start=start: train_graph(
                graph, data.search, one, start=start, seed=0, keep_going=never_stop
            )
        )
        row[f"{name}_1epoch_accuracy"] = result.value
    full = TrainConfig(
        epochs=arguments.epochs, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate
    )
    truth, train_cpu = [], 0.0
    for seed in range(arguments.seeds):
        start = initial_parameters(graph, seed=100 + seed)
        result, spent = cpu_seconds(
            lambda start=start, seed=seed: train_graph(
                graph, data.search, full, start=start, seed=seed, keep_going=never_stop
            )
        )
        train_cpu += spent / arguments.seeds
        truth.append(measure(program, result.state, data.test, batch_size=256)[1])
    row["trained_accuracy"], row["train_cpu"] = truth, train_cpu
    return row


def summarise(rows: list[dict[str, object]]) -> dict[str, object]:
    """Means, Kendall's tau with intervals over all and over the better half, and CPU seconds."""
    column = {
        name: np.array([row[name] for row in rows], dtype=float) for name in rows[0] if name != "fingerprint"
    }
    by_seed = column.pop("trained_accuracy")
    truth = by_seed.mean(axis=1)
    scores = {
        "parameter count": column["num_parameters"],
        "multiply-adds": column["multiply_adds"],
        "GHN accuracy": column["ghn_accuracy"],
        "GHN loss": -column["ghn_loss"],
        "GHN + 16 steps": column["tuned16_accuracy"],
        "random init + 1 epoch": column["random_1epoch_accuracy"],
        "GHN init + 1 epoch": column["ghn_1epoch_accuracy"],
    }
    ranks = {name: rankdata(values) for name, values in scores.items()}
    for name in ("GHN accuracy", "GHN + 16 steps", "random init + 1 epoch", "GHN init + 1 epoch"):
        scores[f"{name}, parameters (rank sum)"] = ranks[name] + ranks["parameter count"]
    better = truth >= np.median(truth)
    size = scores["parameter count"]
    return {
        "architectures": len(rows),
        "mean accuracy": {
            name: {"mean": float(values.mean()), "std": float(values.std(ddof=1))}
            for name, values in (
                ("random weights", column["random_accuracy"]),
                ("predicted weights", column["ghn_accuracy"]),
                ("predicted + 16 steps", column["tuned16_accuracy"]),
                ("random + 1 epoch", column["random_1epoch_accuracy"]),
                ("predicted + 1 epoch", column["ghn_1epoch_accuracy"]),
                ("trained (test)", truth),
            )
        },
        "predicted better than random after 1 epoch": int(
            (column["ghn_1epoch_accuracy"] > column["random_1epoch_accuracy"]).sum()
        ),
        "seed against seed": tau_with_interval(by_seed[:, 0], by_seed[:, 1])
        if by_seed.shape[1] > 1
        else None,
        "tau": {name: tau_with_interval(values, truth) for name, values in scores.items()},
        "tau, better half": {
            name: tau_with_interval(values[better], truth[better]) for name, values in scores.items()
        },
        "tau less that of the parameter count": {
            name: tau_difference(values, size, truth)
            for name, values in scores.items()
            if name != "parameter count"
        },
        "mean CPU seconds per architecture": {
            name: float(column[key].mean())
            for name, key in (
                ("predict", "predict_cpu"),
                ("score on validation data", "score_cpu"),
                ("predict and 16 steps", "tuned16_cpu"),
                ("1 epoch", "random_1epoch_cpu"),
                ("training", "train_cpu"),
            )
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ghn", type=Path, required=True)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--num-train", type=int)
    parser.add_argument("--space", default="convnet")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--shift-pixels", type=int, default=0)
    parser.add_argument("--noise-std", type=float, default=0.0, help="in units of the normalised images")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--name", help="of the result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(
        arguments.data, data_dir=SHARED_DATA, image_size=arguments.image_size, num_train=arguments.num_train
    )
    if arguments.shift_pixels or arguments.noise_std:
        data = perturbed(data, arguments)
    space = load_space(arguments.space, input_shape=data.input_shape, num_classes=data.num_classes)
    ghn, recipe = load_ghn(arguments.ghn)
    name = arguments.name or f"ghn_quality_{data.name}_{arguments.space}"
    partial = RESULTS / f"{name}.rows.jsonl"
    rows = [json.loads(line) for line in partial.read_text().splitlines()] if partial.exists() else []
    for candidate in held_out_candidates([space], count=arguments.count)[len(rows) :]:
        started = time.perf_counter()
        rows.append(measure_one(candidate.graph, ghn, data, arguments))
        with partial.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(
            len(rows),
            rows[-1]["fingerprint"],
            rows[-1]["trained_accuracy"],
            f"{time.perf_counter() - started:.1f} s",
            flush=True,
        )
    settings = {key: str(value) for key, value in vars(arguments).items()}
    path = save(name, {"settings": settings, "ghn recipe": recipe, **summarise(rows)})
    print(path.read_text())


if __name__ == "__main__":
    main()
