"""Entries on disk: complete or absent, verified when read, never unpickled."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from nasgraph.data import DataSet, load_dataset
from nasgraph.errors import NasGraphError, ZooError
from nasgraph.modelzoo import ZooEntry, load_entry, verify, write_entry
from nasgraph.modelzoo.entry import write_folder
from tests.modelzoo.making import made_card, trained


def test_reloading_gives_the_same_bits_and_the_recorded_accuracy(entry: ZooEntry, digits: DataSet) -> None:
    original = trained(digits)
    again = load_entry(entry.path)
    with torch.inference_mode():
        assert torch.equal(again.module()(digits.test.inputs), original(digits.test.inputs))
    results = verify(again, digits)
    assert [result.split for result in results] == ["validation", "test"]
    assert all(result.agrees for result in results)
    with torch.inference_mode():
        predicted = original(digits.test.inputs).argmax(1)
    assert results[1].recorded == (predicted == digits.test.targets).sum().item() / len(digits.test)
    assert results[1].recorded > 0.5


def test_the_module_is_in_inference_mode_and_each_call_gives_a_new_one(entry: ZooEntry) -> None:
    first, second = entry.module(), entry.module()
    assert not first.training
    with torch.no_grad():
        next(first.parameters()).fill_(9)
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    torch.testing.assert_close(second.state_dict(), dict(entry.state))


def test_an_entry_has_exactly_the_documented_files_and_no_pickle(entry: ZooEntry) -> None:
    names = {file.name for file in entry.path.iterdir()}
    assert names == {
        "MLmodel",
        "README.md",
        "architecture.svg",
        "card.json",
        "graph.json",
        "requirements.txt",
        "weights.safetensors",
    }
    assert list(entry.path.parent.iterdir()) == [entry.path], "no temporary folder is left"
    for file in entry.path.iterdir():
        with pytest.raises(Exception):  # noqa: B017  whatever pickle says
            pickle.loads(file.read_bytes())


def test_other_data_cannot_verify_an_entry(entry: ZooEntry) -> None:
    with pytest.raises(ZooError, match="split seed"):
        verify(entry, load_dataset("digits", split_seed=1))
    with pytest.raises(ZooError, match="input shape"):
        verify(entry, load_dataset("digits", image_size=16))


def test_a_changed_weight_is_seen_by_verify_even_with_a_new_hash(
    entry: ZooEntry, digits: DataSet, tmp_path: Path
) -> None:
    state = {name: torch.zeros_like(tensor) for name, tensor in entry.state.items()}
    fake = write_entry(tmp_path / "fake", entry.graph, state, entry.card)
    assert not all(result.agrees for result in verify(fake, digits))


def test_an_existing_folder_is_not_overwritten(entry: ZooEntry, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZooError, match="exists"):
        write_entry(tmp_path / "mine", entry.graph, entry.state, entry.card)
    with pytest.raises(ZooError, match="no zoo entry"):
        write_folder(tmp_path / "mine", {}, force=True)


def test_a_failed_write_leaves_nothing(entry: ZooEntry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NasGraphError, match="Cannot write"):
        write_entry(tmp_path / "file" / "entry", entry.graph, entry.state, entry.card)
    with pytest.raises(NasGraphError, match="Cannot write"):
        write_folder(tmp_path / "entry", {"a": b"1", "no/such/folder": b"2"})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_card_of_another_graph_is_refused(entry: ZooEntry, digits: DataSet, tmp_path: Path) -> None:
    wrong = replace(made_card(digits), num_parameters=7)
    with pytest.raises(ZooError, match="num_parameters"):
        write_entry(tmp_path / "wrong", entry.graph, entry.state, wrong)
    assert not (tmp_path / "wrong").exists()


def _with_hash(folder: Path, weights: bytes) -> None:
    """Put weights in place whose hash the card knows: what a forger would do."""
    (folder / "weights.safetensors").write_bytes(weights)
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = sha256(weights).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    from nasgraph.ir import read_graph
    from nasgraph.modelzoo import read_card
    from nasgraph.modelzoo.mlmodel import mlmodel_text

    (folder / "MLmodel").write_text(
        mlmodel_text(read_card(folder / "card.json"), read_graph(folder / "graph.json"))
    )


def _flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def _truncate(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    _with_hash(folder, data[: len(data) // 2])


def _header_bomb(folder: Path) -> None:
    _with_hash(folder, struct.pack("<Q", 2**62) + b"{" + b" " * 1000)


def _deep_header(folder: Path) -> None:
    header = b"[" * 50_000
    _with_hash(folder, struct.pack("<Q", len(header)) + header)


def _huge_shape(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name]["shape"] = [2**40, 2**20]
    text = json.dumps(header).encode()
    _with_hash(folder, struct.pack("<Q", len(text)) + text + data[8 + length :])


def _pickle(folder: Path) -> None:
    _with_hash(folder, pickle.dumps({"a": 1}))


def _torch_file(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "weights.safetensors")
    _with_hash(folder, (folder / "weights.safetensors").read_bytes())


def _extra_tensor(folder: Path) -> None:
    _with_hash(folder, save({**load_entry(folder).state, "backdoor": torch.ones(1)}))


def _missing_tensor(folder: Path) -> None:
    state = dict(load_entry(folder).state)
    state.pop("n1.weight")
    _with_hash(folder, save(state))


def _other_type(folder: Path) -> None:
    _with_hash(folder, save({name: tensor.double() for name, tensor in load_entry(folder).state.items()}))


def _other_graph(folder: Path) -> None:
    text = (folder / "graph.json").read_text()
    (folder / "graph.json").write_text(text.replace('"relu"', '"gelu"'))


def _foreign_loader(folder: Path) -> None:
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text.replace("nasgraph.modelzoo.flavor", "mlflow.sklearn"))


def _foreign_requirements(folder: Path) -> None:
    (folder / "requirements.txt").write_text("nasgraph\nevil-package\n")


def _offer_a_pickle(folder: Path) -> None:
    (folder / "model.PKL").write_bytes(pickle.dumps(1))


def _link(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")


def _vanish(folder: Path) -> None:
    shutil.rmtree(folder)


def _lose_the_graph(folder: Path) -> None:
    (folder / "graph.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_bit, "was changed: expected sha256"),
        (_truncate, "no complete safetensors file"),
        (_header_bomb, "no complete safetensors file"),
        (_deep_header, "nested too deeply"),
        (_huge_shape, "do not fit the graph"),
        (_pickle, "is a pickle"),
        (_torch_file, "zip archive with a pickle"),
        (_extra_tensor, "backdoor"),
        (_missing_tensor, "lacks 'n1.weight'"),
        (_other_type, "float32"),
        (_other_graph, "fingerprint"),
        (_foreign_loader, "MLmodel' was changed"),
        (_foreign_requirements, "requirements.txt' was changed"),
        (_offer_a_pickle, "may hold a pickle"),
        (_link, "is a link"),
        (_vanish, "There is no zoo entry"),
        (_lose_the_graph, "lacks 'graph.json'"),
    ],
)
def test_a_damaged_or_forged_entry_is_refused(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(ZooError, match=message):
        load_entry(folder)


def test_weights_that_are_larger_than_the_graph_are_not_read(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    with pytest.raises(ZooError, match="Expected at most"):
        load_entry(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_no_change_of_the_weights_goes_through(folder: Path, entry: ZooEntry, place: int, new: bytes) -> None:
    data = (entry.path / "weights.safetensors").read_bytes()
    changed = data[:place] + new + data[place + len(new) :]
    if changed == data:
        return
    _with_hash(folder, changed)
    try:
        read = load_entry(folder)
    except ZooError:
        return
    assert {name: tensor.shape for name, tensor in read.state.items()} == {
        name: tensor.shape for name, tensor in entry.state.items()
    }
