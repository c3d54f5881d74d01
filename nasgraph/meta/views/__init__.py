"""Views of a network as numbers: statistics, answers to probes, tokens, the flat vector; and what predicts from them."""

from nasgraph.meta.views.learned_probes import (
    LearnedProbes,
    LearnedProbesConfig,
    fit_learned_probes,
    load_learned_probes,
    save_learned_probes,
)
from nasgraph.meta.views.predictor import ViewPredictor, agreement, fit_view_predictor
from nasgraph.meta.views.probes import data_probes, noise_probes, probe_responses
from nasgraph.meta.views.stack import check_stack, run_stack, stack_states, unstack_states
from nasgraph.meta.views.statistics import (
    POOLED_COLUMNS,
    STATISTICS,
    flat,
    flat_of_stack,
    low_rank_singular_values,
    pooled_statistics,
    pooled_statistics_of_stack,
    statistics,
    statistics_columns,
    statistics_of_stack,
    tensor_statistics,
)
from nasgraph.meta.views.tokens import Tokens, tokens, tokens_of_stack

__all__ = [
    "POOLED_COLUMNS",
    "STATISTICS",
    "LearnedProbes",
    "LearnedProbesConfig",
    "Tokens",
    "ViewPredictor",
    "agreement",
    "check_stack",
    "data_probes",
    "fit_learned_probes",
    "fit_view_predictor",
    "flat",
    "flat_of_stack",
    "load_learned_probes",
    "low_rank_singular_values",
    "noise_probes",
    "pooled_statistics",
    "pooled_statistics_of_stack",
    "probe_responses",
    "run_stack",
    "save_learned_probes",
    "stack_states",
    "statistics",
    "statistics_columns",
    "statistics_of_stack",
    "tensor_statistics",
    "tokens",
    "tokens_of_stack",
    "unstack_states",
]
