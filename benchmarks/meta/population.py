"""Training many small networks at once against one after the other, and what the populations consist of.

    python -m benchmarks.meta.population [--networks 100] [--rounds 3] [--populations FOLDER]

Both trainings take the same steps on the same batches from the same weights, in turn, in one process. The sequential one is a plain
loop over torch modules with torch's own optimiser. Times are of the CPU, not of the clock: others use the machine.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import save
from nasgraph.data import Split, load_dataset
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.population import (
    NetworkSettings,
    Population,
    Ranges,
    Stack,
    draw_settings,
    initial_stack,
    perceptron,
    small_convnet,
    train_stack,
    unstack,
)
from nasgraph.meta.population.stack import batch_order, noisy_targets
from nasgraph.modules import build

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
GRAPHS = {
    "mlp-32-32": perceptron((32, 32)),
    "mlp-32-32-batch": perceptron((32, 32), norm="batch"),
    "conv-8-16-batch": small_convnet((8, 16), norm="batch"),
}


def train_sequentially(
    graph: ComputationalGraph, initial: Stack, data: Split, settings: list[NetworkSettings]
) -> list[dict[str, Tensor]]:
    """The networks one after the other."""
    states = []
    for row, each in enumerate(settings):
        module = build(graph)
        module.load_state_dict(unstack(initial, row))
        optimizer = torch.optim.SGD(
            module.parameters(), lr=each.learning_rate, weight_decay=each.weight_decay, foreach=True
        )
        targets = noisy_targets(data.targets, each, num_classes=10)
        for batch in batch_order(data.targets, each, batch_size=64):
            loss = F.cross_entropy(module(data.inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states.append(module.state_dict())
    return states


def compare(graph: ComputationalGraph, *, networks: int, rounds: int) -> dict[str, object]:
    """CPU seconds of both, in turn, and how far apart their weights end."""
    data = load_dataset("digits").search.train
    ranges = Ranges(steps=(40, 200), learning_rate=(0.01, 0.4), gain=(0.5, 1.5))
    ratios, together, alone, difference = [], [], [], 0.0
    for seed in range(rounds):
        settings = [draw_settings(ranges, seed=seed, index=index) for index in range(networks)]
        initial = initial_stack(graph, settings)
        start = time.process_time()
        trained = train_stack(graph, initial, data, settings)
        middle = time.process_time()
        states = train_sequentially(graph, initial, data, settings)
        end = time.process_time()
        together.append(middle - start)
        alone.append(end - middle)
        ratios.append((end - middle) / (middle - start))
        for row, state in enumerate(states):
            own = unstack(trained.state, row)
            gaps = [float((own[name] - state[name]).abs().max()) for name in own]
            difference = max(difference, *gaps)
    return {
        "networks": networks,
        "ratio": {"median": float(np.median(ratios)), "all": ratios},
        "cpu_seconds_stack": together,
        "cpu_seconds_sequential": alone,
        "largest_difference_of_a_weight": difference,
    }


def describe(folder: Path) -> dict[str, object]:
    """What a population consists of."""
    population = Population.open(folder)
    accuracy = population.table["test_accuracy"]
    splits = population.table["split"].tolist()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    result: dict[str, object] = {
        "networks": len(population),
        "architectures": len(set(population.table["fingerprint"].tolist())),
        "megabytes": size / 1e6,
        "steps": int(population.table["steps"].sum()),
        "diverged": int((population.table["diverged_at"] >= 0).sum()),
        "splits": {name: splits.count(name) for name in sorted(set(splits))},
        "test_accuracy_quantiles": dict(
            zip(map(str, QUANTILES), np.quantile(accuracy, QUANTILES).tolist(), strict=True)
        ),
    }
    if (folder / "DONE").is_file():
        wall, cpu = map(float, (folder / "DONE").read_text().split())
        result |= {"wall_seconds": wall, "cpu_seconds": cpu}
    return result


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--populations", type=Path, default=Path("/tmp/nasgraph-populations"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speed = {}
    for name, graph in GRAPHS.items():
        networks = arguments.networks if name.startswith("mlp") else max(5, arguments.networks // 4)
        speed[name] = compare(graph, networks=networks, rounds=arguments.rounds)
        print(name, speed[name], flush=True)
    folders = sorted(path.parent for path in arguments.populations.glob("*/population.json"))
    populations = {folder.name: describe(folder) for folder in folders}
    save("meta_population", {"quantiles": list(QUANTILES), "speed": speed, "populations": populations})


if __name__ == "__main__":
    main()
