"""The main job in miniature: search, final training, one look at the test data, a zoo entry."""

from pathlib import Path

import optuna
import pytest
import torch

from nasgraph.data import load_dataset
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError, UnknownNameError
from nasgraph.evaluate import measure
from nasgraph.modelzoo import load_entry
from nasgraph.modules import Program
from nasgraph.pipeline import (
    SearchSettings,
    TrainingSettings,
    Workspace,
    find_ghn,
    finish,
    load_ingredients,
    new_study_name,
    open_study,
    pick_device,
    recipe_of,
    search,
    shipped_ghns,
    studies_in,
    train_config,
)
from nasgraph.pipeline.publish import write_winner
from nasgraph.pipeline.run import pruner_of
from nasgraph.search import TrialState

SMALL = SearchSettings(
    space="mlp",
    trials=3,
    screened=6,
    kept=2,
    train=TrainingSettings(epochs=1),
    final=TrainingSettings(epochs=2),
)


def test_a_small_search_ends_in_an_entry_that_reproduces_its_accuracy(tmp_path: Path) -> None:
    parts = load_ingredients(SMALL)
    assert parts.ghn_name == "ghn-digits"
    workspace = Workspace(tmp_path, "study")
    result = search(parts, open_study(parts, workspace, resume=False))
    assert len(result.trials) == 3
    assert [item.kept for item in result.screened] == [True, True, False, False, False, False]
    assert {"val_accuracy_random_init", "val_accuracy_predicted_init"} <= set(result.trials[0].metrics)
    final = finish(parts, result)
    entry = write_winner(tmp_path / "entry", "small", parts, result, final)
    test = entry.card.measured("test")
    assert test is not None
    assert test.value == final.test_accuracy
    again = load_entry(tmp_path / "entry")
    loss, accuracy = measure(Program(again.graph), again.state, parts.data.test, batch_size=test.batch_size)
    assert (loss, accuracy) == (final.test_loss, final.test_accuracy)
    assert entry.card.lineage.ghn == "ghn-digits"


def test_a_resumed_search_repeats_nothing_and_ends_the_same(tmp_path: Path) -> None:
    parts = load_ingredients(SMALL.model_copy(update={"screened": 0, "kept": 0}))
    straight = search(parts, open_study(parts, Workspace(tmp_path, "straight"), resume=False))
    short = load_ingredients(SMALL.model_copy(update={"screened": 0, "kept": 0, "trials": 1}))
    workspace = Workspace(tmp_path, "halting")
    search(short, open_study(short, workspace, resume=False))
    resumed = search(parts, open_study(parts, workspace, resume=True))
    assert [t.candidate for t in resumed.trials] == [t.candidate for t in straight.trials]
    assert [t.metrics["val_accuracy"] for t in resumed.trials] == [
        t.metrics["val_accuracy"] for t in straight.trials
    ]


def test_the_shipped_hypernetwork_is_found_for_its_data_only() -> None:
    digits = load_dataset("digits").search
    assert "ghn-digits" in shipped_ghns()
    assert find_ghn("auto", digits, "convnet") == shipped_ghns()["ghn-digits"]
    assert find_ghn("auto", digits, "no-such-space") is None
    assert find_ghn("none", digits, "convnet") is None
    larger = load_dataset("digits", image_size=12).search
    assert find_ghn("auto", larger, "convnet") is None
    with pytest.raises(CheckpointError, match="predicts for inputs"):
        find_ghn("ghn-digits", larger, "convnet")
    with pytest.raises(UnknownNameError, match="ghn-digits"):
        find_ghn("ghn-digit", digits, "convnet")


def test_the_shipped_hypernetwork_states_its_recipe_and_is_small() -> None:
    folder = shipped_ghns()["ghn-digits"]
    recipe = recipe_of(folder)
    assert {"data", "data_sha256", "spaces", "train", "hardware"} <= set(recipe)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10 * 2**20


def test_a_folder_without_a_hypernetwork_is_refused(tmp_path: Path) -> None:
    digits = load_dataset("digits").search
    with pytest.raises(CheckpointError, match="No graph hypernetwork in"):
        find_ghn(str(tmp_path), digits, "convnet")


def test_automatic_initial_weights_follow_the_hypernetwork() -> None:
    assert train_config(TrainingSettings(), has_ghn=True).init == "both"
    assert train_config(TrainingSettings(), has_ghn=False).init == "random"
    assert train_config(TrainingSettings(init="predicted"), has_ghn=True).init == "predicted"


def test_an_unknown_device_is_refused() -> None:
    assert pick_device("cpu").type == "cpu"
    assert torch.get_num_threads() == 1
    with pytest.raises(ConfigError, match="Cannot use the device 'abacus'"):
        pick_device("abacus")


def test_a_workspace_keeps_settings_and_result(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "study")
    workspace.begin(SMALL)
    assert (workspace.settings(), workspace.result()) == (SMALL, None)
    workspace.end({"best": 1})
    assert (workspace.settings(), workspace.result()) == (SMALL, {"best": 1})
    with pytest.raises(NasGraphError, match="--resume"):
        workspace.begin(SMALL)
    with pytest.raises(UnknownNameError, match="other"):
        Workspace(tmp_path, "other").settings()


def test_study_names_are_safe_as_files(tmp_path: Path) -> None:
    assert studies_in(tmp_path) == ()
    name = new_study_name(SMALL.model_copy(update={"data": "../my data/ä.npz"}))
    assert Workspace(tmp_path, name).journal.parent == tmp_path
    for bad in ("", "../x", "a/b", ".hidden", "x" * 200):
        with pytest.raises(ConfigError, match="study name"):
            Workspace(tmp_path, bad)


@pytest.mark.parametrize("pruner", ["median", "curve"])
def test_a_pruner_stops_hopeless_trials_and_leaves_the_others_alone(tmp_path: Path, pruner: str) -> None:
    settings = SearchSettings(
        space="mlp",
        trials=8,
        screened=0,
        kept=0,
        ghn="none",
        sampler="random",
        train=TrainingSettings(epochs=6),
    )
    whole = search(
        parts := load_ingredients(settings), open_study(parts, Workspace(tmp_path, "whole"), resume=False)
    )
    cut_settings = settings.model_copy(update={"pruner": pruner})
    parts = load_ingredients(cut_settings)
    cut = search(parts, open_study(parts, Workspace(tmp_path, "cut"), resume=False))
    assert [t.candidate for t in cut.trials] == [t.candidate for t in whole.trials]
    pruned = [t for t in cut.trials if t.state is TrialState.PRUNED]
    assert pruned
    assert all(t.reason.startswith("pruned at step") for t in pruned)
    kept = {t.number: t.metrics["val_accuracy"] for t in cut.trials if t.state is TrialState.COMPLETE}
    assert kept
    assert kept == {t.number: t.metrics["val_accuracy"] for t in whole.trials if t.number in kept}


def test_two_starts_are_two_trainings_for_a_pruner() -> None:
    parts = load_ingredients(SMALL.model_copy(update={"pruner": "curve"}))
    pruner = pruner_of(parts)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.add_trial(optuna.trial.create_trial(value=0.9))
    trial = study.ask()
    trial.report(0.1, 0)
    assert not trial.should_prune()  # the second start has not begun, so nothing is said of the end
    trial.report(0.1, 1)
    assert not trial.should_prune()  # the last of two steps: it is over
