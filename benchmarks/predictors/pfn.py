"""The shipped prior-fitted network beside the plain regressors: on synthetic functions it never saw, and on real tables.

    nice -n 5 python -m benchmarks.predictors.pfn synthetic            and again with --baselines
    nice -n 5 python -m benchmarks.predictors.pfn real --seeds 10      and again with --baselines
    OMP_NUM_THREADS=1 nice -n 5 python -m benchmarks.predictors.pfn speed
    nice -n 5 python -m benchmarks.predictors.pfn report

Rows are written to benchmarks/results/pfn_*.rows.jsonl as they come; a rerun leaves out what is there. Everybody gets the same
rows, features and targets: normal scores among the labelled rows. Nothing is chosen by the labels of the tables.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau, norm, spearmanr

from benchmarks.common import RESULTS, cpu_seconds, save
from benchmarks.predictors.pfn_tables import LabelledTable, tables
from nasgraph.predict import REGRESSORS, NormalScores, Regressor
from nasgraph.predict.prior_fitted import PriorFittedPosterior, prior_fitted, sample_tables
from nasgraph.predict.prior_fitted.matrices import normal_scores
from nasgraph.seeding import generator

Array = np.ndarray
SIZES = (16, 39, 78, 156, 469)
NUM_TEST = 2000
FAMILIES = {"prior": (16, 39, 78, 156), "held-out": (16, 39, 78, 156)}
COVERAGE = 0.9


MEMBERS = ("ridge", "gaussian_process", "trees")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a regressor says of the rows to predict.

    Attributes:
        mean: Per row.
        std: Per row.
        seconds: Fit and prediction.
        posterior: The network's whole distribution; None for others, which count as normal.
    """

    mean: Array
    std: Array
    seconds: float
    posterior: PriorFittedPosterior | None = None

    def interval(self, others: Array) -> tuple[Array, Array]:
        """The middle 90 %."""
        ends = ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)
        if self.posterior is not None:
            low, high = self.posterior.quantiles(others, ends).T
            return low, high
        low, high = (self.mean + norm.ppf(end) * np.maximum(self.std, 1e-3) for end in ends)
        return low, high

    def log_density(self, others: Array, targets: Array) -> Array:
        """At the targets."""
        if self.posterior is not None:
            return self.posterior.log_density(others, targets)
        result: Array = norm.logpdf(targets, self.mean, np.maximum(self.std, 1e-3))
        return result


def answers(network: Regressor | None, x: Array, y: Array, others: Array, seed: int) -> dict[str, Answer]:
    """The network alone; or, without it, `ridge`, `gaussian_process`, `trees`, and what `blend` makes of these three."""
    if network is not None:
        began = time.perf_counter()
        posterior = network(x, y, seed=seed)
        mean, std = posterior(others)
        assert isinstance(posterior, PriorFittedPosterior)
        return {"prior_fitted": Answer(mean, std, time.perf_counter() - began, posterior)}
    found = {}
    for name in MEMBERS:
        began = time.perf_counter()
        mean, std = REGRESSORS[name](x, y, seed=seed)(others)
        found[name] = Answer(mean, std, time.perf_counter() - began)
    means, stds = (np.stack([getattr(answer, part) for answer in found.values()]) for part in ("mean", "std"))
    spread = np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))  # as `blend` does, without fitting again
    found["blend"] = Answer(means.mean(axis=0), spread, sum(answer.seconds for answer in found.values()))
    return found


def held_out_function(x: Array, rng: np.random.Generator) -> Array:
    """A family that the prior does not draw from: distances to a few secret architectures, and a count modulo two.

    Noise is normal with a fifth to four fifths of the spread of the function.
    """
    used = x[:, rng.choice(x.shape[1], min(x.shape[1], int(rng.integers(2, 12))), replace=False)]
    secrets = used[rng.integers(len(used), size=int(rng.integers(2, 5)))]
    near = np.sqrt(((used[:, None] - secrets) ** 2).sum(axis=2))
    clean = np.log1p(near) @ rng.standard_normal(len(secrets))
    clean += 0.3 * clean.std() * ((used[:, :3] > 0).sum(axis=1) % 2)
    return clean + rng.uniform(0.2, 0.8) * clean.std() * rng.standard_normal(len(x))


def synthetic_task(family: str, size: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Labelled features, other features, labelled targets, other targets: all near standard normal."""
    rng = generator(seed, "pfn synthetic", family, size)
    made = sample_tables(size, 500, 1, rng)
    if family == "prior":
        return made.known, made.others, made.labels[0], made.hidden[0]
    y = held_out_function(np.concatenate([made.known, made.others]), rng)
    y = (y - y[:size].mean()) / y[:size].std()
    return made.known, made.others, y[:size], y[size:]


def scores(answer: Answer, others: Array, hidden: Array) -> dict[str, float]:
    """Error, log density, and coverage and width of the middle 90 %."""
    low, high = answer.interval(others)
    return {
        "squared_error": float(((answer.mean - hidden) ** 2).mean()),
        "log_density": float(answer.log_density(others, hidden).mean()),
        "coverage": float(((hidden >= low) & (hidden <= high)).mean()),
        "width": float((high - low).mean()),
        "tau": float(kendalltau(answer.mean, hidden).statistic),
    }


def run_synthetic(network: Regressor | None, num_tasks: int) -> None:
    """One row per family, size, task and regressor."""
    with Rows("pfn_synthetic") as rows:
        for seed, (family, sizes) in product(range(num_tasks), FAMILIES.items()):
            for size in sizes:
                key = {"family": family, "labels": size, "seed": seed}
                if {**key, "regressor": "blend" if network is None else "prior_fitted"} in rows:
                    continue
                x, others, y, hidden = synthetic_task(family, size, seed)
                for name, answer in answers(network, x, y, others, seed).items():
                    rows.add({**key, "regressor": name}, scores(answer, others, hidden))


def run_real(network: Regressor | None, num_seeds: int, sizes: list[int]) -> None:
    """One row per table, size, seed and regressor; seeds are paired."""
    all_tables = list(tables())
    with Rows("pfn_real") as rows:
        for seed, size, table in product(range(num_seeds), sizes, all_tables):
            key = {"table": table.name, "labels": size, "seed": seed}
            if {**key, "regressor": "blend" if network is None else "prior_fitted"} in rows:
                continue
            for name, values in judge(table, network, size, seed).items():
                rows.add({**key, "regressor": name}, values)


def judge(
    table: LabelledTable, network: Regressor | None, size: int, seed: int
) -> dict[str, dict[str, float]]:
    """Learn from `size` random rows, rank 2,000 random others."""
    order = generator(seed, "pfn real", table.name, size).permutation(len(table.label))
    own, other = order[:size], order[size : size + NUM_TEST]
    raw = np.where(np.isnan(table.features), -np.inf, table.features)
    scale = NormalScores.of(table.label[own])
    x, others = normal_scores(raw[own], raw[own]), normal_scores(raw[own], raw[other])
    label, truth = table.label[other], table.truth[other]
    found = {}
    for name, answer in answers(network, x, scale(table.label[own]), others, seed).items():
        low, high = (scale.inverse(end) for end in answer.interval(others))
        best = truth[np.argsort(answer.mean)[-10:]]
        found[name] = {
            "tau": float(kendalltau(answer.mean, truth).statistic),
            "rho": float(spearmanr(answer.mean, truth).statistic),
            "top10": float((truth[:, None] <= best).mean()),
            "coverage": float(((label >= low) & (label <= high)).mean()),
            "seconds": answer.seconds,
        }
    return found


def run_speed(network: Regressor, repeats: int = 3) -> None:
    """CPU seconds of fit and prediction of 2,000 rows, turn by turn in one process."""
    table, found = next(tables()), []
    members = {"prior_fitted": network, **{name: REGRESSORS[name] for name in (*MEMBERS, "blend")}}
    for size in (39, 156, 469):
        own = generator(0, "pfn speed", size).permutation(len(table.label))[: size + NUM_TEST]
        raw = np.where(np.isnan(table.features), -np.inf, table.features)[own]
        label = table.label[own[:size]]
        x, y = normal_scores(raw[:size], raw), NormalScores.of(label)(label)
        used: dict[str, list[float]] = defaultdict(list)
        for seed, (name, fit) in product(range(repeats), members.items()):
            used[name].append(cpu_seconds(partial(_fit_and_predict, fit, x, y, seed))[1])
        found.append({"labels": size, "rows": NUM_TEST, "cpu_seconds": dict(used)})
    print(save("pfn_speed", {"table": table.name, "sizes": found}), found)


def _fit_and_predict(fit: Regressor, x: Array, y: Array, seed: int) -> None:
    fit(x[: len(y)], y, seed=seed)(x[len(y) :])


class Rows:
    """Lines of JSON that are written as they come and found again in a rerun."""

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.rows.jsonl"

    def __enter__(self) -> "Rows":
        self.path.touch()
        self.known = {self._key(json.loads(line)["key"]) for line in self.path.read_text().splitlines()}
        self.file = self.path.open("a")
        return self

    def __exit__(self, *problem: object) -> None:
        self.file.close()

    @staticmethod
    def _key(key: dict[str, object]) -> str:
        return json.dumps(key, sort_keys=True)

    def __contains__(self, key: dict[str, object]) -> bool:
        return self._key(key) in self.known

    def add(self, key: dict[str, object], values: dict[str, float]) -> None:
        """Write one line."""
        self.file.write(json.dumps({"key": key, "values": values}) + "\n")
        self.file.flush()


def report() -> None:
    """Mean and spread of every group; paired differences of the network to each other regressor."""
    for name, group in (("pfn_synthetic", "family"), ("pfn_real", "table")):
        path = RESULTS / f"{name}.rows.jsonl"
        if not path.is_file():
            continue
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found: dict[tuple[str, int], dict[str, dict[int, dict[str, float]]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for line in lines:
            key = line["key"]
            found[key[group], key["labels"]][key["regressor"]][key["seed"]] = line["values"]
        result = [
            {group: place[0], "labels": place[1], **entry}
            for place, members in sorted(found.items())
            for entry in _summaries(members)
        ]
        note = "one thread; the machine was shared with up to eight other processes, so seconds are comparable only to each other"
        print(save(name, {"rows": result, "interval": COVERAGE, "load": note}))
        for row in result:
            shown = [
                f"{k} {v['mean']:.3f}±{v['std']:.3f}"
                for k, v in row.items()
                if isinstance(v, dict) and "std" in v
            ]
            print(row[group], row["labels"], row["regressor"], *shown)


def _summaries(members: dict[str, dict[int, dict[str, float]]]) -> Iterator[dict[str, object]]:
    own = members.get("prior_fitted", {})
    for regressor, seeds in members.items():
        entry: dict[str, object] = {"regressor": regressor, "seeds": len(seeds)}
        for metric in next(iter(seeds.values())):
            values = np.array([row[metric] for row in seeds.values()])
            entry[metric] = {"mean": float(np.nanmean(values)), "std": float(np.nanstd(values))}
            entry[metric] |= {"median": float(np.nanmedian(values))}
            paired = [own[seed][metric] - row[metric] for seed, row in seeds.items() if seed in own]
            if (
                regressor != "prior_fitted"
                and len(paired) > 1
                and metric in ("tau", "log_density", "squared_error")
            ):
                error = float(np.nanstd(paired, ddof=1) / np.sqrt(len(paired)))
                entry[f"{metric}_gain"] = {"mean": float(np.nanmean(paired)), "standard_error": error}
        yield entry


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["synthetic", "real", "speed", "report"])
    parser.add_argument("--folder", type=Path, default=Path("zoo/pfn-performance"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--baselines", action="store_true", help="the regressors without the network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="An input array is constant")
    if arguments.part == "report":
        report()
        return
    network = None if arguments.baselines else prior_fitted(arguments.folder)
    if arguments.part == "speed":
        run_speed(prior_fitted(arguments.folder))
    elif arguments.part == "synthetic":
        run_synthetic(network, arguments.tasks)
    else:
        run_real(network, arguments.seeds, arguments.sizes)


if __name__ == "__main__":
    main()
