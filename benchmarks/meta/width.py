"""Width search by gradient (TAS) against random width vectors and uniform scaling at equal multiply-adds.

    python -m benchmarks.meta.width                                     # what is reported
    python -m benchmarks.meta.width --scale 2 --steps 1200 --search-epochs 60     # larger and longer

A convolutional network of six layers (8-8-16-16-32-32 channels) on Fashion-MNIST (10,000 training images of 14 x 14). For each seed: the
full network is trained; its outputs are the teacher of all smaller networks; one search; ten random width vectors within 2 %
of the target; uniform scaling. All small networks are trained from random weights by the same steps with the same
distillation, and the network that the search found also from the units that it inherits. The search's own time is
reported: random got none. Test accuracies; nothing is chosen by them. Rows are kept in a .jsonl file, so that a run that was
stopped continues.
"""

import argparse
import json
import time
from math import comb
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import DataSet, load_dataset
from nasgraph.evaluate import measure
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.meta.pruning import (
    FineTuneConfig,
    WidthConfig,
    cut_widths,
    finetune,
    fit_widths,
    random_widths,
    search_width,
    teacher_logits,
    uniform_widths,
    width_cost,
)
from nasgraph.modules import Program, initial_buffers, initial_parameters
from nasgraph.seeding import derive_seed, generator

ROWS = RESULTS / "meta_width.rows.jsonl"
WIDTHS = (8, 8, 16, 16, 32, 32)


def convnet(shape: tuple[int, ...], num_classes: int, *, scale: int = 1) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=shape)
    for place, width in enumerate(WIDTHS):
        x = g("relu", g("batch_norm", g("conv2d", x, out_channels=scale * width, kernel_size=3, padding=1)))
        if place in (1, 3):
            x = g("max_pool2d", x, kernel_size=2, stride=2)
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=num_classes))


def fresh(graph: ComputationalGraph, seed: int) -> dict[str, torch.Tensor]:
    return {**initial_parameters(graph, seed=seed), **initial_buffers(graph)}


class Rows:
    """What is done, by key; a new row is written at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, key: str, **row: object) -> None:
        self.done[key] = {"key": key, **row}
        with self._path.open("a") as file:
            file.write(json.dumps(self.done[key]) + "\n")


def run_seed(seed: int, data: DataSet, arguments: argparse.Namespace, rows: Rows) -> None:
    """All networks of one seed."""
    full = convnet(data.input_shape, data.num_classes, scale=arguments.scale)
    cost, train = width_cost(full), data.search.train
    tuning = FineTuneConfig(learning_rate=3e-3)
    names = [
        f"{seed}/{name}"
        for name in ("dense", "search", "inherited", "uniform", *map(str, range(arguments.random)))
    ]
    if all(name in rows.done for name in names):
        return
    path = Path(arguments.folder) / f"dense{seed}_{arguments.scale}_{arguments.dense_steps}.safetensors"
    if not path.exists():
        start = fresh(full, derive_seed(seed, "dense"))
        save_tensors(
            path, finetune(full, start, train, steps=arguments.dense_steps, seed=seed, config=tuning)
        )
    dense = load_tensors(path)
    teacher = teacher_logits(full, dense, train)
    if f"{seed}/dense" not in rows.done:
        rows.add(f"{seed}/dense", kind="dense", seed=seed, test=measure(Program(full), dense, data.test, batch_size=500)[1],
                 multiply_adds=cost.dense)  # fmt: skip

    def trained(key: str, graph: ComputationalGraph, start: dict[str, torch.Tensor], **facts: object) -> None:
        started = time.process_time()
        state = finetune(
            graph,
            start,
            train,
            steps=arguments.steps,
            seed=derive_seed(seed, key),
            config=tuning,
            teacher=teacher,
        )
        test = measure(Program(graph), state, data.test, batch_size=500)[1]
        rows.add(f"{seed}/{key}", kind=facts.pop("kind"), seed=seed, test=test, train_cpu_s=time.process_time() - started,
                 multiply_adds=cost_of(graph).multiply_adds, num_parameters=cost_of(graph).num_parameters, **facts)  # fmt: skip
        print(rows.done[f"{seed}/{key}"], flush=True)

    if f"{seed}/search" not in rows.done or f"{seed}/inherited" not in rows.done:
        started = time.process_time()
        config = WidthConfig(
            epochs=arguments.search_epochs, seed=seed, architecture_rate=arguments.architecture_rate
        )
        found = search_width(full, data.search, target_ratio=arguments.target, state=dense, config=config)
        spent = time.process_time() - started
        facts = {
            "widths": found.widths,
            "expected_ratio": found.expected / cost.dense,
            "argmax_ratio": found.chosen / cost.dense,
            "search_cpu_s": spent,
            "history": list(found.history),
        }
        trained(
            "search", found.graph, fresh(found.graph, derive_seed(seed, "search")), kind="search", **facts
        )
        trained("inherited", found.graph, found.state, kind="inherited")
    if f"{seed}/uniform" not in rows.done:
        target = (
            arguments.target * cost.dense
        )  # one ratio for all, then single units as near to the target as they come
        widths = fit_widths(cost, uniform_widths(cost, target), target, least=0.1)
        graph, _ = cut_widths(full, dense, widths)
        trained("uniform", graph, fresh(graph, derive_seed(seed, "uniform")), kind="uniform", widths=widths)
    rng = generator(seed, "random widths")
    for number in range(arguments.random):
        widths = random_widths(cost, arguments.target * cost.dense, rng=rng, tolerance=0.02)
        if f"{seed}/{number}" not in rows.done:
            graph, _ = cut_widths(full, dense, widths)
            trained(str(number), graph, fresh(graph, derive_seed(seed, number)), kind="random", widths=widths)


def summarise(rows: Rows, arguments: argparse.Namespace) -> dict[str, object]:
    by_kind: dict[str, dict[int, list[float]]] = {}
    for row in rows.done.values():
        by_kind.setdefault(str(row["kind"]), {}).setdefault(int(row["seed"]), []).append(float(row["test"]))
    summary: dict[str, object] = {}
    for kind, seeds in by_kind.items():
        means = [float(np.mean(tests)) for tests in seeds.values()]
        everything = [test for tests in seeds.values() for test in tests]
        summary[kind] = {
            "seeds": len(seeds),
            "networks": len(everything),
            "test mean": float(np.mean(means)),
            "std over seeds": float(np.std(means, ddof=1)) if len(means) > 1 else None,
            "std over networks": float(np.std(everything, ddof=1)) if len(everything) > 1 else None,
        }
    searches = [row for row in rows.done.values() if row["kind"] == "search"]
    beaten = [
        float(np.mean([row["test"] > other for other in by_kind["random"].get(row["seed"], [])]))
        for row in searches
        if "random" in by_kind
    ]
    summary["share of random width vectors that the search beats, per seed"] = beaten
    summary["distance from the target"] = {
        name: [row[name] / arguments.target - 1 for row in searches]
        for name in ("expected_ratio", "argmax_ratio")
    }
    trainings = [float(row["train_cpu_s"]) for row in rows.done.values() if row["kind"] == "random"]
    paid = round(float(np.mean([row["search_cpu_s"] for row in searches])) / float(np.mean(trainings)))
    summary["random width vectors that the time of the search pays for"] = paid
    summary["test of the best of so many, chosen by test, mean"] = float(
        np.mean([_expected_best(tests, paid) for tests in by_kind["random"].values()])
    )
    summary["search cpu seconds"] = [row["search_cpu_s"] for row in searches]
    return summary


def _expected_best(values: list[float], count: int) -> float:
    """Mean of the largest of `count` values drawn without replacement."""
    ordered, total = sorted(values), comb(len(values), min(count, len(values)))
    count = min(count, len(values))
    return sum(value * comb(place, count - 1) for place, value in enumerate(ordered)) / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--random", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--dense-steps", type=int, default=300)
    parser.add_argument("--search-epochs", type=int, default=10)
    parser.add_argument("--architecture-rate", type=float, default=0.1)
    parser.add_argument("--target", type=float, default=0.5)
    parser.add_argument("--folder", default="/tmp/nasgraph-pruning/width")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(
        "fashion-mnist", data_dir=SHARED_DATA, image_size=14, num_train=10_000, download=False
    )
    rows = Rows(ROWS)
    for seed in range(arguments.seeds):
        run_seed(seed, data, arguments, rows)
        save("meta_width", {"settings": vars(arguments), "note": "nine sessions shared two cores", "results": summarise(rows, arguments),
                            "rows": list(rows.done.values())})  # fmt: skip


if __name__ == "__main__":
    main()
