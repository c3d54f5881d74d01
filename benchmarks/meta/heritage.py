"""How many arcs of known family trees are recovered from weights alone.

    python -m benchmarks.meta.heritage

Four trees of 13 perceptrons 64-32-32-10 on digits: 4 networks trained on all classes, 12 fine-tuned from these, 36 fine-tuned from those, each with a
learning rate and a number of steps of its own. How strongly direction counts, and what tells it, is learned on a forest of its own (seed 1000). Rows go
to `meta_heritage.jsonl`; a second call goes on where the first stopped.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import RESULTS, save
from nasgraph.data import Split, load_dataset
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.heritage import (
    STATISTICS,
    Heritage,
    HeritageRule,
    Statistic,
    behaviour_distances,
    direction_scores,
    learn_rule,
    recover_heritage,
    weight_distances,
)
from nasgraph.meta.population.presets import perceptron
from nasgraph.meta.population.settings import NetworkSettings
from nasgraph.meta.population.stack import initial_stack, train_stack
from nasgraph.meta.views import run_stack
from nasgraph.seeding import generator

ROWS = RESULTS / "meta_heritage.jsonl"
SEEDS, CALIBRATION, KINDS = tuple(range(4)), 1000, ("places", "names", "classes")
TREES, CHILDREN = 4, 3
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Forest = tuple[dict[str, Tensor], list[int]]


def forest(graph: ComputationalGraph, *, seed: int, kind: str) -> Forest:
    """Trained trees.

    Args:
        graph: The architecture of all.
        seed: Decides everything.
        kind: What the three children of a network are trained on. `places`: digits that are moved by a few pixels, one way for each child.
            `names`: digits four classes of which have changed names. `classes`: five of the ten classes.
    """
    train, rng = load_dataset("digits").search.train, generator(seed, "forest", kind)
    roots = [
        NetworkSettings(seed=seed * 997 + k, initial_seed=seed * 997 + k, learning_rate=0.1, steps=400)
        for k in range(TREES)
    ]
    level = train_stack(graph, initial_stack(graph, roots), train, roots).state
    parents, first = [-1] * TREES, 0
    stack = {name: tensor.clone() for name, tensor in level.items()}
    for step in (1, 2):
        above = torch.arange(len(parents) - first).repeat_interleave(CHILDREN)
        settings = [
            NetworkSettings(
                seed=seed * 997 + 100 * step + k,
                initial_seed=0,
                learning_rate=float(10 ** rng.uniform(-1.5, -0.7)),
                steps=int(rng.integers(60, 160)),
                classes=tuple(sorted(rng.choice(10, 5, replace=False).tolist())) if kind == "classes" else (),
            )
            for k in range(len(above))
        ]
        tasks = [Split(train.inputs, train.targets)] if kind == "classes" else _tasks(train, kind, rng)
        chosen = np.concatenate([rng.permutation(len(tasks))[:CHILDREN] for _ in range(len(parents) - first)] if kind != "classes" else [np.zeros(len(above), dtype=int)])  # fmt: skip
        start = {name: tensor[above] for name, tensor in level.items()}
        level = {name: tensor.clone() for name, tensor in start.items()}
        for task in range(len(tasks)):
            rows = torch.from_numpy(np.flatnonzero(chosen == task))
            if len(rows):
                part = {name: tensor[rows] for name, tensor in start.items()}
                done = train_stack(graph, part, tasks[task], [settings[row] for row in rows.tolist()]).state
                for name, tensor in done.items():
                    level[name][rows] = tensor
        parents += (above + first).tolist()
        first = len(parents) - len(above)
        stack = {name: torch.cat([tensor, level[name]]) for name, tensor in stack.items()}
    return stack, parents


def _tasks(train: Split, kind: str, rng: np.random.Generator) -> list[Split]:
    """Eight data sets of one kind, others for each generation of each forest."""
    tasks = []
    ways = [(3, 0), (-3, 0), (0, 3), (0, -3), (2, 2), (2, -2), (-2, 2), (-2, -2)]
    for way in ways:
        if kind == "places":
            tasks.append(Split(torch.roll(train.inputs, way, (2, 3)).contiguous(), train.targets))
        else:
            names, moved = np.arange(10), rng.choice(10, 4, replace=False)
            names[moved] = np.roll(moved, 1)
            tasks.append(Split(train.inputs, torch.from_numpy(names)[train.targets]))
    return tasks


def random_forest(parents: Sequence[int], *, seed: int) -> float:
    """Share of arcs right when every network gets a random parent in its own tree."""
    rng, roots = generator(seed, "random parents"), list(parents)
    for place in range(len(roots)):
        roots[place] = place if parents[place] < 0 else roots[parents[place]]
    hits = []
    for child, parent in enumerate(parents):
        if parent >= 0:
            others = [k for k in range(len(parents)) if roots[k] == roots[child] and k != child]
            hits.append(int(rng.choice(others)) == parent)
    return float(np.mean(hits))


Recover = Callable[[], Heritage]


def measured(
    graph: ComputationalGraph, stacked: Mapping[str, Tensor]
) -> tuple[dict[str, Array], dict[Statistic, Array]]:
    """Distances by name, and the statistics that may tell direction."""
    weights = [name for name, spec in graph.parameters.items() if spec.role == "weight"]
    probes = load_dataset("digits").search.validation.inputs[:64]
    distances = {
        "all layers": weight_distances(graph, stacked),
        **{
            f"layer {k + 1} only": weight_distances(graph, stacked, parameters=[name])
            for k, name in enumerate(weights)
        },
        "behaviour on 64 images": behaviour_distances(run_stack(graph, stacked, [probes])[0]),
    }
    return distances, {name: direction_scores(graph, stacked, name) for name in STATISTICS}


def run_seed(
    graph: ComputationalGraph, kind: str, seed: int, rules: Mapping[str, HeritageRule]
) -> list[dict[str, object]]:
    """All methods on one forest."""
    stacked, parents = forest(graph, seed=seed, kind=kind)
    distances, scores = measured(graph, stacked)
    plain = distances["all layers"]
    found: dict[str, Recover] = {
        f"{name}, learned rule": partial(rules[name].recover, each, scores, num_trees=TREES)
        for name, each in distances.items()
    }
    found |= {
        "all layers, learned rule, number of trees not given": lambda: rules["all layers"].recover(
            plain, scores
        ),
        "all layers, no direction": lambda: recover_heritage(plain, num_trees=TREES),
        "all layers, norm assumed to rise": lambda: recover_heritage(
            plain, scores=scores["norm"], num_trees=TREES
        ),
        "all layers, kurtosis assumed to fall (the paper)": lambda: recover_heritage(
            plain, scores=scores["kurtosis"], sign=-1, num_trees=TREES
        ),
    }
    rows: list[dict[str, object]] = []
    for method, recover in found.items():
        started = time.process_time()
        right = recover().agreement(parents)
        seconds = round(time.process_time() - started, 3)
        rows.append({"kind": kind, "seed": seed, "method": method, **right, "cpu_seconds": seconds})
    arcs = random_forest(parents, seed=seed)
    return [*rows, {"kind": kind, "seed": seed, "method": "random parent in the right tree", "arcs": arcs}]


def main() -> None:
    """Run what is missing, then write the summary."""
    torch.set_num_threads(1)
    graph = perceptron((32, 32))
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    for kind in KINDS:
        missing = [
            seed for seed in SEEDS if not any(r["kind"] == kind and r.get("seed") == seed for r in rows)
        ]
        if not missing:
            continue
        stacked, parents = forest(graph, seed=CALIBRATION, kind=kind)
        distances, scores = measured(graph, stacked)
        rules = {name: learn_rule(each, scores, parents) for name, each in distances.items()}
        rows.append({"kind": kind, "rule": asdict(rules["all layers"])})
        print(rows[-1], flush=True)
        for seed in missing:
            rows += run_seed(graph, kind, seed, rules)
            ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows))
            print(
                [(r["method"], r["arcs"]) for r in rows if r.get("seed") == seed and r["kind"] == kind],
                flush=True,
            )
    learned = {row["kind"]: row["rule"] for row in rows if "rule" in row}
    table = summary([row for row in rows if "method" in row])
    save("meta_heritage", {"rows": table, "rules": learned, "trees": TREES, "networks": 13 * TREES})


def summary(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Mean, spread and range over seeds."""
    result = []
    for kind, method in dict.fromkeys((row["kind"], row["method"]) for row in rows):
        chosen = [row for row in rows if (row["kind"], row["method"]) == (kind, method)]
        line: dict[str, object] = {"kind": kind, "method": method, "seeds": len(chosen)}
        for key in ("arcs", "undirected", "roots", "trees"):
            values = [float(str(row[key])) for row in chosen if key in row]
            if values:
                line |= {key: float(np.mean(values)), f"{key}_std": float(np.std(values))}
                line |= {f"{key}_low": min(values), f"{key}_high": max(values)}
        result.append(line)
    return result


if __name__ == "__main__":
    main()
