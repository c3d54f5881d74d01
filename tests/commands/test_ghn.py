"""`nasgraph ghn` and `nasgraph predict`."""

import json
from pathlib import Path

import pytest

from tests.commands.running import Cli

SMALL = (
    "--space",
    "mlp",
    "--dim",
    "16",
    "--layers",
    "1",
    "--steps",
    "4",
    "--meta-batch",
    "2",
    "--batch-size",
    "8",
)


pytestmark = pytest.mark.usefixtures("project")


def test_a_trained_hypernetwork_is_recorded_and_serves_a_search(cli: Cli, tmp_path: Path) -> None:
    trained = cli("ghn", "train", "-o", "mine", "--dim", "16", *SMALL[4:], "--space", "mlp", "--json")
    assert trained.code == 0, trained.err
    recipe = json.loads((tmp_path / "mine" / "config.json").read_text())["recipe"]
    assert (recipe["data"], recipe["spaces"], recipe["input_shape"]) == ("digits", ["mlp"], [1, 8, 8])
    assert set(trained.json["evaluation"]) == {"mlp"}
    evaluated = cli("ghn", "eval", "mine", "--count", "3", "--json")
    assert evaluated.code == 0, evaluated.err
    searched = cli("search", "--ghn", "mine", "--space", "mlp", "--trials", "1", "--screened", "2", "--kept", "1",
                   "--epochs", "1", "--final-epochs", "1", "--json")  # fmt: skip
    assert searched.code == 0, searched.err
    assert searched.json["screened"] == 2


def test_a_second_training_in_one_folder_needs_resume(cli: Cli) -> None:
    assert cli("ghn", "train", "-o", "mine", *SMALL, "--json").code == 0
    refused = cli("ghn", "train", "-o", "mine", *SMALL)
    assert refused.code == 1
    assert "resume" in refused.err
    other = cli("ghn", "train", "-o", "mine", *SMALL, "--seed", "5", "--resume")
    assert other.code == 1
    assert "begun with another 'train'" in other.err
    elsewhere = cli("ghn", "train", "-o", "mine", *SMALL, "--image-size", "12", "--resume")
    assert elsewhere.code == 1
    assert "begun with another 'image_size'" in elsewhere.err
    assert cli("ghn", "train", "-o", "mine", *SMALL, "--resume", "--json").code == 0


def test_wrong_settings_of_a_hypernetwork_are_explained(cli: Cli) -> None:
    done = cli("ghn", "train", "-o", "mine", "--encoder", "magic", "--json")
    assert done.code == 2
    assert "gated" in done.err


def test_a_broken_checkpoint_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("ghn", "train", "-o", "mine", *SMALL, "--json").code == 0
    weights = tmp_path / "mine" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    done = cli("ghn", "eval", "mine", "--count", "1")
    assert done.code == 1
    assert "checksum" in done.err


def test_shipped_hypernetworks_are_listed(cli: Cli) -> None:
    done = cli("ghn", "list", "--json")
    assert done.code == 0
    assert "ghn-digits" in [item["name"] for item in done.json["ghns"]]


def test_an_architecture_is_scored_beside_random_ones(cli: Cli) -> None:
    done = cli("predict", "mlp:3", "--compare", "4", "--tune-steps", "2", "--json")
    assert done.code == 0, done.err
    assert 0 <= done.json["scores"]["ghn_accuracy"] <= 1
    assert done.json["compared_with"] == 4
    assert done.json["num_parameters"] > 0


def test_an_architecture_of_another_shape_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("show", "mlp:0", "--input-shape", "1,4,4", "-o", "graph.json").code == 0
    done = cli("predict", "graph.json", "--space", "mlp")
    assert done.code == 2
    assert "reads" in done.err


def test_without_a_hypernetwork_there_is_no_score(cli: Cli, tmp_path: Path) -> None:
    done = cli("predict", "mlp:0", "--ghn", "none")
    assert done.code == 2
    assert "nasgraph ghn train" in done.err
