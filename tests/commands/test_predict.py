"""`nasgraph predict`: every form of TARGET, every part of the answer, and what cannot be answered."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.evaluate.table import Metric, TableInfo, make_table, write_table
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of, graph_to_json
from nasgraph.modules import build
from nasgraph.predict import KnownPerformance, PerformanceMetric
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample
from tests.commands.running import Cli

pytestmark = pytest.mark.usefixtures("project")

SHAPE = (1, 8, 8)
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
NO_SCORES = ("--ghn", "none", "--json")

MODEL = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def words():
    return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(32, 10))

def broken():
    raise RuntimeError("no such luck")
"""


def mlps(count: int) -> list[ComputationalGraph]:
    """Distinct networks of the space `mlp` on digits."""
    space, rng = load_space("mlp", input_shape=SHAPE, num_classes=10), generator(0, "cli")
    found = dict[str, ComputationalGraph]()
    while len(found) < count:
        graph = sample(space, rng).graph
        found[graph.fingerprint] = graph
    return list(found.values())


def size_of(graph: ComputationalGraph) -> float:
    return float(np.log10(cost_of(graph).num_parameters))


@pytest.fixture(scope="module")
def graphs() -> list[ComputationalGraph]:
    return mlps(16)


@pytest.fixture
def known(graphs: list[ComputationalGraph], tmp_path: Path) -> str:
    """A folder with little in it, which is quick to learn from."""
    metric = PerformanceMetric(name="accuracy", unit="percent", data="made up", lowest=0.0, highest=100.0)
    targets = [60 + 5 * size_of(graph) for graph in graphs]
    KnownPerformance.of(graphs, targets, metric=metric, input_shape=SHAPE, num_classes=10).save(
        tmp_path / "small"
    )
    return str(tmp_path / "small")


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model.py").write_text(MODEL)
    return "model.py"


# ---- what there is for every target


def test_the_shipped_predictor_speaks_of_cifar10(cli: Cli) -> None:
    done = cli("predict", CELL, *NO_SCORES)
    assert done.code == 0, done.err
    found = done.json["prediction"]
    assert found["metric"]["data"] == "CIFAR-10"
    assert (found["known"], found["is_trusted"], found["warnings"]) == ("performance-cifar10", True, [])
    assert 88 < found["low"] < found["mean"] < found["high"] < 95
    assert done.json["input_shapes"] == [[3, 32, 32]]


def test_the_keys_of_the_object_are_those_of_the_documentation(cli: Cli, known: str) -> None:
    done = cli("predict", "mlp:3", "--known", known, "--proxies", "nwot", "--latency", "--compare", "4",
               "--tune-steps", "2", "--json")  # fmt: skip
    assert done.code == 0, done.err
    page = (Path(__file__).parents[2] / "docs" / "predict.md").read_text()
    for key in (*done.json, *done.json["prediction"], *done.json["latency"], *done.json["proxies"]):
        assert f"`{key}`" in page, key


def test_an_architecture_is_scored_beside_random_ones(cli: Cli, known: str) -> None:
    done = cli("predict", "mlp:3", "--known", known, "--compare", "4", "--tune-steps", "2", "--json")
    assert done.code == 0, done.err
    assert 0 <= done.json["scores"]["ghn_accuracy"] <= 1
    assert done.json["compared_with"] == 4
    assert done.json["num_parameters"] > 0
    assert (done.json["data"], done.json["ghn"], done.json["skipped"]) == ("digits", "ghn-digits", {})


def test_an_architecture_is_built_for_the_data_of_each_part(cli: Cli) -> None:
    done = cli("predict", "mlp:3", "--known", "none", "--input-shape", "3,6,6", "--compare", "2",
               "--tune-steps", "0", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["input_shapes"] == [[3, 6, 6]]
    assert done.json["scores"] is not None
    assert done.json["ghn_fingerprint"] != done.json["fingerprint"]
    assert done.json["skipped"] == {"prediction": "'--known none' was asked for"}


def test_people_read_tables_and_warnings(cli: Cli, known: str, model: str) -> None:
    done = cli("predict", f"{model}:small", "--known", known, "--compare", "2", "--tune-steps", "2")
    assert done.code == 0, done.err
    for text in ("accuracy on made up", "90 % interval", "nearest known architecture", "by ghn-digits"):
        assert text in done.out
    assert "Running the Python code of 'model.py:small'" in done.err


# ---- forms of TARGET


def test_a_module_and_its_graph_file_are_predicted_alike(cli: Cli, known: str, model: str) -> None:
    by_module = cli("predict", f"{model}:small", "--known", known, *NO_SCORES)
    assert by_module.code == 0, by_module.err
    assert cli("trace", f"{model}:small", "--input-shape", "1,8,8", "-o", "graph.json").code == 0
    by_graph = cli("predict", "graph.json", "--known", known, *NO_SCORES)
    assert by_graph.code == 0, by_graph.err
    assert (by_module.json["kind"], by_graph.json["kind"]) == ("module", "graph")
    assert by_module.json["prediction"] == by_graph.json["prediction"]
    assert "Running the Python code" not in by_graph.err


def test_an_onnx_file_is_predicted_without_running_anything(
    cli: Cli, known: str, graphs: list[ComputationalGraph], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    weight = onnx.numpy_helper.from_array(np.ones((64, 10), dtype=np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", kinds.FLOAT, ["n", 1, 8, 8])
    made = helper.make_tensor_value_info("y", kinds.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "g", [given], [made], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    done = cli("predict", "m.onnx", "--known", known, "--latency", "--proxies", "num_parameters", *NO_SCORES)
    assert done.code == 0, done.err
    assert (done.json["kind"], done.json["num_parameters"]) == ("onnx", 640)
    assert done.json["latency"]["median_ms"] > 0
    assert "Running" not in done.err


def test_a_known_graph_comes_with_its_measurement(
    cli: Cli, known: str, graphs: list[ComputationalGraph], tmp_path: Path
) -> None:
    (tmp_path / "graph.json").write_text(graph_to_json(graphs[3]))
    done = cli("predict", "graph.json", "--known", known, *NO_SCORES)
    assert done.code == 0, done.err
    assert done.json["prediction"]["measured"] == pytest.approx(60 + 5 * size_of(graphs[3]))
    assert done.json["prediction"]["nearest"][0]["distance"] == 0


def test_integer_inputs_are_described_by_tokens(cli: Cli, known: str, model: str) -> None:
    done = cli("predict", f"{model}:words", "--tokens", "4:20", "--known", known, *NO_SCORES)
    assert done.code == 0, done.err
    assert done.json["input_shapes"] == [[4]]
    assert not done.json["prediction"]["is_trusted"]


def test_a_higher_level_makes_a_wider_interval(cli: Cli, known: str) -> None:
    widths = []
    for level in ("0.5", "0.95"):
        done = cli("predict", "mlp:3", "--known", known, "--level", level, *NO_SCORES)
        assert done.json["prediction"]["level"] == float(level)
        widths.append(done.json["prediction"]["high"] - done.json["prediction"]["low"])
    assert widths[0] < widths[1]


# ---- proxies and latency


def test_proxies_on_request_are_those_of_the_library(
    cli: Cli, graphs: list[ComputationalGraph], tmp_path: Path
) -> None:
    (tmp_path / "graph.json").write_text(graph_to_json(graphs[0]))
    done = cli("predict", "graph.json", "--known", "none", "--proxies", "num_parameters,synflow", *NO_SCORES)
    assert done.code == 0, done.err
    found = done.json["proxies"]
    assert list(found["scores"]) == ["num_parameters", "synflow"]
    assert found["scores"]["num_parameters"] == pytest.approx(
        sum(p.numel() for p in build(graphs[0]).parameters())
    )
    assert "noise" in found["examples"]


def test_proxies_look_at_the_data_that_is_named(cli: Cli) -> None:
    done = cli("predict", "mlp:3", "--known", "none", "--data", "digits", "--proxies", "nwot", *NO_SCORES)
    assert done.code == 0, done.err
    assert done.json["proxies"]["examples"] == "32 training examples of 'digits'"


def test_what_opaque_operators_prevent_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(
        json.dumps({"nodes": ["input", "sorcery", "output"], "edges": [[0, 1], [1, 2]]})
    )
    done = cli("predict", "graph.json", "--known", "none", "--proxies", "all", "--latency", "--json")
    assert done.code == 0, done.err
    assert set(done.json["skipped"]) == {"prediction", "proxies", "latency", "scores"}
    assert "sorcery" in done.json["skipped"]["latency"]


# ---- labels of a table


def write_rows(path: Path, graphs: list[ComputationalGraph], values: list[str]) -> str:
    """A JSON Lines table of graphs and numbers as they are written."""
    lines = [
        f'{{"graph": {graph_to_json(graph)}, "accuracy": {value}}}'
        for graph, value in zip(graphs, values, strict=True)
    ]
    path.write_text("\n".join(lines))
    return path.name


def test_a_table_is_learnt_from(cli: Cli, graphs: list[ComputationalGraph], tmp_path: Path) -> None:
    metrics = (Metric(name="loss", higher_is_better=False), Metric(name="accuracy", higher_is_better=True))
    values = np.array([size_of(graph) for graph in graphs])
    columns = {"accuracy": values, "loss": 10 - values}
    info = TableInfo(name="mine", metrics=metrics)
    write_table(
        tmp_path / "mine.safetensors", make_table(graphs, columns, info, keys=[f"net {i}" for i in range(16)])
    )
    refused = cli("predict", "mlp:3", "--labels", "mine.safetensors", *NO_SCORES)
    assert refused.code == 2
    assert "loss, accuracy" in refused.err
    done = cli("predict", "net 5", "--labels", "mine.safetensors:loss", "--max-labels", "12", *NO_SCORES)
    assert done.code == 0, done.err
    found = done.json["prediction"]
    assert (found["metric"]["name"], found["known"], found["num_known"]) == ("loss", "mine", 12)
    assert found["remarks"][0] == "12 of 16 labelled rows are used, drawn by seed 0"
    assert done.json["kind"] == "row"
    assert done.json["fingerprint"] == graphs[5].fingerprint


def test_missing_values_and_equal_graphs_are_counted(
    cli: Cli, graphs: list[ComputationalGraph], tmp_path: Path
) -> None:
    values = [str(size_of(graph)) for graph in graphs]
    name = write_rows(tmp_path / "t.jsonl", [*graphs, graphs[0]], [*values[:14], "null", "null", "9"])
    (tmp_path / "graph.json").write_text(graph_to_json(graphs[0]))
    done = cli("predict", "graph.json", "--labels", name, *NO_SCORES)
    assert done.code == 0, done.err
    remarks = " ".join(done.json["prediction"]["remarks"])
    assert "'accuracy' is missing in 2 of 17 rows" in remarks
    assert "15 rows have 14 distinct graphs" in remarks
    assert done.json["prediction"]["measured"] == pytest.approx((size_of(graphs[0]) + 9) / 2)


@pytest.mark.parametrize(
    ("rows", "value", "message"),
    [
        (16, "0.5", "All 16 targets are 0.5: there is nothing to learn"),
        (1, "0.5", "Expected at least 8 labelled graphs (got 1)"),
        (9, "null", "There is no column of numbers in 't.jsonl'"),
    ],
)
def test_a_table_that_teaches_nothing_is_refused(
    cli: Cli, graphs: list[ComputationalGraph], tmp_path: Path, rows: int, value: str, message: str
) -> None:
    name = write_rows(tmp_path / "t.jsonl", graphs[:rows], [value] * rows)
    done = cli("predict", "mlp:3", "--labels", f"{name}:accuracy", *NO_SCORES)
    assert done.code in (1, 2)
    assert message in done.err
    assert "this is a bug" not in done.err


def test_a_metric_that_nobody_measured_is_refused(
    cli: Cli, graphs: list[ComputationalGraph], tmp_path: Path
) -> None:
    info = TableInfo(name="mine", metrics=(Metric(name="accuracy"),))
    empty = make_table(graphs, {"accuracy": np.full(len(graphs), np.nan)}, info)
    write_table(tmp_path / "mine.safetensors", empty)
    done = cli("predict", "mlp:3", "--labels", "mine.safetensors", *NO_SCORES)
    assert done.code == 1
    assert "'accuracy' of the table 'mine' is missing in every row" in done.err


# ---- wrong usage, and what cannot be said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("mlp:3", "--input-shape", "3,0"), 2, "positive integers"),
        (("mlp:3", "--level", "1.5"), 2, "'level' from 0.5 to below 1"),
        (("mlp:3", "--known", "performance-cifar"), 2, "Close: 'performance-cifar10'"),
        (("mlp:3", "--known", "none", "--labels", "nasbench201"), 2, "choose one"),
        (("mlp:3", "--labels", "nasbench202"), 2, "No table named 'nasbench202'"),
        (("mlp:3", "--known", "none", "--proxies", "nwott"), 2, "Close: 'nwot'"),
        (("model.py:broken", "--known", "none"), 1, "RuntimeError: no such luck"),
        (("model.py:nothing", "--known", "none"), 2, "It defines: broken, small, words"),
        (
            ("model.py:small", "--known", "none", "--input-shape", "5,5"),
            1,
            "The forward pass of Sequential fails",
        ),
        (("nowhere.onnx", "--known", "none"), 2, "There is no file 'nowhere.onnx'"),
        (("single.json", "--known", "small"), 1, "computes nothing"),
        (("single.json", "--known", "none", "--input-shape", "3,8,8"), 2, "to be that of the graph"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    cli: Cli, known: str, model: str, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    g = GraphBuilder()
    (tmp_path / "single.json").write_text(graph_to_json(g.finish(g("input", shape=SHAPE))))
    done = cli("predict", *words, *NO_SCORES)
    assert done.code == code, done.err
    assert message in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    assert done.out == ""


def test_a_damaged_folder_is_refused(cli: Cli, known: str) -> None:
    rows = Path(known) / "rows.safetensors"
    rows.write_bytes(rows.read_bytes()[:-3])
    done = cli("predict", "mlp:3", "--known", known, *NO_SCORES)
    assert done.code == 1
    assert "checksum" in done.err


def test_a_graph_of_another_shape_than_the_data_has_no_scores(cli: Cli, tmp_path: Path) -> None:
    assert cli("show", "mlp:0", "--input-shape", "1,4,4", "-o", "graph.json").code == 0
    done = cli("predict", "graph.json", "--known", "none", "--json")
    assert done.code == 0, done.err
    assert "reads [(1, 4, 4)]" in done.json["skipped"]["scores"]
    assert done.json["scores"] is None


def test_without_a_hypernetwork_there_are_no_scores(cli: Cli, known: str) -> None:
    done = cli("predict", "gpt:0", "--input-shape", "16", "--known", known, "--json")
    assert done.code == 0, done.err
    assert "nasgraph ghn train" in done.json["skipped"]["scores"]


def test_torch_keeps_its_global_generator(cli: Cli, known: str, model: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert cli("predict", "mlp:3", "--known", known, "--proxies", "zen", "--latency", *NO_SCORES).code == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_choices_that_the_data_do_not_allow_are_no_scores_and_say_what_to_do(cli: Cli, known: str) -> None:
    words = ("predict", "convnet:7", "--known", known, "--compare", "2", "--tune-steps", "0", "--json")
    done = cli(*words, "--input-shape", "3,32,32")
    assert done.code == 0, done.err
    assert "With '--data digits' TARGET is taken to be for these data" in done.json["skipped"]["scores"]
    assert cli(*words, "--data", "digits").json["scores"] is not None
