"""Performance from a graph: zero-cost proxies, surrogates, and ranks that combine them."""

from nasgraph.predict.columns import ColumnScale, Familiarity
from nasgraph.predict.costs import CostColumns, operator_costs
from nasgraph.predict.ensemble import Blocks, EnsembleConfig, FittedEnsemble, fit_ensemble
from nasgraph.predict.gaussian_process import GaussianProcess
from nasgraph.predict.graph_features import GraphFeatures, NeighbourhoodFeatures
from nasgraph.predict.graph_network import (
    GraphNetworkPredictor,
    NetworkTraining,
    PathFeatures,
    PretrainedPredictor,
    Pretraining,
    load_pretrained,
    pretrain,
    save_pretrained,
)
from nasgraph.predict.graph_predictor import GraphPredictor
from nasgraph.predict.hardware import HardwareModel, HardwarePredictor, fit_hardware
from nasgraph.predict.known import (
    FittedPerformance,
    KnownPerformance,
    Neighbour,
    Outside,
    PerformanceMetric,
)
from nasgraph.predict.performance import Performance, performance
from nasgraph.predict.prediction import NotFittedError, Prediction, Predictor, Scorer
from nasgraph.predict.ranks import NormalScores, mean_of_ranks, scaled_ranks
from nasgraph.predict.regressors import REGRESSORS, Regressor
from nasgraph.predict.robot import RobotResult, robot_search
from nasgraph.predict.surrogate import (
    EmbeddingFeatures,
    FeaturePredictor,
    Features,
    StackedPredictor,
    fit_features,
)
from nasgraph.predict.transfer import TransferPredictor
from nasgraph.predict.zero_cost import PROXIES, Proxy, proxy_scores

__all__ = [
    "PROXIES",
    "REGRESSORS",
    "Blocks",
    "ColumnScale",
    "CostColumns",
    "EmbeddingFeatures",
    "EnsembleConfig",
    "Familiarity",
    "FeaturePredictor",
    "Features",
    "FittedEnsemble",
    "FittedPerformance",
    "GaussianProcess",
    "GraphFeatures",
    "GraphNetworkPredictor",
    "GraphPredictor",
    "HardwareModel",
    "HardwarePredictor",
    "KnownPerformance",
    "Neighbour",
    "NeighbourhoodFeatures",
    "NetworkTraining",
    "NormalScores",
    "NotFittedError",
    "Outside",
    "PathFeatures",
    "Performance",
    "PerformanceMetric",
    "Prediction",
    "Predictor",
    "PretrainedPredictor",
    "Pretraining",
    "Proxy",
    "Regressor",
    "RobotResult",
    "Scorer",
    "StackedPredictor",
    "TransferPredictor",
    "fit_ensemble",
    "fit_features",
    "fit_hardware",
    "load_pretrained",
    "mean_of_ranks",
    "operator_costs",
    "performance",
    "pretrain",
    "proxy_scores",
    "robot_search",
    "save_pretrained",
    "scaled_ranks",
]
