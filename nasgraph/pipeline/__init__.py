"""The main job from settings to a trained winner, as functions. The command line is a thin layer over them."""

from nasgraph.pipeline.device import pick_device
from nasgraph.pipeline.final import FinalModel, train_winner
from nasgraph.pipeline.hypernetworks import find_ghn, open_ghn, recipe_of, shipped_ghns
from nasgraph.pipeline.run import (
    OBJECTIVE,
    Ingredients,
    finish,
    load_ingredients,
    open_study,
    search,
    search_tags,
    settings_in_storage,
    train_config,
)
from nasgraph.pipeline.settings import SearchSettings, TrainingSettings, read_settings, settings_from_json
from nasgraph.pipeline.workspace import Workspace, new_study_name, studies_in

__all__ = [
    "OBJECTIVE",
    "FinalModel",
    "Ingredients",
    "SearchSettings",
    "TrainingSettings",
    "Workspace",
    "find_ghn",
    "finish",
    "load_ingredients",
    "new_study_name",
    "open_ghn",
    "open_study",
    "pick_device",
    "read_settings",
    "recipe_of",
    "search",
    "search_tags",
    "settings_from_json",
    "settings_in_storage",
    "shipped_ghns",
    "studies_in",
    "train_config",
    "train_winner",
]
