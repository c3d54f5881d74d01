"""`nasgraph spaces`."""

from tests.commands.running import Cli

SPACES = {"convnet", "mlp", "nasbench201", "vit"}


def test_list_names_all_spaces_with_a_summary(cli: Cli) -> None:
    listed = cli("spaces", "list", "--json").json["spaces"]
    assert {space["name"] for space in listed} >= SPACES
    assert all(space["summary"] for space in listed)
    assert "cannot be loaded" not in cli("spaces", "list").out


def test_show_lists_choices_with_their_options(cli: Cli) -> None:
    shown = cli("spaces", "show", "nasbench201", "--json").json
    assert len(shown["choices"]) == 6
    assert all(len(choice["options"]) == 5 for choice in shown["choices"])
    sizes = shown["num_parameters"]
    assert sizes["least"] <= sizes["median"] <= sizes["most"]
    assert "gelu" in cli("spaces", "show", "mlp").out


def test_samples_are_targets_of_other_commands(cli: Cli) -> None:
    drawn = cli("spaces", "sample", "convnet", "--count", "3", "--seed", "5", "--json").json
    assert drawn["seed"] == 5
    assert [sample["target"] for sample in drawn["samples"]] == ["convnet:5", "convnet:6", "convnet:7"]
    shown = cli("show", "convnet:7", "--json").json
    names = ("fingerprint", "choices", "num_nodes", "num_parameters", "multiply_adds")
    assert {name: shown[name] for name in names} == {name: drawn["samples"][2][name] for name in names}


def test_the_same_seed_gives_the_same_samples_and_another_gives_others(cli: Cli) -> None:
    first = cli("spaces", "sample", "vit", "--json").out
    assert cli("spaces", "sample", "vit", "--json", "--seed", "0").out == first
    assert cli("spaces", "sample", "vit", "--json", "--seed", "1").out != first


def test_samples_fit_the_data(cli: Cli) -> None:
    sample = cli("show", "convnet:1", "--input-shape", "3x16x16", "--classes", "7", "--json").json
    assert (sample["input_shapes"], sample["output_shapes"]) == ([[3, 16, 16]], [[7]])


def test_count_stops_at_the_limit_and_says_so(cli: Cli) -> None:
    finished = cli("spaces", "count", "mlp", "--limit", "40", "--json")
    assert finished.json == {"space": "mlp", "num_architectures": 40, "num_graphs": 40, "complete": False}
    assert "--limit" in finished.err
    assert "at least 40" in cli("spaces", "count", "mlp", "--limit", "40").out


def test_a_space_that_does_not_serve_the_shape_says_so(cli: Cli) -> None:
    finished = cli("spaces", "sample", "nasbench201", "--input-shape", "64")
    assert finished.code == 1
    assert "expects images" in finished.err
