"""Do model soups and alignment help? Fine-tunes of one network, and networks trained apart.

    python benchmarks/zoo/soups.py --repeats 10 --pairs 3

Soups: each repeat draws another architecture, pre-trains it, and fine-tunes it eight times on a shifted target with other
learning rates, lengths, seeds and augmentations; two more fine-tunes with learning rates that are too high make the range "wide". Targets:

    digits       perceptrons (space `mlp`) pre-trained on digits for 40 epochs, with augmentation; images moved by up to a pixel, with
                 noise; 8 to 12 epochs with learning rates of 0.001 to 0.006: the base is good at the target already
    digits-far   the same target, but pre-trained for 6 epochs on clean digits, learning rates of 0.006 to 0.02: far from the base
    turned       space `convnet`, pre-trained on 5,000 images of Fashion-MNIST at 8 x 8; 1,500 images turned by up to 30 degrees
                 with noise; 4 to 7 epochs, after which the fine-tunes still get better
    new-classes  the same, pre-trained on five classes and fine-tuned on the five others

All choices are made on validation examples; test data is measured at the end, and nothing is chosen by it.

Barriers: two networks of one architecture from different random starts, over widths: what is lost half-way between them, before
and after their units are aligned, with statistics of batch norms measured anew, and with REPAIR.

Rows are kept in a .jsonl file, so that an interrupted run goes on where it stopped.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.data import Augmentation, DataSet, SearchData, Split, augment, load_dataset
from nasgraph.evaluate import TrainConfig, measure, never_stop, train_graph
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.merge import (
    METHODS,
    SOUPS,
    Kitchen,
    MergeError,
    barrier,
    ensemble_accuracy,
    match_weights,
    merge_entries,
)
from nasgraph.modules import Program, initial_parameters
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import load_space, sample

ROWS = RESULTS / "zoo_soups.rows.jsonl"
TARGETS = ("digits", "digits-far", "turned", "new-classes")
NUM_MODERATE, NUM_HIGH = 8, 2
PRETRAINING = {
    "digits": TrainConfig(epochs=40, shift_pixels=1, noise_std=0.2),
    "digits-far": TrainConfig(epochs=6),
    "turned": TrainConfig(epochs=3),
    "new-classes": TrainConfig(epochs=3),
}
BATCH = 256
State = Mapping[str, Tensor]


@cache
def fashion() -> DataSet:
    return load_dataset("fashion-mnist", data_dir=SHARED_DATA, image_size=8, num_train=12_000, download=False)


def turned(split: Split, name: str) -> Split:
    """Every image turned by a random angle up to 30 degrees, with noise; always in the same way."""
    rng = torch.Generator().manual_seed(derive_seed(2026, "turned", name))
    angles = (torch.rand(len(split), generator=rng) * 2 - 1) * math.pi / 6
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    maps = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    low = float(split.inputs.min())
    grid = F.affine_grid(maps, list(split.inputs.shape), align_corners=False)
    images = F.grid_sample(split.inputs - low, grid, align_corners=False) + low
    noise = torch.randn(images.shape, generator=rng) * 0.3
    return Split((images + noise).contiguous(), split.targets)


def moved(split: Split, name: str, *, copies: int) -> Split:
    """Some copies of every image, each moved by up to one pixel and made noisy; always in the same way."""
    rng = torch.Generator().manual_seed(derive_seed(2026, "moved", name))
    settings = Augmentation(shift_pixels=1, noise_std=0.3)
    seen = [augment(split.inputs, settings, rng=rng) for _ in range(copies)]
    return Split(torch.cat(seen), split.targets.repeat(copies))


def of_classes(split: Split, first: int, stop: int) -> Split:
    """The examples of some classes, numbered from 0."""
    chosen = split.pick(torch.nonzero((split.targets >= first) & (split.targets < stop)).flatten())
    return Split(chosen.inputs, chosen.targets - first)


def cut(split: Split, start: int, stop: int) -> Split:
    return Split(split.inputs[start:stop], split.targets[start:stop])


@cache
def splits(target: str) -> tuple[SearchData, SearchData, Split]:
    """Data to pre-train on, data to fine-tune on with its validation split, and test data of the target."""
    data = load_dataset("digits") if target.startswith("digits") else fashion()
    train, validation, test = data.search.train, data.search.validation, data.test
    if target.startswith("digits"):
        near = train, validation
        far = moved(train, "train", copies=1), moved(validation, "validation", copies=3)
        tested = moved(test, "test", copies=4)
    elif target == "turned":
        far = turned(cut(train, 5_000, 6_500), "train"), turned(cut(validation, 500, 1_300), "validation")
        near = cut(train, 0, 5_000), cut(validation, 0, 500)
        tested = turned(cut(test, 0, 3_000), "test")
    else:
        near = cut(of_classes(train, 0, 5), 0, 4_000), cut(of_classes(validation, 0, 5), 0, 500)
        far = cut(of_classes(train, 5, 10), 0, 1_500), cut(of_classes(validation, 5, 10), 0, 800)
        tested = cut(of_classes(test, 5, 10), 0, 3_000)

    def searched(pair: tuple[Split, Split]) -> SearchData:
        return SearchData(data.search.name, data.input_shape, 10, *pair)

    return searched(near), searched(far), tested


def drawn(target: str, repeat: int) -> ComputationalGraph:
    """An architecture of `mlp` with 8,000 to 60,000 parameters for digits; else one of `convnet` that costs 20,000 to 100,000
    multiply-adds and has at most 26 nodes."""
    name = "mlp" if target.startswith("digits") else "convnet"
    space, rng = load_space(name, input_shape=(1, 8, 8), num_classes=10), generator(7, "soups", repeat)
    while True:
        graph = sample(space, rng).graph
        cost = cost_of(graph)
        if name == "mlp" and 8e3 <= cost.num_parameters <= 6e4:
            return graph
        if name == "convnet" and len(graph) <= 26 and 2e4 <= cost.multiply_adds <= 1e5:
            return graph


def recipe(target: str, place: int, rng: np.random.Generator) -> TrainConfig:
    """Settings of one fine-tuning: moderate learning rates first, then some that are too high."""
    moderate = (1e-3, 6e-3) if target == "digits" else (6e-3, 2e-2)
    low, high = moderate if place < NUM_MODERATE else (moderate[1] * 3, moderate[1] * 10)
    return TrainConfig(
        epochs=int(rng.integers(8, 13)) if target.startswith("digits") else int(rng.integers(4, 8)),
        batch_size=64,
        learning_rate=float(np.exp(rng.uniform(np.log(low), np.log(high)))),
        weight_decay=float(10 ** rng.uniform(-4, -1)),
        shift_pixels=int(rng.integers(0, 2)),
        noise_std=float(rng.choice([0.0, 0.1, 0.3])),
        label_smoothing=float(rng.choice([0.0, 0.1])),
    )


def fine_tunes(graph: ComputationalGraph, target: str, repeat: int) -> tuple[dict[str, State], list[float]]:
    near, far, _ = splits(target)
    seed = derive_seed(repeat, target)
    base = train_graph(
        graph,
        near,
        PRETRAINING[target],
        start=initial_parameters(graph, seed=seed),
        seed=seed,
        keep_going=never_stop,
    )
    start = {name: base.state[name] for name in graph.parameters}
    states: dict[str, State] = {}
    rates = []
    for place in range(NUM_MODERATE + NUM_HIGH):
        config = recipe(target, place, generator(seed, "recipe", place))
        done = train_graph(
            graph, far, config, start=start, seed=derive_seed(seed, place), keep_going=never_stop
        )
        states[f"tune{place}"] = done.state
        rates.append(config.learning_rate)
    return states, rates


def soup_row(target: str, repeat: int) -> dict[str, object]:
    """One repeat: all fine-tunes, all soups, with moderate learning rates and with the wide range."""
    graph = drawn(target, repeat)
    _, far, test = splits(target)
    program = Program(graph)
    started = time.process_time()
    states, rates = fine_tunes(graph, target, repeat)
    trained = time.process_time() - started

    def accuracy(state: State, split: Split) -> float:
        return measure(program, state, split, batch_size=BATCH)[1]

    val = {name: accuracy(state, far.validation) for name, state in states.items()}
    tested = {name: accuracy(state, test) for name, state in states.items()}
    row: dict[str, object] = {
        "kind": "soup",
        "target": target,
        "repeat": repeat,
        "fingerprint": graph.fingerprint,
        "batch_norms": sum(node.op == "batch_norm" for node in graph.nodes),
        "num_parameters": cost_of(graph).num_parameters,
        "learning_rates": rates,
        "val": list(val.values()),
        "test": list(tested.values()),
        "train_cpu_seconds": trained,
    }
    for label, names in (("moderate", list(states)[:NUM_MODERATE]), ("wide", list(states))):
        few = {name: states[name] for name in names}
        best = max(names, key=lambda name: val[name])
        results: dict[str, object] = {
            "best_single": tested[best],
            "mean_single": float(np.mean([tested[name] for name in names])),
            "oracle_single": max(tested[name] for name in names),
            "ensemble": ensemble_accuracy(graph, list(few.values()), test),
        }
        kitchen = Kitchen(graph, few, far.validation, cut(far.train, 0, 600))
        for method in METHODS if label == "moderate" else ("uniform", "greedy"):
            merged = SOUPS[method](kitchen)
            results[method] = accuracy(merged.state, test)
            results[f"{method}_val"] = [merged.held_out.best, merged.held_out.after]
            results[f"{method}_ingredients"] = len([w for _, w in merged.weights if w > 0.01])
        row[label] = results
    row["wide_refused"] = is_refused(graph, states, far)
    return row


def is_refused(graph: ComputationalGraph, states: Mapping[str, State], data: SearchData) -> bool:
    """Whether `merge_entries` refuses to average them all."""
    try:
        merge_entries(
            graph, states, split=data.validation, train=cut(data.train, 0, 600), method="uniform", align=False
        )
    except MergeError:
        return True
    return False


# ---- networks trained apart


def mlp(width: int) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("flatten", g("input", shape=(1, 8, 8)))
    for _ in range(2):
        x = g("relu", g("linear", x, out_features=width))
    return g.finish(g("linear", x, out_features=10))


def convnet(width: int) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(1, 8, 8))
    for channels in (width, 2 * width):
        x = g("conv2d", x, out_channels=channels, kernel_size=3, padding=1)
        x = g("max_pool2d", g("relu", g("batch_norm", x)), kernel_size=2, stride=2)
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))


@cache
def apart(family: str) -> tuple[SearchData, Split]:
    if family == "mlp":
        digits = load_dataset("digits")
        return digits.search, digits.test
    data = fashion()
    train, validation = cut(data.search.train, 0, 3_000), cut(data.search.validation, 0, 500)
    search = SearchData(data.search.name, data.input_shape, 10, train, validation)
    return search, cut(data.test, 0, 3_000)


FAMILIES: Mapping[str, tuple[Callable[[int], ComputationalGraph], tuple[int, ...], TrainConfig]] = {
    "mlp": (mlp, (8, 32, 128, 512), TrainConfig(epochs=15)),
    "convnet": (convnet, (4, 16, 64), TrainConfig(epochs=4)),
}


def barrier_row(family: str, width: int, pair: int) -> dict[str, object]:
    make, _, config = FAMILIES[family]
    graph, (data, test) = make(width), apart(family)
    first, second = (
        train_graph(
            graph,
            data,
            config,
            start=initial_parameters(graph, seed=seed),
            seed=seed,
            keep_going=never_stop,
        ).state
        for seed in (derive_seed(pair, family, width, side) for side in range(2))
    )
    started = time.process_time()
    aligned = match_weights(graph, second, to=first)
    seconds = time.process_time() - started
    row: dict[str, object] = {
        "kind": "barrier",
        "family": family,
        "width": width,
        "pair": pair,
        "align_cpu_seconds": seconds,
        "sweeps": aligned.sweeps,
        "cosine": [aligned.similarity_before, aligned.similarity_after],
        "function_change": _change(graph, second, aligned.state, test),
    }
    few = cut(data.train, 0, 1_000)
    for label, state, train, repair in (
        ("plain", second, None, False),
        ("plain_repair", second, few, True),
        ("aligned", aligned.state, None, False),
        ("aligned_bn", aligned.state, few, False),
        ("aligned_repair", aligned.state, few, True),
    ):
        found = barrier(graph, first, state, test, train=train, repair=repair, points=5)
        row[label] = {
            "loss": found.loss,
            "accuracy": found.accuracy,
            "middle": found.accuracies[2],
            "ends": [found.accuracies[0], found.accuracies[-1]],
        }
    return row


def _change(graph: ComputationalGraph, a: State, b: State, split: Split) -> float:
    """Largest difference of logits that reordering made, relative to the largest logit."""
    from nasgraph.merge.states import activations

    few = cut(split, 0, 256)
    (first,), (second,) = (next(activations(graph, s, few, graph.outputs, batch_size=256)) for s in (a, b))
    return float((first - second).abs().max() / first.abs().max())


# ---- summary


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean with a 95 % interval of Student's t over repeats; one repeat has none."""
    x = np.asarray(values, dtype=float)
    mean = float(x.mean())
    if len(x) == 1:
        return {"mean": mean, "low": None, "high": None, "repeats": 1}
    half = float(student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return {"mean": mean, "low": mean - half, "high": mean + half, "repeats": len(x)}


def soup_summary(rows: Iterable[Mapping[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    listed = [row for row in rows if row["kind"] == "soup"]
    for target in TARGETS:
        for label in ("moderate", "wide"):
            found = [row[label] for row in listed if row["target"] == target]
            if not found:
                continue
            columns = {
                name: [each[name] for each in found]  # type: ignore[index]  # rows are plain JSON
                for name in found[0]  # type: ignore[attr-defined]
            }
            single = np.asarray(columns["best_single"])
            summary: dict[str, object] = {
                name: interval(columns[name])
                for name in ("best_single", "mean_single", "oracle_single", "ensemble")
            }
            for method in (*METHODS, "ensemble"):
                if method not in columns:
                    continue
                difference = np.asarray(columns[method]) - single
                summary[method] = interval(columns[method])
                summary[f"{method}_minus_best"] = {
                    **interval(difference.tolist()),
                    "better": int((difference > 0).sum()),
                    "worse": int((difference < 0).sum()),
                }
            for method in METHODS:
                if method not in columns:
                    continue
                held = np.asarray(columns[f"{method}_val"])
                summary[f"{method}_held_out_gain"] = interval((held[:, 1] - held[:, 0]).tolist())
                summary[f"{method}_ingredients"] = float(np.mean(columns[f"{method}_ingredients"]))
            if label == "wide":
                summary["refused"] = sum(
                    bool(row["wide_refused"]) for row in listed if row["target"] == target
                )
            summary["greedy_never_worse_on_held_out"] = all(b >= a for a, b in columns["greedy_val"])
            result[f"{target}/{label}"] = summary
    return result


def barrier_summary(rows: Iterable[Mapping[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    listed = [row for row in rows if row["kind"] == "barrier"]
    for family, (_, widths, _) in FAMILIES.items():
        for width in widths:
            found = [row for row in listed if (row["family"], row["width"]) == (family, width)]
            if not found:
                continue
            summary: dict[str, object] = {
                "pairs": len(found),
                "largest_function_change": max(float(str(row["function_change"])) for row in found),
                "align_cpu_seconds": float(np.mean([float(str(row["align_cpu_seconds"])) for row in found])),
            }
            for label in ("plain", "plain_repair", "aligned", "aligned_bn", "aligned_repair"):
                cells = [row[label] for row in found]
                summary[label] = {
                    key: interval([cell[key] for cell in cells])  # type: ignore[index]  # plain JSON
                    for key in ("loss", "accuracy", "middle")
                }
            result[f"{family}/{width}"] = summary
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument(
        "--summary", action="store_true", help="train nothing, sum up the rows that there are"
    )
    parser.add_argument("--name", default="zoo_soups")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = (
        [json.loads(line) for line in arguments.rows.read_text().splitlines()]
        if arguments.rows.exists()
        else []
    )
    soups = {(row["target"], row["repeat"]) for row in rows if row["kind"] == "soup"}
    barriers = {(row["family"], row["width"], row["pair"]) for row in rows if row["kind"] == "barrier"}

    def keep(row: dict[str, object]) -> None:
        rows.append(row)
        with arguments.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            row["kind"], row.get("target", row.get("family")), row.get("repeat", row.get("width")), flush=True
        )

    if arguments.summary:
        arguments.repeats = arguments.pairs = 0
    for target in TARGETS:
        for repeat in range(arguments.repeats):
            if (target, repeat) not in soups:
                keep(soup_row(target, repeat))
    for pair in range(arguments.pairs):
        for family, (_, widths, _) in FAMILIES.items():
            for width in widths:
                if (family, width, pair) not in barriers:
                    keep(barrier_row(family, width, pair))
    results = {
        "protocol": (__doc__ or "").strip(),
        "load": "one thread beside other processes on two cores; accuracies do not depend on it",
        "soups": soup_summary(rows),
        "barriers": barrier_summary(rows),
    }
    print(save(arguments.name, results))


if __name__ == "__main__":
    main()
