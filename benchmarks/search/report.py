"""The sections of docs/results.md about searches."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.common import RESULTS

NONE = "Not measured yet."


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def load_result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine(result: Mapping[str, Any]) -> str:
    facts = result["environment"]
    return f"{facts['processor']}, {facts['cores']} virtual cores, {facts['date']}"


def _spread(value: Mapping[str, Any], digits: int = 2) -> str:
    return f"{value['mean']:.{digits}f} ± {value['std']:.{digits}f}"


def _percent(value: Mapping[str, Any]) -> str:
    """Accuracies in per cent, also where a table holds fractions."""
    scale = 100 if value["mean"] <= 1 else 1
    return f"{scale * value['mean']:.2f} ± {scale * value['std']:.2f}"


def table_queries() -> str:
    found = load_result("search_table_queries")
    if found is None:
        return NONE
    rows = []
    for result in found["results"]:
        best = result["queries_to_best"]
        median = "–" if best["median"] is None else f"{best['median']:g}"
        largest = "not all" if best["max"] is None else best["max"]
        steps = [
            _percent(result["report"][key]) if key in result["report"] else ""
            for key in ("20", "45", "100", "250")
        ]
        rows.append(
            [
                result["task"],
                len(result["seeds"]),
                f"{median} / {largest}",
                f"{100 * best['share']:.0f} %",
                *steps,
            ]
        )
    columns = (
        "table and query", "seeds", "queries to the best: median / largest", "found it", "report at 20", "at 45", "at 100", "at 250",
    )  # fmt: skip
    return f"{machine(found)}. File: `search_table_queries.json`.\n\n{table(columns, rows)}"


def strategies() -> str:
    found = load_result("search_strategies")
    if found is None:
        return NONE
    rows = []
    for name, result in found["single"].items():
        best = result["best_so_far"]
        median = result["median_queries_to_best"]
        rows.append(
            [
                name,
                *(_spread(best[str(at)]) for at in (50, 100, 200, 300)),
                "–" if median is None else f"{median:g}",
                f"{100 * result['found_best']:.0f} %",
            ]
        )
    columns = ("strategy", "best at 50", "at 100", "at 200", "at 300", "median queries to 91.607", "found it")
    return f"20 seeds. {machine(found)}. File: `search_strategies.json`.\n\n{table(columns, rows)}"


def hypervolume() -> str:
    found = load_result("search_strategies")
    if found is None:
        return NONE
    rows = []
    for device, result in found["multi"].items():
        for population in (20, 50):
            for counted in ("trials", "distinct"):
                cells = []
                for number in (100, 200, 400):
                    pair = result["beside_optuna"].get(
                        f"optuna nsga-ii, population {population} ({counted}), {number}"
                    )
                    cells.append(
                        f"{pair['ours']:.2f} / {pair['theirs']:.2f} ({100 * pair['share_lower']:.0f} % of {pair['num']})"
                        if pair
                        else ""
                    )
                rows.append([device, population, counted, *cells])
    columns = ("device", "population of Optuna's", "counted", "at 100", "at 200", "at 400")
    return f"{machine(found)}. File: `search_strategies.json`.\n\n{table(columns, rows)}"


def faults() -> str:
    found = load_result("search_faults")
    if found is None:
        return NONE
    columns = (
        "sampler", "workers", "kills", "trials", "finished trials lost", "trials left running", "graphs evaluated under two numbers",
        "trajectory as if never killed",
    )  # fmt: skip
    rows = [[row[name] for name in columns] for row in found["rows"]]
    return f"{machine(found)}. File: `search_faults.json`.\n\n{table(columns, rows)}"


def parallel() -> str:
    found = load_result("search_parallel")
    if found is None:
        return NONE
    ratios = ", ".join(f"{ratio:.2f}" for ratio in found["speed-up"])
    text = (
        f"{found['trials']} trainings on digits; the trials are the same with one worker and with two. Speed-up of two worker processes over one: "
        f"median **{found['median speed-up']:.2f}** ({ratios}), load at the end {found['load at the end'][0]:.1f}."
    )
    drivers = found.get("speed-up of two searches on one database")
    if drivers:
        text += f" Two searches that share a study in PostgreSQL, over one: {', '.join(f'{ratio:.2f}' for ratio in drivers)}."
    return f"{text} {machine(found)}. File: `search_parallel.json`."


def graph_networks() -> str:
    found = load_result("gnn_search")
    if found is None:
        return NONE
    rows = []
    for data, result in found["results"].items():
        for name, baseline in result["baselines"].items():
            rows.append(
                [
                    data,
                    name,
                    baseline["test"]["n"],
                    _spread(baseline["val"], 3),
                    _spread(baseline["test"], 3),
                    "",
                ]
            )
        for name, search in result["searches"].items():
            best, test = search["best_validation"], search["test_of_best"]
            again = _spread(search["test_of_winner_trained_again"], 3)
            rows.append(
                [
                    data,
                    f"{name} search, {search['trials']} trials",
                    best["n"],
                    _spread(best, 3),
                    _spread(test, 3),
                    again,
                ]
            )
    columns = (
        "data",
        "network",
        "seeds",
        "validation accuracy",
        "test accuracy",
        "winners trained again, test",
    )
    return f"{machine(found)}. File: `gnn_search.json`.\n\n{table(columns, rows)}"


def cascade() -> str:
    found = load_result("cascade")
    if found is None:
        return NONE
    rows = []
    for data, methods in found["data"].items():
        for method, values in methods.items():
            if "final test accuracy" not in values:
                continue
            key = "test: share of random search's CPU time until its accuracy"
            shares = values.get(key, {}).get("each", [])
            fifth = values.get("test: less that of random search, at 1/5 of its CPU time")
            rows.append(
                [
                    data,
                    method,
                    values["seeds"],
                    _spread(values["final test accuracy"], 3),
                    ", ".join("never" if share is None else f"{share:.2f}" for share in shares),
                    "" if fifth is None else f"{fifth['mean']:+.3f} ± {fifth['std']:.3f}",
                ]
            )
    columns = (
        "data", "method", "seeds", "final test accuracy", "share of random search's CPU until its accuracy, each seed",
        "accuracy at 1/5 of its CPU, less its final one",
    )  # fmt: skip
    return f"{machine(found)}. File: `cascade.json`.\n\n{table(columns, rows)}"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "cascade": cascade,
    "search tables": table_queries,
    "strategies": strategies,
    "hypervolume": hypervolume,
    "search faults": faults,
    "parallel": parallel,
    "graph networks": graph_networks,
}
"""Every section by its name."""
