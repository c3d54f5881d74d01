"""Continual learning with hypernetworks: five tasks of two classes each, in sequence (von Oswald et al. 2020).

    python -m benchmarks.meta.continual                 # split digits (3 seeds) and split Fashion-MNIST (1)
    python -m benchmarks.meta.continual --seeds 10 --fashion-seeds 10 --steps 2000     # the full size

Rows go to `results/meta_continual.jsonl` as they come; a run that is cut off goes on where it stopped.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import mean, pstdev

import torch
from torch.nn import functional as F

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import Split, load_dataset
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.hypernetworks import ContinualConfig, ContinualLearner, HypernetworkConfig, Target
from nasgraph.modules import Program, RunContext, initial_parameters
from nasgraph.seeding import derive_seed

Task = tuple[str, Split, Split]  # name, training examples, test examples
ROWS = RESULTS / "meta_continual.jsonl"
CHUNKED = HypernetworkConfig(
    condition_dim=24, condition="free", generator="chunked", hidden_dim=48, chunk_size=200, chunk_dim=16
)
RECURRENT = replace(CHUNKED, generator="recurrent", hidden_dim=40)
SMALL = replace(CHUNKED, hidden_dim=32, chunk_size=96, chunk_dim=12, condition_dim=12)


def split_tasks(dataset: str) -> list[Task]:
    """Classes 0 and 1, 2 and 3, and so on: five tasks with labels 0 and 1. Test data are the test split's."""
    data = load_dataset(
        dataset,
        data_dir=SHARED_DATA / "fashion_mnist" if dataset == "fashion-mnist" else None,
        image_size=14 if dataset == "fashion-mnist" else None,
        num_train=5000 if dataset == "fashion-mnist" else None,
        download=False,
    )
    tasks = []
    for first in range(0, 10, 2):
        parts = []
        for split in (data.search.train, data.test):
            index = ((split.targets == first) | (split.targets == first + 1)).nonzero().flatten()
            picked = split.pick(index)
            parts.append(Split(picked.inputs.flatten(1), picked.targets - first))
        tasks.append((f"{first}-{first + 1}", parts[0], parts[1]))
    return tasks


def perceptron(inputs: int, width: int) -> ComputationalGraph:
    """Two hidden layers and two outputs."""
    g = GraphBuilder()
    x = g("input", shape=(inputs,))
    for _ in range(2):
        x = g("relu", g("linear", x, out_features=width))
    return g.finish(g("linear", x, out_features=2))


def with_hypernetwork(
    graph: ComputationalGraph,
    tasks: list[Task],
    shape: HypernetworkConfig,
    beta: float,
    steps: int,
    seed: int,
) -> dict[str, float]:
    """Learn all tasks in sequence and measure."""
    learner = ContinualLearner(graph, shape, ContinualConfig(beta=beta, steps=steps), seed=seed)
    for name, train, test in tasks:
        learner.learn(name, train, held_out=test)
    scores = learner.scores({name: test for name, _, test in tasks})
    every = torch.cat([test.inputs for _, _, test in tasks])
    truth = [name for name, _, test in tasks for _ in range(len(test))]
    inferred = mean(float(a == b) for a, b in zip(learner.infer_task(every), truth, strict=True))
    return {
        "accuracy": scores.mean_accuracy,
        "forgetting": scores.forgetting,
        "task_inferred": inferred,
        "parameters": learner.num_parameters,
    }


def ordinary(
    graph: ComputationalGraph, tasks: list[Task], steps: int, seed: int, *, separate: bool
) -> dict[str, float]:
    """One network trained on the tasks in sequence, or one per task."""
    program = Program(graph)
    start = initial_parameters(graph, seed=seed)
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    kept, after = [], []

    def accuracy(own: dict[str, torch.Tensor], split: Split) -> float:
        with torch.no_grad():
            logits = program(own, [split.inputs], RunContext(batch_size=len(split)))[0]
        return float((logits.argmax(1) == split.targets).double().mean())

    for number, (_, train, test) in enumerate(tasks):
        if separate:
            parameters = {
                name: tensor.requires_grad_()
                for name, tensor in initial_parameters(graph, seed=derive_seed(seed, number)).items()
            }
        rng = torch.Generator().manual_seed(derive_seed(seed, "order", number))
        optimiser = torch.optim.Adam(parameters.values(), lr=1e-3)
        for _ in range(steps):
            index = torch.randint(len(train), (64,), generator=rng)
            logits = program(parameters, [train.inputs[index]], RunContext(batch_size=64))[0]
            optimiser.zero_grad()
            F.cross_entropy(logits, train.targets[index]).backward()
            optimiser.step()
        kept.append({name: tensor.detach().clone() for name, tensor in parameters.items()})
        after.append(accuracy(kept[-1], test))
    now = [
        accuracy(kept[number] if separate else kept[-1], test) for number, (_, _, test) in enumerate(tasks)
    ]
    lost = [before - last for before, last in zip(after[:-1], now[:-1], strict=True)]
    size = Target(graph).size * (len(tasks) if separate else 1)
    return {"accuracy": mean(now), "forgetting": mean(lost), "parameters": size}


def methods(
    graph: ComputationalGraph, tasks: list[Task], steps: int
) -> dict[str, Callable[[int], dict[str, float]]]:
    """Every row of the table by name."""
    found: dict[str, Callable[[int], dict[str, float]]] = {
        "one network in sequence": lambda seed: ordinary(graph, tasks, steps, seed, separate=False),
        "one network per task": lambda seed: ordinary(graph, tasks, steps, seed, separate=True),
    }
    shapes = {"chunked": CHUNKED, "recurrent": RECURRENT}
    for kind, shape in shapes.items():
        for beta in (0.0, 0.1, 1.0, 10.0):
            found[f"{kind}, beta {beta:g}"] = lambda seed, shape=shape, beta=beta: with_hypernetwork(
                graph, tasks, shape, beta, steps, seed
            )
    found["chunked, small, beta 10"] = lambda seed: with_hypernetwork(graph, tasks, SMALL, 10.0, steps, seed)
    return found


def measured(
    name: str, dataset: str, steps: int, seed: int, run: Callable[[int], dict[str, float]]
) -> dict[str, object]:
    """One row, from the file if it is there."""
    key = {"data": dataset, "method": name, "steps": steps, "seed": seed}
    if ROWS.exists():
        for line in ROWS.read_text().splitlines():
            row: dict[str, object] = json.loads(line)
            if all(row.get(k) == v for k, v in key.items()):
                return row
    started = time.process_time()
    row = {**key, **run(seed), "cpu_seconds": round(time.process_time() - started, 2)}
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
    return row


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800, help="training steps per task")
    parser.add_argument("--fashion-seeds", type=int, default=1)
    parser.add_argument("--data", nargs="+", default=["digits", "fashion-mnist"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    for dataset in arguments.data:
        tasks = split_tasks(dataset)
        graph = perceptron(tasks[0][1].inputs.shape[1], 32 if dataset == "digits" else 64)
        seeds = arguments.seeds if dataset == "digits" else arguments.fashion_seeds
        for name, run in methods(graph, tasks, arguments.steps).items():
            rows = [measured(name, dataset, arguments.steps, seed, run) for seed in range(seeds)]
            columns = [key for key, value in rows[0].items() if isinstance(value, float | int)]
            line: dict[str, object] = {
                "data": dataset,
                "method": name,
                "target": Target(graph).size,
                "seeds": seeds,
            }
            for column in columns:
                if column not in ("seed", "steps"):
                    values = [float(str(row[column])) for row in rows]
                    line[column] = {"mean": mean(values), "std": pstdev(values)}
            table.append(line)
    save(
        "meta_continual",
        {
            "table": table,
            "seeds": arguments.seeds,
            "steps": arguments.steps,
            "load": "other work on the machine",
        },
    )


if __name__ == "__main__":
    main()
