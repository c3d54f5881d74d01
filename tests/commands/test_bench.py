"""`nasgraph bench`."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from nasgraph.evaluate.table import open_table, write_table
from nasgraph.ir import graph_to_json
from tests.commands.running import Cli
from tests.modules.samples import sampled_graphs


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A CSV file of labelled DAGs whose accuracy rises with the number of convolutions."""
    rng = np.random.default_rng(0)
    path = tmp_path / "foreign.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "graph", "accuracy", "latency_ms", "author"])
        for row in range(60):
            labels = ["input", *rng.choice(["conv", "pool", "skip"], size=5).tolist()]
            edges = [[i, i + 1] for i in range(5)] + ([[0, 3]] if rng.random() < 0.5 else [])
            convs = labels.count("conv")
            cells = [0.5 + 0.05 * convs + 0.01 * rng.standard_normal(), "" if row == 7 else convs + 1]
            writer.writerow([f"r{row}", json.dumps({"nodes": labels, "edges": edges}), *cells, "me"])
    return path


def test_convert_writes_a_table_that_opens_with_what_was_in_the_file(
    cli: Cli, foreign: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "t.safetensors"
    words = ["bench", "convert", str(foreign), "-o", str(output), "--name", "mine"]
    finished = cli(*words, "--metric", "accuracy:higher", "--metric", "latency_ms:lower", "--json")
    assert finished.code == 0, finished.err
    assert finished.json["rows"] == 60
    assert finished.json["metrics"]["latency_ms"]["missing"] == 1
    assert finished.json["metrics"]["latency_ms"]["higher_is_better"] is False
    assert finished.json["graphs"] + finished.json["repeated_rows"] == 60
    assert "'latency_ms' is missing in 1 of 60 rows" in finished.err
    table = open_table(output)
    assert table.info.name == "mine"
    with foreign.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [table.value(row["key"], "accuracy") for row in rows] == [float(row["accuracy"]) for row in rows]


def test_convert_takes_architectures_of_a_space(cli: Cli, tmp_path: Path) -> None:
    shipped = open_table("nasbench201")
    source = tmp_path / "t.jsonl.gz"
    lines = [json.dumps({"architecture": shipped.key(row), "accuracy": row}) for row in range(9)]
    source.write_bytes(gzip.compress("\n".join(lines).encode()))
    output = str(tmp_path / "t.safetensors")
    finished = cli("bench", "convert", str(source), "-o", output, "--space", "nasbench201", "--json")
    assert finished.code == 0, finished.err
    assert open_table(output).row_of(shipped.key(5)) == 5
    assert cli("bench", "convert", str(source), "-o", output, "--space", "nasbench21").code == 2
    assert "--space" in cli("bench", "convert", str(source), "-o", output).err


def test_predictors_reports_what_the_documentation_promises(cli: Cli, foreign: Path) -> None:
    words = ("bench", "predictors", "--table", str(foreign), "--train", "20", "--seeds", "3", "--json")
    finished = cli(*words, "--test-metric", "accuracy", "--predictor", "ridge")
    assert finished.code == 0, finished.err
    found = finished.json
    for name in (
        "kendall_tau",
        "spearman",
        "precision_at_1_percent",
        "top1",
        "top10",
        "coverage_90",
        "fit_seconds",
    ):
        assert set(found[name]) == {"mean", "std"}, name
    assert found["kendall_tau"]["mean"] > 0.6
    assert (found["population"], found["num_test"], found["train"], found["seeds"]) == (60, 40, 20, [0, 1, 2])
    assert found["train_metric"] == found["test_metric"] == "accuracy"
    assert found["direction_stated"] is False
    assert "higher is taken to be" in finished.err
    taus = [each["kendall_tau"] for each in found["per_seed"]]
    assert found["kendall_tau"]["mean"] == pytest.approx(np.mean(taus))
    assert found["kendall_tau"]["std"] == pytest.approx(np.std(taus, ddof=1))


def test_the_same_seeds_give_the_same_numbers(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "predictors",
        "-t",
        str(foreign),
        "--train",
        "20",
        "--seeds",
        "2",
        "--json",
        "--predictor",
        "trees",
    )
    one, other, third = (
        cli(*words, "--test-metric", "accuracy", "--seed", seed).json["kendall_tau"]
        for seed in ("0", "0", "5")
    )
    assert one == other != third


def test_missing_values_are_dropped_and_counted(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "predictors",
        "--table",
        str(foreign),
        "--train",
        "20",
        "--seeds",
        "1",
        "--predictor",
        "ridge",
    )
    finished = cli(*words, "--test-metric", "latency_ms", "--json")
    assert (finished.json["population"], finished.json["num_missing"]) == (59, 1)
    assert finished.json["kendall_tau"]["std"] is None
    assert "1 rows are left out because a metric is missing" in finished.err


def test_results_for_people_name_the_ceiling(cli: Cli, foreign: Path) -> None:
    words = (
        "bench",
        "predictors",
        "--table",
        str(foreign),
        "--train",
        "20",
        "--seeds",
        "2",
        "--predictor",
        "ridge",
    )
    finished = cli(*words, "--train-metric", "latency_ms", "--test-metric", "accuracy")
    assert finished.code == 0
    assert "kendall_tau" in finished.out
    assert "'latency_ms' itself: tau" in finished.err


def test_mistakes_are_one_clear_line_with_the_right_code(cli: Cli, foreign: Path, tmp_path: Path) -> None:
    graphs = sampled_graphs("mlp", 12)
    flat = tmp_path / "flat.jsonl"
    flat.write_text(
        "".join(json.dumps({"graph": json.loads(graph_to_json(g)), "a": 1}) + "\n" for g in graphs)
    )
    damaged = tmp_path / "damaged.safetensors"
    write_table(damaged, open_table(flat))
    damaged.write_bytes(damaged.read_bytes()[:-3])
    predictors = ("bench", "predictors", "--seeds", "1", "--predictor", "ridge", "--table")
    for words, code, reason in (
        ((*predictors, str(foreign)), 1, "Name the metric to be predicted"),
        ((*predictors, str(foreign), "--test-metric", "accuracy"), 1, "enough rows for 78 labels"),
        ((*predictors, str(foreign), "--test-metric", "acuracy"), 2, "Close: 'accuracy'"),
        ((*predictors, str(foreign), "--test-metric", "accuracy", "--train", "1"), 1, "at least 8"),
        ((*predictors, str(flat), "--train", "8"), 1, "there is nothing to predict"),
        ((*predictors, str(damaged)), 1, "cut off or damaged"),
        ((*predictors, "nasbench21"), 2, "Close: 'nasbench201'"),
        (("bench", "predictors", "--predictor", "rigde"), 2, "Close: 'ridge'"),
        (("bench", "convert", str(foreign), "-o", "t.csv"), 2, ".safetensors"),
        (("bench", "convert", str(foreign), "-o", "t.safetensors", "-m", "accuracy"), 2, "NAME:higher"),
        (
            ("bench", "convert", str(foreign), "-o", "t.safetensors", "-m", "author:higher"),
            1,
            "'author' in line 2",
        ),
        (("bench", "convert", str(tmp_path / "none.csv"), "-o", "t.safetensors"), 1, "Cannot read"),
    ):
        finished = cli(*words)
        assert finished.code == code, (words, finished.err)
        assert reason in finished.err, (words, finished.err)
        assert "Traceback" not in finished.err
        assert "this is a bug" not in finished.err
    assert not Path("t.safetensors").exists()
