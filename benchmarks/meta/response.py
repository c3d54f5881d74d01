"""Hyper-parameters by following the response: one penalty, 64 penalties, and dropout (Lorraine and Duvenaud 2018; MacKay et al. 2019).

    python -m benchmarks.meta.response                      # 3 seeds, 1 training per fixed rate
    python -m benchmarks.meta.response --seeds 5 --fixed-seeds 5 --stn-steps 8000     # the full size

Rows go to `results/meta_response.jsonl` as they come; a run that is cut off goes on where it stopped.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import mean, pstdev
from typing import cast

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import Split, load_dataset
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.hypernetworks import (
    Box,
    JointConfig,
    ResponseConfig,
    SelfTuningConfig,
    fit_response,
    self_tune,
    tune,
    tune_jointly,
)
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import derive_seed

ROWS = RESULTS / "meta_response.jsonl"
LOW, HIGH, STEP = -6.0, 5.0, 0.5
GRID = torch.arange(LOW, HIGH + STEP / 2, STEP)


class Softmax:
    """Softmax regression on few digits, with one penalty per input or one for all.

    Args:
        seed: Which 40 of the training examples are used.
    """

    def __init__(self, seed: int) -> None:
        data = load_dataset("digits")
        few = data.search.subset(40, len(data.search.validation), seed)
        self.train, self.validation, self.test = (
            Split(part.inputs.flatten(1), part.targets) for part in (few.train, few.validation, data.test)
        )
        g = GraphBuilder()
        self.graph = g.finish(g("linear", g("input", shape=(64,)), out_features=10))

    def loss(self, parameters: dict[str, Tensor], split: Split) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(
            F.linear(split.inputs, parameters["n1.weight"], parameters["n1.bias"]), split.targets
        )

    def train_loss(self, parameters: dict[str, Tensor], values: Tensor) -> Tensor:
        """Cross-entropy and half the penalised squares; `values` are logarithms, one for all inputs or one each."""
        penalty = (parameters["n1.weight"].square() * values.exp()).sum() / 2
        return self.loss(parameters, self.train) + penalty / 64

    def validation_loss(self, parameters: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of the validation split."""
        return self.loss(parameters, self.validation)

    def retrained(self, values_BD: Tensor, steps: int = 1500) -> tuple[Tensor, Tensor]:
        """Train from scratch at each setting; validation losses and test accuracies, `[B]`."""
        start = initial_parameters(self.graph, seed=0)
        stacked = {
            name: tensor.repeat(len(values_BD), *[1] * tensor.ndim).requires_grad_()
            for name, tensor in start.items()
        }
        optimiser = torch.optim.Adam(stacked.values(), lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            optimiser.zero_grad()
            torch.vmap(self.train_loss)(stacked, values_BD).sum().backward()
            optimiser.step()
            schedule.step()
        final = {name: tensor.detach() for name, tensor in stacked.items()}
        logits = torch.vmap(lambda own: F.linear(self.test.inputs, own["n1.weight"], own["n1.bias"]))(final)
        accuracy = (logits.argmax(-1) == self.test.targets).double().mean(1)
        return torch.vmap(self.validation_loss)(final), accuracy


def one_penalty(seed: int) -> dict[str, float]:
    """Global method against a grid of 23 trainings."""
    problem = Softmax(seed)
    truth, accuracy = problem.retrained(GRID.unsqueeze(1))
    row = {"grid_optimum": float(GRID[truth.argmin()]), "grid_loss": float(truth.min())}
    row["grid_test_accuracy"] = float(accuracy[truth.argmin()])
    for name, mip in (("mip", True), ("plain", False)):
        response = fit_response(
            problem.graph,
            problem.train_loss,
            Box.cube(LOW, HIGH, 1),
            ResponseConfig(mip=mip, steps=6000, learning_rate=1e-2),
            seed=seed,
        )
        with torch.no_grad():
            curve = response.losses(problem.validation_loss, GRID.unsqueeze(1))
        tuned = tune(response, problem.validation_loss, seed=seed)
        again, _ = problem.retrained(tuned.values.unsqueeze(0))
        row |= {
            f"{name}_found": float(tuned.values),
            f"{name}_steps_off": abs(float(tuned.values) - row["grid_optimum"]) / STEP,
            f"{name}_predicted_loss": tuned.loss,
            f"{name}_retrained_loss": float(again[0]),
            f"{name}_rank_correlation": float(spearmanr(curve, truth).statistic),
        }
    return row


def many_penalties(seed: int) -> dict[str, float]:
    """Joint method with 64 penalties against the best single one and 60 random vectors, all trained anew."""
    problem = Softmax(seed)
    truth, accuracy = problem.retrained(GRID.unsqueeze(1))
    best = int(truth.argmin())
    rng = torch.Generator().manual_seed(derive_seed(seed, "random"))
    drawn = LOW + (HIGH - LOW) * torch.rand(60, 64, generator=rng)
    near = GRID[best] + torch.randn(60, 64, generator=rng)
    row = {"scalar_loss": float(truth[best]), "scalar_test_accuracy": float(accuracy[best])}
    for name, values in (("random", drawn), ("random_near_scalar", near)):
        losses, accuracies = problem.retrained(values)
        row |= {
            f"{name}_loss": float(losses.min()),
            f"{name}_test_accuracy": float(accuracies[losses.argmin()]),
        }
    started = time.process_time()
    tuned = tune_jointly(
        problem.graph,
        problem.train_loss,
        problem.validation_loss,
        Box.cube(LOW, HIGH, 64),
        ResponseConfig(steps=1000, learning_rate=5e-3),
        JointConfig(rounds=3000),
        start=torch.full((64,), -1.0),
        seed=seed,
    )
    row["cpu_seconds"] = round(time.process_time() - started, 1)
    losses, accuracies = problem.retrained(tuned.values.unsqueeze(0))
    return row | {
        "joint_predicted_loss": tuned.loss,
        "joint_loss": float(losses[0]),
        "joint_test_accuracy": float(accuracies[0]),
    }


def dropout_perceptron(rate: float) -> ComputationalGraph:
    """196 inputs, two hidden layers of 128 with dropout before each linear map but the first."""
    g = GraphBuilder()
    x = g("input", shape=(196,))
    for _ in range(2):
        x = g("dropout", g("relu", g("linear", x, out_features=128)), p=rate)
    return g.finish(g("linear", x, out_features=10))


def clothes() -> tuple[Split, Split, Split]:
    """1,000 training and 1,000 validation examples of Fashion-MNIST in 14x14 pixels, and the test split."""
    data = load_dataset(
        "fashion-mnist", data_dir=SHARED_DATA / "fashion_mnist", image_size=14, download=False
    )
    few = data.search.subset(1000, 1000, 0)
    parts = [Split(part.inputs.flatten(1), part.targets) for part in (few.train, few.validation, data.test)]
    return parts[0], parts[1], parts[2]


def outcome(graph: ComputationalGraph, parameters: dict[str, Tensor], split: Split) -> tuple[float, float]:
    """Loss and accuracy without dropout."""
    with torch.no_grad():
        logits = Program(graph)(parameters, [split.inputs], RunContext(batch_size=len(split)))[0]
    accuracy = (logits.argmax(1) == split.targets).double().mean()
    return float(F.cross_entropy(logits, split.targets)), float(accuracy)


def fixed_dropout(rate: float, steps: int, seed: int) -> dict[str, float]:
    """Ordinary training at a fixed rate; the best of the validation losses measured every 100 steps counts."""
    train, validation, test = clothes()
    graph = dropout_perceptron(rate)
    parameters = {name: t.requires_grad_() for name, t in initial_parameters(graph, seed=seed).items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=1e-3)
    rng = torch.Generator().manual_seed(derive_seed(seed, "batches"))
    program, best = Program(graph), (float("inf"), 0.0, 0.0)
    for step in range(1, steps + 1):
        index = torch.randint(len(train), (64,), generator=rng)
        context = RunContext(batch_size=64, training=True, generator=rng)
        logits = program(parameters, [train.inputs[index]], context)[0]
        optimiser.zero_grad()
        F.cross_entropy(logits, train.targets[index]).backward()
        optimiser.step()
        if step % 100 == 0:
            now = outcome(graph, parameters, validation)
            if now[0] < best[0]:
                best = (*now, outcome(graph, parameters, test)[1])
    last = outcome(graph, parameters, validation)
    return {
        "rate": rate,
        "validation_loss": best[0],
        "validation_accuracy": best[1],
        "test_accuracy": best[2],
        "last_validation_loss": last[0],
    }


def self_tuned(steps: int, seed: int) -> dict[str, float]:
    """The self-tuning network, measured with its ordinary parameters at the dropout rates that it found."""
    train, validation, test = clothes()
    started = time.process_time()
    best = (float("inf"), 0.0, 0.0)

    def on_check(_: int, graph: ComputationalGraph, parameters: dict[str, Tensor]) -> None:
        nonlocal best
        now = outcome(graph, parameters, validation)
        if now[0] < best[0]:
            best = (*now, outcome(graph, parameters, test)[1])

    found = self_tune(
        dropout_perceptron(0.2),
        train,
        validation,
        SelfTuningConfig(steps=steps, value_rate=3e-2),
        seed=seed,
        on_check=on_check,
    )
    last = outcome(found.graph, found.parameters, validation)
    rates = {f"rate_{place}": rate for place, rate in enumerate(found.values.values())}
    return rates | {
        "validation_loss": best[0],
        "validation_accuracy": best[1],
        "test_accuracy": best[2],
        "last_validation_loss": last[0],
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def measured(key: dict[str, object], run: Callable[[], dict[str, float]]) -> dict[str, float]:
    """One row, from the file if it is there."""
    if ROWS.exists():
        for line in ROWS.read_text().splitlines():
            row = json.loads(line)
            if row["key"] == key:
                return cast("dict[str, float]", row["row"])
    found = run()
    with ROWS.open("a") as file:
        file.write(json.dumps({"key": key, "row": found}) + "\n")
    print(key, found, flush=True)
    return found


def summary(rows: list[dict[str, float]]) -> dict[str, object]:
    """Mean, spread and single values of each column."""
    return {
        name: {
            "mean": mean(r[name] for r in rows),
            "std": pstdev([r[name] for r in rows]),
            "each": [r[name] for r in rows],
        }
        for name in rows[0]
    }


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fixed-seeds", type=int, default=1, help="trainings per fixed dropout rate")
    parser.add_argument("--stn-steps", type=int, default=1500)
    parser.add_argument("--rates", type=int, default=20)
    parser.add_argument("--parts", nargs="+", default=["one", "many", "stn"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, steps = range(arguments.seeds), arguments.stn_steps
    result: dict[str, object] = {
        "seeds": arguments.seeds,
        "load": "many other processes on two cores: no times are compared",
    }
    if "one" in arguments.parts:
        rows = [
            measured({"part": "one", "seed": seed}, lambda seed=seed: one_penalty(seed)) for seed in seeds
        ]
        result["one_penalty"] = summary(rows)
    if "many" in arguments.parts:
        rows = [
            measured({"part": "many", "seed": seed}, lambda seed=seed: many_penalties(seed)) for seed in seeds
        ]
        result["many_penalties"] = summary(rows)
    if "stn" in arguments.parts:
        key = {"part": "stn", "steps": steps}
        rows = [measured({**key, "seed": seed}, lambda seed=seed: self_tuned(steps, seed)) for seed in seeds]
        result["self_tuning"] = summary(rows)
        result["stn_steps"] = steps
        fixed = {}
        for number in range(arguments.rates):
            rate = round(0.95 * number / (arguments.rates - 1), 3)
            key = {"part": "fixed", "steps": steps, "rate": rate}
            rows = [
                measured({**key, "seed": seed}, lambda seed=seed, rate=rate: fixed_dropout(rate, steps, seed))
                for seed in range(arguments.fixed_seeds)
            ]
            fixed[f"{rate:g}"] = summary(rows)
        result["fixed_dropout"] = fixed
    save("meta_response", result)


if __name__ == "__main__":
    main()
