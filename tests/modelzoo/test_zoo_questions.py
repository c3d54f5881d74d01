"""`nasgraph zoo` as people add models with it, ask it, and merge what is there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nasgraph.ir import graph_to_json
from nasgraph.modelzoo import ZooEntry, write_entry
from nasgraph.modelzoo.store import Zoo
from tests.commands.running import Cli

OWN = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def store(tracking_uri: str) -> tuple[str, str]:
    return ("--tracking-uri", tracking_uri)


def test_a_model_of_ones_own_is_added_measured_and_verified(
    cli: Cli, store: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    source = f"{tmp_path / 'own.py'}:network"
    done = cli(
        "zoo", "add", source, "own", "--data", "digits", "--alias", "fastest", "--pack", *store, "--json"
    )
    assert done.code == 0, done.err
    assert done.json["reference"] == "own/1"
    metrics = {(m["split"], m["metric"]): m["value"] for m in done.json["measurements"]}
    assert 0 <= metrics["test", "accuracy"] <= 1
    card = cli("zoo", "show", "own@fastest", *store, "--json").json["card"]
    assert card["lineage"]["origin"] == "import"
    assert card["lineage"]["note"] == source
    assert card["latencies"][0]["median_s"] > 0
    verified = cli("zoo", "verify", "own", *store, "--json")
    assert verified.json["verified"] is True
    assert len(verified.json["checks"]) == len(metrics)


def test_checkpoints_and_entries_are_added(
    cli: Cli, store: tuple[str, str], tmp_path: Path, entry: ZooEntry
) -> None:
    (tmp_path / "graph.json").write_text(graph_to_json(entry.graph))
    save_file(dict(entry.state), tmp_path / "w.safetensors")
    words = ("--weights", str(tmp_path / "w.safetensors"), "--licence", "MIT")
    assert cli("zoo", "add", str(tmp_path / "graph.json"), "mine", *words, *store).code == 0
    assert cli("zoo", "add", str(entry.path), "mine", *store, "--json").json["reference"] == "mine/2"
    torch.save(dict(entry.state), tmp_path / "w.pt")
    refused = cli(
        "zoo", "add", str(tmp_path / "graph.json"), "mine", "--weights", str(tmp_path / "w.pt"), *store
    )
    assert (refused.code, "pickle" in refused.err) == (1, True)
    unknown = cli("zoo", "add", "somewhere", "mine", *store)
    assert (unknown.code, "Expected SOURCE" in unknown.err) == (2, True)


def test_aliases_come_and_go(cli: Cli, store: tuple[str, str], entry: ZooEntry) -> None:
    for _ in range(2):
        Zoo(store[1]).add(entry.path, "net")
    assert cli("zoo", "alias", "net/1", "champion", *store).code == 0
    assert Zoo(store[1]).catalogue.row("net@champion").version == 1
    assert cli("zoo", "alias", "net", "champion", *store).code == 0
    assert Zoo(store[1]).catalogue.row("net@champion").version == 2
    assert cli("zoo", "alias", "net", "champion", "--remove", *store).code == 0
    assert Zoo(store[1]).catalogue.row("net").aliases == ()
    assert cli("zoo", "alias", "net", "latest", *store).code == 1
    assert "shipped" in cli("zoo", "alias", "ghn-digits", "mine", *store).err


def test_similar_models_are_found_for_entries_graphs_and_samples(
    cli: Cli, store: tuple[str, str], tmp_path: Path, entry: ZooEntry
) -> None:
    zoo = Zoo(store[1])
    zoo.add(entry.path, "one")
    zoo.add(entry.path, "two")
    (tmp_path / "graph.json").write_text(graph_to_json(entry.graph))
    (found,) = cli("zoo", "similar", "one", *store, "--json").json["similar"]
    assert found["reference"] == "two/1"
    assert found["similarity"] == pytest.approx(1, abs=1e-4)
    explained = cli("zoo", "similar", str(tmp_path / "graph.json"), "--explain", *store, "--json").json[
        "similar"
    ]
    assert {one["reference"] for one in explained} == {"one/1", "two/1"}
    assert all(one["in_common"].startswith("100% of it") for one in explained)
    assert len(cli("zoo", "similar", "convnet:1", "-n", "1", *store, "--json").json["similar"]) == 1
    assert cli("zoo", "similar", "thre", *store).code == 2


def test_models_are_compared_side_by_side(
    cli: Cli, store: tuple[str, str], tmp_path: Path, entry: ZooEntry
) -> None:
    zoo = Zoo(store[1])
    zoo.add(entry.path, "one")
    other = write_entry(tmp_path / "other", entry.graph, entry.state, replace(entry.card, licence="MIT"))
    zoo.add(other.path, "two")
    done = cli("zoo", "compare", "one", "two", *store)
    assert "MIT" in done.out
    assert "digits" not in done.out, "what is the same is not shown"
    facts = cli("zoo", "compare", "one", "two", *store, "--json").json["facts"]
    assert facts["licence"] == ["Apache-2.0", "MIT"]
    assert cli("zoo", "compare", "one", *store).code == 1


def test_a_soup_is_registered_with_its_lineage(
    cli: Cli, store: tuple[str, str], tmp_path: Path, entry: ZooEntry
) -> None:
    zoo = Zoo(store[1])
    zoo.add(entry.path, "base")
    noise = torch.Generator().manual_seed(1)
    near = {
        name: tensor + 0.01 * tensor.abs().mean() * torch.randn(tensor.shape, generator=noise) if tensor.is_floating_point() else tensor
        for name, tensor in entry.state.items()
    }  # fmt: skip
    zoo.add(write_entry(tmp_path / "near", entry.graph, near, entry.card).path, "near")
    done = cli("zoo", "soup", "base", "near", "-o", "soup", *store, "--json")
    assert done.code == 0, done.err
    result = done.json
    accuracies = result["validation_accuracy"]
    assert accuracies["soup/1"] >= max(accuracies["base/1"], accuracies["near/1"])
    lineage = cli("zoo", "show", "soup", *store, "--json").json["card"]["lineage"]
    assert lineage["origin"] == "merge"
    assert set(lineage["ingredients"]) <= {"base/1", "near/1"}
    assert cli("zoo", "verify", "soup", *store).code == 0
    assert cli("zoo", "soup", "base", "-o", "soup", *store).code == 1
    unknown = cli("zoo", "soup", "base", "near", "-o", "x", "--method", "stew", *store)
    assert (unknown.code, "greedy" in unknown.err) == (2, True)


def test_the_server_explains_itself(cli: Cli) -> None:
    done = cli("zoo", "serve", "--help")
    assert done.code == 0
    assert "--port" in done.out
    assert json.dumps("127.0.0.1").strip('"') in done.out


def test_models_are_ranked_for_a_data_set(
    cli: Cli, store: tuple[str, str], entry: ZooEntry, tmp_path: Path
) -> None:
    zoo = Zoo(store[1])
    zoo.add(entry.path, "trained")
    blank = {
        name: torch.zeros_like(tensor) if "weight" in name else tensor for name, tensor in entry.state.items()
    }
    zoo.add(write_entry(tmp_path / "blank", entry.graph, blank, entry.card).path, "blank")
    ranked = cli("zoo", "for-data", "digits", "--per-class", "10", *store, "--json").json["models"]
    assert [one["reference"] for one in ranked] == ["trained/1", "blank/1"]
    assert cli("zoo", "for-data", "digits", "--max-parameters", "10", *store, "--json").json["models"] == []
    assert cli("zoo", "for-data", "digits", "--method", "guess", *store).code == 2
    assert cli("zoo", "for-data", "nowhere.npz", *store).code == 1


def test_models_leave_the_zoo_in_every_form(
    cli: Cli, store: tuple[str, str], entry: ZooEntry, tmp_path: Path
) -> None:
    Zoo(store[1]).add(entry.path, "net")
    for form, target in (("entry", "a"), ("source", "b"), ("onnx", "net.onnx")):
        done = cli("zoo", "export", "net", str(tmp_path / target), "--form", form, *store, "--json")
        assert done.code == 0, done.err
        assert (tmp_path / target).exists()
        assert done.json["form"] == form
        assert cli("zoo", "export", "net", str(tmp_path / target), "--form", form, *store).code == 1
    assert cli("zoo", "export", "net", str(tmp_path / "x"), "--form", "pickle", *store).code == 2
    done = cli("zoo", "push-hub", "net", "me/net", "--folder", str(tmp_path / "hub"), *store, "--json")
    assert done.code == 0, done.err
    assert done.json["address"] is None
    assert "README.md" in done.json["files"]
    assert cli("zoo", "push-hub", "net", "no name", "--folder", str(tmp_path / "c"), *store).code == 1


def test_facts_are_measured_again_and_registered(cli: Cli, store: tuple[str, str], entry: ZooEntry) -> None:
    Zoo(store[1]).add(entry.path, "net")
    done = cli("zoo", "measure", "net", *store, "--json")
    assert done.code == 0, done.err
    assert done.json["reference"] == "net/2"
    assert {"ece", "nll", "accuracy@noise=0.1"} <= {m["metric"] for m in done.json["measurements"]}
    assert cli("zoo", "verify", "net/2", *store, "--json").json["verified"] is True
    assert Zoo(store[1]).catalogue.row("net/2").latency_ms is not None
