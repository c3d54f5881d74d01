"""Performance by measurement: predicted weights, and short real training."""

from nasgraph.evaluate.anytime import AnytimeConfig, AnytimeScorer, TuningCurve, tuning_curve
from nasgraph.evaluate.evaluation import Evaluation, Evaluator, InheritingEvaluator, KeepGoing, never_stop
from nasgraph.evaluate.features import ConsensusScorer, ScoreFeatures, curve_columns, curve_scores
from nasgraph.evaluate.latency import Latency, LatencyConfig, LatencyEvaluator, measure_latency
from nasgraph.evaluate.measure import measure
from nasgraph.evaluate.node_classification import (
    NodeClassificationEvaluator,
    NodeTrainConfig,
    trainer_for,
)
from nasgraph.evaluate.predicted import PredictedWeightsConfig, PredictedWeightsScorer
from nasgraph.evaluate.protocol import ProtocolConfig, ProtocolResult, run_predictor_protocol
from nasgraph.evaluate.table import Metric, Table, TableError, TableInfo, make_table, open_table, write_table
from nasgraph.evaluate.table_search import SearchProtocolConfig, SearchProtocolResult, run_search_protocol
from nasgraph.evaluate.train import TrainConfig, TrainEvaluator, train_graph

__all__ = [
    "AnytimeConfig",
    "AnytimeScorer",
    "ConsensusScorer",
    "Evaluation",
    "Evaluator",
    "InheritingEvaluator",
    "KeepGoing",
    "Latency",
    "LatencyConfig",
    "LatencyEvaluator",
    "Metric",
    "NodeClassificationEvaluator",
    "NodeTrainConfig",
    "PredictedWeightsConfig",
    "PredictedWeightsScorer",
    "ProtocolConfig",
    "ProtocolResult",
    "ScoreFeatures",
    "SearchProtocolConfig",
    "SearchProtocolResult",
    "Table",
    "TableError",
    "TableInfo",
    "TrainConfig",
    "TrainEvaluator",
    "TuningCurve",
    "curve_columns",
    "curve_scores",
    "make_table",
    "measure",
    "measure_latency",
    "never_stop",
    "open_table",
    "run_predictor_protocol",
    "run_search_protocol",
    "train_graph",
    "trainer_for",
    "tuning_curve",
    "write_table",
]
