"""A prior-fitted network: in-context regression for few labels, trained on synthetic tables only.

Müller et al., "Transformers Can Do Bayesian Inference" (2022), and Hollmann et al., "TabPFN" (2022); see `network` for what
is different here.
"""

from nasgraph.predict.prior_fitted.checkpoint import load_prior_fitted, save_prior_fitted
from nasgraph.predict.prior_fitted.mixture import Mixture
from nasgraph.predict.prior_fitted.network import PriorFittedConfig, PriorFittedNetwork
from nasgraph.predict.prior_fitted.prior import Tables, sample_tables
from nasgraph.predict.prior_fitted.regressor import (
    MAX_CONTEXT,
    MIN_CONTEXT,
    PriorFittedPosterior,
    PriorFittedRegressor,
    fit_prior_fitted,
    prior_fitted,
)
from nasgraph.predict.prior_fitted.train import Progress, TrainConfig, start, train

__all__ = [
    "MAX_CONTEXT",
    "MIN_CONTEXT",
    "Mixture",
    "PriorFittedConfig",
    "PriorFittedNetwork",
    "PriorFittedPosterior",
    "PriorFittedRegressor",
    "Progress",
    "Tables",
    "TrainConfig",
    "fit_prior_fitted",
    "load_prior_fitted",
    "prior_fitted",
    "sample_tables",
    "save_prior_fitted",
    "start",
    "train",
]
