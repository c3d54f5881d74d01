"""How well do GHN scores, zero-cost proxies and combinations of them rank NAS-Bench-201 cells?

    python benchmarks/ghn/ranking_nb201.py --ghn FOLDER --stage cheap
    python benchmarks/ghn/ranking_nb201.py --ghn FOLDER --stage dear
    python benchmarks/ghn/ranking_nb201.py --ghn FOLDER --stage report

Truth: the published CIFAR-10 test accuracy after 200 epochs, of the network with 5 cells per stage at 32x32. Our scores look
at a cheap stand-in: the same cell once per stage, at 16x16, on 16x16 images. That gap is the point: the stand-in costs a
few hundredths. Scores marked "5 cells, 32x32" look at the published network itself (synflow needs no images).

Cells: a fixed random order of all 15,625, less the development cells on which settings and combinations were chosen. The
first `--count` are reported; supervised scores are fitted to labels of following cells, so to none that is reported. But
15,625 cells have 6,334 distinct graphs: some labelled cells have a reported twin, an isomorphic graph. "(n labels)" are
random cells, as a user would draw them; "(n labels, no twins)" leaves out cells with a reported twin, which also leaves
the labels short of the simple, broken cells that have many twins.

Two populations: all cells, and cells without unreachable operations. In each: all of them, and the better half by truth.
Rows are kept in a .rows.jsonl file per stage, so that an interrupted run goes on where it stopped. "dear" measures what costs
most (tuning, mostly) for the first `--dear-count` cells only.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.stats import kendalltau, rankdata

from benchmarks.common import RESULTS, SHARED_DATA, cpu_seconds, save
from nasgraph.data import DataSet, Split, load_dataset
from nasgraph.encode import batch_graphs
from nasgraph.evaluate import AnytimeConfig, curve_columns, curve_scores, tuning_curve
from nasgraph.hyper import GraphHyperNetwork, load_ghn
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import initial_parameters
from nasgraph.predict import (
    PROXIES,
    EmbeddingFeatures,
    FeaturePredictor,
    Predictor,
    StackedPredictor,
    fit_features,
    mean_of_ranks,
)
from nasgraph.seeding import generator
from nasgraph.spaces import replay
from search_spaces.nasbench201 import OPERATIONS, NASBench201, architecture_from_string

Row = dict[str, float]
Rows = Mapping[int, Row]
Array = np.ndarray
ZERO_SHOT = AnytimeConfig(steps=(0,), num_examples=500, batch_size=250)
TUNED = AnytimeConfig(steps=(4, 16), num_examples=500, batch_size=250, learning_rate=1e-4)
FROM_RANDOM = AnytimeConfig(steps=(8, 32), num_examples=500, batch_size=250, learning_rate=2e-3)
SMALL = ("num_parameters", "multiply_adds", "num_weight_layers", "synflow", "nwot", "jacov")
LARGE = ("synflow",)
PROXY_EXAMPLES = 64
MEDIAN = "jacov, median of 3 seeds"
CONSENSUS = (
    ("num_parameters", "minus_loss_0"),
    ("synflow", "nwot"),
    ("synflow", "nwot", "minus_loss_0"),
    ("num_parameters", "nwot", MEDIAN),
    ("num_parameters", "nwot", MEDIAN, "minus_loss_0"),
)
"""Columns whose ranks are averaged. The last was chosen on the development cells; the others show what its parts give."""
LABELS, DRAWS, LABEL_POOL = (50, 100, 200), 5, 300
RESAMPLES = 1000
LONG_COUNT, RANDOM_COUNT = 300, 200
"""Cells that are tuned for all steps, and from random weights, too: these cost most, and rank badly."""


# ---- cells


class Cells:
    """The published table, and the order in which cells are reported and labelled."""

    def __init__(self, count: int) -> None:
        self.table = {name: array for name, array in np.load(SHARED_DATA / "nasbench201.npz").items()}  # noqa: C416  lazy
        self.truth = self.table["cifar10_test_200ep"].astype(float)
        self.small = NASBench201(input_shape=(3, 16, 16), num_classes=10)
        self.large = NASBench201(input_shape=(3, 32, 32), num_classes=10)
        rest = np.setdiff1d(np.arange(len(self.truth)), development_cells())
        order = generator(2026, "ranking_nb201").permutation(rest)
        self.reported = order[:count]
        self.labelled = order[count : count + LABEL_POOL]
        twins = {self.graph(index).fingerprint for index in self.reported}
        fresh = (index for index in order[count:] if self.graph(index).fingerprint not in twins)
        self.labelled_without_twins = np.array([next(fresh) for _ in range(LABEL_POOL)])

    def graph(self, index: int, *, large: bool = False) -> ComputationalGraph:
        """The network of a cell: once per stage at 16x16, or as published."""
        architecture = architecture_from_string(str(self.table["arch_str"][index]))
        return replay(self.large if large else self.small, architecture).graph


def development_cells() -> Array:
    """The cells on which settings and combinations were chosen."""
    return np.random.default_rng(777).permutation(15_625)[-3000:][:300]


# ---- measuring


def measure_cheap(graph: ComputationalGraph, ghn: GraphHyperNetwork, data: DataSet, batch: Split) -> Row:
    """Proxies, and the zero-shot scores of predicted weights, with CPU seconds."""
    row: Row = {}
    for name in SMALL:
        row[name], row[f"cpu {name}"] = cpu_seconds(partial(PROXIES[name], graph, batch, seed=0))
    others, spent = cpu_seconds(lambda: [PROXIES["jacov"](graph, batch, seed=seed) for seed in (1, 2)])
    row[MEDIAN], row[f"cpu {MEDIAN}"] = median([row["jacov"], *others]), spent + row["cpu jacov"]
    (start,), predict_cpu = cpu_seconds(lambda: ghn.predict([graph]))
    curve = tuning_curve(graph, start, data.search, ZERO_SHOT)
    _, row["cpu embed"] = cpu_seconds(lambda: ghn.embed(batch_graphs([graph])))
    return {**row, **curve_scores(curve), "cpu zero-shot": predict_cpu + curve.cpu_seconds[0]}


def measure_dear(cells: Cells, index: int, ghn: GraphHyperNetwork, data: DataSet, large_batch: Split) -> Row:
    """Tuning from predicted and from random weights, and proxies of the published network."""
    graph, published = cells.graph(index), cells.graph(index, large=True)
    row: Row = {}
    for name in LARGE:
        row[f"large {name}"], row[f"cpu large {name}"] = cpu_seconds(
            partial(PROXIES[name], published, large_batch, seed=0)
        )
    kinds = (("GHN", TUNED), ("random", FROM_RANDOM))
    for kind, config in kinds if index in cells.reported[:RANDOM_COUNT] else kinds[:1]:
        start = ghn.predict([graph])[0] if kind == "GHN" else initial_parameters(graph, seed=1)
        if index not in cells.reported[:LONG_COUNT]:
            config = replace(config, steps=config.steps[:1])
        curve = tuning_curve(graph, start, data.search, config)
        row |= {f"{kind} {name}": value for name, value in curve_scores(curve).items()}
        row |= {f"cpu {kind} {k}": spent for k, spent in zip(curve.steps, curve.cpu_seconds, strict=True)}
    return row


def run_stage(path: Path, indices: Array, measure: Callable[[int], Row], *, shard: tuple[int, int]) -> None:
    """Measure the cells of a shard that have no row yet."""
    known = set(read_rows(path))
    with path.open("a") as file:
        for place, index in enumerate(indices):
            if int(index) not in known and place % shard[1] == shard[0]:
                row = {key: _number(value) for key, value in measure(int(index)).items()}
                file.write(json.dumps({"index": int(index), **row}) + "\n")
                file.flush()


def read_rows(path: Path) -> dict[int, Row]:
    """Rows by cell; numbers that JSON does not know were written as null and come back as NaN, which ranks last."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row.pop("index"): {k: np.nan if v is None else v for k, v in row.items()} for row in rows}


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None


# ---- reporting


def column(rows: Rows, indices: Array, name: str) -> Array:
    """One score of some cells; NaN where it was not measured."""
    return np.array([rows.get(int(index), {}).get(name, np.nan) for index in indices])


@dataclass(frozen=True)
class Score:
    """One way to score the reported cells.

    Attributes:
        draws: The score of each cell, higher is better; one array, or one per draw of labels. NaN ranks last.
        known: The cells that it was computed for. Tau is over these.
    """

    draws: tuple[Array, ...]
    known: Array


def unsupervised_scores(cells: Cells, cheap: Rows, dear: Rows) -> dict[str, Score]:
    """Every score of ours that needs no label, by its name in the report."""
    shown = cells.reported
    every = np.ones(len(shown), bool)

    def cheaply(name: str) -> Score:
        return Score((column(cheap, shown, name),), every)

    def dearly(name: str) -> Score:
        known = np.array([name in dear.get(int(index), {}) for index in shown])
        return Score((column(dear, shown, name),), known)

    scores = {f"{name} (1 cell, 16x16)": cheaply(name) for name in SMALL}
    scores |= {"GHN zero-shot loss": cheaply("minus_loss_0"), "GHN zero-shot accuracy": cheaply("accuracy_0")}
    scores[f"{MEDIAN} (1 cell, 16x16)"] = cheaply(MEDIAN)
    for name in LARGE:
        scores[f"{name} (5 cells, 32x32)"] = dearly(f"large {name}")
    for kind, config in (("GHN", TUNED), ("random", FROM_RANDOM)):
        for name in curve_columns(config.steps):
            what, _, steps = name.removeprefix("minus_").replace("_", " ").rpartition(" ")
            scores[f"{kind} init + {steps} steps, {what}"] = dearly(f"{kind} {name}")
    for names in CONSENSUS:
        ranked = mean_of_ranks([column(cheap, shown, name) for name in names])
        scores[f"mean of ranks: {', '.join(names)}"] = Score((ranked.mean.numpy(),), every)
    return scores


def published_scores(cells: Cells) -> dict[str, Score]:
    """What others have published for the same cells; the table of proxies has no cell with unreachable operations."""
    shown = cells.reported
    every = np.ones(len(shown), bool)
    supernet = np.load(SHARED_DATA / "nasbench201_gdas_supernet.npz")["accuracy"][shown, -1]
    scores = {
        "12-epoch validation accuracy (published)": Score((cells.table["cifar10_valid_12ep"][shown],), every),
        "GDAS supernet accuracy (published)": Score((supernet,), every),
    }
    table = np.load(SHARED_DATA / "nasbench201_zero_cost.npz")
    place = {int(index): row for row, index in enumerate(table["index"])}
    rows = [place.get(int(index), 0) for index in shown]
    for name in ("nwot", "synflow", "jacov", "grad_norm"):
        values = table["cifar10"][rows, list(table["proxy_names"]).index(name)]
        scores[f"{name} (published)"] = Score((values,), np.isin(shown, table["index"]))
    return scores


def supervised_scores(cells: Cells, cheap: Rows, ghn: GraphHyperNetwork) -> dict[str, Score]:
    """Scores fitted to labels of other cells, one array per draw of labels."""
    shown, texts = cells.reported, cells.table["arch_str"]
    pools = {"": cells.labelled, ", no twins": cells.labelled_without_twins}
    graphs = {int(index): cells.graph(int(index)) for index in np.concatenate([*pools.values(), shown])}
    names = ("minus_loss_0", "accuracy_0", *SMALL, MEDIAN)
    rows = {graphs[i].fingerprint: [row[name] for name in names] for i, row in cheap.items() if i in graphs}
    distinct = {graph.fingerprint: graph for graph in graphs.values()}
    embedded = dict(zip(distinct, EmbeddingFeatures(ghn)(list(distinct.values())), strict=True))

    def embedding(of: Sequence[ComputationalGraph]) -> Array:
        return np.array([embedded[graph.fingerprint] for graph in of])

    def scores(of: Sequence[ComputationalGraph]) -> Array:
        return np.array([rows[graph.fingerprint] for graph in of])

    head = FeaturePredictor(embedding)
    models: dict[str, Predictor] = {
        "performance head on GHN embedding": head,
        "proxies and size": FeaturePredictor(lambda of: scores(of)[:, 2:]),
        "proxies, size, GHN zero-shot": FeaturePredictor(scores),
        "proxies, size, GHN zero-shot, embedding": FeaturePredictor(
            lambda of: np.column_stack([scores(of), embedding(of)])
        ),
        "proxies, size, GHN zero-shot, head (stacked)": StackedPredictor(scores, [head]),
    }
    others = [graphs[int(index)] for index in shown]
    found: dict[str, list[Array]] = {}
    for count, (protocol, pool), draw in product(LABELS, pools.items(), range(DRAWS)):
        chosen = generator(draw, "labels", count).permutation(pool)[:count]
        known, targets = [graphs[int(i)] for i in chosen], torch.from_numpy(cells.truth[chosen])
        ending = f"({count} labels{protocol})"
        for name, model in models.items():
            model.fit(known, targets)
            found.setdefault(f"{name} {ending}", []).append(model.predict(others).mean.numpy())
        by_hand = fit_features(one_hot(texts[chosen]), targets, regressor="blend", seed=0)
        said = by_hand(one_hot(texts[shown])).mean.numpy()
        found.setdefault(f"operations of the cell, one-hot {ending}", []).append(said)
    return {name: Score(tuple(draws), np.ones(len(shown), bool)) for name, draws in found.items()}


def one_hot(texts: Array) -> Array:
    """The operations of cells, an indicator for each operation on each edge."""
    choices = [[op for _, op in architecture_from_string(str(text)).choices] for text in texts]
    return np.array([[float(op == each) for op in row for each in OPERATIONS] for row in choices])


def resampled_taus(score: Array, truth: Array, counts: Array) -> Array:
    """Kendall's tau-b in each bootstrap sample, exactly as scipy has it for the cells repeated `counts[sample]` times.

    Tau-b is a ratio of sums over pairs of cells; a sample only weighs the pairs. So all samples are three products.
    """
    signs = [np.sign(values[:, None] - values[None, :]).astype(np.float32) for values in (score, truth)]
    products = (signs[0] * signs[1], np.abs(signs[0]), np.abs(signs[1]))
    both, own, other = (((counts @ product) * counts).sum(axis=1, dtype=np.float64) for product in products)
    taus: Array = both / np.sqrt(own * other)
    return taus


def tau_report(draws: Sequence[Array], size: Array, truth: Array) -> dict[str, object]:
    """Kendall's tau-b, and how far it exceeds that of the parameter count, with 95 % bootstrap intervals over cells.

    With several draws of labels: means over the draws, within each bootstrap sample too.
    """
    known, y = rankdata(size), rankdata(truth)  # ranks: infinities and NaN are gone, and tau is the same
    columns = [rankdata(np.nan_to_num(draw, nan=-1e30, neginf=-1e30)) for draw in draws]
    n = len(y)
    counts = generator(0, "bootstrap").multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)
    sampled = np.mean([resampled_taus(x, y, counts) for x in columns], axis=0)
    samples = np.column_stack([sampled, sampled - resampled_taus(known, y, counts)])
    each = [float(kendalltau(x, y).statistic) for x in columns]
    (low, less), (high, more) = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    result: dict[str, object] = {
        "tau": float(np.mean(each)), "low": float(low), "high": float(high),
        "above parameters": float(np.mean(each) - kendalltau(known, y).statistic),
        "above parameters, low": float(less), "above parameters, high": float(more),
        "cells": len(truth),
    }  # fmt: skip
    return result if len(each) == 1 else {**result, "std over draws": float(np.std(each, ddof=1))}


def report(cells: Cells, paths: Mapping[str, Path], ghn: GraphHyperNetwork) -> dict[str, object]:
    """Every tau in every population, and the mean CPU seconds."""
    shown, truth = cells.reported, cells.truth[cells.reported]
    cheap = read_rows(paths["cheap"])
    supervised = supervised_scores(cells, cheap, ghn)
    dear = read_rows(paths["dear"])
    scores = unsupervised_scores(cells, cheap, dear) | published_scores(cells) | supervised
    size = column(cheap, shown, "num_parameters")
    reachable = cells.table["no_unreachable_ops"][shown]
    taus: dict[str, object] = {}
    for title, member in (("all cells", np.ones(len(shown), bool)), ("no unreachable operations", reachable)):
        better = member & (truth >= np.median(truth[member]))
        for part, mask in ((title, member), (f"{title}, better half", better)):
            taus[part] = {
                name: tau_report([draw[only] for draw in score.draws], size[only], truth[only])
                for name, score in scores.items()
                if (only := mask & score.known).any()
                and (title != "all cells" or score.known[~reachable].any())
            }
            print(part, flush=True)
    rows = [*cheap.values(), *dear.values()]
    keys = sorted({key for row in rows for key in row if key.startswith("cpu ")})
    spent = {key[4:]: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
    return {"tau": taus, "mean CPU seconds per architecture": spent}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ghn", type=Path, required=True)
    parser.add_argument("--stage", choices=("cheap", "dear", "report"), required=True)
    parser.add_argument(
        "--count",
        type=int,
        default=870,
        help="reported cells; of 870 more than 500 have no unreachable operation",
    )
    parser.add_argument("--dear-count", type=int, default=500)
    parser.add_argument("--shard", default="0/1", help="measure this part of the cells only, such as 1/2")
    parser.add_argument("--name", default="ranking_nb201", help="of the result files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = Cells(arguments.count)
    ghn, recipe = load_ghn(arguments.ghn)
    paths = {stage: RESULTS / f"{arguments.name}.{stage}.rows.jsonl" for stage in ("cheap", "dear")}
    if arguments.stage == "report":
        settings = {
            "count": arguments.count,
            "label pool": LABEL_POOL,
            "draws of labels": DRAWS,
            "resamples": RESAMPLES,
        }
        found = report(cells, paths, ghn)
        print(save(arguments.name, {"settings": settings, "ghn recipe": recipe, **found}))
        return
    index, parts = map(int, arguments.shard.split("/"))
    data = load_dataset("cifar10", data_dir=SHARED_DATA, image_size=16)
    first = Split(data.search.train.inputs[:PROXY_EXAMPLES], data.search.train.targets[:PROXY_EXAMPLES])
    if arguments.stage == "cheap":
        wanted = np.concatenate([cells.reported, cells.labelled_without_twins])  # hence every labelled graph
        run_stage(
            paths["cheap"],
            wanted,
            lambda i: measure_cheap(cells.graph(i), ghn, data, first),
            shard=(index, parts),
        )
    else:
        batch = Split(
            torch.ones(1, 3, 32, 32), first.targets[:1]
        )  # for proxies without data: shape and device only
        wanted = cells.reported[: arguments.dear_count]
        run_stage(
            paths["dear"], wanted, lambda i: measure_dear(cells, i, ghn, data, batch), shard=(index, parts)
        )


if __name__ == "__main__":
    main()
