"""`nasgraph meta`: networks of one's own are grown, pruned, read and kept, with what they came from."""

from pathlib import Path

import pytest

from tests.commands.running import Cli
from tests.commands.trained import write_trained

DIGITS = ("--data", "digits", "--input-shape", "1,8,8")
SHAPE = ("--input-shape", "1,8,8")


def test_a_grown_network_computes_the_same_and_names_its_parent(cli: Cli, project: Path) -> None:
    network, _ = write_trained(project, "net", seed=0, epochs=2)
    first = cli("meta", "grow", network, "--wider", "1.5", "--deeper", "1", "-o", "grown", *DIGITS, "--json")
    assert first.code == 0, first.err
    assert first.json["output_change"] < 1e-5
    assert first.json["parameters"]["grown"] > first.json["parameters"]["before"]
    accuracy = first.json["validation_accuracy"]
    assert accuracy["grown"] == pytest.approx(accuracy["before"], abs=0.005)
    again = cli(
        "meta",
        "grow",
        "grown",
        "--random",
        "2",
        "--epochs",
        "1",
        "-o",
        "larger",
        "--data",
        "digits",
        "--json",
    )
    assert again.code == 0, again.err
    card = cli("zoo", "show", "larger", "--json").json["card"]
    assert card["lineage"]["origin"] == "edit"
    assert card["lineage"]["parent"] == "grown/1"
    assert card["measurements"], "the result is measured"


def test_a_pruned_network_is_smaller_and_comes_back_after_training(cli: Cli, project: Path) -> None:
    network, _ = write_trained(project, "net", seed=0, epochs=6)
    done = cli(
        "meta", "prune", network, "--speed-up", "2", "--epochs", "20", "-o", "small", *DIGITS, "--json"
    )
    assert done.code == 0, done.err
    costs, accuracy = done.json["multiply_adds"], done.json["validation_accuracy"]
    assert costs["pruned"] <= costs["full"] / 2
    assert accuracy["after training"] > accuracy["full"] - 0.1
    card = cli("zoo", "show", "small/1", "--json").json["card"]
    assert card["multiply_adds"] == costs["pruned"]
    assert "net.safetensors, sha256" in card["lineage"]["note"]


def test_a_metanetwork_learns_to_rewrite_and_serves_pruning(cli: Cli, project: Path) -> None:
    network, _ = write_trained(project, "net", seed=0, epochs=2)
    trained = cli(
        "meta", "train", network, "--task", "prune", "--steps", "3", "-o", "editor", *DIGITS, "--json"
    )
    assert trained.code == 0, trained.err
    assert trained.json["cross_entropy"] > 0
    pruned = cli(
        "meta",
        "prune",
        network,
        "--method",
        "meta",
        "--metanetwork",
        "editor",
        "--epochs",
        "1",
        *DIGITS,
        "--json",
    )
    assert pruned.code == 0, pruned.err
    assert pruned.json["multiply_adds"]["pruned"] < pruned.json["multiply_adds"]["full"]
    assert pruned.json["reference"] is None


def test_a_population_and_a_metanetwork_that_predicts_from_it(cli: Cli, project: Path) -> None:
    made = cli("meta", "population", "--space", "mlp", "--architectures", "2", "--each", "6", "--steps", "20", "-o", "pop", "--json")  # fmt: skip
    assert made.code == 0, made.err
    assert made.json["networks"] == 12
    trained = cli("meta", "train", "pop", "--epochs", "2", "-o", "reader", "--json")
    assert trained.code == 0, trained.err
    network, _ = write_trained(project, "net", seed=0, epochs=1)
    found = cli("meta", "predict", network, "--metanetwork", "reader", *SHAPE, "--json")
    assert found.code == 0, found.err
    assert 0 <= found.json["predictions"][0]["test_accuracy"] <= 1


def test_embeddings_compare_networks_and_heritage_finds_the_parent(cli: Cli, project: Path) -> None:
    base, path = write_trained(project, "base", seed=0, epochs=3)
    child, _ = write_trained(project, "child", seed=1, epochs=2, start=path)
    other, other_path = write_trained(project, "other", seed=7, epochs=3)
    other_child, _ = write_trained(project, "other_child", seed=8, epochs=2, start=other_path)
    found = cli("meta", "embed", base, child, other, *SHAPE, "--json").json
    assert found["cosines"][0][0] == pytest.approx(1, abs=1e-5)
    by = cli("meta", "embed", base, child, other, "--by", "statistics", *SHAPE, "--json").json["cosines"]
    assert by[0][1] > by[0][2], "the child of a network is nearer than a stranger"
    tree = cli("meta", "heritage", base, child, other, other_child, "--trees", "2", *SHAPE, "--json").json
    trees = [network["tree"] for network in tree["networks"]]
    assert trees[0] == trees[1] != trees[2] == trees[3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grow", "A"), "Say how to grow"),
        (("grow", "A", "--wider", "0.5"), "above 1"),
        (("grow", "A", "--widen", "n9.weight=4"), "n9.weight"),
        (("prune", "A", "--method", "meta"), "needs --metanetwork"),
        (("prune", "A", "--metanetwork", "x"), "has no use"),
        (("prune", "A", "--speed-up", "100000", "--epochs", "0"), "Cannot reach 100000"),
        (("train", "-o", "x", "--task", "prune"), "Name at least one NETWORK"),
        (("train", "-o", "x", "no-such-folder"), "no-such-folder"),
        (("population", "-o", "x"), "either --recipe or --space"),
        (("population", "-o", "x", "--recipe", "digit-mlp"), "digits-mlp"),
        (("heritage", "A"), "two networks or more"),
        (("embed", "A", "--by", "statistics"), "three networks or more"),
        (("predict", "A", "--metanetwork", "no-such-folder"), "no-such-folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    cli: Cli, project: Path, words: tuple[str, ...], said: str
) -> None:
    network, _ = write_trained(project, "net", seed=0, epochs=1)
    options = {"grow": SHAPE, "prune": DIGITS, "heritage": SHAPE, "predict": SHAPE, "embed": SHAPE}.get(
        words[0], ()
    )
    done = cli("meta", *(network if word == "A" else word for word in words), *options)
    assert done.code in (1, 2)
    assert said in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
