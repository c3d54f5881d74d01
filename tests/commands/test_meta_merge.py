"""`nasgraph meta merge`: arithmetic on the weights of a user's own networks, with what it came from."""

from pathlib import Path

import pytest

from nasgraph.modelzoo.store import Zoo
from tests.commands.running import Cli
from tests.commands.trained import write_trained

DIGITS = ("--data", "digits", "--input-shape", "1,8,8")


def test_fine_tunes_of_one_network_merge_into_an_entry_with_its_ingredients(cli: Cli, project: Path) -> None:
    base, path = write_trained(project, "base", seed=0)
    first, _ = write_trained(project, "first", seed=1, epochs=1, start=path)
    second, _ = write_trained(project, "second", seed=2, epochs=1, start=path)
    done = cli("meta", "merge", first, second, "-o", "merged", *DIGITS, "--json")
    assert done.code == 0, done.err
    accuracy = done.json["validation_accuracy"]
    assert accuracy["merged"] > max(accuracy.values()) - 0.03
    assert done.json["reference"] == "merged/1"
    card = cli("zoo", "show", "merged", "--json").json["card"]
    assert card["lineage"]["origin"] == "merge"
    assert len(card["lineage"]["ingredients"]) == 2
    assert "first.safetensors, sha256" in card["lineage"]["note"]
    (version,) = Zoo().registry.versions("merged")
    again = cli(
        "meta",
        "merge",
        f"run:{version.run_id}",
        second,
        "--method",
        "ties",
        "--base",
        base,
        *DIGITS,
        "--json",
    )
    assert again.json["reference"] is None, "nothing is kept without a name"
    assert again.json["validation_accuracy"]["merged"] > 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("A",), "Expected two networks"),
        (("A", "A", "--method", "ties"), "'ties' needs --base"),
        (("A", "A", "--base", "A"), "'linear' has no use for --base"),
        (("net.py:small", "A"), "has no weights"),
        (("a.safetensors", "A"), "weights without a model"),
        (("net.py:small+missing.safetensors", "A"), "There is no file 'missing.safetensors'"),
        (("A", "nothing-of-that-name"), "nothing-of-that-name"),
        (("A", "run:0123"), "registered no model"),
    ],
)
def test_what_cannot_be_merged_is_said(cli: Cli, project: Path, words: tuple[str, ...], said: str) -> None:
    network, _ = write_trained(project, "a", seed=0, epochs=1)
    done = cli("meta", "merge", *(network if word == "A" else word for word in words), *DIGITS)
    assert done.code in (1, 2)
    assert said in done.err
