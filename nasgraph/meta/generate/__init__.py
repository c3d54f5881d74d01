"""Weights generated for a data set from a few examples, or for a wanted loss."""

from nasgraph.meta.generate.baselines import MeanGenerator, NearestGenerator, RidgeGenerator
from nasgraph.meta.generate.diffusion import DiffusionGenerator
from nasgraph.meta.generate.files import KINDS, fit_generator, load_generator, save_generator
from nasgraph.meta.generate.generator import (
    Generator,
    GeneratorConfig,
    TrainingSet,
    pick_best,
    training_set,
)
from nasgraph.meta.generate.novelty import Novelty, nearest_distance, novelty
from nasgraph.meta.generate.prompt import LossPrompter, PromptConfig
from nasgraph.meta.generate.space import WeightSpace, align_stack
from nasgraph.meta.generate.support import GenerateError, Support, draw_support

__all__ = [
    "KINDS",
    "DiffusionGenerator",
    "GenerateError",
    "Generator",
    "GeneratorConfig",
    "LossPrompter",
    "MeanGenerator",
    "NearestGenerator",
    "Novelty",
    "PromptConfig",
    "RidgeGenerator",
    "Support",
    "TrainingSet",
    "WeightSpace",
    "align_stack",
    "draw_support",
    "fit_generator",
    "load_generator",
    "nearest_distance",
    "novelty",
    "pick_best",
    "save_generator",
    "training_set",
]
