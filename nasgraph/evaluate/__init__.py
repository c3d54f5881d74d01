"""Performance by measurement: predicted weights, and short real training."""

from nasgraph.evaluate.evaluation import Evaluation, Evaluator, KeepGoing, never_stop
from nasgraph.evaluate.measure import measure
from nasgraph.evaluate.predicted import PredictedWeightsConfig, PredictedWeightsScorer
from nasgraph.evaluate.train import TrainConfig, TrainEvaluator, train_graph

__all__ = [
    "Evaluation",
    "Evaluator",
    "KeepGoing",
    "PredictedWeightsConfig",
    "PredictedWeightsScorer",
    "TrainConfig",
    "TrainEvaluator",
    "measure",
    "never_stop",
    "train_graph",
]
