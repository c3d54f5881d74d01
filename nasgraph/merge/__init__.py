"""Making one network of several of one architecture: alignment, interpolation, soups, arithmetic on weights."""

from nasgraph.merge.align import Alignment, align, match_weights
from nasgraph.merge.entries import MAX_BARRIER, merge_entries
from nasgraph.merge.interpolate import Barrier, barrier, interpolate, recompute_batch_norm, repair_activations
from nasgraph.merge.operators import dare, karcher_mean, linear, model_stock, slerp, task_arithmetic, ties
from nasgraph.merge.soup import (
    METHODS,
    SOUPS,
    HeldOut,
    Kitchen,
    LearnedConfig,
    Merged,
    Method,
    ensemble_accuracy,
    greedy_soup,
    learned_soup,
    uniform_soup,
)
from nasgraph.merge.states import Ingredient, MergeError, check_ingredients, check_states, weighted_sum

__all__ = [
    "MAX_BARRIER",
    "METHODS",
    "SOUPS",
    "Alignment",
    "Barrier",
    "HeldOut",
    "Ingredient",
    "Kitchen",
    "LearnedConfig",
    "MergeError",
    "Merged",
    "Method",
    "align",
    "barrier",
    "check_ingredients",
    "check_states",
    "dare",
    "ensemble_accuracy",
    "greedy_soup",
    "interpolate",
    "karcher_mean",
    "learned_soup",
    "linear",
    "match_weights",
    "merge_entries",
    "model_stock",
    "recompute_batch_norm",
    "repair_activations",
    "slerp",
    "task_arithmetic",
    "ties",
    "uniform_soup",
    "weighted_sum",
]
