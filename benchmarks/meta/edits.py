"""Edits that keep the function: how exactly, what children gain, and what inheritance gives a search.

Three parts, each resumable: rows go to `results/meta_edits.rows.jsonl` as they come.

- error: five random edits on traced and sampled networks; largest change of an output relative to the largest output.
- children: a trained parent, a child by random growth or by a mutation of the search space, trained for an equal small budget from
  what it inherits and from random weights.
- search: regularised evolution with and without inheritance, equal trials and epochs; the best validation accuracy so far at equal
  floating-point operations of training, and the winner trained from scratch, on the test data.

    python -m benchmarks.meta.edits                      # 100 sequences, 3 seeds; ten to thirty minutes of one core
    python -m benchmarks.meta.edits --sequences 400 --seeds 10 --trials 120   # the full size
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import RESULTS, save
from benchmarks.meta.models import traced_models
from nasgraph.data import DataSet, load_dataset
from nasgraph.edits import EditError, inherit, random_edits
from nasgraph.evaluate import TrainConfig, TrainEvaluator, never_stop, train_graph
from nasgraph.evaluate.heirs import INHERITED_SHARE
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import initial_parameters, is_statistic, run_network
from nasgraph.search import SearchConfig, create_or_resume, open_storage, run_search
from nasgraph.search.strategies.evolution import EvolutionConfig, RegularisedEvolution
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import load_space, mutate, sample

ROWS = RESULTS / "meta_edits.rows.jsonl"
Row = dict[str, object]
SKIPPED = ("resnet-18",)
"""Too slow for a hundred sequences; with --large it takes part."""
GROWTH = ("widen", "add_units", "deepen", "replicate_add", "split_concat")
SPACES = {"mlp": (1, 8, 8), "convnet": (1, 8, 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=4, help="parents per space and seed")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--large", action="store_true", help="with ResNet-18")
    parser.add_argument("--part", choices=("error", "children", "search", "all"), default="all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = _read()
    if given.part in ("error", "all"):
        _run("error", rows, _errors(given.sequences, large=given.large, done=_done(rows, "error")))
    if given.part in ("children", "all"):
        _run("children", rows, _children(given.seeds, given.pairs, done=_done(rows, "children")))
    if given.part in ("search", "all"):
        _run("search", rows, _searches(given.seeds, given.trials, done=_done(rows, "search")))
    path = save("meta_edits", _summary(rows))
    print(f"Wrote {path}")


def _read() -> list[Row]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def _done(rows: list[Row], part: str) -> set[str]:
    return {str(row["key"]) for row in rows if row["part"] == part}


def _run(part: str, rows: list[Row], made: Iterator[Row]) -> None:
    for row in made:
        row = {"part": part, "load": round(os.getloadavg()[0], 1), **row}
        rows.append(row)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


# ---- error


def _errors(count: int, *, large: bool, done: set[str]) -> Iterator[Row]:
    models = traced_models()
    names = [name for name in models if large or name not in SKIPPED]
    for number in range(count):
        name = names[number % len(names)]
        if str(number) in done:
            continue
        row: Row = {"key": str(number), "model": name}
        for label, model in (("float64", models[name].double()), ("float32", models[name])):
            try:
                with torch.no_grad():
                    edited = random_edits(model.graph, model.state, 5, seed=derive_seed(7, number))
                    before = run_network(model.graph, model.state, model.inputs)
                    after = run_network(edited.graph, edited.state, model.inputs)
            except EditError as error:
                row["refused"] = str(error)
                break
            row[label] = max(
                float((a - b).abs().max() / a.abs().max()) for a, b in zip(before, after, strict=True)
            )
            row["note"] = edited.note
        yield row


# ---- children


def _children(seeds: int, pairs: int, *, done: set[str]) -> Iterator[Row]:
    data = load_dataset("digits")
    parents, budget = TrainConfig(epochs=6), TrainConfig(epochs=1)
    for space, shape in SPACES.items():
        built = load_space(space, input_shape=shape, num_classes=10)
        for seed in range(seeds):
            rng = generator(seed, "parents", space)
            for number in range(pairs):
                parent, key = sample(built, rng), f"{space} {seed} {number}"
                mutant = mutate(built, parent.architecture, rng).graph
                if key in done:
                    continue
                start = initial_parameters(parent.graph, seed=derive_seed(seed, number))
                trained = train_graph(
                    parent.graph, data.search, parents, start=start, seed=seed, keep_going=never_stop
                )
                state = dict(trained.state)
                row: Row = {"key": key, "space": space, "parent": trained.value}
                grown = random_edits(parent.graph, state, 2, seed=derive_seed(seed, number), kinds=GROWTH)
                row |= _compared("grown", grown.graph, grown.state, data, budget, seed)
                heir = inherit(parent.graph, state, mutant, seed=seed)
                row |= _compared("mutant", mutant, heir.state, data, budget, seed)
                row["mutant share"] = heir.share
                yield row


def _compared(
    name: str,
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    data: DataSet,
    config: TrainConfig,
    seed: int,
) -> Row:
    """Validation accuracy after an equal small budget, from a state and from random weights."""
    result: Row = {f"{name} parameters": cost_of(graph).num_parameters}
    starts = {
        "inherited": {key: tensor for key, tensor in state.items() if not is_statistic(key)},
        "scratch": initial_parameters(graph, seed=derive_seed(seed, "scratch")),
    }
    for label, start in starts.items():
        done = train_graph(graph, data.search, config, start=start, seed=seed, keep_going=never_stop)
        result[f"{name} {label}"] = done.value
    return result


# ---- search


def _searches(seeds: int, trials: int, *, done: set[str]) -> Iterator[Row]:
    data = load_dataset("digits")
    few = data.search.subset(400, len(data.search.validation), seed=0)
    space = load_space("mlp", input_shape=(1, 8, 8), num_classes=10)
    for seed in range(seeds):
        for inherits in (False, True):
            key = f"{seed} {'inherit' if inherits else 'random'} {trials}"
            if key in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                evaluate = TrainEvaluator(
                    few, TrainConfig(epochs=1), weights=root / "weights" if inherits else None
                )
                config = EvolutionConfig(population=10, sample=5)
                study = create_or_resume(
                    open_storage(root / "journal"),
                    "edits",
                    space=space,
                    objective="val_accuracy",
                    resume=False,
                    seed=seed,
                    data="digits",
                    sampler=RegularisedEvolution(space, seed=seed, config=config),
                )
                result = run_search(space, evaluate, study, SearchConfig(num_trials=trials, seed=seed))
            assert result.best is not None
            from_scratch = train_graph(
                result.best.candidate.graph,
                few,
                TrainConfig(epochs=12),
                start=initial_parameters(result.best.candidate.graph, seed=derive_seed(seed, "final")),
                seed=seed,
                keep_going=never_stop,
            )
            shares = [t.metrics[INHERITED_SHARE] for t in result.trials if INHERITED_SHARE in t.metrics]
            yield {
                "key": key,
                "inherits": inherits,
                "values": [round(t.metrics["val_accuracy"], 4) for t in result.trials],
                "flops": [t.metrics["train_flops"] for t in result.trials],
                "seconds": sum(t.metrics["train_seconds"] for t in result.trials),
                "best": result.best.metrics["val_accuracy"],
                "winner from scratch": from_scratch.value,
                "share": statistics.fmean(shares) if shares else None,
            }


# ---- summary


def _summary(rows: list[Row]) -> dict[str, object]:
    return {
        "error": _error_summary([row for row in rows if row["part"] == "error"]),
        "children": _child_summary([row for row in rows if row["part"] == "children"]),
        "search": _search_summary([row for row in rows if row["part"] == "search"]),
        "mean load of the machine": statistics.fmean(float(str(row["load"])) for row in rows)
        if rows
        else None,
    }


def _error_summary(rows: list[Row]) -> dict[str, object]:
    found: dict[str, object] = {"sequences": len(rows), "refused": sum("refused" in row for row in rows)}
    for label in ("float32", "float64"):
        values = [float(str(row[label])) for row in rows if label in row]
        if values:
            found[label] = {"median": float(np.median(values)), "max": max(values)}
    return found


def _child_summary(rows: list[Row]) -> dict[str, object]:
    found: dict[str, object] = {"pairs": len(rows)}
    for space in sorted({str(row["space"]) for row in rows}):
        own = [row for row in rows if row["space"] == space]
        for name in ("grown", "mutant"):
            inherited, scratch = (
                np.array([float(str(row[f"{name} {label}"])) for row in own])
                for label in ("inherited", "scratch")
            )
            found[f"{space} {name}"] = {
                "inherited": float(inherited.mean()),
                "scratch": float(scratch.mean()),
                "ahead": float((inherited - scratch).mean()),
                "ahead_std": float((inherited - scratch).std()),
                "better": float((inherited > scratch).mean()),
                "parent": float(np.mean([float(str(row["parent"])) for row in own])),
            }
    return found


def _search_summary(rows: list[Row]) -> dict[str, object]:
    """Best so far when the cheaper of the two searches of a seed had spent its operations."""
    found: dict[str, object] = {}
    pairs: dict[str, dict[bool, Row]] = {}
    for row in rows:
        seed, _, trials = str(row["key"]).split(" ")
        pairs.setdefault(f"{seed} {trials}", {})[bool(row["inherits"])] = row
    whole = [pair for pair in pairs.values() if len(pair) == 2]
    for inherits in (False, True):
        bests = []
        for pair in whole:
            budget = min(sum(_floats(row["flops"])) for row in pair.values())
            spent = np.cumsum(_floats(pair[inherits]["flops"]))
            within = np.flatnonzero(spent <= budget * (1 + 1e-9))
            bests.append(max(_floats(pair[inherits]["values"])[: len(within)]))
        if bests:
            found["with inheritance" if inherits else "without"] = {
                "best at equal operations": {"mean": statistics.fmean(bests), "std": float(np.std(bests))},
                "winner from scratch": statistics.fmean(
                    float(str(pair[inherits]["winner from scratch"])) for pair in whole
                ),
                "training seconds": statistics.fmean(float(str(pair[inherits]["seconds"])) for pair in whole),
                "seeds": len(bests),
            }
    return found


def _floats(values: object) -> list[float]:
    assert isinstance(values, list)
    return [float(value) for value in values]


if __name__ == "__main__":
    main()
