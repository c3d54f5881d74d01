"""`nasgraph ghn`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.running import Cli

ROOT = Path(__file__).resolve().parents[2]

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


STRONG = ("--ema-decay", "0.9", "--label-smoothing", "0.1", "--norm-penalty", "3e-5", "--precision", "bf16")


def test_every_option_of_a_training_stands_in_its_recipe(cli: Cli, tmp_path: Path) -> None:
    done = cli("ghn", "train", "-o", "mine", *SMALL, *STRONG, "--workers", "1", "--json")
    assert done.code == 0, done.err
    recipe = json.loads((tmp_path / "mine" / "config.json").read_text())["recipe"]
    settings = {"ema_decay": 0.9, "label_smoothing": 0.1, "norm_penalty": 3e-5, "precision": "bf16"}
    assert recipe["train"].items() >= settings.items()
    assert (recipe["training_architectures"], recipe["split_list"]) == (2**20, 1)
    again = cli("ghn", "train", "-o", "again", *SMALL, *STRONG, "--json")
    assert again.code == 0, again.err
    first, second = (tmp_path / name / "weights.safetensors" for name in ("mine", "again"))
    assert first.read_bytes() == second.read_bytes()  # whoever drew the architectures
    without_average = cli("ghn", "train", "-o", "again", *SMALL, "--resume", "--json")
    assert without_average.code == 1
    assert "begun with another 'train'" in without_average.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--label-smoothing", "1"), "'label_smoothing' from 0 to below 1"),
        (("--ema-decay", "-1"), "'ema_decay' from 0 to below 1"),
        (("--norm-penalty", "-1"), "'norm_penalty' of at least 0"),
    ],
)
def test_impossible_options_are_explained(cli: Cli, option: tuple[str, str], message: str) -> None:
    done = cli("ghn", "train", "-o", "mine", *SMALL, *option)
    assert done.code == 2
    assert message in done.err


def test_splits_are_measured_beside_random_weights(cli: Cli) -> None:
    done = cli("ghn", "eval", "ghn-digits", "--split", "id_test", "--split", "norm_free", "--split", "predefined",
               "--count", "2", "--num-examples", "50", "--json")  # fmt: skip
    assert done.code == 0, done.err
    report = done.json["evaluation"]
    assert list(report) == ["id_test", "norm_free", "predefined"]
    for row in report.values():
        assert row["architectures"] == 2
        assert 0 <= row["random_weights"] <= 1
        assert 0 <= row["predicted_weights"] <= row["predicted_weights_best"] <= 1
        assert row["predicted_weights_std"] >= 0
    assert report["id_test"]["predicted_weights"] > report["id_test"]["random_weights"]


def test_an_unknown_split_is_refused_with_close_names(cli: Cli) -> None:
    done = cli("ghn", "eval", "ghn-digits", "--split", "deeper")
    assert done.code == 2
    assert "Close: 'deep'" in done.err


@pytest.mark.slow
def test_torchrun_trains_one_hypernetwork_and_prints_one_result(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "cli.py")]
    done = subprocess.run(
        [sys.executable, *launcher, "ghn", "train", "-o", "mine", *SMALL, "--device", "cpu", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    assert (tmp_path / "mine" / "weights.safetensors").exists()


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
