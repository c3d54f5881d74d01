"""The setting that lets children of an evolution start from what their parents learnt."""

from pathlib import Path

import pytest

from nasgraph.errors import ConfigError
from nasgraph.pipeline.run import load_ingredients, open_study, search, weights_folder
from nasgraph.pipeline.settings import SearchSettings, settings_from_json
from nasgraph.pipeline.workspace import Workspace

SETTINGS = {
    "space": "mlp",
    "num_train": 64,
    "sampler": "evolution",
    "inherit": True,
    "ghn": "none",
    "screened": 0,
    "kept": 0,
    "trials": 32,
    "train": {"epochs": 1},
}


def test_a_search_with_inheritance_hands_weights_on_and_removes_them_at_its_end(tmp_path: Path) -> None:
    settings = SearchSettings.model_validate(SETTINGS)
    parts, workspace = load_ingredients(settings), Workspace(tmp_path, "heirs")
    study = open_study(parts, workspace, resume=False)
    result = search(parts, study, checkpoints=workspace.checkpoints)
    assert all(trial.parent is None for trial in result.trials[:30])  # while the population grows
    assert all(trial.parent is not None for trial in result.trials[30:])
    assert all(trial.metrics["inherited_share"] > 0 for trial in result.trials[30:])
    weights = weights_folder(settings, workspace.checkpoints)
    assert weights == tmp_path / "heirs.weights"
    assert not list(weights.iterdir())


def test_without_the_setting_or_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    settings = SearchSettings.model_validate(SETTINGS)
    assert weights_folder(settings, None) is None
    assert weights_folder(SearchSettings(), tmp_path / "a.checkpoints") is None


def test_a_sampler_without_parents_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mutations: evolution \(got 'tpe'\)"):
        settings_from_json({"inherit": True}, source="a test")
