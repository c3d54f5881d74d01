"""`nasgraph show` and the forms of TARGET."""

import json
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nasgraph.commands.options import WrongUsageError
from nasgraph.commands.targets import load_target, sample_of
from nasgraph.errors import InvalidChoiceError, InvalidGraphError, NasGraphError
from nasgraph.ir import ComputationalGraph, graph_to_json
from nasgraph.spaces import Candidate, load_space
from tests.commands.running import Cli

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
FIT = {"input_shape": (1, 8, 8), "num_classes": 10}


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    return sample_of(load_space("mlp", input_shape=(1, 8, 8), num_classes=10), seed=3)


def load(text: str, space: str | None = None) -> Candidate | ComputationalGraph:
    return load_target(text, space=space, input_shape=(1, 8, 8), num_classes=10)


def test_space_and_seed_name_a_sample(candidate: Candidate) -> None:
    assert load("mlp:3") == candidate
    assert load("3", space="mlp") == candidate
    assert load("mlp:4") != candidate


def test_graph_files_are_read_whatever_the_shape(tmp_path: Path, candidate: Candidate) -> None:
    path = tmp_path / "graph.json"
    path.write_text(graph_to_json(candidate.graph))
    assert load_target(str(path), input_shape=(3, 99, 99), num_classes=2) == candidate.graph


def test_architectures_are_read_from_files_and_from_the_line(tmp_path: Path, candidate: Candidate) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(candidate.architecture.to_json())
    by_name = json.dumps({"space": "mlp", "choices": dict(candidate.architecture.choices)})
    for text in (str(path), candidate.architecture.to_json(), by_name):
        assert load(text) == candidate


def test_nasbench201_strings_are_read() -> None:
    loaded = load(CELL)
    assert isinstance(loaded, Candidate)
    from search_spaces.nasbench201 import arch_string

    assert arch_string(loaded.architecture) == CELL


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nothing.json", WrongUsageError, "There is no file 'nothing.json'"),
        ("", WrongUsageError, "There is no file ''"),
        ("7", WrongUsageError, "There is no file '7'"),
        ("{", NasGraphError, "Not valid JSON in TARGET"),
        ("{}", InvalidGraphError, "Expected a graph with schema"),
        ('{"space": "mlp", "choices": {}}', InvalidChoiceError, "lacks the choice"),
        ('{"space": "mlp", "choices": 3}', InvalidChoiceError, "a list of pairs"),
        ("|none~0|", WrongUsageError, "Expected a NAS-Bench-201 string"),
        (CELL.replace("avg_pool", "max_pool"), InvalidChoiceError, "cannot be 'max_pool_3x3'"),
    ],
)
def test_what_is_no_target_is_refused_with_the_reason(
    text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(text)


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(WrongUsageError, match="Expected an architecture of 'vit'"):
        load(CELL, space="vit")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 100_000, b'{"schema": "nasgraph/graph/1", "nodes": [', b""]
)
def test_damaged_files_are_refused_in_one_line(cli: Cli, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graph.json"
    path.write_bytes(content)
    finished = cli("show", str(path))
    assert finished.code == 1
    assert finished.err.count("\n") == 1
    assert "graph.json" in finished.err


def test_show_prints_size_costs_and_choices(cli: Cli, candidate: Candidate) -> None:
    out = cli("show", "mlp:3").out
    shown = cli("show", "mlp:3", "--json").json
    assert candidate.graph.fingerprint in out
    assert shown["fingerprint"] == candidate.graph.fingerprint
    assert f"{shown['num_parameters']:,}" in out
    assert f"{shown['multiply_adds']:,}" in out
    assert shown["choices"] == dict(candidate.architecture.choices)
    assert all(name in out for name in shown["choices"])


def test_a_graph_without_choices_can_be_shown(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    assert cli("show", "vit:2", "-o", str(path)).code == 0
    shown = cli("show", str(path), "--json").json
    assert (shown["space"], shown["choices"]) == (None, None)
    assert shown["fingerprint"] == cli("show", "vit:2", "--json").json["fingerprint"]
    assert "choices in" not in cli("show", str(path)).out


def test_a_picture_is_written_to_a_file_and_to_stdout(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a picture.svg"
    finished = cli("show", CELL, "-o", str(path), "--title", "A <cell>")
    assert finished.code == 0
    assert finished.out == ""
    assert finished.err == f"Wrote {path}\n"
    root = ElementTree.fromstring(path.read_text())
    assert any(text.text == "A <cell>" for text in root.iter("{http://www.w3.org/2000/svg}text"))
    assert cli("show", CELL, "-o", "-", "--title", "A <cell>").out == path.read_text()


def test_json_and_a_picture_go_together(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    finished = cli("show", "convnet:1", "--json", "-o", str(path))
    assert finished.json["written"] == str(path)
    assert path.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-o", "picture.gif"], 2, "Expected '-o' to end with .svg, .json or .py"),
        (["-o", "-", "--json"], 2, "both write to stdout"),
        (["-o", "/dev/null/picture.svg"], 1, "Cannot write '/dev/null/picture.svg'"),
    ],
)
def test_pictures_that_cannot_be_written_are_refused(
    cli: Cli, words: list[str], code: int, message: str
) -> None:
    finished = cli("show", "mlp:1", *words)
    assert (finished.code, finished.out) == (code, "")
    assert message in finished.err


def test_unfolded_pictures_have_a_box_per_node(cli: Cli) -> None:
    folded, unfolded = (cli("show", "convnet:1", "-o", "-", flag).out for flag in ("--fold", "--no-fold"))
    assert unfolded.count("data-node=") == cli("show", "convnet:1", "--json").json["num_nodes"]
    assert folded.count("data-node=") < unfolded.count("data-node=")


def test_code_in_plain_torch_is_written(cli: Cli, tmp_path: Path, candidate: Candidate) -> None:
    out = tmp_path / "network.py"
    cli("show", "mlp:3", "-o", str(out))
    names: dict[str, object] = {"__name__": "network"}
    exec(compile(out.read_text(), str(out), "exec"), names)
    network = names["Network"]
    assert isinstance(network, type)
    count = sum(parameter.numel() for parameter in network().parameters())
    assert count == sum(prod(spec.shape) for spec in candidate.graph.parameters.values())
