"""Populations on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.data import load_dataset
from nasgraph.errors import NasGraphError, UnknownNameError
from nasgraph.files import canonical_json, parse_json
from nasgraph.meta.population import (
    PRESETS,
    Family,
    Population,
    PopulationError,
    Ranges,
    Recipe,
    families_from_space,
    initial_stack,
    load_sample_population,
    measure_stack,
    perceptron,
    preset,
    recipe_from_json,
    shifted_split,
    stack_states,
    train_population,
)
from nasgraph.modules import check_state, run_network
from nasgraph.spaces import load_space

FAST = Ranges(steps=(2, 8))
RECIPE = Recipe(
    name="small",
    data="digits",
    families=(
        Family(name="a", graph=perceptron((6,)), count=11),
        Family(name="b", graph=perceptron((8,), norm="batch"), count=4, split="unseen-width"),
        Family(name="c", graph=perceptron((6,)), count=5, parent="a"),
    ),
    ranges=FAST,
    snapshots=(0.5,),
    shard_size=4,
    num_probes=7,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("population") / "small"
    train_population(RECIPE, folder)
    return folder


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [4, 11, 20])
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, after: int
) -> None:
    def kill(done: int, total: int) -> None:
        assert total == 20
        if done >= after:
            raise _KilledError

    with pytest.raises(_KilledError):
        train_population(RECIPE, tmp_path / "p", progress=kill)
    with pytest.raises(PopulationError, match="not finished"):
        Population.open(tmp_path / "p")
    train_population(RECIPE, tmp_path / "p")
    assert _bytes_of(tmp_path / "p") == _bytes_of(folder)


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "description"])
def test_a_damaged_shard_is_an_error_to_read_and_repaired_by_training(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    for name, content in _bytes_of(folder).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "shards" / "00001.safetensors"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        path.unlink()
    else:
        path.with_suffix(".json").write_text('{"schema": ')
    if damage != "description":
        with pytest.raises(PopulationError, match="train the recipe into the folder again"):
            Population.open(tmp_path).member(5)
    assert len(train_population(RECIPE, tmp_path)) == 20
    assert _bytes_of(tmp_path) == _bytes_of(folder)


def test_a_full_disk_is_one_clear_error_and_training_goes_on_afterwards(folder: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # no file may be longer
    try:
        with pytest.raises(NasGraphError, match=r"Cannot write .*00000\.safetensors"):
            train_population(RECIPE, tmp_path / "p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    train_population(RECIPE, tmp_path / "p")
    assert _bytes_of(tmp_path / "p") == _bytes_of(folder)


def test_a_folder_of_another_recipe_or_of_other_files_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PopulationError, match="another recipe"):
        train_population(replace(RECIPE, seed=1), folder)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(PopulationError, match="holds files but no"):
        train_population(RECIPE, tmp_path)
    with pytest.raises(PopulationError, match="No population"):
        Population.open(tmp_path)
    (tmp_path / "population.json").write_text("{}")
    with pytest.raises(PopulationError, match="schema"):
        Population.open(tmp_path)


def test_a_member_has_what_was_measured_of_it(folder: Path) -> None:
    population, data = Population.open(folder), load_dataset("digits")
    probes = data.search.validation.inputs[:7]
    for index in (0, 10, 12, 19):
        member = population.member(index)
        check_state(member.graph, member.state)
        check_state(member.graph, member.initial)
        for split, examples in (("test", data.test), ("shifted", shifted_split(data.test))):
            (logits,) = run_network(member.graph, member.state, [examples.inputs])
            accuracy = float((logits.argmax(1) == examples.targets).float().mean())
            assert member.measured[f"{split}_accuracy"] == pytest.approx(accuracy)
        (logits,) = run_network(member.graph, member.state, [probes])
        torch.testing.assert_close(member.probe_logits, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(population.probe_logits([index])[0], member.probe_logits)
        assert len(member.losses) == member.settings.steps
        assert member.losses.isfinite().all()
        assert member.snapshot_steps == (round(0.5 * member.settings.steps),)
        check_state(member.graph, member.snapshots[0])
    with pytest.raises(IndexError, match="0 to 19"):
        population.member(20)


def test_stacks_and_members_agree(folder: Path) -> None:
    population = Population.open(folder)
    indices = [9, 0, 3, 10, 17]
    for kind in ("final", "initial", "snapshot0"):
        stack = population.stack(indices, kind)
        members = [population.member(index) for index in indices]
        states = [{"final": m.state, "initial": m.initial}.get(kind, m.snapshots[0]) for m in members]
        for name, tensor in stack_states(states).items():
            assert torch.equal(tensor, stack[name])
    with pytest.raises(PopulationError, match="by_architecture"):
        population.stack([0, 12])
    with pytest.raises(PopulationError, match="kind 'snapshot1'"):
        population.stack([0], "snapshot1")
    groups = list(population.by_architecture())
    assert sorted(np.concatenate([group.indices for group in groups]).tolist()) == list(range(20))
    assert [len(group.indices) for group in groups] == [16, 4]  # "a" and "c" share an architecture
    data = load_dataset("digits")
    _, accuracy = measure_stack(groups[0].graph, groups[0].state, data.test)
    np.testing.assert_allclose(
        accuracy.numpy(), population.table["test_accuracy"][groups[0].indices], atol=1e-6
    )


def test_children_start_where_their_parents_ended_and_stand_in_their_split(folder: Path) -> None:
    population = Population.open(folder)
    for index in population.select(family="c"):
        child = population.member(int(index))
        parent = population.member(child.parent)
        assert (child.edit, parent.parent) == ("fine-tune", -1)
        assert child.split == parent.split
        for name, tensor in parent.state.items():
            assert torch.equal(child.initial[name], tensor)


def test_initial_weights_that_are_not_stored_are_drawn_again(folder: Path, tmp_path: Path) -> None:
    lean = train_population(replace(RECIPE, store_initial=False), tmp_path / "lean")
    full = Population.open(folder)
    for index in (2, 13, 18):
        for name, tensor in full.member(index).initial.items():
            assert torch.equal(lean.member(index).initial[name], tensor)
            assert torch.equal(lean.stack([index], "initial")[name][0], tensor)
    settings = [full.settings(index) for index in range(3)]
    for name, tensor in initial_stack(full.graph(0), settings).items():
        assert torch.equal(full.stack([0, 1, 2], "initial")[name], tensor)


@pytest.mark.parametrize("name", PRESETS)
def test_splits_of_presets_are_whole_and_unseen_ones_are_unseen(name: str) -> None:
    recipe = preset(name)
    assert recipe_from_json(parse_json(canonical_json(recipe.to_json())), source="text") == recipe
    seen: set[tuple[str, object]] = set()
    unseen: set[tuple[str, object]] = set()
    labels: list[str] = []
    for family in recipe.families:
        splits = recipe.splits(family)
        labels += splits
        assert len(splits) == family.count
        kinds = {
            "unseen-width": tuple(spec.shape for spec in family.graph.parameters.values()),
            "unseen-depth": len(family.graph.parameters),
            "unseen-activation": tuple(node.op for node in family.graph.nodes),
            "unseen-family": tuple(node.op for node in family.graph.nodes),
        }
        for label, fact in kinds.items():
            (unseen if family.split == label else seen).add((label, fact))
        classes = [settings.classes for settings in recipe.settings(family)]
        of = {
            part: {c for c, s in zip(classes, splits, strict=True) if (s == "unseen-classes") == part}
            for part in (True, False)
        }
        assert not of[True] & of[False]
        if name == "digits-subsets":
            assert (len(of[True]), len(of[False])) == (52, 200)
    assert not {fact for fact in unseen if fact in seen}
    assert "train" in labels


def test_the_digits_preset_is_divided_as_promised() -> None:
    recipe = preset("digits-mlp")
    labels = recipe.splits(recipe.families[0])
    assert {label: labels.count(label) for label in set(labels)} == {"train": 1350, "val": 150, "test": 500}
    with pytest.raises(UnknownNameError, match="digits-mlp"):
        preset("digits-mpl")


def test_families_come_from_a_search_space_with_their_choices() -> None:
    space = load_space("mlp", input_shape=(1, 8, 8), num_classes=10)
    families = families_from_space(space, architectures=5, count=2, seed=1)
    assert len({family.graph.fingerprint for family in families}) == 5
    assert all(family.architecture is not None for family in families)
    assert families == families_from_space(space, architectures=5, count=2, seed=1)


def test_recipes_that_make_no_sense_are_refused() -> None:
    family = RECIPE.families[0]
    with pytest.raises(PopulationError, match="no name twice"):
        replace(RECIPE, families=(family, family))
    with pytest.raises(PopulationError, match="does not stand before"):
        replace(RECIPE, families=(RECIPE.families[2], family))
    with pytest.raises(PopulationError, match="another architecture than its parent"):
        replace(RECIPE, families=(family, replace(RECIPE.families[1], parent="a")))
    with pytest.raises(PopulationError, match="Known: "):
        load_sample_population().select(split="tset")


def test_the_sample_that_ships_is_small_whole_and_spread() -> None:
    sample = load_sample_population()
    assert len(sample) == 200
    assert sum(path.stat().st_size for path in sample.folder.rglob("*")) < 2_000_000
    accuracy = sample.table["test_accuracy"]
    assert accuracy.min() < 0.2 < 0.6 < float(np.median(accuracy)) < 0.95 < accuracy.max()
    member = sample.member(199)
    assert sample.member(member.parent).graph == member.graph
    assert {"train", "val", "test", "unseen-width"} == set(sample.table["split"].tolist())
