"""Measures of trained networks: norms, margins, sharpness, and the strength of units; and how well they rank."""

from nasgraph.meta.measures.generalisation import MEASURES, generalisation_measures, margins
from nasgraph.meta.measures.layers import LinearMap, frobenius_norms, linear_maps, spectral_norms
from nasgraph.meta.measures.network_theory import (
    NETWORK_THEORY_COLUMNS,
    network_theory,
    network_theory_of_stack,
    neuron_strengths,
    node_strengths,
)
from nasgraph.meta.measures.paths import path_norms
from nasgraph.meta.measures.ranking import granulated_tau, robust_sign_error
from nasgraph.meta.measures.sharpness import (
    accuracies,
    logits_of_stack,
    rise_along_random_directions,
    sharpness_sigma,
)

__all__ = [
    "MEASURES",
    "NETWORK_THEORY_COLUMNS",
    "LinearMap",
    "accuracies",
    "frobenius_norms",
    "generalisation_measures",
    "granulated_tau",
    "linear_maps",
    "logits_of_stack",
    "margins",
    "network_theory",
    "network_theory_of_stack",
    "neuron_strengths",
    "node_strengths",
    "path_norms",
    "rise_along_random_directions",
    "robust_sign_error",
    "sharpness_sigma",
    "spectral_norms",
]
