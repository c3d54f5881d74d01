"""RoBoT on NAS-Bench-201: how good is the network found with 20 queries, and what does it depend on?

    python -m benchmarks.predictors.robot

As He et al. 2024: six stored proxies (grad_norm, snip, grasp, fisher, synflow, jacov), a query is the validation accuracy after 12 epochs,
reported is the test accuracy after 200 epochs (mean over training seeds) of the queried cell with the best query. Three data sets;
proxies on CIFAR-100 were not stored, those on CIFAR-10 stand in. The spread is over search seeds; nothing else is random.

Populations: the 9,445 cells without unreachable operations, for which scores are stored, and all 15,625, where a cell
with dead operations gets the scores of the cell without them (and none, if that cell is not among the 9,445).

Scores at or below -1e7 mark failures in the table, and are missing here. "raw synflow" undoes the table's logarithm, since the
scores that the paper used were not logarithms.

Rivals with the same queries: random cells; the 20 cells that a single proxy ranks highest; those of the mean of the six ranks.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np

from benchmarks.common import RESULTS, SHARED_DATA, save
from nasgraph.predict import mean_of_ranks, robot_search
from nasgraph.seeding import generator
from search_spaces.nasbench201 import EDGES, OPERATIONS

Array = np.ndarray
PROXIES = ("grad_norm", "snip", "grasp", "fisher", "synflow", "jacov")
DATA = {
    "cifar10": ("cifar10", "cifar10_valid_12ep", "cifar10_test_200ep"),
    "cifar100": ("cifar10", "cifar100_valid_12ep", "cifar100_test_200ep"),
    "imagenet16_120": ("imagenet16_120", "imagenet16_120_valid_12ep", "imagenet16_120_test_200ep"),
}
PUBLISHED = {
    "source": "He et al. 2024, table 2 (20 queries, 10 seeds), as in shared/reference/predictors.md, section 2.1",
    "cifar10": 94.36,
    "cifar100": 73.51,
    "imagenet16_120": 46.34,
}
VARIANTS: dict[str, dict[str, object]] = {
    "ours (minmax, signed, explore 0.75)": {},
    "explore 0.5": {"explore": 0.5},
    "explore 1.0": {"explore": 1.0},
    "as the paper (minmax, signed)": {"explore": None},
    "as the paper, ranks": {"explore": None, "normalise": "rank"},
    "as the paper, weights of at least 0": {"explore": None, "signed": False},
    "ranks": {"normalise": "rank"},
    "ranks, weights of at least 0": {"normalise": "rank", "signed": False},
}


def load(data: str, *, whole: bool) -> tuple[Array, Array, Array]:
    """Scores, queries and reported accuracies of a population."""
    proxies, query, reported = DATA[data]
    with np.load(SHARED_DATA / "nasbench201_zero_cost.npz", allow_pickle=False) as stored:
        names = stored["proxy_names"].tolist()
        scores, index = stored[proxies][:, [names.index(name) for name in PROXIES]], stored["index"]
    scores = np.where(scores <= -1e7, np.nan, scores)
    with np.load(SHARED_DATA / "nasbench201.npz", allow_pickle=False) as table:
        ops, queries, reports = table["ops"], table[query], table[reported]
    if not whole:
        return scores, queries[index].astype(float), reports[index].astype(float)
    row_of = {tuple(ops[cell].tolist()): row for row, cell in enumerate(index)}
    rows = np.array([row_of.get(canonical(cell), -1) for cell in ops])
    everywhere = np.where((rows >= 0)[:, None], scores[rows], np.nan)
    return everywhere, queries.astype(float), reports.astype(float)


def canonical(ops: Sequence[int]) -> tuple[int, ...]:
    """The cell with operations that no signal passes replaced by "none"."""
    none = OPERATIONS.index("none")
    edges = {edge: int(op) for edge, op in zip(EDGES, ops, strict=True) if op != none}
    forward, backward = {0}, {3}
    for node in (1, 2, 3):
        if any((source, node) in edges for source in forward):
            forward.add(node)
    for node in (2, 1, 0):
        if any((node, target) in edges for target in backward):
            backward.add(node)
    return tuple(edges[e] if e in edges and e[0] in forward and e[1] in backward else none for e in EDGES)


def best_of(rows: Sequence[int], queries: Array, reports: Array) -> float:
    """The reported accuracy of the queried row with the best query."""
    return float(reports[max(rows, key=lambda row: queries[row])])


def rivals(scores: Array, queries: Array, reports: Array, num_queries: int) -> dict[str, float]:
    """What the highest rows of single proxies and of their mean rank give."""
    rankings = {f"top of {name}": column for name, column in zip(PROXIES, scores.T, strict=True)}
    rankings["top of the mean rank"] = mean_of_ranks(list(scores.T)).mean.numpy()
    return {
        name: best_of(
            np.argsort(-np.nan_to_num(column, nan=-np.inf), kind="stable")[:num_queries].tolist(),
            queries,
            reports,
        )
        for name, column in rankings.items()
    }


def run(num_seeds: int, num_queries: int, populations: Sequence[str], names: Sequence[str]) -> None:
    path = RESULTS / "robot.rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["data"], row["population"], row["method"], row["seed"]) for row in rows}
    with path.open("a") as out:
        for data in names:
            for population in populations:
                scores, queries, reports = load(data, whole=population == "15625")
                raw = scores.copy()
                raw[:, PROXIES.index("synflow")] = np.exp(raw[:, PROXIES.index("synflow")])
                jobs = {name: (scores, settings) for name, settings in VARIANTS.items()}
                jobs["raw synflow"] = (raw, {})
                jobs["as the paper, raw synflow"] = (raw, {"explore": None})
                jobs["as the paper, raw synflow, weights of at least 0"] = (
                    raw,
                    {"explore": None, "signed": False},
                )
                for method, (own, settings) in jobs.items():
                    for seed in range(num_seeds):
                        if (data, population, method, seed) in done:
                            continue
                        found = robot_search(
                            own,
                            queries.item,
                            num_queries=num_queries,
                            seed=seed,
                            **settings,  # type: ignore[arg-type]
                        )
                        row = {
                            "data": data,
                            "population": population,
                            "method": method,
                            "seed": seed,
                            "test": best_of(found.queried, queries, reports),
                            "num_explored": found.num_explored,
                            "weights": [round(weight, 3) for weight in found.weights],
                        }
                        rows.append(row)
                        out.write(json.dumps(row) + "\n")
                        out.flush()
                print(data, population, flush=True)


def report(num_queries: int) -> None:
    rows = [json.loads(line) for line in (RESULTS / "robot.rows.jsonl").read_text().splitlines()]
    result: dict[str, object] = {"published": PUBLISHED, "num_queries": num_queries}
    for data in DATA:
        for population in ("9445", "15625"):
            scores, queries, reports = load(data, whole=population == "15625")
            entry: dict[str, object] = {"optimum": float(reports.max())}
            for method in dict.fromkeys(row["method"] for row in rows):
                tests = [
                    row["test"]
                    for row in rows
                    if (row["data"], row["population"], row["method"]) == (data, population, method)
                ]
                entry[str(method)] = spread(np.array(tests))
            at_random = [
                best_of(
                    generator(seed, "random").permutation(len(queries))[:num_queries].tolist(),
                    queries,
                    reports,
                )
                for seed in range(200)
            ]
            entry["random cells"] = spread(np.array(at_random))
            entry |= rivals(scores, queries, reports, num_queries)
            entry["scores missing"] = int(np.isnan(scores).any(axis=1).sum())
            result[f"{data} {population}"] = entry
            print(data, population, json.dumps(entry, indent=1))
    save("robot", result)


def spread(values: Array) -> dict[str, float]:
    """Mean, standard deviation and extremes over seeds."""
    if not len(values):
        return {"seeds": 0}
    return {
        "seeds": len(values),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--populations", nargs="+", default=["9445", "15625"])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--report", action="store_true", help="only the report, from the rows that exist")
    options = parser.parse_args()
    if not options.report:
        run(options.seeds, options.queries, options.populations, options.data)
    report(options.queries)


if __name__ == "__main__":
    main()
