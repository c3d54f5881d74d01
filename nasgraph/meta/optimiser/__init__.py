"""A small learned optimiser: its rule, how it is learnt, and the torch optimiser that applies it."""

from nasgraph.meta.optimiser.files import load_rule, save_rule
from nasgraph.meta.optimiser.meta_train import MetaTrainConfig, OptimiserTask, meta_train
from nasgraph.meta.optimiser.optimiser import LearnedOptimiser, OptimiserError
from nasgraph.meta.optimiser.rule import LearnedRule, RuleConfig, initial_rule, num_numbers

__all__ = [
    "LearnedOptimiser",
    "LearnedRule",
    "MetaTrainConfig",
    "OptimiserError",
    "OptimiserTask",
    "RuleConfig",
    "initial_rule",
    "load_rule",
    "meta_train",
    "num_numbers",
    "save_rule",
]
