"""Learn the shipped optimiser: short trainings of small perceptrons on the training split of digits.

    python -m benchmarks.meta.optimiser_train --steps 1000 --out zoo/learned-optimiser

A run that is cut off goes on from its last whole twenty meta-steps; the trainings under way, and the moments of the meta-optimiser, begin anew.
"""

import argparse
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch

from nasgraph.data import Split, load_dataset
from nasgraph.files import Json, read_json
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.optimiser import (
    LearnedRule,
    MetaTrainConfig,
    OptimiserTask,
    load_rule,
    meta_train,
    save_rule,
)


def perceptron(inputs: int, widths: tuple[int, ...], activation: str = "relu") -> ComputationalGraph:
    """Hidden layers of these widths, ten outputs."""
    g = GraphBuilder()
    x = g("input", shape=(inputs,))
    for width in widths:
        x = g(activation, g("linear", x, out_features=width))
    return g.finish(g("linear", x, out_features=10))


def flat_digits() -> Split:
    """The training split of digits as vectors of 64 numbers."""
    train = load_dataset("digits").search.train
    return Split(train.inputs.flatten(1), train.targets)


def tasks() -> list[OptimiserTask]:
    """What the shipped rule is learnt from: widths from 8 to 64."""
    data = flat_digits()
    return [
        OptimiserTask("relu 32-32", perceptron(64, (32, 32)), data),
        OptimiserTask("tanh 64", perceptron(64, (64,), "tanh"), data, batch_size=32),
        OptimiserTask("relu 16", perceptron(64, (16,)), data, batch_size=128),
        OptimiserTask("gelu 48-8-24", perceptron(64, (48, 8, 24), "gelu"), data),
    ]


def main() -> None:
    """Learn, or go on learning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--max-horizon", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = MetaTrainConfig(
        steps=arguments.steps,
        noise=arguments.noise,
        learning_rate=arguments.learning_rate,
        max_horizon=arguments.max_horizon,
        pairs=12,
    )
    rule, done, seconds = None, 0, 0.0
    if (arguments.out / "config.json").exists():
        rule = load_rule(arguments.out)
        recipe = cast("dict[str, dict[str, float]]", read_json(arguments.out / "config.json"))["recipe"]
        done, seconds = int(recipe["done"]), recipe["cpu_seconds"]
    started, losses = time.process_time() - seconds, []

    def on_step(step: int, loss: float, now: LearnedRule) -> None:
        losses.append(loss)
        if step % 20 and step != config.steps:
            return
        recent = losses[-48:]
        spent = round(time.process_time() - started, 1)
        print(step, round(sum(recent) / len(recent), 4), spent, flush=True)
        facts: dict[str, Json] = {
            "train": cast("dict[str, Json]", asdict(config)),
            "tasks": [task.name for task in tasks()],
            "data": "digits, training split, batches of 32 to 128, inputs scaled by 0.5 to 2",
            "seed": arguments.seed,
            "done": step,
            "cpu_seconds": spent,
            "versions": {"torch": version("torch")},
        }
        save_rule(now, arguments.out, recipe=facts)

    meta_train(tasks(), config, rule=rule, first_step=done, seed=arguments.seed, on_step=on_step)


if __name__ == "__main__":
    main()
