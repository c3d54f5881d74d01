"""Weights generated for class subsets that no generator has seen, against every cheap way to get them.

    python -m benchmarks.meta.generate --population FOLDER --trajectories FOLDER [--seeds 3] [--steps 1500]

The populations are the presets `digits-subsets` and `digits-trajectories`; they are trained where the folders lack them. Rows are
written to benchmarks/results/meta_generate.jsonl as they come; rows that are there are not computed again.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, save
from nasgraph.data import DataSet, load_dataset
from nasgraph.meta.generate import (
    Generator,
    GeneratorConfig,
    LossPrompter,
    PromptConfig,
    WeightSpace,
    draw_support,
    fit_generator,
    novelty,
    training_set,
)
from nasgraph.meta.population import (
    NetworkSettings,
    Population,
    Stack,
    measure_stack,
    preset,
    train_population,
    train_stack,
)

ROWS = RESULTS / "meta_generate.jsonl"
FINE_TUNING = (0, 1, 5, 20)
COUNT = 2  # networks per class set
VARIANTS = (
    ("mean", "mean", {}),
    ("nearest", "nearest", {}),
    ("nearest with noise", "nearest", {"noise": 1.0}),
    ("ridge", "ridge", {}),
    ("diffusion", "diffusion", {}),
)


class _Bench:
    """What all generators of one family of networks are measured on."""

    def __init__(self, population: Population, family: str, data: DataSet) -> None:
        self.population, self.data, self.family = population, data, family
        self.training = training_set(
            population, population.select(family=family, split="train"), data.search.train
        )
        self.held = population.select(family=family, split="unseen-classes")
        self.sets = list(dict.fromkeys(population.settings(int(i)).classes for i in self.held))
        self.spaces: dict[bool, WeightSpace] = {}

    def space(self, *, alignment: bool) -> WeightSpace:
        if alignment not in self.spaces:
            self.spaces[alignment] = WeightSpace.fit(
                self.training.graph, self.training.stack, dim=64, alignment=alignment
            )
        return self.spaces[alignment]

    def accuracies(self, stack: Stack, classes: list[tuple[int, ...]], seed: int) -> dict[str, float]:
        """Mean accuracy over the classes of each, after some steps of fine-tuning on them."""
        found = {}
        for steps in FINE_TUNING:
            settings = [
                NetworkSettings(
                    seed=seed * 1000 + row, initial_seed=0, learning_rate=0.2, steps=steps, classes=own
                )
                for row, own in enumerate(classes)
            ]
            tuned = train_stack(self.training.graph, stack, self.data.search.train, settings).state
            _, accuracy = measure_stack(self.training.graph, tuned, self.data.test, classes=classes)
            found[str(steps)] = float(accuracy.mean())
        return found

    def generated(self, generator: Generator, seed: int) -> tuple[Stack, list[tuple[int, ...]]]:
        """Networks for each unseen class set."""
        parts = []
        for place, classes in enumerate(self.sets):
            number = seed * 1000 + place
            support = draw_support(self.data.search.train, classes, num_classes=10, seed=number)
            parts.append(generator.generate(support, count=COUNT, seed=number))
        stack = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return stack, [classes for classes in self.sets for _ in range(COUNT)]

    def references(self) -> list[dict[str, object]]:
        """Networks that were really trained on the unseen sets, their starts, and their reconstructions."""
        classes = [self.population.settings(int(i)).classes for i in self.held]
        real = self.population.stack(self.held)
        rows = []
        start = self.accuracies(self.population.stack(self.held, "initial"), classes, 0)
        rows.append({"generator": "random start", "alignment": False, "accuracy": start})
        rows.append(
            {
                "generator": "really trained",
                "alignment": False,
                "accuracy": {"0": float(self.population.table["test_accuracy"][self.held].mean())},
            }
        )
        for alignment in (False, True) if self.family == "separate" else (False,):
            space = self.space(alignment=alignment)
            again = space.decode(space.encode(real))
            _, accuracy = measure_stack(self.training.graph, again, self.data.test, classes=classes)
            rows.append(
                {
                    "generator": "64 principal components",
                    "alignment": alignment,
                    "accuracy": {"0": float(accuracy.mean())},
                }
            )
        return [{"family": self.family, "seed": 0, **row} for row in rows]

    def measure(self, name: str, kind: str, config: GeneratorConfig) -> dict[str, object]:
        """One generator."""
        started = time.process_time()
        generator = fit_generator(kind, self.training, config)
        seconds = time.process_time() - started
        stack, classes = self.generated(generator, config.seed)
        space = self.space(alignment=config.alignment)
        distance = novelty(
            space.rows(stack), space.rows(self.population.stack(self.held)), space.rows(self.training.stack)
        )
        return {
            "family": self.family,
            "generator": name,
            "alignment": config.alignment,
            "seed": config.seed,
            "accuracy": self.accuracies(stack, classes, config.seed),
            "novelty": {
                "generated": distance.generated,
                "held_out": distance.held_out,
                "ratio": distance.ratio,
            },
            "fit_cpu_seconds": seconds,
        }


def prompt_row(population: Population, data: DataSet, config: PromptConfig) -> dict[str, object]:
    """Prompted against obtained test loss: 20 prompts for each of 20 starts that were not trained on."""
    train, test = population.select(split="train"), population.select(split="test")[:20]
    moments = range(len(population.recipe.snapshots))
    losses = torch.stack(
        [torch.tensor(population.table[f"snapshot{k}_test_loss"][train]) for k in moments], dim=1
    ).float()
    graph = population.graph(0)
    started = time.process_time()
    prompter = LossPrompter.fit(
        graph, [population.stack(train, f"snapshot{k}") for k in moments], losses, config
    )
    seconds = time.process_time() - started
    start = population.stack(test, "snapshot0")
    now = torch.tensor(population.table["snapshot0_test_loss"][test]).float()
    prompts = torch.linspace(float(losses[:, -1].mean()), float(losses[:, 1].mean()), 20)
    obtained = []
    for place, wanted in enumerate(prompts):
        made = prompter.generate(start, loss_B=now, wanted_B=wanted.expand(len(test)), seed=place)
        obtained.append(measure_stack(graph, made, data.test)[0])
    found = torch.stack(obtained)
    target = prompts[:, None].expand_as(found)
    residual = (found - target).square().sum() / (target - target.mean()).square().sum()
    return {
        "family": "trajectories",
        "generator": "loss prompts",
        "seed": config.seed,
        "r2": 1 - float(residual),
        "prompts": prompts.tolist(),
        "obtained_mean": found.mean(1).tolist(),
        "obtained_std": found.std(1).tolist(),
        "runs": len(train),
        "training_steps": config.steps,
        "fit_cpu_seconds": seconds,
    }


def _rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def _key(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("family", "generator", "alignment", "seed"))


def _add(row: dict[str, object]) -> None:
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def run(arguments: argparse.Namespace) -> None:
    """Measure whatever is not in the rows yet."""
    data = load_dataset("digits")
    population = train_population(preset("digits-subsets"), arguments.population, data=data)
    done = {_key(row) for row in _rows()}
    benches: dict[str, _Bench] = {}

    def bench(family: str) -> _Bench:
        if family not in benches:
            benches[family] = _Bench(population, family, data)
        return benches[family]

    for family in ("shared", "separate"):
        if (family, "random start", False, 0) not in done:
            for row in bench(family).references():
                _add(row)
    for seed in range(arguments.seeds):
        for family, alignment in (("shared", False), ("separate", True), ("separate", False)):
            for name, kind, more in VARIANTS:
                if (family, name, alignment, seed) in done:
                    continue
                config = replace(
                    GeneratorConfig(alignment=alignment, seed=seed, steps=arguments.steps), **more
                )
                _add(bench(family).measure(name, kind, config))
        if ("trajectories", "loss prompts", None, seed) not in done:
            runs = train_population(preset("digits-trajectories"), arguments.trajectories, data=data)
            _add(prompt_row(runs, data, PromptConfig(seed=seed, steps=arguments.prompt_steps)))
        summarise()


def summarise() -> None:
    """Means and spreads over seeds."""
    groups: dict[str, list[dict[str, object]]] = {}
    for row in _rows():
        aligned = ", aligned" if row.get("alignment") else ""
        groups.setdefault(f"{row['family']}{aligned}: {row['generator']}", []).append(row)
    table = {}
    for name, rows in groups.items():
        entry: dict[str, object] = {"seeds": len(rows)}
        for field in ("accuracy", "novelty"):
            dicts = [row[field] for row in rows if isinstance(row.get(field), dict)]
            for key in dicts[0] if dicts else ():
                values = [each[key] for each in dicts]  # type: ignore[index]  # checked above
                entry[f"{field} {key}"] = {"mean": float(np.mean(values)), "std": float(np.std(values))}
        if "r2" in rows[0]:
            entry["r2"] = [row["r2"] for row in rows]
        table[name] = entry
    save("meta_generate", {"fine_tuning_steps": list(FINE_TUNING), "summary": table, "rows": _rows()})


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--population", type=Path, default=Path("/tmp/nasgraph-populations/digits-subsets"))
    parser.add_argument(
        "--trajectories", type=Path, default=Path("/tmp/nasgraph-populations/digits-trajectories")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--prompt-steps", type=int, default=1500)
    torch.set_num_threads(1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
