"""A learned optimiser against tuned Adam and tuned SGD with momentum: mean training loss on trainings that it has not seen.

    python -m benchmarks.meta.optimiser --rule zoo/learned-optimiser

The rule was learnt on digits, widths up to 64, trainings of 20 to 100 steps. Tuning: Adam and SGD have the best of six learning rates *in each row by itself*,
chosen by the very number that is reported; the learned optimiser has no setting.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import SHARED_DATA, save
from benchmarks.meta.optimiser_train import flat_digits, perceptron
from nasgraph.data import Split, load_dataset
from nasgraph.files import read_json
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.optimiser import LearnedOptimiser, LearnedRule, initial_rule, load_rule
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import derive_seed

ADAM_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SGD_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
Maker = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


def fashion() -> Split:
    """5,000 images of Fashion-MNIST in 14x14 pixels, as vectors."""
    train = load_dataset(
        "fashion-mnist", data_dir=SHARED_DATA / "fashion_mnist", image_size=14, num_train=5000, download=False
    ).search.train
    return Split(train.inputs.flatten(1), train.targets)


def small_convolutions() -> ComputationalGraph:
    """Two convolutions for 14x14 pixels that come as a vector."""
    g = GraphBuilder()
    x = g("reshape", g("input", shape=(196,)), shape=(1, 14, 14))
    x = g("relu", g("conv2d", x, out_channels=8, kernel_size=3, stride=2, padding=1))
    x = g("relu", g("conv2d", x, out_channels=16, kernel_size=3, stride=2, padding=1))
    return g.finish(g("linear", g("flatten", x), out_features=10))


def mean_loss(graph: ComputationalGraph, data: Split, make: Maker, steps: int, seed: int) -> float:
    """Mean loss over the batches of a training, before each step; 10 where it is larger or not finite."""
    program = Program(graph)
    parameters = {
        name: tensor.requires_grad_()
        for name, tensor in initial_parameters(graph, seed=derive_seed(seed, "test", "initial")).items()
    }
    optimiser = make(parameters.values())
    rng = torch.Generator().manual_seed(derive_seed(seed, "test", "batches"))
    total = 0.0
    for _ in range(steps):
        index = torch.randint(len(data), (64,), generator=rng)
        logits = program(parameters, [data.inputs[index]], RunContext(batch_size=64))[0]
        loss = F.cross_entropy(logits, data.targets[index])
        value = float(loss.detach())
        if not value < 10:
            return 10.0
        total += value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return total / steps


def compare(
    graph: ComputationalGraph, data: Split, steps: int, rule: LearnedRule, runs: int
) -> dict[str, object]:
    """One row: each optimiser's mean loss with its spread over initialisations and batches."""
    makers: dict[str, Maker] = {
        "learned": lambda values: LearnedOptimiser(values, rule),
        "untrained rule": lambda values: LearnedOptimiser(values, initial_rule(rule.config)),
        "adam 0.001": lambda values: torch.optim.Adam(values, lr=0.001),
    }
    for rate in ADAM_RATES:
        makers[f"adam {rate:g}"] = lambda values, rate=rate: torch.optim.Adam(values, lr=rate)
    for rate in SGD_RATES:
        makers[f"sgd {rate:g}"] = lambda values, rate=rate: torch.optim.SGD(values, lr=rate, momentum=0.9)
    losses = {
        name: [mean_loss(graph, data, make, steps, seed) for seed in range(runs)]
        for name, make in makers.items()
    }
    row: dict[str, object] = {
        name: {"mean": mean(losses[name]), "std": stdev(losses[name])}
        for name in ("learned", "untrained rule", "adam 0.001")
    }
    for kind in ("adam", "sgd"):
        best = min((name for name in losses if name.startswith(kind)), key=lambda name: mean(losses[name]))
        better = sum(a < b for a, b in zip(losses["learned"], losses[best], strict=True))
        row[f"tuned {kind}"] = {
            "mean": mean(losses[best]),
            "std": stdev(losses[best]),
            "rate": float(best.split()[1]),
            "learned_wins": f"{better} of {runs}",
        }
    return row


def main() -> None:
    """Compare on every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=99, help="how many rows, for a quick look")
    parser.add_argument("--no-save", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rule, digits, clothes = load_rule(arguments.rule), flat_digits(), fashion()
    wide = perceptron(64, (128, 128))
    rows: list[tuple[str, ComputationalGraph, Split, int]] = [
        ("digits, width 32, 40 steps (new initial weights)", perceptron(64, (32, 32)), digits, 40),
        ("digits, width 128 (unseen), 40 steps", wide, digits, 40),
        ("digits, width 128 (unseen), 100 steps", wide, digits, 100),
        ("digits, width 128 (unseen), 500 steps (5x the longest seen)", wide, digits, 500),
        ("Fashion-MNIST 14x14 (unseen data), width 64, 100 steps", perceptron(196, (64, 64)), clothes, 100),
        ("Fashion-MNIST 14x14 (unseen data), width 64, 500 steps", perceptron(196, (64, 64)), clothes, 500),
        (
            "Fashion-MNIST 14x14, convolutions (unseen operator), 200 steps",
            small_convolutions(),
            clothes,
            200,
        ),
    ]
    table = []
    for name, graph, data, steps in rows[: arguments.rows]:
        row = {"task": name, "steps": steps, **compare(graph, data, steps, rule, arguments.runs)}
        print(row, flush=True)
        table.append(row)
    if not arguments.no_save:
        description = read_json(arguments.rule / "config.json")
        recipe = description["recipe"] if isinstance(description, dict) else None
        save(
            "meta_optimiser",
            {
                "table": table,
                "runs": arguments.runs,
                "numbers_of_the_rule": rule.numbers.numel(),
                "meta_training": recipe,
                "adam_rates": list(ADAM_RATES),
                "sgd_rates": list(SGD_RATES),
                "note": "mean training loss over all steps; the best of six rates is chosen by the reported number, in each row",
            },
        )


if __name__ == "__main__":
    main()
