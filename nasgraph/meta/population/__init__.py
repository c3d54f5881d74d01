"""Populations of trained networks: many at once, resumable, with everything that was measured."""

from nasgraph.meta.population.population import Group, Member, Population, load_sample_population
from nasgraph.meta.population.presets import PRESETS, perceptron, preset, small_convnet
from nasgraph.meta.population.recipe import Family, Recipe, families_from_space, recipe_from_json
from nasgraph.meta.population.settings import NetworkSettings, PopulationError, Ranges, draw_settings
from nasgraph.meta.population.stack import (
    Stack,
    TrainedStack,
    initial_stack,
    measure_stack,
    stack_outputs,
    stack_states,
    train_stack,
    unstack,
)
from nasgraph.meta.population.train import shifted_split, train_population

__all__ = [
    "PRESETS",
    "Family",
    "Group",
    "Member",
    "NetworkSettings",
    "Population",
    "PopulationError",
    "Ranges",
    "Recipe",
    "Stack",
    "TrainedStack",
    "draw_settings",
    "families_from_space",
    "initial_stack",
    "load_sample_population",
    "measure_stack",
    "perceptron",
    "preset",
    "recipe_from_json",
    "shifted_split",
    "small_convnet",
    "stack_outputs",
    "stack_states",
    "train_population",
    "train_stack",
    "unstack",
]
