"""Performance by measurement: predicted weights, and short real training."""

from nasgraph.evaluate.anytime import AnytimeConfig, AnytimeScorer, TuningCurve, tuning_curve
from nasgraph.evaluate.evaluation import Evaluation, Evaluator, KeepGoing, never_stop
from nasgraph.evaluate.features import ConsensusScorer, ScoreFeatures, curve_columns, curve_scores
from nasgraph.evaluate.measure import measure
from nasgraph.evaluate.predicted import PredictedWeightsConfig, PredictedWeightsScorer
from nasgraph.evaluate.train import TrainConfig, TrainEvaluator, train_graph

__all__ = [
    "AnytimeConfig",
    "AnytimeScorer",
    "ConsensusScorer",
    "Evaluation",
    "Evaluator",
    "KeepGoing",
    "PredictedWeightsConfig",
    "PredictedWeightsScorer",
    "ScoreFeatures",
    "TrainConfig",
    "TrainEvaluator",
    "TuningCurve",
    "curve_columns",
    "curve_scores",
    "measure",
    "never_stop",
    "train_graph",
    "tuning_curve",
]
