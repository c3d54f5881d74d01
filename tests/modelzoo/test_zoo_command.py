"""`nasgraph zoo` as people and programs call it."""

import json
from pathlib import Path

import pytest

from nasgraph.modelzoo import ZooEntry, load_entry
from nasgraph.modelzoo.store import Zoo
from tests.commands.running import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def store(entry: ZooEntry, tracking_uri: str) -> tuple[str, str]:
    """A store with two versions of one model; the words that name it."""
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "digits-net", aliases=["champion"])
    zoo.add(entry.path, "digits-net")
    return ("--tracking-uri", tracking_uri)


def test_list_shows_registered_models(cli: Cli, store: tuple[str, str], entry: ZooEntry) -> None:
    done = cli("zoo", "list", "digits-n*", *store)
    assert done.code == 0
    assert "digits-net" in done.out
    (model,) = cli("zoo", "list", "digits-n*", *store, "--json").json["models"]
    test = entry.card.measured("test")
    assert test is not None
    assert model["test_accuracy"] == test.value
    assert (model["version"], model["aliases"], model["source"]) == (2, {"champion": 1}, "registry")


def test_list_says_so_if_nothing_matches(cli: Cli, store: tuple[str, str]) -> None:
    done = cli("zoo", "list", "nothing*", *store)
    assert (done.code, "nasgraph search" in done.err) == (0, True)
    assert cli("zoo", "list", "nothing*", *store, "--json").json == {"models": []}


def test_show_prints_the_card(cli: Cli, store: tuple[str, str], entry: ZooEntry) -> None:
    done = cli("zoo", "show", "digits-net@champion", *store)
    assert entry.card.fingerprint in done.out
    shown = cli("zoo", "show", "digits-net", *store, "--json").json
    assert shown["card"]["fingerprint"] == entry.card.fingerprint
    assert shown["kind"] == "model"


def test_show_knows_the_shipped_hypernetworks(cli: Cli, store: tuple[str, str]) -> None:
    listed = cli("zoo", "list", *store, "--json").json["models"]
    ghns = [model["name"] for model in listed if model["kind"] == "ghn"]
    for name in ghns:
        assert cli("zoo", "show", name, *store, "--json").json["kind"] == "ghn"
        assert cli("zoo", "show", name, *store).code == 0


def test_load_reports_that_the_recorded_accuracy_was_reproduced(cli: Cli, store: tuple[str, str]) -> None:
    loaded = cli("zoo", "load", "digits-net", *store, "--json").json
    assert loaded["verified"] is True
    assert [check["split"] for check in loaded["checks"]] == ["validation", "test"]


def test_verify_measures_again(cli: Cli, store: tuple[str, str]) -> None:
    done = cli("zoo", "verify", "digits-net/1", *store)
    assert done.code == 0
    assert "test" in done.out


def test_export_writes_an_entry_once(cli: Cli, store: tuple[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert cli("zoo", "export", "digits-net", out, *store, "--json").json["folder"] == out
    load_entry(Path(out))
    again = cli("zoo", "export", "digits-net", out, *store)
    assert again.code == 1
    assert "--force" in again.err
    assert cli("zoo", "export", "digits-net", out, *store, "--force").code == 0


def test_an_unknown_name_is_one_clear_line(cli: Cli, store: tuple[str, str]) -> None:
    done = cli("zoo", "load", "digit-net", *store)
    assert done.code == 2
    assert (
        done.err.strip()
        .splitlines()[-1]
        .startswith("error: No model in the zoo named 'digit-net'. Close: 'digits-net'")
    )


def test_an_unreachable_server_is_one_clear_line(cli: Cli) -> None:
    done = cli("zoo", "list", "--tracking-uri", "http://127.0.0.1:9")
    assert (done.code, done.out) == (1, "")
    assert "does not answer" in done.err


def test_a_name_that_leaves_the_zoo_is_refused(cli: Cli, store: tuple[str, str]) -> None:
    done = cli("zoo", "load", "../../etc/passwd", *store)
    assert done.code == 1
    assert "Expected 'name'" in done.err


def test_stdout_has_one_json_object_even_when_the_store_is_new(cli: Cli, tmp_path: Path) -> None:
    done = cli("zoo", "list", "--tracking-uri", f"sqlite:///{tmp_path}/new.db", "--json")
    assert isinstance(json.loads(done.out), dict)
