"""`nasgraph trace`, `nasgraph init`, and TARGET as a user's own model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nasgraph.commands.factories import is_factory, load_factory
from nasgraph.commands.options import WrongUsageError
from nasgraph.errors import NasGraphError
from nasgraph.ir import read_graph
from tests.commands.running import Cli

MODEL = """
import torch
from torch import nn
from neighbour import WIDTH


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.head = nn.Linear(WIDTH, 10)
        self.lost = nn.Parameter(torch.full((3,), 7.0))
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)) * self.scale)


def broken():
    raise ValueError("no such size")


def number():
    return 3


def language():
    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 6\n")
    path = tmp_path / "net.py"
    path.write_text(MODEL)
    return path


def test_trace_writes_the_graph_and_reports_what_it_lacks(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "graph.json"
    result = json.loads(cli("trace", f"{model}:Net", "--input-shape", "1,8,8", "-o", str(out), "--json").out)
    graph = read_graph(out)
    assert result["fingerprint"] == graph.fingerprint
    assert result["unused_parameters"] == ["lost"]
    assert result["opaque"] == {}
    assert (
        result["num_parameters"] == sum(p.numel() for p in load_factory(f"{model}:Net")[0].parameters()) - 3
    )


def test_init_writes_every_parameter_and_keeps_what_no_output_needs(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "weights.safetensors"
    cli("init", f"{model}:Net", "--input-shape", "1,8,8", "-o", str(out))
    written = load_file(out)
    module, _ = load_factory(f"{model}:Net")
    own = dict(module.named_parameters())
    assert {name: tensor.shape for name, tensor in written.items()} == {n: p.shape for n, p in own.items()}
    assert torch.equal(written["lost"], own["lost"])
    assert not torch.equal(written["conv.weight"], own["conv.weight"])
    module.load_state_dict(written, strict=False)


def test_integer_inputs_are_described_by_length_and_vocabulary(cli: Cli, model: Path) -> None:
    result = json.loads(cli("trace", f"{model}:language", "--tokens", "12:50", "--json").out)
    assert (result["input_shapes"], result["output_shapes"]) == ([[12]], [[12, 50]])


def test_example_inputs_come_from_the_file(cli: Cli, model: Path) -> None:
    with model.open("a") as file:
        file.write("\n\ndef example_inputs():\n    return {'x': torch.zeros(3, 1, 5, 5)}\n")
    result = json.loads(cli("trace", f"{model}:Net", "--json").out)
    assert result["input_shapes"] == [[1, 5, 5]]


def test_show_reads_a_model_as_target(cli: Cli, model: Path) -> None:
    result = json.loads(cli("show", f"{model}:Net", "--input-shape", "1,8,8", "--json").out)
    assert result["output_shapes"] == [[10]]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Nothing", WrongUsageError, "has no 'Nothing'. It defines: Net, broken, language, number"),
        ("broken", NasGraphError, "ValueError: no such size"),
        ("number", WrongUsageError, "to give a torch.nn.Module .got int."),
    ],
)
def test_what_gives_no_module_is_refused(
    model: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_factory(f"{model}:{name}")


def test_missing_files_and_broken_code_are_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="There is no file"):
        load_factory(f"{tmp_path / 'none.py'}:net")
    (tmp_path / "bad.py").write_text("1 +\n")
    with pytest.raises(NasGraphError, match=r"bad.py' fails: SyntaxError"):
        load_factory(f"{tmp_path / 'bad.py'}:net")


@pytest.mark.parametrize(
    ("text", "expected"), [("a.py:f", True), ("a.b:f", True), ("convnet:7", False), ("x.json", False)]
)
def test_factories_are_told_from_other_targets(text: str, expected: bool) -> None:
    assert is_factory(text) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ghn", "none-such"), "No graph hypernetwork named 'none-such'"),
        (("--tokens", "12"), "Expected '--tokens' as LENGTH:VOCABULARY"),
        ((), "Describe the inputs with --input-shape or --tokens"),
    ],
)
def test_wrong_usage_ends_with_two(
    cli: Cli, model: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = cli("init", f"{model}:Net", "-o", str(tmp_path / "w.safetensors"), *words)
    assert done.code == 2
    assert message in done.err
