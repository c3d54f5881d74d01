"""Exports: what is written computes what the entry does, by itself, whole or not at all."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nasgraph.errors import NasGraphError, UnsupportedOpError, ZooError
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, cost_of, read_graph
from nasgraph.modelzoo import ZooEntry, card_from_json, load_entry, read_card
from nasgraph.modelzoo.export import FORMS, Form, export
from nasgraph.modelzoo.export_source import example_inputs, run, source_contents, source_module
from nasgraph.modules import build
from nasgraph.spaces import space_names
from tests.modules.samples import random_constants, sampled_graphs, wide_graph

GRAPH_SPACES = ("gnn", "nasbench-graph")
TARGETS = {"entry": "out", "onnx": "out.onnx", "program": "out.pt2", "source": "out"}

BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nasgraph", "search_spaces", "zoo", "torch_geometric"):
            raise ImportError(f"this test has no {name}")

sys.meta_path.insert(0, Refuse())
sys.path = [FOLDER, *(p for p in sys.path if p != CHECKOUT)]
import torch
from safetensors.torch import load_file, save_file
import load
inputs = [tensor for _, tensor in sorted(load_file(INPUTS).items())]
with torch.inference_mode():
    found = load.load()(*inputs)
found = found if isinstance(found, tuple) else (found,)
save_file({str(i): t.contiguous().clone() for i, t in enumerate(found)}, OUTPUTS)
assert not any(name.split(".")[0] == "nasgraph" for name in sys.modules)
sys.exit(load.main())
"""


def entry_of(graph: ComputationalGraph, like: ZooEntry) -> ZooEntry:
    """Any graph as an entry without data. Its folder is gone, as that of an entry from the registry is."""
    state = build(graph, seed=1, constants=random_constants(graph)).state_dict()
    cost = cost_of(graph)
    card = replace(
        like.card,
        data=None,
        measurements=(),
        fingerprint=graph.fingerprint,
        num_parameters=cost.num_parameters,
        multiply_adds=cost.multiply_adds,
    )
    return ZooEntry(graph, state, card, Path("/gone"))


def outputs_without_nasgraph(folder: Path, inputs: list[Tensor], tmp_path: Path) -> list[Tensor]:
    """What the written network gives in a process that cannot import nasgraph."""
    from safetensors.torch import save_file

    save_file({f"{place:03}": tensor for place, tensor in enumerate(inputs)}, tmp_path / "inputs.safetensors")
    values = {
        "FOLDER": str(folder),
        "CHECKOUT": str(Path(__file__).parents[2]),
        "INPUTS": str(tmp_path / "inputs.safetensors"),
        "OUTPUTS": str(tmp_path / "outputs.safetensors"),
    }
    script = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + BLOCKED
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("largest difference ")
    found = load_file(tmp_path / "outputs.safetensors")
    return [found[str(place)] for place in range(len(found))]


def test_source_runs_where_nasgraph_cannot_be_imported_and_gives_the_same_bits(
    entry: ZooEntry, tmp_path: Path
) -> None:
    report = export(entry, tmp_path / "small", form="source")
    inputs = example_inputs(entry.graph, batch_size=7, seed=5)
    (found,) = outputs_without_nasgraph(tmp_path / "small", inputs, tmp_path)
    assert torch.equal(found, run(entry.module(), inputs)[0])
    assert report.difference == 0.0
    assert report.files == tuple(sorted(path.name for path in (tmp_path / "small").iterdir()))
    assert report.num_bytes == sum(path.stat().st_size for path in (tmp_path / "small").iterdir())


def test_source_of_several_inputs_and_outputs_runs_without_nasgraph(entry: ZooEntry, tmp_path: Path) -> None:
    wide = entry_of(wide_graph(), entry)
    export(wide, tmp_path / "wide", form="source")
    inputs = example_inputs(wide.graph, batch_size=2, seed=5)
    found = outputs_without_nasgraph(tmp_path / "wide", inputs, tmp_path)
    for one, two in zip(found, run(wide.module(), inputs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_the_script_normalises_as_the_data_was(
    entry: ZooEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(entry, tmp_path / "small", form="source")
    monkeypatch.syspath_prepend(str(tmp_path / "small"))
    try:
        import load as script  # type: ignore[import-not-found]  # written just now
    finally:
        for name in ("load", "model"):
            sys.modules.pop(name, None)
    raw = 16 * torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert entry.card.data is not None
    torch.testing.assert_close(script.normalise(raw), entry.card.data.normalisation.apply(raw))


def test_the_folder_keeps_card_graph_and_configuration(entry: ZooEntry, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    export(entry, folder, form="source")
    assert read_card(folder / "card.json") == entry.card
    assert read_graph(folder / "graph.json").fingerprint == entry.graph.fingerprint
    config = json.loads((folder / "config.json").read_text())
    assert config["input_shapes"] == [[1, 8, 8]]
    assert config["class_names"] == [str(digit) for digit in range(10)]
    assert "from load import load" in (folder / "README.md").read_text()


def test_writing_source_leaves_torchs_global_generator_alone(entry: ZooEntry) -> None:
    before = torch.get_rng_state()
    source_module(entry.graph, entry.state)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [1, 2, 33])
def test_a_program_runs_at_any_batch_size(entry: ZooEntry, tmp_path: Path, batch_size: int) -> None:
    report = export(entry, tmp_path / "small.pt2", form="program")
    assert report.difference == 0.0
    extra = {"card.json": ""}
    program = torch.export.load(tmp_path / "small.pt2", extra_files=extra)
    assert card_from_json(extra["card.json"]) == entry.card
    inputs = example_inputs(entry.graph, batch_size=batch_size)
    (found,) = run(program.module(), inputs)
    assert torch.equal(found, run(entry.module(), inputs)[0])


@pytest.mark.parametrize("space", ["convnet", "gpt", "vit"])
def test_programs_of_several_spaces_run(entry: ZooEntry, tmp_path: Path, space: str) -> None:
    shape = (12,) if space == "gpt" else (3, 16, 16)
    made = entry_of(sampled_graphs(space, 1, input_shape=shape)[0], entry)
    assert export(made, tmp_path / "net.pt2", form="program").difference <= 1e-6


def test_a_program_of_a_network_with_two_inputs_and_outputs_runs(entry: ZooEntry, tmp_path: Path) -> None:
    assert export(entry_of(wide_graph(), entry), tmp_path / "wide.pt2", form="program").tolerance > 0


@pytest.mark.parametrize("space", [name for name in space_names() if name not in GRAPH_SPACES])
def test_source_of_every_search_space_of_independent_examples_computes_the_same(space: str) -> None:
    shape = (12,) if space == "gpt" else (3, 16, 16)
    graph = sampled_graphs(space, 1, input_shape=shape)[0]
    built = build(graph, seed=1, constants=random_constants(graph)).eval()
    inputs = example_inputs(graph, batch_size=2)
    for one, two in zip(
        run(source_module(graph, built.state_dict()), inputs), run(built, inputs), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_onnx_says_what_ran_it_and_how_much_it_differs(entry: ZooEntry, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    report = export(entry, tmp_path / "small.onnx", form="onnx")
    assert report.checked_with == f"onnxruntime {runtime.__version__}"
    assert 0 <= report.difference <= report.tolerance
    model = onnx.load(tmp_path / "small.onnx")
    metadata = {item.key: item.value for item in model.metadata_props}
    assert card_from_json(metadata["card"]) == entry.card
    assert json.loads(metadata["class_names"]) == [str(digit) for digit in range(10)]
    assert metadata["fingerprint"] == entry.graph.fingerprint


def test_a_copied_entry_has_the_same_files_and_one_whose_folder_is_gone_is_refused(
    entry: ZooEntry, tmp_path: Path
) -> None:
    report = export(entry, tmp_path / "copy", form="entry")
    assert "architecture.svg" in report.files
    for name in report.files:
        assert (tmp_path / "copy" / name).read_bytes() == (entry.path / name).read_bytes()
    assert load_entry(tmp_path / "copy").card == entry.card
    with pytest.raises(ZooError, match="not there any more"):
        export(replace(entry, path=tmp_path / "gone"), tmp_path / "again", form="entry")


def test_equal_entries_give_equal_source_folders(entry: ZooEntry) -> None:
    contents = [source_contents(entry, readme="") for _ in range(4)]
    assert all(other == contents[0] for other in contents)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_is_kept_unless_forced(entry: ZooEntry, tmp_path: Path, form: Form) -> None:
    target = tmp_path / TARGETS[form]
    export(entry, target, form=form)
    with pytest.raises(ZooError, match="exists"):
        export(entry, target, form=form)
    export(entry, target, form=form, force=True)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_folder_is_never_replaced(entry: ZooEntry, tmp_path: Path, form: Form) -> None:
    target = tmp_path / TARGETS[form]
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(ZooError, match="exists"):
        export(entry, target, form=form, force=True)
    assert (target / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("form", FORMS)
def test_a_network_that_computes_something_else_is_not_written(
    entry: ZooEntry, tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run gives something else than the one before."""
    from nasgraph.modelzoo import export as module

    calls = iter(range(100))

    def wrong(original: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        return lambda *given: tuple(tensor + next(calls) for tensor in original(*given))

    monkeypatch.setattr(module, "run", wrong(run))
    monkeypatch.setattr(module, "run_onnx", wrong(module.run_onnx))
    with pytest.raises(ZooError, match="differ by"):
        export(entry, tmp_path / TARGETS[form], form=form)
    if form != "entry":  # which is checked where it lies
        assert list(tmp_path.iterdir()) == []


def test_other_forms_and_suffixes_are_refused(entry: ZooEntry, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="one of entry, onnx, program, source"):
        export(entry, tmp_path / "x", form="pickle")  # type: ignore[arg-type]  # what a command line may get
    with pytest.raises(ZooError, match=r"ends in '\.onnx'"):
        export(entry, tmp_path / "x.bin", form="onnx")
    with pytest.raises(ZooError, match=r"ends in '\.pt2'"):
        export(entry, tmp_path / "x.pt", form="program")


@pytest.mark.parametrize("form", ["onnx", "program", "source"])
def test_message_passing_is_named_in_the_refusal(entry: ZooEntry, tmp_path: Path, form: Form) -> None:
    graphs = sampled_graphs("gnn", 5, input_shape=(8,))
    graph = next(g for g in graphs if any(OPS[node.op].reads_edges for node in g.nodes))
    passing = next(node.op for node in graph.nodes if OPS[node.op].reads_edges)
    with pytest.raises(UnsupportedOpError, match=f"'{passing}' "):
        export(entry_of(graph, entry), tmp_path / TARGETS[form], form=form)
    assert list(tmp_path.iterdir()) == []


def test_infinite_outputs_are_no_proof(entry: ZooEntry, tmp_path: Path) -> None:
    g = GraphBuilder()
    graph = g.finish(g("linear", g("input", shape=(3,)), out_features=2))
    made = entry_of(graph, entry)
    broken = replace(made, state={name: tensor + float("inf") for name, tensor in made.state.items()})
    with pytest.raises(ZooError, match="nothing to compare"):
        export(broken, tmp_path / "x", form="source")


def test_a_full_disk_is_an_error_that_names_the_path(
    entry: ZooEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NasGraphError, match=r"small\.pt2.*No space left"):
        export(entry, tmp_path / "small.pt2", form="program")
    shutil.rmtree(tmp_path)
