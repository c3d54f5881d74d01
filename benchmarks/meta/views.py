"""How much each view of a network tells about its accuracy: R squared and Kendall's tau on networks held out.

    python -m benchmarks.meta.views --populations /tmp/nasgraph-populations

Populations are those of `python -m benchmarks.meta.population` (recipes digits-mlp, digits-widths, digits-families). Rows are appended to
`meta_views.jsonl` as they come; a second call goes on where the first stopped.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import RESULTS, save
from nasgraph.data import load_dataset
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.measures import network_theory_of_stack
from nasgraph.meta.population import Population
from nasgraph.meta.views import (
    agreement,
    data_probes,
    fit_learned_probes,
    fit_view_predictor,
    flat_of_stack,
    noise_probes,
    pooled_statistics_of_stack,
    probe_responses,
    statistics_of_stack,
)

Groups = Sequence[tuple[ComputationalGraph, dict[str, Tensor], Tensor]]
View = Callable[[ComputationalGraph, Mapping[str, Tensor], int], Tensor]
ROWS = RESULTS / "meta_views.jsonl"
SEEDS = (0, 1, 2)


def _noise(count: int) -> View:
    return lambda graph, stacked, seed: probe_responses(graph, stacked, noise_probes(graph, count, seed=seed))


def _data(count: int) -> View:
    inputs = load_dataset("digits").search.validation.inputs
    return lambda graph, stacked, seed: probe_responses(graph, stacked, data_probes(inputs, count, seed=seed))


def _theory(graph: ComputationalGraph, stacked: Mapping[str, Tensor], _seed: int) -> Tensor:
    inputs = load_dataset("digits").search.validation.inputs[:32]
    return network_theory_of_stack(graph, stacked, inputs)


def _both(graph: ComputationalGraph, stacked: Mapping[str, Tensor], seed: int) -> Tensor:
    return torch.cat([statistics_of_stack(graph, stacked), _theory(graph, stacked, seed)], dim=1)


def views() -> dict[str, tuple[View, str, bool]]:
    """Per name: the view, its predictor, and whether it has the same columns for all architectures."""
    return {
        "flat weights + ridge": (lambda g, s, _: flat_of_stack(g, s), "ridge", False),
        "statistics + trees": (lambda g, s, _: statistics_of_stack(g, s), "trees", False),
        "pooled statistics + trees": (lambda g, s, _: pooled_statistics_of_stack(g, s), "trees", True),
        "pooled statistics, no fan-in + trees": (
            lambda g, s, _: pooled_statistics_of_stack(g, s, by_fan_in=False),
            "trees",
            True,
        ),
        "complex-network measures + trees": (_theory, "trees", True),
        "statistics and complex-network measures + trees": (_both, "trees", False),
        "8 noise probes + trees": (_noise(8), "trees", True),
        "32 noise probes + trees": (_noise(32), "trees", True),
        "8 data probes + trees": (_data(8), "trees", True),
        "32 data probes + trees": (_data(32), "trees", True),
    }


def groups_of(population: Population, split: Sequence[str]) -> Groups:
    """Graph, stack and test accuracies, by architecture."""
    return [
        (group.graph, group.state, torch.from_numpy(population.table["test_accuracy"][group.indices]).float())
        for group in population.by_architecture(indices=population.select(split=list(split)))
    ]


def _finite(view: Tensor) -> Tensor:
    """The few networks of a population that diverged answer with numbers that are not finite: they get zeros and the largest numbers."""
    return view.nan_to_num().clamp(-1e30, 1e30)


def score_view(
    view: View, kind: str, train: Groups, tests: Mapping[str, Groups], seed: int
) -> dict[str, dict[str, float]]:
    """Fit on some networks, and compare on others, set by set."""
    started = time.process_time()
    x = _finite(torch.cat([view(graph, stacked, seed) for graph, stacked, _ in train]))
    fitted = fit_view_predictor(
        x, torch.cat([each for _, _, each in train]), kind="ridge" if kind == "ridge" else "trees", seed=seed
    )
    cost = {"columns": x.shape[1], "cpu_seconds": round(time.process_time() - started, 2)}
    result = {}
    for task, test in tests.items():
        said = fitted.predict(_finite(torch.cat([view(graph, stacked, seed) for graph, stacked, _ in test])))
        result[task] = {**agreement(said, torch.cat([each for _, _, each in test])), **cost}
    return result


def score_learned(train: Groups, tests: Mapping[str, Groups], seed: int) -> dict[str, dict[str, float]]:
    """The same for learned probes."""
    started = time.process_time()
    groups = [(graph, stacked) for graph, stacked, _ in train]
    model = fit_learned_probes(groups, [each.unsqueeze(1) for _, _, each in train], seed=seed)
    columns = model.config.num_probes * model.output_size
    cost = {"columns": columns, "cpu_seconds": round(time.process_time() - started, 2)}
    result = {}
    for task, test in tests.items():
        said = model.predict([(graph, stacked) for graph, stacked, _ in test])
        truth = torch.cat([each for _, _, each in test])
        result[task] = {**agreement(torch.cat([each[:, 0] for each in said]), truth), **cost}
    return result


def run(train: Groups, tests: Mapping[str, Groups], done: set[tuple[str, str, int]]) -> None:
    """All views, fitted once for all sets of networks to test on."""
    graphs = [graph for part in (train, *tests.values()) for graph, _, _ in part]
    same = len({graph.fingerprint for graph in graphs}) == 1
    same_length = len({len(graph) for graph in graphs}) == 1 and "families" not in tests
    first = next(iter(tests))
    for seed in SEEDS:
        for name, (view, kind, is_universal) in views().items():
            fits = is_universal or same or (same_length and "flat" not in name)
            if fits and (first, name, seed) not in done and not (seed and "probes" not in name):
                _write(name, seed, score_view(view, kind, train, tests, seed), train, tests)
        if (first, "32 learned probes", seed) not in done:
            _write("32 learned probes", seed, score_learned(train, tests, seed), train, tests)


def _write(
    name: str,
    seed: int,
    result: Mapping[str, Mapping[str, float]],
    train: Groups,
    tests: Mapping[str, Groups],
) -> None:
    for task, numbers in result.items():
        sizes = {
            "train": sum(len(each) for _, _, each in train),
            "test": sum(len(each) for _, _, each in tests[task]),
        }
        row = {"task": task, "view": name, "seed": seed, **sizes, **numbers}
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def summary() -> list[dict[str, object]]:
    """Mean and standard deviation over seeds."""
    found = defaultdict(list)
    for line in ROWS.read_text().splitlines():
        row = json.loads(line)
        found[row["task"], row["view"]].append(row)
    return [
        {
            "task": task, "view": view, "seeds": len(rows), "columns": rows[0]["columns"], "train": rows[0]["train"], "test": rows[0]["test"],
            **{key: float(np.mean([row[key] for row in rows])) for key in ("r2", "tau", "cpu_seconds")},
            **{f"{key}_std": float(np.std([row[key] for row in rows])) for key in ("r2", "tau")},
        }
        for (task, view), rows in found.items()
    ]  # fmt: skip


def main() -> None:
    """Run what is missing, then write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--populations", type=Path, default=Path("/tmp/nasgraph-populations"))
    folder = parser.parse_args().populations
    torch.set_num_threads(1)
    done = set()
    if ROWS.exists():
        rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
        done = {(row["task"], row["view"], row["seed"]) for row in rows}
    unseen = ("unseen-width", "unseen-depth", "unseen-activation", "unseen-family")
    tasks = (
        ("digits-mlp", {"random": "test"}),
        ("digits-widths", {"unseen width": "unseen-width", "seen widths": "test"}),
        ("digits-families", {"families": "test"} | {f"families, {label}": label for label in unseen}),
    )
    for name, tests in tasks:
        population = Population.open(folder / name)
        run(
            groups_of(population, ("train", "val")),
            {task: groups_of(population, (label,)) for task, label in tests.items()},
            done,
        )
    save("meta_views", {"rows": summary(), "target": "test accuracy on digits"})


if __name__ == "__main__":
    main()
