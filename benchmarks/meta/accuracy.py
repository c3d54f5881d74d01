"""Predicting the test accuracy of networks from their weights: metanetworks beside every cheap view.

    python -m benchmarks.meta.accuracy --populations /tmp/nasgraph-populations
    python -m benchmarks.meta.accuracy --tasks digits-widths --kinds scale relational

Populations are those of `python -m benchmarks.meta.population`. Every model is trained on the networks of a population's training split,
compared on networks held out, and (where the population has them) on unseen widths, depths, activations and families. Validation
networks choose the epoch of a metanetwork; the cheap views train on them too. Rows are appended to `meta_accuracy.rows.jsonl` as they
come, and metanetworks keep checkpoints after every epoch: a second call goes on where the first stopped.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import RESULTS, save
from benchmarks.meta.views import Groups, groups_of, score_learned, score_view, views
from nasgraph.files import Json
from nasgraph.meta.networks import (
    Epoch,
    FitConfig,
    MetanetworkConfig,
    fit_predictor,
    predict_groups,
    save_metanetwork,
)
from nasgraph.meta.networks.batches import Group
from nasgraph.meta.population import Population
from nasgraph.meta.views import agreement

ROWS = RESULTS / "meta_accuracy.rows.jsonl"
CHECKPOINTS = Path("/tmp/nasgraph-metanetworks")
TASKS = {
    "digits-mlp": ("test",),
    "digits-widths": ("test", "unseen-width"),
    "digits-families": ("test", "unseen-width", "unseen-depth", "unseen-activation", "unseen-family"),
}
SHAPES = {
    "message_passing": MetanetworkConfig(layers=3),
    "scale": MetanetworkConfig(kind="scale", layers=3),
    "relational": MetanetworkConfig(kind="relational", layers=3, node_dim=24, edge_dim=12, heads=3),
}
FITS = {
    "message_passing": FitConfig(epochs=14, learning_rate=4e-3),
    "scale": FitConfig(epochs=14, learning_rate=4e-3),
    "relational": FitConfig(epochs=8, learning_rate=3e-3),
}
"""Sized for ten minutes of one core each; the full-size runs take `--epochs 60`."""
VIEWS = (
    *("flat weights + ridge", "statistics + trees", "pooled statistics + trees"),
    *("8 noise probes + trees", "32 noise probes + trees", "8 data probes + trees", "32 data probes + trees"),
)


def split(groups: Groups) -> tuple[list[Group], list[Tensor]]:
    """Groups of networks, and their targets."""
    return [(graph, stacked) for graph, stacked, _ in groups], [targets for _, _, targets in groups]


def score_metanetwork(
    kind: str, population: Population, tests: Mapping[str, Groups], folder: Path, fit: FitConfig
) -> dict[str, dict[str, float]]:
    """Train one metanetwork, or go on with it, and compare its predictions set by set."""
    started, spent = time.process_time(), folder / "cpu_seconds.json"
    before = json.loads(spent.read_text()) if spent.exists() else 0.0

    def report(epoch: Epoch) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        spent.write_text(json.dumps(before + time.process_time() - started))
        print(kind, population.recipe.name, epoch, flush=True)

    metanetwork = fit_predictor(
        split(groups_of(population, ("train",))),
        val=split(groups_of(population, ("val",))),
        shape=SHAPES[kind],
        config=fit,
        folder=folder,
        on_epoch=report,
    )
    recipe: dict[str, Json] = {
        "population": population.recipe.name,
        "fit": asdict(fit),
        "script": "benchmarks/meta/accuracy.py",
    }
    save_metanetwork(metanetwork, folder / "network", recipe=recipe, targets=("test_accuracy",))
    cost = {
        "parameters": sum(each.numel() for each in metanetwork.parameters()),
        "epochs": fit.epochs,
        "cpu_seconds": round(json.loads(spent.read_text()), 1),
    }
    result = {}
    for label, groups in tests.items():
        networks, targets = split(groups)
        clock = time.process_time()
        said = torch.cat([each[:, 0] for each in predict_groups(metanetwork, networks)])
        ms = 1000 * (time.process_time() - clock) / len(said)
        result[label] = {**agreement(said, torch.cat(targets)), **cost, "cpu_ms_per_network": round(ms, 2)}
    return result


def run_views(
    task: str, population: Population, tests: Mapping[str, Groups], done: set[tuple[str, str, int]]
) -> None:
    """What costs next to nothing, on the same networks."""
    train = groups_of(population, ("train", "val"))
    graphs = {graph.fingerprint for groups in (train, *tests.values()) for graph, _, _ in groups}
    for name, (view, kind, is_universal) in views().items():
        fits = name in VIEWS and (
            is_universal or len(graphs) == 1 or (task == "digits-widths" and "flat" not in name)
        )
        if fits and (task, name, 0) not in done:
            write(task, name, 0, score_view(view, kind, train, tests, 0))
    if (task, "32 learned probes", 0) not in done:
        write(task, "32 learned probes", 0, score_learned(train, tests, 0))


def write(task: str, name: str, seed: int, result: Mapping[str, Mapping[str, float]]) -> None:
    """Append one row per set of networks."""
    for label, numbers in result.items():
        row = {"population": task, "networks": label, "model": name, "seed": seed, **numbers}
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def read_rows() -> list[dict[str, object]]:
    """All rows so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--populations", type=Path, default=Path("/tmp/nasgraph-populations"))
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--kinds", nargs="*", default=list(SHAPES))
    parser.add_argument("--epochs", type=int, default=0, help="in place of the short runs'")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    done = {(str(row["population"]), str(row["model"]), int(str(row["seed"]))) for row in read_rows()}
    for task in given.tasks:
        population = Population.open(given.populations / task)
        tests = {label: groups_of(population, (label,)) for label in TASKS[task]}
        for seed in given.seeds:
            for kind in given.kinds:
                if (task, kind, seed) in done:
                    continue
                fit = replace(FITS[kind], seed=seed, epochs=given.epochs or FITS[kind].epochs)
                folder = CHECKPOINTS / f"{task}-{kind}-{fit.epochs}-{seed}"
                write(task, kind, seed, score_metanetwork(kind, population, tests, folder, fit))
        run_views(task, population, tests, done)
    save("meta_accuracy", {"target": "test accuracy on digits", "rows": read_rows()})


if __name__ == "__main__":
    main()
