"""`nasgraph bench search`."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.commands.running import Cli


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A CSV file of labelled DAGs whose accuracy rises with the number of convolutions."""
    rng = np.random.default_rng(0)
    path = tmp_path / "foreign.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "graph", "accuracy", "latency_ms", "flat", "hint"])
        for row in range(60):
            labels = ["input", *rng.choice(["conv", "pool", "skip"], size=5).tolist()]
            nodes = ", ".join(f'"{label}"' for label in labels)
            edges = ", ".join(f"[{i}, {i + 1}]" for i in range(5))
            score = labels.count("conv") + 0.01 * rng.standard_normal()
            latency = "" if row == 7 else f"{1 + row % 5}"
            graph = f'{{"nodes": [{nodes}], "edges": [{edges}]}}'
            writer.writerow([f"net{row}", graph, f"{score}", latency, 3, f"{score + rng.standard_normal()}"])
    return path


def test_search_reports_what_the_documentation_promises(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "search",
        "--table",
        str(foreign),
        "--query-metric",
        "accuracy",
        "--seeds",
        "3",
        "--json",
    )
    finished = cli(*words, "--sampler", "bayesian", "--queries", "15")
    assert finished.code == 0, finished.err
    found = finished.json
    assert len(found["best_so_far"]) == len(found["report_std"]) == len(found["random"]["best_so_far"]) == 15
    assert found["best_so_far"] == sorted(found["best_so_far"])
    assert set(found["queries_to_best"]) == {"median", "max", "share"}
    assert set(found["relative_improvement_percent"]) == {"mean", "std"}
    assert (found["queries"], found["seeds"], found["population"], found["num_missing"]) == (
        15,
        [0, 1, 2],
        60,
        0,
    )
    assert found["query_metric"] == found["report_metric"] == "accuracy"
    assert found["cpu_seconds_per_query"] > 0
    runs = found["per_seed"]
    assert [len(set(run["rows"])) for run in runs] == [15] * 3
    assert found["best_so_far"] == pytest.approx(np.mean([run["best_so_far"] for run in runs], axis=0))
    assert found["best_so_far_std"] == pytest.approx(
        np.std([run["best_so_far"] for run in runs], axis=0, ddof=1)
    )
    assert "higher is taken to be" in finished.err


def test_the_same_seeds_give_the_same_search(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "search",
        "-t",
        str(foreign),
        "--query-metric",
        "accuracy",
        "--queries",
        "9",
        "--seeds",
        "2",
    )
    one, other, third = (
        [
            run["rows"]
            for run in cli(*words, "--sampler", "evolution", "--json", "--seed", seed).json["per_seed"]
        ]
        for seed in ("0", "0", "5")
    )
    assert one == other != third


def test_missing_values_are_dropped_and_counted(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "search",
        "--table",
        str(foreign),
        "--seeds",
        "1",
        "--sampler",
        "random",
        "--queries",
        "59",
    )
    finished = cli(*words, "--query-metric", "latency_ms", "--report-metric", "accuracy", "--json")
    assert (finished.json["population"], finished.json["num_missing"]) == (59, 1)
    assert finished.json["best_so_far_std"] == [None] * 59
    assert "1 rows are left out because a metric is missing" in finished.err


def test_side_columns_are_seen_only_if_asked_for(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "search",
        "--table",
        str(foreign),
        "--seeds",
        "1",
        "--queries",
        "20",
        "--query-metric",
        "accuracy",
    )
    assert cli(*words, "--sampler", "robot", "--side", "hint", "--json").json["side_columns"] == ["hint"]
    assert cli(*words, "--sampler", "random", "--side", "none", "--json").json["side_columns"] == []
    refused = cli(*words, "--sampler", "robot")
    assert refused.code == 1
    assert "--side training-free" in refused.err


def test_results_for_people_show_random_search_beside(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "search",
        "--table",
        str(foreign),
        "--seeds",
        "2",
        "--queries",
        "12",
        "--sampler",
        "local_search",
    )
    finished = cli(*words, "--query-metric", "accuracy")
    assert finished.code == 0, finished.err
    assert "random" in finished.out
    assert "found the best row (share of seeds)" in finished.out
    assert "better than random search in" in finished.err


@pytest.mark.parametrize("ending", ["html", "md"])
def test_a_report_is_written_with_plots_hardware_versions_and_checklist(
    cli: Cli, foreign: Path, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"result.{ending}"
    words = ("bench", "search", "--table", str(foreign), "--seeds", "3", "--queries", "12")
    finished = cli(
        *words, "--query-metric", "accuracy", "--sampler", "evolution", "--report", str(path), "--json"
    )
    assert finished.code == 0, finished.err
    assert finished.json["report_file"] == str(path)
    text = path.read_text()
    for said in (
        "random search",
        "Lindauer and Hutter 2020",
        "Yang et al. 2020",
        "logical cores",
        "torch 2",
        "0 to 2",
    ):
        assert said in text, said
    names = {file.name for file in tmp_path.iterdir() if file.suffix in {".html", ".md", ".svg"}}
    pictures = {f"result-{name}.svg" for name in ("best", "report", "distance", "found")}
    assert names == ({path.name} if ending == "html" else {path.name, *pictures})
    assert text.count("<svg") == (4 if ending == "html" else 0)


def test_a_report_of_another_kind_is_refused_before_the_search(cli: Cli, foreign: Path) -> None:
    finished = cli("bench", "search", "--table", str(foreign), "--report", "result.pdf")
    assert finished.code == 2
    assert "Expected the name of the report to end in .html, .htm, .md" in finished.err


def test_mistakes_are_one_clear_line_with_the_right_code(cli: Cli, foreign: Path) -> None:
    search = ("bench", "search", "--seeds", "1", "--queries", "9", "--sampler", "random", "--table")
    for words, code, reason in (
        ((*search, str(foreign)), 1, "Name the metric to be queried"),
        ((*search, str(foreign), "--query-metric", "acuracy"), 2, "Close: 'accuracy'"),
        ((*search, str(foreign), "--query-metric", "flat"), 1, "there is nothing to search for"),
        (
            (*search, str(foreign), "--query-metric", "accuracy", "--queries", "61"),
            1,
            "as many rows as queries",
        ),
        ((*search, str(foreign), "--query-metric", "accuracy", "--queries", "0"), 2, "--queries"),
        (
            (*search, str(foreign), "--query-metric", "accuracy", "--side", "accuracy"),
            1,
            "cannot be a side column",
        ),
        ((*search, "nasbench21"), 2, "Close: 'nasbench201'"),
        (("bench", "search", "--sampler", "evolutoin"), 2, "Close: 'evolution'"),
    ):
        finished = cli(*words)
        assert finished.code == code, (words, finished.err)
        assert reason in finished.err, (words, finished.err)
        assert "Traceback" not in finished.err
        assert "this is a bug" not in finished.err
