"""The zoo over a real registry."""

import json
import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from nasgraph import plugins
from nasgraph.errors import UnknownNameError, ZooError
from nasgraph.mlflow_client import default_tracking_uri, local_path
from nasgraph.modelzoo import ZooEntry, load_entry, write_entry
from nasgraph.modelzoo.names import Reference
from nasgraph.modelzoo.store import Zoo

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier


def stored_folder(uri: str, name: str, version: int = 1) -> Path:
    """Where the files of a version lie."""
    client = MlflowClient(uri, uri)
    found = client.get_model_version(name, str(version))
    run_id, _, folder = found.source.removeprefix("runs:/").partition("/")
    root: Path | None = local_path(client.get_run(run_id).info.artifact_uri)
    assert root is not None
    return root / str(folder)


def test_what_is_added_can_be_listed_loaded_and_shown(entry: ZooEntry, tracking_uri: str) -> None:
    zoo = Zoo(tracking_uri)
    assert zoo.add(entry.path, "digits-net", aliases=["champion"]) == Reference("digits-net", version=1)
    (listing,) = zoo.list_models("digits-*")
    assert (listing.name, listing.kind, listing.version, listing.source) == (
        "digits-net",
        "model",
        1,
        "registry",
    )
    assert listing.aliases == (("champion", 1),)
    assert listing.card == entry.card == zoo.card("digits-net")
    assert zoo.kind("digits-net") == "model"
    loaded = zoo.load("digits-net@champion")
    assert loaded.graph == entry.graph
    assert all(bool((loaded.state[name] == tensor).all()) for name, tensor in entry.state.items())


def test_adding_again_makes_the_next_version_and_old_ones_stay(
    entry: ZooEntry, tracking_uri: str, tmp_path: Path
) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "net", aliases=["champion"])
    newer = write_entry(tmp_path / "b", entry.graph, entry.state, replace(entry.card, licence="MIT"))
    assert zoo.add(newer.path, "net", aliases=["fresh"]) == Reference("net", version=2)
    assert zoo.load("net").card.licence == "MIT"
    assert zoo.load("net/1").card.licence == zoo.load("net@champion").card.licence == "Apache-2.0"
    (listing,) = zoo.list_models("net")
    assert listing.version == 2
    assert listing.aliases == (("champion", 1), ("fresh", 2))


def test_files_go_to_the_run_that_is_named(entry: ZooEntry, tracking_uri: str) -> None:
    client = MlflowClient(tracking_uri)
    run = client.create_run("0")
    client.set_terminated(run.info.run_id)
    Zoo(tracking_uri).add(entry.path, "net", run_id=run.info.run_id, tags={"note": "from a finished trial"})
    version = MlflowClient(tracking_uri, tracking_uri).get_model_version("net", "1")
    assert version.run_id == run.info.run_id
    assert version.tags["note"] == "from a finished trial"
    shutil.rmtree(stored_folder(tracking_uri, "net").parent)  # relative to the working folder: tidy up


def test_unknown_names_are_answered_with_close_ones(entry: ZooEntry, tracking_uri: str) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "digits-net")
    with pytest.raises(UnknownNameError, match="Close: 'digits-net'"):
        zoo.load("digit-net")
    with pytest.raises(ZooError, match="has no version 7"):
        zoo.load("digits-net/7")
    with pytest.raises(ZooError, match="has no alias 'best'"):
        zoo.card("digits-net@best")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x:y"])
def test_unsafe_names_are_refused(entry: ZooEntry, tracking_uri: str, name: str) -> None:
    with pytest.raises(ZooError, match="Expected a name"):
        Zoo(tracking_uri).add(entry.path, name)


def test_looking_into_a_store_that_does_not_exist_creates_nothing(tmp_path: Path) -> None:
    zoo = Zoo(default_tracking_uri(tmp_path / "nowhere"))
    assert all(listing.source != "registry" for listing in zoo.list_models())
    with pytest.raises(UnknownNameError):
        zoo.load("net")
    assert list(tmp_path.iterdir()) == []


def test_models_of_others_in_the_same_registry_are_left_alone(entry: ZooEntry, tracking_uri: str) -> None:
    client = MlflowClient(tracking_uri, tracking_uri)
    client.create_registered_model("sklearn-model")
    client.create_model_version("sklearn-model", "s3://bucket/model")
    zoo = Zoo(tracking_uri)
    assert zoo.list_models("sk*") == ()
    with pytest.raises(UnknownNameError):
        zoo.load("sklearn-model")
    with pytest.raises(ZooError, match="no zoo entry"):
        zoo.load("sklearn-model/1")


def test_search_finds_by_words_data_and_budget(entry: ZooEntry, tracking_uri: str, tmp_path: Path) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "good")
    worse = replace(entry.card.measurements[1], value=0.01)
    card = replace(entry.card, measurements=(worse,), licence="MIT")
    zoo.add(write_entry(tmp_path / "worse", entry.graph, entry.state, card).path, "bad")
    assert [found.name for found in zoo.search()] == ["good", "bad"]
    assert [found.name for found in zoo.search("mit HAND-made")] == ["bad"]
    assert [found.name for found in zoo.search(data="digits", space="hand-made")] == ["good", "bad"]
    assert zoo.search(max_parameters=10) == zoo.search(data="mnist") == zoo.search(max_multiply_adds=1) == ()


def test_export_is_a_verified_copy_that_is_not_written_over(
    entry: ZooEntry, tracking_uri: str, tmp_path: Path
) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "net")
    exported = zoo.export("net", tmp_path / "out")
    assert exported.card == load_entry(tmp_path / "out").card == entry.card
    names = {file.name: file.read_bytes() for file in entry.path.iterdir()}
    copied = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert {name: copied.pop(name) for name in names} == names
    assert set(copied) <= {"thumbnail.svg", "embedding.json"}
    with pytest.raises(ZooError, match="--force"):
        zoo.export("net", tmp_path / "out")
    (tmp_path / "out" / "graph.json").write_text("damaged")
    zoo.export("net", tmp_path / "out", force=True)
    load_entry(tmp_path / "out")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("ten years")
    with pytest.raises(ZooError, match="no zoo entry"):
        zoo.export("net", tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_tampering_and_loss_are_noticed(entry: ZooEntry, tracking_uri: str, tmp_path: Path) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "net")
    folder = stored_folder(tracking_uri, "net")
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(ZooError, match="was changed"):
        zoo.load("net")
    with pytest.raises(ZooError, match="was changed"):
        zoo.export("net", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(folder)
    with pytest.raises(ZooError, match="have vanished"):
        zoo.load("net")
    assert zoo.card("net") == entry.card, "the registry still knows what it was"


def test_a_whole_other_entry_in_its_place_is_noticed(
    entry: ZooEntry, tracking_uri: str, tmp_path: Path
) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "net")
    folder = stored_folder(tracking_uri, "net")
    shutil.rmtree(folder)
    write_entry(folder, entry.graph, {n: t * 0 for n, t in entry.state.items()}, entry.card)
    load_entry(folder)
    with pytest.raises(ZooError, match="not the one that was registered"):
        zoo.load("net")


def test_one_damaged_card_does_not_hide_the_others(
    entry: ZooEntry, tracking_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "a")
    zoo.add(entry.path, "b")
    MlflowClient(tracking_uri, tracking_uri).set_model_version_tag("a", "1", "nasgraph.card", "{}")
    assert [(found.name, found.card is None) for found in zoo.list_models("?")] == [("a", True), ("b", False)]
    assert "version 1 of 'a'" in caplog.text
    with pytest.raises(ZooError, match="version 1 of 'a'"):
        zoo.card("a")


def _add_four(uri: str, folder: Path, start: "Barrier", numbers: "Queue[int | None]") -> None:
    start.wait(60)
    zoo = Zoo(uri)
    for _ in range(4):
        numbers.put(zoo.add(folder, "net").version)


def test_two_processes_that_add_one_name_to_a_new_store_both_succeed(entry: ZooEntry, tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "new")
    context = multiprocessing.get_context("fork")  # a fresh interpreter would import for seconds
    start, numbers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_add_four, args=(uri, entry.path, start, numbers)) for _ in range(2)]
    for process in processes:
        process.start()
    got = sorted(numbers.get(timeout=120) for _ in range(8))
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert got == list(range(1, 9))
    zoo = Zoo(uri)
    for number in got:
        zoo.load(f"net/{number}")


@pytest.fixture
def shipped(entry: ZooEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A really installed package that ships a model and a hypernetwork."""
    package = tmp_path / "site" / "shipped_zoo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copytree(entry.path, package / "shipped-net")
    (package / "shipped-ghn").mkdir()
    (package / "shipped-ghn" / "card.json").write_text(
        json.dumps({"schema": "x/1", "kind": "ghn", "data": "digits"})
    )
    (package / "notes").mkdir()
    info = tmp_path / "site" / "shipped_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shipped-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nasgraph.zoo]\nshipped = shipped_zoo\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins._entry_points.cache_clear()
    yield package
    plugins._entry_points.cache_clear()
    sys.modules.pop("shipped_zoo", None)


def test_shipped_entries_are_listed_and_loaded_without_a_store(
    shipped: Path, entry: ZooEntry, tmp_path: Path
) -> None:
    zoo = Zoo(default_tracking_uri(tmp_path / "nowhere"))
    listings = {listing.name: listing for listing in zoo.list_models("shipped-*")}
    assert set(listings) == {"shipped-net", "shipped-ghn"}
    assert listings["shipped-net"].card == entry.card
    assert (listings["shipped-ghn"].kind, listings["shipped-ghn"].source) == ("ghn", "shipped")
    assert zoo.load("shipped-net").path == shipped / "shipped-net"
    assert zoo.facts("shipped-ghn")["data"] == "digits"
    with pytest.raises(ZooError, match="graph hypernetwork"):
        zoo.load("shipped-ghn")
    with pytest.raises(ZooError, match="belongs to a shipped entry"):
        zoo.add(entry.path, "shipped-net")


def test_a_shipped_folder_of_unknown_kind_is_an_error(shipped: Path, tmp_path: Path) -> None:
    (shipped / "notes" / "card.json").write_text('{"kind": "poem"}')
    with pytest.raises(ZooError, match="'poem'"):
        Zoo(default_tracking_uri(tmp_path / "nowhere")).list_models()
